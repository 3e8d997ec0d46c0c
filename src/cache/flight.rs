//! One fetch at a time per slot in this node, whoever waits for it.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{Notify, watch};

use super::{Cacheable, Scope, l1::Held};
use crate::store::{Fence, ShortDigest};

/// How a flight ended.
pub(super) enum Outcome<V: Cacheable> {
    /// With an entry.
    Entry {
        held: Arc<Held<V>>,
        /// True when it had to be fetched, here or elsewhere.
        waited: bool,
    },
    /// The base slot says that each principal has to ask for itself.
    PerPrincipal,
    /// With an answer that is not stored.
    Unstored {
        value: Arc<V>,
        scope: Scope,
        owner: Option<[u8; 16]>,
        digest: u64,
    },
    /// The fetch failed.
    Failed(V::FetchError),
    /// The fetch took too long.
    TookTooLong,
    /// The fetch brought something that cannot be read.
    Unreadable(String),
    /// Nothing was done: another node refreshes, or it is too early to try again.
    NotNow,
}

impl<V: Cacheable> Clone for Outcome<V> {
    fn clone(&self) -> Self {
        match self {
            Self::Entry { held, waited } => Self::Entry {
                held: Arc::clone(held),
                waited: *waited,
            },
            Self::PerPrincipal => Self::PerPrincipal,
            Self::Unstored {
                value,
                scope,
                owner,
                digest,
            } => Self::Unstored {
                value: Arc::clone(value),
                scope: *scope,
                owner: *owner,
                digest: *digest,
            },
            Self::Failed(error) => Self::Failed(error.clone()),
            Self::TookTooLong => Self::TookTooLong,
            Self::Unreadable(why) => Self::Unreadable(why.clone()),
            Self::NotNow => Self::NotNow,
        }
    }
}

/// The outcome of a flight, for one who waits.
pub(super) struct Waiting<V: Cacheable>(watch::Receiver<Option<Outcome<V>>>);

impl<V: Cacheable> Waiting<V> {
    /// The outcome; `None` when the flight crashed. Cancel safe.
    pub(super) async fn outcome(mut self) -> Option<Outcome<V>> {
        let landed = self.0.wait_for(Option::is_some).await;
        landed.ok().and_then(|outcome| outcome.clone())
    }
}

struct Flight<V: Cacheable> {
    outcome: watch::Sender<Option<Outcome<V>>>,
    /// Something was published about the slot.
    news: Notify,
    /// The newest generation of it.
    newest: AtomicU64,
}

/// The flights of a node.
pub(super) struct Flights<V: Cacheable> {
    slots: Mutex<HashMap<ShortDigest, Arc<Flight<V>>>>,
    max: usize,
}

/// What came of asking for a flight.
pub(super) enum Joined<V: Cacheable> {
    /// There was none: the caller has to fly.
    First(Landing<V>, Waiting<V>),
    /// There is one.
    Waiting(Waiting<V>),
    /// There are too many.
    Full,
}

impl<V: Cacheable> Flights<V> {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            slots: Mutex::new(HashMap::new()),
            max,
        })
    }

    pub(super) fn join(self: &Arc<Self>, slot: ShortDigest) -> Joined<V> {
        let mut slots = self.lock();
        if let Some(flight) = slots.get(&slot) {
            return Joined::Waiting(Waiting(flight.outcome.subscribe()));
        }
        if slots.len() >= self.max {
            return Joined::Full;
        }
        let (outcome, waiting) = watch::channel(None);
        let flight = Arc::new(Flight {
            outcome,
            news: Notify::new(),
            newest: AtomicU64::new(0),
        });
        slots.insert(slot, Arc::clone(&flight));
        let landing = Landing {
            flights: Arc::clone(self),
            slot,
            flight,
        };
        Joined::First(landing, Waiting(waiting))
    }

    /// Wakes a flight that waits for another node; `newest` (zero: none) is
    /// what was published.
    pub(super) fn tell(&self, slot: &ShortDigest, newest: Fence) {
        if let Some(flight) = self.lock().get(slot) {
            flight.newest.fetch_max(newest.0, Ordering::Relaxed);
            flight.news.notify_one();
        }
    }

    /// Wakes all flights that wait for other nodes.
    pub(super) fn tell_all(&self) {
        for flight in self.lock().values() {
            flight.news.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ShortDigest, Arc<Flight<V>>>> {
        // Inserting and removing leave the map whole.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: Cacheable> fmt::Debug for Flights<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").finish_non_exhaustive()
    }
}

/// Held by the one who flies. Dropping it ends the flight, also in a panic:
/// a slot cannot be wedged.
pub(super) struct Landing<V: Cacheable> {
    flights: Arc<Flights<V>>,
    slot: ShortDigest,
    flight: Arc<Flight<V>>,
}

impl<V: Cacheable> Landing<V> {
    /// Ends the flight for all who wait.
    pub(super) fn land(self, outcome: Outcome<V>) {
        // Nobody joins any more: what it brought is for those who came in time.
        self.remove();
        self.flight.outcome.send_replace(Some(outcome));
    }

    fn remove(&self) {
        let mut slots = self.flights.lock();
        let ours = slots.get(&self.slot);
        if ours.is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            slots.remove(&self.slot);
        }
    }

    /// Whether anybody waits for the outcome.
    pub(super) fn is_awaited(&self) -> bool {
        self.flight.outcome.receiver_count() > 0
    }

    /// The newest generation published since the flight began; zero: none.
    pub(super) fn newest(&self) -> Fence {
        Fence(self.flight.newest.load(Ordering::Relaxed))
    }

    /// Completes when something was published about the slot since the last call.
    pub(super) async fn news(&self) {
        self.flight.news.notified().await;
    }
}

impl<V: Cacheable> Drop for Landing<V> {
    fn drop(&mut self) {
        self.remove();
    }
}
