//! The contract of the store, kept by every implementation: embedded, Redis,
//! and Redis as a cluster (where a script's keys must be in one slot).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mcp_fleet::{
    lifecycle::Tasks,
    store::{
        Channel, Event, Store,
        memory::MemoryStore,
        redis::{RedisSettings, RedisStore},
    },
};
use tokio::{sync::broadcast, time::timeout};

use crate::support::{eventually, redis::RedisServer};

mod cache;
mod leases;
mod permits;
mod rates;
mod records;
mod registry;
mod streams;

use cache::{
    a_lock_ends_with_its_time_to_live, a_lock_is_held_until_given_back,
    a_write_gives_the_writers_lock_back_and_no_other,
    a_write_without_the_store_takes_its_place_by_time, an_entry_ends_with_its_time_to_live,
    an_entry_is_read_as_written, an_invalidation_of_a_part_leaves_the_others,
    an_invalidation_reaches_earlier_fences_only, an_invalidation_reaches_writers_in_flight,
    an_older_fence_does_not_overwrite, changes_of_the_cache_are_told_to_all,
    fences_grow_over_locks_and_invalidations, only_the_holder_extends_or_gives_back,
};
use leases::{
    a_holder_hears_whose_turn_it_is, a_lease_ends_with_its_time_to_live,
    a_lease_is_held_renewed_and_given_back, a_roster_has_a_line_per_writer,
    a_silent_writers_line_goes, an_older_fence_does_not_replace_a_record, fences_of_a_duty_grow,
};
use permits::{
    permits_are_divided_fairly_and_what_is_used_is_kept, permits_of_the_silent_are_free,
    permits_together_never_exceed_the_bound,
};
use rates::{a_limit_gives_its_burst_and_says_when_to_return, limits_are_apart, tokens_come_back};
use records::{
    a_record_is_taken_once, records_are_kept_until_their_time, the_first_of_many_writers_stays,
};
use registry::{
    a_registry_that_was_lost_is_restored_once, an_entry_that_moved_on_is_left_alone,
    editions_of_the_registry_grow, registered_servers_are_kept_by_name, the_registry_has_a_bound,
};
use streams::{
    a_published_message_reaches_all, a_stream_ends, a_stream_has_to_be_opened,
    a_stream_is_read_in_order_and_capped, a_watch_wakes_its_reader,
};

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test] async fn $name() {
                super::$name(std::sync::Arc::new(super::MemoryStore::new())).await;
            })*
        }
        mod redis {
            $(#[tokio::test] async fn $name() {
                super::on_redis(super::RedisServer::start(), super::$name).await;
            })*
        }
        mod redis_cluster {
            $(#[tokio::test] async fn $name() {
                super::on_redis(super::RedisServer::start_cluster(), super::$name).await;
            })*
        }

        /// The whole contract on another Redis, each clause under the prefix
        /// (and with whatever else) that `settings` says.
        pub(crate) async fn contract_on(settings: impl Fn() -> RedisSettings) {
            $(
                println!("{}", stringify!($name));
                on_settings(settings(), $name).await;
            )*
        }
    };
}

contract!(
    permits_are_divided_fairly_and_what_is_used_is_kept,
    permits_of_the_silent_are_free,
    permits_together_never_exceed_the_bound,
    a_lock_is_held_until_given_back,
    a_lock_ends_with_its_time_to_live,
    only_the_holder_extends_or_gives_back,
    fences_grow_over_locks_and_invalidations,
    an_entry_is_read_as_written,
    an_entry_ends_with_its_time_to_live,
    an_older_fence_does_not_overwrite,
    a_write_gives_the_writers_lock_back_and_no_other,
    an_invalidation_reaches_earlier_fences_only,
    an_invalidation_reaches_writers_in_flight,
    an_invalidation_of_a_part_leaves_the_others,
    a_write_without_the_store_takes_its_place_by_time,
    changes_of_the_cache_are_told_to_all,
    records_are_kept_until_their_time,
    a_record_is_taken_once,
    the_first_of_many_writers_stays,
    a_stream_has_to_be_opened,
    a_stream_is_read_in_order_and_capped,
    a_stream_ends,
    a_watch_wakes_its_reader,
    a_published_message_reaches_all,
    a_lease_is_held_renewed_and_given_back,
    a_holder_hears_whose_turn_it_is,
    a_lease_ends_with_its_time_to_live,
    fences_of_a_duty_grow,
    an_older_fence_does_not_replace_a_record,
    a_roster_has_a_line_per_writer,
    a_silent_writers_line_goes,
    registered_servers_are_kept_by_name,
    editions_of_the_registry_grow,
    the_registry_has_a_bound,
    a_registry_that_was_lost_is_restored_once,
    an_entry_that_moved_on_is_left_alone,
    a_limit_gives_its_burst_and_says_when_to_return,
    limits_are_apart,
    tokens_come_back,
);

async fn on_redis<F: Future<Output = ()>>(
    server: RedisServer,
    test: impl FnOnce(Arc<dyn Store>) -> F,
) {
    let settings = server.settings();
    on_settings(settings.clone(), test).await;
    every_key_ends(&server, &settings.prefix);
}

async fn on_settings<F: Future<Output = ()>>(
    settings: RedisSettings,
    test: impl FnOnce(Arc<dyn Store>) -> F,
) {
    let tasks = Tasks::new();
    let store = RedisStore::connect(settings, &tasks).await;
    let store = store.expect("good settings");
    eventually("redis answers", async || store.is_reachable()).await;
    test(Arc::new(store)).await;
    tasks.stop();
    tasks.finished().await;
}

/// Every key has a time to live, and the test's prefix.
fn every_key_ends(server: &RedisServer, prefix: &str) {
    let keys = server.cli(&["keys", "*"]);
    for key in keys.lines().filter(|key| !key.is_empty()) {
        assert!(key.starts_with(&format!("{prefix}:")), "{key}");
        let for_ever = ["secret", "servers", "deployments"];
        if for_ever
            .iter()
            .all(|name| key != format!("{prefix}:{name}"))
        {
            let ttl: i64 = server.cli(&["pttl", key]).trim().parse().expect("a number");
            assert!(ttl != -1, "{key} lives for ever");
        }
    }
}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(60);

/// The next event that is not a gap (a connection that has just come up).
async fn next(events: &mut broadcast::Receiver<Event>) -> Event {
    loop {
        let event = timeout(Duration::from_secs(5), events.recv()).await;
        match event.expect("an event in time").expect("a fast reader") {
            Event::Gap => {}
            event => return event,
        }
    }
}

/// Waits until what is published is heard.
async fn listening(store: &dyn Store, events: &mut broadcast::Receiver<Event>) {
    loop {
        let hello = Bytes::from_static(b"hello");
        store
            .publish(Channel::Fleet, hello)
            .await
            .expect("reachable");
        if timeout(Duration::from_millis(100), next(events))
            .await
            .is_ok()
        {
            break;
        }
    }
    while timeout(Duration::from_millis(50), events.recv())
        .await
        .is_ok()
    {}
}
