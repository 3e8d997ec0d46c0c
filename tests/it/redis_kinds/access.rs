//! Passwords and users: what a user needs, and what is said when it lacks something.

use std::{collections::BTreeSet, time::Duration};

use mcp_fleet::{
    lifecycle::Tasks,
    store::{Event, RecordKey, StreamKey, redis::RedisSettings},
};

use super::{reachable, store_with};
use crate::{
    store::contract_on,
    support::{
        eventually,
        logs::Logs,
        redis::RedisServer,
        redis_groups::{RedisCluster, Sentinels},
    },
};

/// The commands that `docs/redis.md` lets a user run: the words with `+` of the
/// code block that begins with `word`.
fn documented(word: &str) -> Vec<String> {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/redis.md");
    let document = std::fs::read_to_string(document).expect("docs/redis.md");
    let block = document
        .split("```")
        .find(|block| block.trim_start_matches("text").trim().starts_with(word))
        .unwrap_or_else(|| panic!("docs/redis.md has no block that begins with {word}"));
    let rights = block
        .split_whitespace()
        .filter(|word| word.starts_with('+'));
    rights.map(str::to_owned).collect()
}

/// Makes the user of the documentation, for that prefix.
fn make_user(server: &RedisServer, prefix: &str, rights: &[String]) {
    let (keys, channels) = (format!("~{prefix}:*"), format!("&{prefix}:*"));
    let user = ["acl", "setuser", "fleet", "reset", "on", ">hunter2"];
    let mut command = [&user[..], &[&keys, &channels]].concat();
    command.extend(rights.iter().map(String::as_str));
    assert_eq!(server.cli(&command).trim(), "OK", "{command:?}");
}

/// Nothing in the documented list goes unused.
fn all_needed(servers: &[&RedisServer], rights: &[String]) {
    let run: BTreeSet<_> = servers
        .iter()
        .flat_map(|server| {
            let stats = server.cli(&["info", "commandstats"]);
            let names = stats.lines().filter_map(|line| {
                let (name, _) = line.strip_prefix("cmdstat_")?.split_once(':')?;
                Some(format!("+{name}"))
            });
            names.collect::<Vec<_>>()
        })
        .collect();
    let idle: Vec<_> = rights
        .iter()
        .filter(|&right| !run.contains(right))
        .collect();
    assert!(idle.is_empty(), "nobody needs {idle:?}");
}

fn as_user(settings: RedisSettings) -> RedisSettings {
    RedisSettings {
        url: settings.url.replacen("://", "://fleet:hunter2@", 1),
        ..settings
    }
}

#[tokio::test]
async fn the_documented_rights_are_enough_and_none_is_needless() {
    let server = RedisServer::start();
    let rights = documented("ACL SETUSER");
    let settings = || {
        let settings = server.settings();
        make_user(&server, &settings.prefix, &rights);
        as_user(settings)
    };
    contract_on(settings).await;
    // The contract waits for no subscription to be given up.
    let tasks = Tasks::new();
    let store = store_with(&settings(), &tasks).await;
    reachable(&store).await;
    drop(store.watch_stream(&StreamKey::Mailbox("ca11".into())).await);
    let given_up = async || {
        server
            .cli(&["info", "commandstats"])
            .contains("cmdstat_unsubscribe:")
    };
    eventually("a subscription is given up", given_up).await;
    all_needed(&[&server], &rights);
    tasks.finished().await;
}

#[tokio::test]
async fn the_documented_rights_are_enough_in_a_cluster() {
    let cluster = RedisCluster::start(false, &[]);
    let more = documented("+cluster");
    let rights = [documented("ACL SETUSER"), more.clone()].concat();
    contract_on(|| {
        let settings = cluster.settings();
        for master in &cluster.masters {
            make_user(master, &settings.prefix, &rights);
        }
        as_user(settings)
    })
    .await;
    all_needed(&cluster.masters.iter().collect::<Vec<_>>(), &more);
}

#[tokio::test]
async fn the_documented_rights_are_enough_behind_sentinels() {
    let group = Sentinels::start(None);
    let more = documented("+role");
    let rights = [documented("ACL SETUSER"), more.clone()].concat();
    let at_sentinels = documented("SENTINEL ACL SETUSER");
    for sentinel in &group.sentinels {
        make_user(sentinel, "none", &at_sentinels);
    }
    contract_on(|| {
        let settings = group.settings("");
        make_user(&group.master, &settings.prefix, &rights);
        as_user(settings)
    })
    .await;
    all_needed(&[&group.master], &more);
}

#[tokio::test]
async fn a_wrong_password_is_said_once_and_can_be_mended() {
    let server = RedisServer::start();
    let settings = server.settings();
    let rights = documented("ACL SETUSER");
    let logs = Logs::begin();
    let tasks = Tasks::new();
    let store = store_with(&as_user(settings.clone()), &tasks).await;
    assert!(!store.is_reachable());
    make_user(&server, &settings.prefix, &rights);
    reachable(&store).await;
    let session = RecordKey::Session("5e55".into());
    store.get(&session).await.expect("allowed by now");
    let said = logs.text();
    assert_eq!(said.matches("check user and password").count(), 1, "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    tasks.finished().await;
}

#[tokio::test]
async fn missing_rights_are_said_and_can_be_given_later() {
    let server = RedisServer::start();
    let settings = server.settings();
    let rights = documented("ACL SETUSER");
    // No channels, as is usual for users of Redis 7; and no GET.
    make_user(&server, &settings.prefix, &rights);
    server.cli(&["acl", "setuser", "fleet", "resetchannels", "-get"]);
    let logs = Logs::begin();
    let tasks = Tasks::new();
    let store = store_with(&as_user(settings.clone()), &tasks).await;
    reachable(&store).await;
    let mut events = store.subscribe();
    let advice = "docs/redis.md";
    eventually("the channels are missed", async || {
        logs.text().contains(advice)
    })
    .await;
    let session = RecordKey::Session("5e55".into());
    store.get(&session).await.expect_err("not allowed");
    let channels = format!("&{}:*", settings.prefix);
    server.cli(&["acl", "setuser", "fleet", &channels, "+get"]);
    store.get(&session).await.expect("allowed by now");
    // The subscription is made, which may have missed something.
    let gap = tokio::time::timeout(Duration::from_secs(60), events.recv()).await;
    assert!(matches!(gap, Ok(Ok(Event::Gap))), "{gap:?}");
    assert_eq!(logs.text().matches(advice).count(), 1, "{}", logs.text());
    tasks.finished().await;
}

#[tokio::test]
async fn a_url_of_the_wrong_kind_is_said() {
    let single = RedisServer::start();
    let cluster = RedisServer::start_cluster();
    for (server, kind, advice) in [
        (&single, "redis-cluster", "write redis://"),
        // A node of several would say MOVED; this one has all slots and works.
        (&cluster, "redis-sentinel", "write redis://"),
    ] {
        let logs = Logs::begin();
        let tasks = Tasks::new();
        let url = format!(
            "{kind}://127.0.0.1:{}?sentinelServiceName=main",
            server.port()
        );
        let settings = RedisSettings {
            url,
            ..server.settings()
        };
        let store = store_with(&settings, &tasks).await;
        assert!(!store.is_reachable());
        assert!(logs.text().contains(advice), "{}", logs.text());
        tasks.finished().await;
    }
}
