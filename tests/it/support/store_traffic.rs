//! Traffic on a store: every method, all the time, each call timed.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use mcp_fleet::{
    ids::ServerId,
    store::{
        Channel, EntryKey, EntryWrite, Event, Fence, Position, Rank, RecordKey, ShortDigest, Store,
        StoreError, StreamBounds, StreamKey, SubjectKey,
    },
};
use tokio::sync::{broadcast, watch};

use super::{eventually, wire::Owned};

/// No call takes longer, whatever Redis does: the default command timeout
/// (250 ms, and a quarter on top), and a second and a half for a machine that
/// is busy with other tests. A call that hangs hangs for longer than that.
pub(crate) const BOUND: Duration = Duration::from_millis(2000);

/// Callers at a time, each in a slot, stream and record of its own.
const CALLERS: usize = 4;

/// What became of the calls so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) answered: u64,
    pub(crate) unreachable: u64,
    /// Texts of refusals.
    pub(crate) refused: Vec<String>,
    /// The longest call, and its name.
    pub(crate) longest: (Duration, &'static str),
    /// Rounds without an error in a row, of the caller that has the fewest.
    rounds: [u64; CALLERS],
}

/// Runs until dropped.
pub(crate) struct Traffic {
    tally: Arc<Mutex<Tally>>,
    store: Arc<dyn Store>,
    events: broadcast::Receiver<Event>,
    stop: watch::Sender<bool>,
    callers: Vec<Owned<Appended>>,
}

/// What a caller appended to its stream, in order: which text, and whether it
/// was told that it is there.
type Appended = Vec<(String, bool)>;

const BOUNDS: StreamBounds = StreamBounds {
    max_entries: 100_000,
    ttl: Duration::from_secs(600),
};

fn stream(caller: usize) -> StreamKey {
    StreamKey::Mailbox(format!("caller-{caller}").into())
}

impl Traffic {
    /// Begins, once the store is reachable.
    pub(crate) async fn on(store: &Arc<dyn Store>) -> Self {
        eventually("redis answers", async || store.is_reachable()).await;
        let tally = Arc::new(Mutex::new(Tally::default()));
        let stop = watch::Sender::new(false);
        let callers = (0..CALLERS)
            .map(|number| {
                let caller = Caller {
                    number,
                    store: Arc::clone(store),
                    tally: Arc::clone(&tally),
                };
                Owned(tokio::spawn(caller.run(stop.subscribe())))
            })
            .collect();
        let traffic = Self {
            tally,
            store: Arc::clone(store),
            events: store.subscribe(),
            stop,
            callers,
        };
        traffic.flows().await;
        traffic
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally.lock().expect("not poisoned").clone()
    }

    /// Waits until calls fail.
    pub(crate) async fn fails(&self) {
        let before = self.tally().unreachable;
        eventually("calls fail", async || self.tally().unreachable > before).await;
    }

    /// Waits until every caller has done each thing without an error, twice from now.
    pub(crate) async fn flows(&self) {
        let clear = |tally: &mut Tally| tally.rounds = [0; CALLERS];
        clear(&mut self.tally.lock().expect("not poisoned"));
        eventually("everything works", async || {
            self.tally().rounds.iter().all(|&rounds| rounds >= 2)
        })
        .await;
    }

