//! How long to wait before a process that ended is started again.

use std::time::Duration;

/// A process that lived this long did not die of its start.
const SETTLED: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Pauses between starts; they grow only while processes die young.
#[derive(Debug, Clone, Copy, Default)]
pub struct Backoff {
    in_a_row: u32,
}

impl Backoff {
    /// The pause after a process that lived this long.
    pub fn after(&mut self, lived: Duration) -> Duration {
        if lived >= SETTLED {
            self.in_a_row = 0;
        }
        let pause = (FIRST_PAUSE * 2u32.saturating_pow(self.in_a_row)).min(LONGEST_PAUSE);
        self.in_a_row = (self.in_a_row + 1).min(16);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_processes_die_young() {
        let mut backoff = Backoff::default();
        let mut pause = |lived| backoff.after(lived).as_millis();
        assert_eq!(pause(Duration::ZERO), 100);
        assert_eq!(pause(Duration::ZERO), 200);
        assert_eq!(pause(Duration::ZERO), 400);
        assert_eq!(pause(SETTLED), 100);
        for _ in 0..30 {
            assert!(pause(Duration::ZERO) <= LONGEST_PAUSE.as_millis());
        }
        assert_eq!(pause(Duration::ZERO), LONGEST_PAUSE.as_millis());
    }
}
