//! The scripts as the model has them, and as they are: the same commands in
//! the same order have the same outcomes, in the embedded store and in Redis.
//! (Times to live are long here: what ends by time is tried in `store.rs`.)

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use mcp_fleet::{
    ids::{ReplicaId, ServerId},
    lifecycle::Tasks,
    store::{
        Channel, Fence, RecordKey, Store,
        leases::{Ask, Duty, DutyKind, LeaseOutcome, Renewal},
        memory::MemoryStore,
        redis::RedisStore,
    },
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::lease::{Answer, GUARDED, Grant, Shelf};
use crate::support::{eventually, redis::RedisServer};

const TRACES: u64 = 60;
const STEPS: usize = 60;
const NODES: u8 = 3;
const LONG: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy)]
enum Command {
    Acquire { is_turn: bool },
    Renew,
    Release { grant: usize },
    Write { grant: usize },
}

/// What was asked of both, and the fences given so far: the model's number of each.
struct Replay {
    store: Arc<dyn Store>,
    shelf: Shelf,
    duty: Duty,
    record: RecordKey,
    given: BTreeMap<u8, Fence>,
}

impl Replay {
    fn new(store: Arc<dyn Store>, seed: u64) -> Self {
        let server = ServerId::try_from("up").expect("a good name");
        let id = ReplicaId::new(&server, &format!("http://127.0.0.1:1/{seed}"));
        Self {
            store,
            shelf: Shelf::default(),
            duty: Duty::new(DutyKind::Probe, id.as_str()),
            record: RecordKey::Health(id),
            given: BTreeMap::new(),
        }
    }

    /// One command to both; fails where they differ.
    async fn run(&mut self, node: u8, command: Command) {
        let holder = format!("node-{node}/1");
        match command {
            Command::Acquire { is_turn } => {
                let next = self.given.len() + 1;
                let number = u8::try_from(next).expect("few grants");
                let grant = Grant {
                    order: number,
                    fence: number,
                };
                let expected = self.shelf.acquire(node, is_turn, grant);
                let ask = if is_turn { Ask::MyTurn } else { Ask::IfFree };
                let outcome = self.store.acquire_lease(&self.duty, &holder, LONG, ask);
                match (outcome.await.expect("an answer"), expected) {
                    (LeaseOutcome::Acquired { fence, .. }, Answer::Acquired(_)) => {
                        let last = self.given.values().last();
                        assert!(last.is_none_or(|last| fence > *last), "{fence:?}");
                        self.given.insert(number, fence);
                    }
                    (LeaseOutcome::Held(_), Answer::Held(_)) => {}
                    differs => panic!("{differs:?}"),
                }
            }
            Command::Renew => {
                let expected = self.shelf.renew(node, &GUARDED);
                let duties = [self.duty.clone()];
                let renewal = self.store.renew_leases(&duties, &holder, LONG).await;
                let expected = match expected {
                    Answer::Kept => Renewal::Kept,
                    Answer::Wanted => Renewal::Wanted,
                    _ => Renewal::Lost,
                };
                assert_eq!(renewal.expect("an answer"), [expected]);
            }
            Command::Release { grant } => {
                let Some((number, fence)) = self.nth(grant) else {
                    return;
                };
                let expected = self.shelf.release(node, number, &GUARDED) == Answer::Released;
                let released = self.store.release_lease(&self.duty, &holder, fence).await;
                assert_eq!(released.expect("an answer"), expected);
            }
            Command::Write { grant } => {
                let Some((number, fence)) = self.nth(grant) else {
                    return;
                };
                let grant = Grant {
                    order: number,
                    fence: number,
                };
                let expected = self.shelf.write(grant, &GUARDED);
                let value = Bytes::from(number.to_string());
                let written =
                    self.store
                        .put_fenced(&self.record, fence, value, LONG, Channel::Health);
                assert_eq!(written.await.expect("an answer"), expected);
            }
        }
    }

    /// A grant of those given, rather a late one.
    fn nth(&self, back: usize) -> Option<(u8, Fence)> {
        let given = self.given.iter().rev().nth(back);
        given.map(|(number, fence)| (*number, *fence))
    }
}

fn command(random: &mut StdRng) -> Command {
    let grant = random.random_range(0..3);
    match random.random_range(0..8) {
        0..3 => Command::Acquire {
            is_turn: random.random(),
        },
        3..5 => Command::Renew,
        5 => Command::Release { grant },
        _ => Command::Write { grant },
    }
}

async fn replay(store: Arc<dyn Store>) {
    for seed in 0..TRACES {
        let mut random = StdRng::seed_from_u64(seed);
        let mut replay = Replay::new(Arc::clone(&store), seed);
        let mut trace = Vec::new();
        for _ in 0..STEPS {
            let (node, command) = (random.random_range(0..NODES), command(&mut random));
            trace.push((node, command));
            println!("{seed}: {node} {command:?}");
            replay.run(node, command).await;
        }
    }
}

#[tokio::test]
async fn the_embedded_store_does_what_the_model_does() {
    replay(Arc::new(MemoryStore::new())).await;
}

#[tokio::test]
async fn redis_does_what_the_model_does() {
    let (server, tasks) = (RedisServer::start(), Tasks::new());
    let settings = mcp_fleet::store::redis::RedisSettings {
        command_timeout: Duration::from_secs(30),
        ..server.settings()
    };
    let store: RedisStore = server.store(&settings, &tasks).await;
    eventually("redis answers", async || store.is_reachable()).await;
    replay(Arc::new(store)).await;
    tasks.stop();
    tasks.finished().await;
}
