//! A real `redis-server` of the test's own, gone when the test ends.

use std::{
    io::{BufRead as _, BufReader, Lines},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use mcp_fleet::{
    lifecycle::Tasks,
    store::redis::{RedisSettings, RedisStore},
};

/// A Redis process on a free port of the loopback interface.
pub(crate) struct RedisServer {
    child: Option<Child>,
    port: u16,
    options: Vec<String>,
    /// Runs as a sentinel with this configuration.
    sentinel: bool,
    directory: tempfile::TempDir,
}

impl RedisServer {
    /// Starts one that keeps nothing on disk.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with further options; `{port}` in one stands for its port.
    pub(crate) fn start_with(options: &[&str]) -> Self {
        let mut server = Self::stopped(options);
        server.run();
        server
    }

    /// A cluster of one node: it has all slots, and insists on hash tags.
    pub(crate) fn start_cluster() -> Self {
        let bus = free_port().to_string();
        let server = Self::start_with(&[
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus,
            "--cluster-announce-ip",
            "127.0.0.1",
        ]);
        server.cli(&["cluster", "addslotsrange", "0", "16383"]);
        let deadline = Instant::now() + Duration::from_secs(60);
        while !server
            .cli(&["cluster", "info"])
            .contains("cluster_state:ok")
        {
            assert!(Instant::now() < deadline, "the cluster did not form");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    /// One that speaks TLS only, with a certificate of its own making; and the
    /// file to trust.
    pub(crate) fn start_tls() -> (Self, std::path::PathBuf) {
        let mut server = Self::stopped(&[]);
        let certificate = Certificate::make(server.directory.path());
        server.options = certificate.options();
        server.run();
        (server, certificate.file)
    }

    /// One that has an address and does not run yet.
    pub(crate) fn stopped(options: &[&str]) -> Self {
        Self {
            child: None,
            port: free_port(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            sentinel: false,
            directory: tempfile::tempdir().expect("a temporary directory"),
        }
    }

    /// A sentinel, with this configuration.
    pub(crate) fn start_sentinel(configuration: &str) -> Self {
        let mut server = Self::stopped(&[]);
        server.sentinel = true;
        let file = server.directory.path().join("sentinel.conf");
        std::fs::write(file, configuration).expect("written");
        server.run();
        server
    }

    /// Runs it; empty, whatever it held before.
    pub(crate) fn run(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut command = Command::new("redis-server");
        if self.sentinel {
            command.args(["sentinel.conf", "--sentinel"]);
        } else {
            command.args(["--save", "", "--appendonly", "no"]);
        }
        let child = command
            .current_dir(self.directory.path())
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(
                self.options
                    .iter()
                    .map(|o| o.replace("{port}", &self.port.to_string())),
            )
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(Instant::now() < deadline, "redis-server did not start");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("the process is ours");
            child.wait().expect("it has ended");
        }
    }

    /// Stops it: it accepts connections and never answers.
    pub(crate) fn pause(&self) {
        self.signal("-STOP");
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let child = self.child.as_ref().expect("it runs");
        let sent = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status()
            .expect("kill is installed");
        assert!(sent.success());
    }

    /// What `redis-cli` prints for a command.
    pub(crate) fn cli(&self, command: &[&str]) -> String {
        let is_tls = self.options.iter().any(|o| o == "--tls-port");
        let tls: &[_] = if is_tls {
            &["--tls", "--insecure"]
        } else {
            &[]
        };
        let output = Command::new("redis-cli")
            .args(["-p", &self.port.to_string()])
            .args(tls)
            .args(command)
            .output()
            .expect("redis-cli is installed");
        String::from_utf8(output.stdout).expect("text")
    }

    /// How many commands it has run, without those of `redis-cli` itself and
    /// the checks that the store makes of its connections.
    pub(crate) fn commands_run(&self) -> u64 {
        let stats = self.cli(&["info", "commandstats"]);
        stats
            .lines()
            .filter_map(|line| line.strip_prefix("cmdstat_")?.split_once(":calls="))
            .filter(|(name, _)| {
                !["info", "ping", "hello", "client|setname", "command|docs"].contains(name)
            })
            .map(|(_, rest)| {
                let calls = rest.split(',').next().expect("a number");
                calls.parse::<u64>().expect("a number")
            })
            .sum()
    }

    /// Watches every command from now on.
    pub(crate) fn monitor(&self) -> Monitor {
        let mut child = Command::new("redis-cli")
            .args(["-p", &self.port.to_string(), "monitor"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-cli is installed");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let first = lines.next().expect("a line").expect("text");
        assert_eq!(first, "OK");
        Monitor { child, lines }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Settings for a client, under a prefix of its own.
    pub(crate) fn settings(&self) -> RedisSettings {
        let cluster = self.options.iter().any(|o| o == "--cluster-enabled");
        let kind = if cluster { "redis-cluster" } else { "redis" };
        let url = format!("{kind}://127.0.0.1:{}", self.port);
        RedisSettings {
            prefix: format!("test-{:08x}", rand::random::<u32>()),
            ..RedisSettings::new(url)
        }
    }

    /// A store on it. Each has its own connections, as each node has.
    pub(crate) async fn store(&self, settings: &RedisSettings, tasks: &Tasks) -> RedisStore {
        RedisStore::connect(settings.clone(), tasks)
            .await
            .expect("good settings")
    }
}

/// A `redis-cli monitor`.
pub(crate) struct Monitor {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Monitor {
    /// The commands that clients have sent since it began, with their arguments.
    pub(crate) fn commands(mut self, of: &RedisServer) -> Vec<String> {
        let end = format!("end of {:08x}", rand::random::<u32>());
        of.cli(&["echo", &end]);
        let lines = self.lines.by_ref().map(|line| line.expect("text"));
        lines
            .take_while(|line| !line.contains(&end))
            // What a script does is the script's.
            .filter(|line| !line.contains(" lua] "))
            .collect()
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // A stopped process dies of SIGKILL too.
        self.kill();
    }
}

/// A certificate of our own making, for this machine, that trusts itself.
pub(crate) struct Certificate {
    pub(crate) file: std::path::PathBuf,
    pub(crate) key: std::path::PathBuf,
}

impl Certificate {
    pub(crate) fn make(directory: &std::path::Path) -> Self {
        let openssl = Command::new("openssl")
            .current_dir(directory)
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt"])
            .args(["ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .args(["-keyout", "key.pem", "-out", "cert.pem"])
            .stderr(Stdio::null())
            .status()
            .expect("openssl is installed");
        assert!(openssl.success());
        Self {
            file: directory.join("cert.pem"),
            key: directory.join("key.pem"),
        }
    }

    /// What a server that speaks TLS only is started with.
    pub(crate) fn options(&self) -> Vec<String> {
        let path = |path: &std::path::Path| path.to_str().expect("text").to_owned();
        let (file, key) = (path(&self.file), path(&self.key));
        [
            ["--tls-port", "{port}"],
            ["--port", "0"],
            ["--tls-cert-file", &file],
            ["--tls-key-file", &key],
            ["--tls-ca-cert-file", &file],
            ["--tls-auth-clients", "no"],
        ]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
    }
}

/// Below the ports that connections get by themselves, so that none of those
/// takes it before the server does.
pub(super) fn free_port() -> u16 {
    loop {
        let port = rand::random_range(10_000..30_000);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
