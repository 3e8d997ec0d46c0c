//! The circuit in front of Redis: after a few commands without an answer,
//! further ones fail at once instead of queueing behind a dead connection.
//!
//! Only the watchdog closes it again, after an answered PING, so no caller
//! pays for the trial.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Unanswered commands in a row that open the circuit.
const THRESHOLD: u32 = 3;

/// Open or closed. Begins open: nothing was answered yet.
#[derive(Debug)]
pub(super) struct Circuit {
    open: AtomicBool,
    unanswered: AtomicU32,
}

impl Circuit {
    pub(super) fn new() -> Self {
        Self {
            open: AtomicBool::new(true),
            unanswered: AtomicU32::new(0),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    /// A command was answered, with whatever.
    pub(super) fn answered(&self) {
        self.unanswered.store(0, Ordering::Relaxed);
    }

    /// A command was not answered. True when this opened the circuit.
    pub(super) fn not_answered(&self) -> bool {
        let unanswered = self.unanswered.fetch_add(1, Ordering::Relaxed) + 1;
        unanswered >= THRESHOLD && self.open()
    }

    /// True when this opened it.
    pub(super) fn open(&self) -> bool {
        !self.open.swap(true, Ordering::Relaxed)
    }

    /// True when this closed it.
    pub(super) fn close(&self) -> bool {
        self.answered();
        self.open.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_silence_in_a_row_and_closes_when_told() {
        let circuit = Circuit::new();
        assert!(circuit.is_open(), "nothing was answered yet");
        assert!(circuit.close());
        for _ in 0..10 {
            assert!(!circuit.not_answered());
            assert!(!circuit.not_answered());
            circuit.answered();
        }
        assert!(!circuit.not_answered());
        assert!(!circuit.not_answered());
        assert!(circuit.not_answered(), "the third in a row opens it");
        assert!(
            !circuit.not_answered(),
            "it was open already, nothing to report"
        );
        circuit.answered();
        assert!(circuit.is_open(), "a late answer does not close it");
        assert!(circuit.close());
        assert!(!circuit.is_open());
    }
}
