//! Several Redis processes that belong together: a Cluster, or a master and its
//! replica behind sentinels.

use std::time::{Duration, Instant};

use mcp_fleet::store::redis::RedisSettings;

use super::redis::{RedisServer, free_port};

/// Waits, blocking the thread, as starting a process does.
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn settings(url: String) -> RedisSettings {
    RedisSettings {
        prefix: format!("test-{:08x}", rand::random::<u32>()),
        ..RedisSettings::new(url)
    }
}

/// A Cluster: masters with a third of the slots each, and as many replicas.
pub(crate) struct RedisCluster {
    pub(crate) masters: Vec<RedisServer>,
    /// The one at the place of its master, or none.
    pub(crate) replicas: Vec<RedisServer>,
}

impl RedisCluster {
    pub(crate) fn start(with_replicas: bool, options: &[&str]) -> Self {
        // Failover is to be quick; but links between busy members should hold.
        let patience = if with_replicas { "1500" } else { "15000" };
        let options = &[&["--cluster-node-timeout", patience], options].concat();
        let masters: Vec<_> = (0..3).map(|_| member(options)).collect();
        let bounds = [0, 5461, 10_923, 16_384];
        for (at, (server, _)) in masters.iter().enumerate() {
            let (first, last) = (bounds[at].to_string(), (bounds[at + 1] - 1).to_string());
            server.cli(&["cluster", "addslotsrange", &first, &last]);
            server.cli(&["cluster", "set-config-epoch", &(at + 1).to_string()]);
        }
        let replicas: Vec<_> = masters
            .iter()
            .filter(|_| with_replicas)
            .map(|_| member(options))
            .collect();
        let all = || masters.iter().chain(&replicas);
        let (first, _) = &masters[0];
        for (server, bus) in all().skip(1) {
            let port = server.port().to_string();
            first.cli(&["cluster", "meet", "127.0.0.1", &port, bus]);
        }
        let known = format!("cluster_known_nodes:{}", all().count());
        wait_until("the members know each other", || {
            all().all(|(server, _)| {
                let info = server.cli(&["cluster", "info"]);
                info.contains("cluster_state:ok") && info.contains(&known)
            })
        });
        for ((replica, _), (master, _)) in replicas.iter().zip(&masters) {
            let master = master.cli(&["cluster", "myid"]);
            replica.cli(&["cluster", "replicate", master.trim()]);
        }
        wait_until("the replicas are in step, and all know of them", || {
            all().all(|(server, _)| {
                let nodes = server.cli(&["cluster", "nodes"]);
                let slaves = nodes.lines().filter(|line| line.contains("slave"));
                slaves.count() == replicas.len()
            }) && replicas.iter().all(|(replica, _)| {
                let info = replica.cli(&["info", "replication"]);
                info.contains("master_link_status:up")
            })
        });
        let servers = |members: Vec<(RedisServer, String)>| {
            members.into_iter().map(|(server, _)| server).collect()
        };
        Self {
            masters: servers(masters),
            replicas: servers(replicas),
        }
    }

    /// Settings for a client that is told of two of the masters.
    pub(crate) fn settings(&self) -> RedisSettings {
        let [first, second] = [0, 1].map(|at| self.masters[at].port());
        settings(format!(
            "redis-cluster://127.0.0.1:{first}?node=127.0.0.1:{second}"
        ))
    }

    /// Which master has a key, at first.
    pub(crate) fn place_of(&self, key: &str) -> usize {
        let slot = self.masters[0].cli(&["cluster", "keyslot", key]);
        let slot: usize = slot.trim().parse().expect("a number");
        slot / 5461
    }
}

/// A member of a cluster, and its port for the other members.
fn member(options: &[&str]) -> (RedisServer, String) {
    let bus = free_port().to_string();
    let ours = [
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        &bus,
        "--cluster-announce-ip",
        "127.0.0.1",
        "--cluster-replica-validity-factor",
        "0",
    ];
    let server = RedisServer::start_with(&[&ours, options].concat());
    (server, bus)
}

/// A master, its replica, and three sentinels.
pub(crate) struct Sentinels {
    pub(crate) master: RedisServer,
    pub(crate) replica: RedisServer,
    pub(crate) sentinels: Vec<RedisServer>,
}

impl Sentinels {
    /// Both servers, but not the sentinels, have the password, if there is one.
    pub(crate) fn start(password: Option<&str>) -> Self {
        let secret: Vec<_> = match password {
            Some(password) => vec!["--requirepass", password, "--masterauth", password],
            None => vec![],
        };
        let master = RedisServer::start_with(&secret);
        let port = master.port().to_string();
        let of_master = ["--replicaof", "127.0.0.1", &port];
        let replica = RedisServer::start_with(&[&secret[..], &of_master].concat());
        let auth = password
            .map(|password| format!("sentinel auth-pass main {password}\n"))
            .unwrap_or_default();
        let configuration = format!(
            "sentinel monitor main 127.0.0.1 {port} 2\n\
             sentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 3000\n{auth}"
        );
        let sentinels: Vec<_> = (0..3)
            .map(|_| RedisServer::start_sentinel(&configuration))
            .collect();
        wait_until("the sentinels know each other and the replica", || {
            sentinels.iter().all(|sentinel| {
                let main = sentinel.cli(&["sentinel", "master", "main"]);
                let fact = |name: &str| main.lines().skip_while(|&line| line != name).nth(1);
                fact("num-other-sentinels") == Some("2")
                    && fact("num-slaves") == Some("1")
                    && fact("flags") == Some("master")
            })
        });
        Self {
            master,
            replica,
            sentinels,
        }
    }

    /// Settings for a client that is told of all sentinels; `user` as in a URL.
    pub(crate) fn settings(&self, user: &str) -> RedisSettings {
        let [first, second, third] = [0, 1, 2].map(|at| self.sentinels[at].port());
        settings(format!(
            "redis-sentinel://{user}127.0.0.1:{first}?sentinelServiceName=main\
             &node=127.0.0.1:{second}&node=127.0.0.1:{third}"
        ))
    }
}
