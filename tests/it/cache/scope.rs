//! What may be kept, and for whom.

use std::{collections::HashSet, sync::atomic::Ordering};

use futures_util::future::join_all;
use mcp_fleet::{
    cache::{CacheKey, CacheStatus, Scope},
    ids::{Principal, ServerId},
};

use super::{Fleet, LONG_LIVED, Upstream, key, on_both_stores, tools};
use crate::support::eventually;

on_both_stores!(
    a_private_answer_is_for_its_principal_only,
    an_answer_that_turns_private_is_not_served_to_others,
    an_answer_that_turns_public_is_shared,
    what_must_not_be_stored_is_not,
);

const CALLERS: [&str; 6] = ["anna", "boris", "chandra", "dilek", "emeka", "fatima"];

async fn a_private_answer_is_for_its_principal_only(fleet: Fleet) {
    let nodes = fleet.nodes(3).await;
    let upstream = Upstream::new("tools");
    upstream.scope(Scope::Private);
    // All at once, when nobody knows yet that answers are private; then again
    // from L1 and from the store.
    for round in 0..3 {
        let asked = nodes.iter().flat_map(|node| {
            let upstream = &upstream;
            (0..60).map(move |n| async move {
                let caller = CALLERS[n % CALLERS.len()];
                let served = node.ask(caller, upstream, LONG_LIVED).await;
                (caller, served.expect("an answer"))
            })
        });
        for (caller, served) in join_all(asked).await {
            assert_eq!(served.value.0, format!("tools for {caller}"));
            assert_eq!(served.scope, Scope::Private);
            if round > 0 {
                assert_eq!(served.status, CacheStatus::Hit);
            }
        }
    }
    for node in &nodes {
        for caller in CALLERS {
            let held = node.cache.peek(&key(caller)).expect("in L1");
            assert_eq!(held.value.0, format!("tools for {caller}"));
        }
        assert!(node.cache.peek(&key("a stranger")).is_none());
    }
    let callers = u32::try_from(CALLERS.len()).expect("few");
    assert_eq!(upstream.fetches(), callers, "one per principal");
}

async fn an_answer_that_turns_private_is_not_served_to_others(fleet: Fleet) {
    let nodes = fleet.nodes(2).await;
    let upstream = Upstream::new("tools");
    for node in &nodes {
        assert_eq!(node.get(&upstream).await.value.0, "tools");
    }
    upstream.scope(Scope::Private);
    nodes[0].cache.invalidate(&tools()).await;
    for (node, caller) in [(0, "anna"), (0, "boris"), (1, "chandra"), (1, "anna")] {
        eventually("the private answer is served", async || {
            let served = nodes[node].ask(caller, &upstream, LONG_LIVED).await;
            served.expect("an answer").value.0 == format!("tools for {caller}")
        })
        .await;
    }
    for caller in CALLERS {
        for node in &nodes {
            let served = node.ask(caller, &upstream, LONG_LIVED).await;
            assert_eq!(
                served.expect("an answer").value.0,
                format!("tools for {caller}")
            );
        }
    }
}

async fn an_answer_that_turns_public_is_shared(fleet: Fleet) {
    let nodes = fleet.nodes(2).await;
    let upstream = Upstream::new("tools");
    upstream.scope(Scope::Private);
    for node in &nodes {
        for caller in CALLERS {
            node.ask(caller, &upstream, LONG_LIVED)
                .await
                .expect("an answer");
        }
    }
    upstream.scope(Scope::Public);
    nodes[0].cache.invalidate(&tools()).await;
    let served = nodes[0].ask("anna", &upstream, LONG_LIVED).await;
    assert_eq!(served.expect("an answer").value.0, "tools");
    let fetches = upstream.fetches();
    for caller in CALLERS {
        for node in &nodes {
            eventually("all share the answer", async || {
                let served = node.ask(caller, &upstream, LONG_LIVED).await;
                served.expect("an answer").value.0 == "tools"
            })
            .await;
        }
    }
    assert_eq!(upstream.fetches(), fetches);
}

async fn what_must_not_be_stored_is_not(fleet: Fleet) {
    let nodes = fleet.nodes(2).await;
    let upstream = Upstream::new("partial");
    upstream.storable.store(false, Ordering::SeqCst);
    for node in &nodes {
        let served = node.get(&upstream).await;
        assert_eq!(served.value.0, "partial");
        assert_eq!(served.status, CacheStatus::Bypass);
        assert!(node.cache.peek(&key("anyone")).is_none());
    }
    assert_eq!(upstream.fetches(), 2);
    // It does not replace what is stored either.
    upstream.storable.store(true, Ordering::SeqCst);
    upstream.says("whole");
    assert_eq!(nodes[0].get(&upstream).await.value.0, "whole");
    upstream.storable.store(false, Ordering::SeqCst);
    upstream.says("partial");
    nodes[0].cache.invalidate(&tools()).await;
    assert_eq!(nodes[0].get(&upstream).await.value.0, "partial");
    assert_eq!(
        nodes[0].cache.peek(&key("anyone")).expect("kept").value.0,
        "whole"
    );
}

#[test]
fn slots_do_not_run_together() {
    let keys: HashSet<String> = [
        ("a", "tools/list", None, ""),
        ("a", "tools/list", None, "v"),
        ("a", "tools/list", Some(""), ""),
        ("a", "tools/list", Some("v"), ""),
        ("a", "prompts/list", None, ""),
        ("b", "tools/list", None, ""),
    ]
    .into_iter()
    .map(|(name, method, uri, variant)| {
        let server = ServerId::try_from(name).expect("good name");
        let key = CacheKey::new(&server, method, uri, variant, Principal::ANONYMOUS);
        format!("{key:?}")
    })
    .collect();
    assert_eq!(keys.len(), 6);
}
