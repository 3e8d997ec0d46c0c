//! The last lines a process wrote on its standard error.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Lines that are kept.
const LINES: usize = 50;
/// Characters that are kept of a line.
pub const LINE: usize = 2000;

/// The last lines a process wrote. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn lines(&self) -> MutexGuard<'_, VecDeque<String>> {
        // Pushing and popping leave it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a line, without what could confuse a terminal.
    pub fn push(&self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let clean = text.trim_end().chars().take(LINE);
        let clean = clean.filter(|c| !c.is_control() || *c == '\t').collect();
        let mut lines = self.lines();
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(clean);
    }

    /// The last `most` lines, the oldest first.
    #[must_use]
    pub fn last(&self, most: usize) -> Vec<String> {
        let lines = self.lines();
        lines
            .iter()
            .skip(lines.len().saturating_sub(most))
            .cloned()
            .collect()
    }

    /// Forgets what was said before.
    pub fn clear(&self) {
        self.lines().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_short_and_clean() {
        let tail = Tail::default();
        for n in 0..LINES + 10 {
            tail.push(format!("line {n}\x1b[0m \n").as_bytes());
        }
        assert_eq!(tail.last(2), ["line 58[0m", "line 59[0m"]);
        assert_eq!(tail.last(1000).len(), LINES);
        tail.push(&vec![b'x'; 10_000]);
        assert_eq!(tail.last(1)[0].len(), LINE);
    }
}
