//! Redis in trouble: what the store does when it is down, hangs or comes back.

use std::time::{Duration, Instant};

use bytes::Bytes;
use mcp_fleet::{
    lifecycle::Tasks,
    store::{
        Channel, Event, RecordKey, Store, StoreError, StreamBounds, StreamKey,
        redis::{RedisSettings, RedisSettingsError, RedisStore},
    },
};
use tokio::{sync::broadcast, time::timeout};

use crate::support::{eventually, redis::RedisServer};

async fn reachable(store: &RedisStore) {
    eventually("redis answers", async || store.is_reachable()).await;
}

async fn gap(events: &mut broadcast::Receiver<Event>) {
    let until_gap = async { while !matches!(events.recv().await, Ok(Event::Gap)) {} };
    timeout(Duration::from_secs(10), until_gap)
        .await
        .expect("a gap is announced");
}

fn session() -> RecordKey {
    RecordKey::Session("5e55".into())
}

#[tokio::test]
async fn a_redis_that_is_down_does_not_hold_up_the_start() {
    let mut server = RedisServer::stopped(&[]);
    let tasks = Tasks::new();
    let begun = Instant::now();
    let store = server.store(&server.settings(), &tasks).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert!(!store.is_reachable());
    let mut events = store.subscribe();
    let error = store.get(&session()).await.expect_err("nobody answers");
    assert!(matches!(error, StoreError::Unreachable(_)), "{error}");

    server.run();
    reachable(&store).await;
    store.get(&session()).await.expect("it answers now");
    gap(&mut events).await;
    tasks.stop();
    tasks.finished().await;
}

#[tokio::test]
async fn a_hung_redis_is_noticed_and_costs_callers_nothing() {
    let server = RedisServer::start();
    let tasks = Tasks::new();
    let settings = server.settings();
    let store = server.store(&settings, &tasks).await;
    reachable(&store).await;

    server.pause();
    // Steady traffic, which is what keeps fred from noticing.
    let begun = Instant::now();
    while store.is_reachable() {
        let asked = Instant::now();
        let answer = store.get(&session()).await;
        assert!(answer.is_err(), "a stopped process answered");
        assert!(asked.elapsed() < 4 * settings.command_timeout);
        assert!(begun.elapsed() < Duration::from_secs(5), "never noticed");
    }
    println!("noticed after {:?}", begun.elapsed());
    let mut slowest = Duration::ZERO;
    for _ in 0..1000 {
        let asked = Instant::now();
        store.get(&session()).await.expect_err("it hangs");
        slowest = slowest.max(asked.elapsed());
    }
    println!("slowest of 1000 answers of the open circuit: {slowest:?}");
    assert!(slowest < Duration::from_millis(20), "{slowest:?}");

    server.resume();
    let resumed = Instant::now();
    reachable(&store).await;
    println!("recovered after {:?}", resumed.elapsed());
    store
        .put(&session(), Bytes::new(), Some(Duration::from_secs(9)))
        .await
        .expect("it answers again");
    tasks.stop();
    tasks.finished().await;
}

#[tokio::test]
async fn a_killed_redis_is_used_again_when_it_is_back() {
    let mut server = RedisServer::start();
    let tasks = Tasks::new();
    let store = server.store(&server.settings(), &tasks).await;
    reachable(&store).await;
    let mut events = store.subscribe();
    for _ in 0..3 {
        server.kill();
        eventually("the circuit opens", async || {
            store.get(&session()).await.ok();
            !store.is_reachable()
        })
        .await;
        server.run();
        let back = Instant::now();
        reachable(&store).await;
        println!("reachable again after {:?}", back.elapsed());
        gap(&mut events).await;
        // The empty server has no scripts: they are sent again.
        let stream = StreamKey::Mailbox("ca11".into());
        let bounds = StreamBounds {
            max_entries: 9,
            ttl: Duration::from_secs(9),
        };
        store.open_stream(&stream, bounds).await.expect("open");
        let appended = store.append(&stream, Bytes::new(), bounds).await;
        assert!(appended.expect("answered").is_some());
    }
    tasks.stop();
    tasks.finished().await;
}

#[tokio::test]
async fn a_lost_subscription_is_made_again_and_announced() {
    let server = RedisServer::start();
    let tasks = Tasks::new();
    let store = server.store(&server.settings(), &tasks).await;
    reachable(&store).await;
    let mut events = store.subscribe();
    let stream = StreamKey::Mailbox("ca11".into());
    let bounds = StreamBounds {
        max_entries: 9,
        ttl: Duration::from_secs(9),
    };
    store.open_stream(&stream, bounds).await.expect("open");
    let mut watch = store.watch_stream(&stream).await;
    server.cli(&["client", "kill", "type", "pubsub"]);
    gap(&mut events).await;
    watch.appended.borrow_and_update();
    store
        .append(&stream, Bytes::new(), bounds)
        .await
        .expect("answered");
    timeout(Duration::from_millis(500), watch.appended.changed())
        .await
        .expect("the wake-ups come again")
        .expect("the sender lives");
    let payload = Bytes::from_static(b"x");
    store
        .publish(Channel::Fleet, payload)
        .await
        .expect("answered");
    let until_message =
        async { while !matches!(events.recv().await, Ok(Event::Message { .. })) {} };
    timeout(Duration::from_secs(5), until_message)
        .await
        .expect("messages come again");
    tasks.stop();
    tasks.finished().await;
}