    /// Waits until a gap is announced that was not waited for yet.
    pub(crate) async fn gap(&mut self) {
        let announced = async {
            loop {
                match self.events.recv().await {
                    Ok(Event::Gap) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                    Ok(_) => {}
                    Err(broadcast::error::RecvError::Closed) => panic!("the store is gone"),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), announced)
            .await
            .expect("a gap is announced");
    }

    /// Ends it. All calls were in time; nothing was refused; and what was
    /// appended is there once at most, in order, and surely if the caller was
    /// told so (when `kept`: this Redis did not lose what it had).
    pub(crate) async fn ends_well(mut self, kept: bool) -> Tally {
        self.stop.send_replace(true);
        let mut appended = Vec::new();
        for caller in &mut self.callers {
            appended.push((&mut caller.0).await.expect("no panic"));
        }
        for (number, appended) in appended.into_iter().enumerate() {
            let read = self.store.read(&stream(number), Position(0), 100_000).await;
            let read = read.expect("it answers").unwrap_or_default();
            let found: Vec<_> = read
                .iter()
                .map(|(_, text)| String::from_utf8(text.to_vec()).expect("text"))
                .collect();
            let mut left = found.iter().peekable();
            for (text, told) in &appended {
                let there = left.next_if_eq(&text).is_some();
                assert!(
                    there || !(*told && kept),
                    "caller {number}: {text} is missing"
                );
            }
            assert_eq!(
                left.next(),
                None,
                "caller {number}: twice, or out of order: {found:?}"
            );
        }
        let tally = self.tally();
        println!(
            "answered {}, unreachable {}, longest {:?}",
            tally.answered, tally.unreachable, tally.longest
        );
        assert!(tally.longest.0 < BOUND, "{:?}", tally.longest);
        assert_eq!(tally.refused, Vec::<String>::new());
        tally
    }
}

struct Caller {
    number: usize,
    store: Arc<dyn Store>,
    tally: Arc<Mutex<Tally>>,
}

impl Caller {
    async fn run(self, stop: watch::Receiver<bool>) -> Appended {
        let mut appended = Vec::new();
        while !*stop.borrow() {
            let well = self.round(&mut appended).await;
            let rounds = |tally: &mut Tally| {
                let rounds = &mut tally.rounds[self.number];
                *rounds = if well { *rounds + 1 } else { 0 };
            };
            rounds(&mut self.tally.lock().expect("not poisoned"));
            // Fast enough to be steady traffic, slow enough for two cores.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        appended
    }

    /// Calls every method; whether all were answered.
    async fn round(&self, appended: &mut Appended) -> bool {
        let store = &*self.store;
        let token = format!("token-{}", self.number);
        let ttl = Duration::from_secs(600);
        let subject = SubjectKey {
            server: ServerId::try_from(format!("server-{}", self.number).as_str()).expect("good"),
            method: "tools/list",
            part: None,
        };
        let entry = EntryKey {
            slot: ShortDigest::of(&[token.as_bytes()]),
            subject: subject.clone(),
        };
        let record = RecordKey::Session(format!("session-{}", self.number).into());
        let write = |rank| EntryWrite {
            rank,
            age: Duration::ZERO,
            ttl,
            payload: Bytes::from_static(b"payload"),
        };
        let value = Bytes::from_static(b"value");
        let mut well = self.timed("lock", store.lock(&entry, &token, ttl)).await;
        well &= self
            .timed("extend_lock", store.extend_lock(&entry, &token, ttl))
            .await;
        let locked = Rank::Locked {
            fence: Fence(1),
            token: token.as_str().into(),
        };
        well &= self
            .timed("write_entry", store.write_entry(&entry, write(locked)))
            .await;
        let alone = Rank::Alone { fence: Fence(1) };
        well &= self
            .timed("write_entry", store.write_entry(&entry, write(alone)))
            .await;
        well &= self.timed("unlock", store.unlock(&entry, &token)).await;
        well &= self.timed("entry", store.entry(&entry, None)).await;
        well &= self
            .timed("invalidate", store.invalidate(&subject, ttl))
            .await;
        well &= self
            .timed("put", store.put(&record, value.clone(), Some(ttl)))
            .await;
        well &= self.timed("get", store.get(&record)).await;
        well &= self
            .timed(
                "put_if_absent",
                store.put_if_absent(&record, value, Some(ttl)),
            )
            .await;
        well &= self.timed("take", store.take(&record)).await;
        well &= self.timed("delete", store.delete(&record)).await;
        let key = stream(self.number);
        well &= self
            .timed("open_stream", store.open_stream(&key, BOUNDS))
            .await;
        let text = appended.len().to_string();
        let begun = Instant::now();
        let told = store.append(&key, text.clone().into(), BOUNDS).await;
        well &= self.counted("append", begun, &told);
        if !matches!(&told, Err(error) if error.to_string().contains("circuit")) {
            appended.push((text, matches!(told, Ok(Some(_)))));
        }
        well &= self.timed("read", store.read(&key, Position(0), 10)).await;
        let begun = Instant::now();
        drop(store.watch_stream(&key).await);
        well &= self.counted("watch_stream", begun, &Ok(()));
        let other = StreamKey::Mailbox(format!("brief-{}", self.number).into());
        well &= self.timed("close_stream", store.close_stream(&other)).await;
        let word = Bytes::from_static(b"word");
        well &= self
            .timed("publish", store.publish(Channel::Fleet, word))
            .await;
        well
    }

    async fn timed<T>(
        &self,
        name: &'static str,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> bool {
        let begun = Instant::now();
        let answer = call.await;
        self.counted(name, begun, &answer)
    }

    fn counted<T>(
        &self,
        name: &'static str,
        begun: Instant,
        answer: &Result<T, StoreError>,
    ) -> bool {
        let took = begun.elapsed();
        let mut tally = self.tally.lock().expect("not poisoned");
        if took > tally.longest.0 {
            tally.longest = (took, name);
        }
        match answer {
            Ok(_) => tally.answered += 1,
            Err(StoreError::Unreachable(_)) => tally.unreachable += 1,
            Err(StoreError::Refused(why)) => tally.refused.push(format!("{name}: {why}")),
        }
        answer.is_ok()
    }
}
