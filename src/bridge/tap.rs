//! Passes what the server writes to stderr on to the bridge's own, which is
//! the container's log, but not more than a log can bear.

use std::{
    io::Write as _,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing_appender::non_blocking::NonBlocking;

/// Lines that are passed on within a second.
const LINES: u64 = 500;
const WINDOW: Duration = Duration::from_secs(1);

/// Passes lines on, from any number of processes.
#[derive(Debug)]
pub struct Tap {
    to: NonBlocking,
    passed: Mutex<Passed>,
}

#[derive(Debug)]
struct Passed {
    begun: Instant,
    lines: u64,
    left_out: u64,
}

impl Passed {
    /// Whether one more line passes, and how many did not since the last time
    /// that was asked.
    fn more(&mut self, now: Instant) -> (bool, u64) {
        let mut before = 0;
        if now.saturating_duration_since(self.begun) >= WINDOW {
            before = std::mem::take(&mut self.left_out);
            self.begun = now;
            self.lines = 0;
        }
        self.lines += 1;
        let passes = self.lines <= LINES;
        self.left_out += u64::from(!passes);
        (passes, before)
    }
}

impl Tap {
    /// Passes lines on to `to`.
    #[must_use]
    pub fn new(to: NonBlocking) -> Self {
        Self {
            to,
            passed: Mutex::new(Passed {
                begun: Instant::now(),
                lines: 0,
                left_out: 0,
            }),
        }
    }

    /// Passes a line on, unless there were too many.
    pub fn pass(&self, line: &[u8]) {
        let (passes, left_out) = {
            // Three plain values.
            let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
            passed.more(Instant::now())
        };
        if left_out > 0 {
            let note = format!("mcp-fleet-bridge: {left_out} lines of the server were left out\n");
            self.write(note.as_bytes());
        }
        if passes {
            let mut whole = Vec::with_capacity(line.len() + 1);
            whole.extend_from_slice(line.trim_ascii_end());
            whole.push(b'\n');
            self.write(&whole);
        }
    }

    fn write(&self, line: &[u8]) {
        // Never waits; what does not fit is dropped there.
        self.to.clone().write_all(line).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let begun = Instant::now();
        let mut passed = Passed {
            begun,
            lines: 0,
            left_out: 0,
        };
        let through = (0..5 * LINES).filter(|_| passed.more(begun).0).count();
        assert_eq!(through as u64, LINES);
        let (passes, left_out) = passed.more(begun + WINDOW);
        assert!(passes);
        assert_eq!(left_out, 4 * LINES);
        assert_eq!(passed.more(begun + WINDOW), (true, 0));
    }
}