#[tokio::test]
async fn wake_ups_nobody_waits_for_are_not_subscribed_to() {
    let server = RedisServer::start();
    let tasks = Tasks::new();
    let settings = server.settings();
    let store = server.store(&settings, &tasks).await;
    reachable(&store).await;
    let channels = || server.cli(&["pubsub", "channels"]).lines().count();
    eventually("subscribed", async || channels() == 4).await;
    let watches: Vec<_> = {
        let mut watches = Vec::new();
        for n in 0..20 {
            let key = StreamKey::Mailbox(format!("{n}").into());
            watches.push(store.watch_stream(&key).await);
        }
        watches
    };
    assert_eq!(channels(), 24);
    drop(watches);
    eventually("unsubscribed", async || channels() == 4).await;
    tasks.stop();
    tasks.finished().await;
}

#[tokio::test]
async fn a_password_is_needed_and_a_wrong_one_can_be_mended() {
    let server = RedisServer::start_with(&["--requirepass", "hunter2"]);
    let tasks = Tasks::new();
    let connect = async |user: &str| {
        let url = format!("redis://{user}@127.0.0.1:{}", server.port());
        let settings = RedisSettings {
            prefix: server.settings().prefix,
            ..RedisSettings::new(url)
        };
        RedisStore::connect(settings, &tasks)
            .await
            .expect("good settings")
    };
    let store = connect(":hunter2").await;
    reachable(&store).await;
    store.get(&session()).await.expect("allowed");
    assert!(!store.description().contains("hunter2"));

    let refused = connect("fleet:wrong").await;
    let error = refused.get(&session()).await.expect_err("wrong password");
    assert!(!error.to_string().contains("wrong"), "{error}");
    let acl = [
        "acl", "setuser", "fleet", "on", ">wrong", "~test-*", "&test-*", "+@all",
    ];
    server.cli(&[&["-a", "hunter2", "--no-auth-warning"][..], &acl[..]].concat());
    reachable(&refused).await;
    refused.get(&session()).await.expect("allowed by now");
    tasks.stop();
    tasks.finished().await;
}

#[tokio::test]
async fn tls_is_spoken_and_strangers_certificates_are_not_trusted() {
    let (server, certificate) = RedisServer::start_tls();
    let tasks = Tasks::new();
    let url = format!("rediss://localhost:{}", server.port());
    let trusting = RedisSettings {
        ca_file: Some(certificate),
        ..RedisSettings::new(&url)
    };
    let store = server.store(&trusting, &tasks).await;
    reachable(&store).await;
    store.get(&session()).await.expect("allowed");
    let wary = server.store(&RedisSettings::new(&url), &tasks).await;
    assert!(wary.get(&session()).await.is_err());
    assert!(!wary.is_reachable());
    tasks.stop();
    tasks.finished().await;
}

#[tokio::test]
async fn bad_settings_are_refused() {
    let tasks = Tasks::new();
    let bad_url = RedisStore::connect(RedisSettings::new("http://h"), &tasks).await;
    assert!(matches!(bad_url, Err(RedisSettingsError::Url(_))));
    let settings = RedisSettings {
        prefix: "a{b".to_owned(),
        ..RedisSettings::new("redis://h")
    };
    let bad_prefix = RedisStore::connect(settings, &tasks).await;
    assert!(matches!(bad_prefix, Err(RedisSettingsError::Prefix(_))));
    let settings = RedisSettings {
        ca_file: Some("no/such/file.pem".into()),
        ..RedisSettings::new("rediss://h")
    };
    let bad_file = RedisStore::connect(settings, &tasks).await;
    assert!(matches!(
        bad_file,
        Err(RedisSettingsError::Certificates { .. })
    ));
}

#[tokio::test]
async fn stopping_ends_all_tasks_whatever_redis_does() {
    for pause in [false, true] {
        let server = RedisServer::start();
        let tasks = Tasks::new();
        let store = server.store(&server.settings(), &tasks).await;
        reachable(&store).await;
        if pause {
            server.pause();
        }
        tasks.stop();
        timeout(Duration::from_secs(3), tasks.finished())
            .await
            .expect("all tasks end");
    }
}
