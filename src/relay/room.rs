//! Room for work that nobody waits for: calls whose client has gone or reads
//! late, notifications on their way to servers. Counted in bytes of what it
//! holds, so that no client fills a node by sending and leaving.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a piece of work holds beside its message.
const LEAST: usize = 4 * 1024;
/// How often it holds that: as it came, as it is sent, for another attempt.
const TIMES: usize = 3;
/// All of it together.
const ALL: usize = 128 * 1024 * 1024;
/// Permits are of so many bytes.
const UNIT: usize = 1024;

/// The room of a node.
#[derive(Debug)]
pub(crate) struct Room(Arc<Semaphore>);

/// A place, given back when dropped.
pub(crate) type Place = OwnedSemaphorePermit;

impl Room {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(ALL / UNIT)))
    }

    /// A place for work on a message of that length; `None` when there is none.
    pub(crate) fn place(&self, bytes: usize) -> Option<Place> {
        let units = u32::try_from((TIMES * bytes).max(LEAST) / UNIT).ok()?;
        Arc::clone(&self.0).try_acquire_many_owned(units).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_messages_fill_the_room_sooner_and_places_come_back() {
        let room = Room::new();
        let fill = |bytes| std::iter::from_fn(|| room.place(bytes)).collect::<Vec<_>>();
        assert_eq!(fill(4 * 1024 * 1024).len(), 10);
        let small = fill(1);
        assert_eq!(small.len(), 32 * 1024);
        assert!(room.place(0).is_none());
        drop(small);
        assert!(room.place(ALL / TIMES).is_some());
        assert!(room.place(ALL).is_none());
    }
}
