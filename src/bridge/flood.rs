//! A process that says much which is for nobody has to wait before it is
//! listened to again, so that it costs itself most. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Useless messages within a second that nobody minds.
const BEARABLE: u64 = 2000;
const WINDOW: Duration = Duration::from_secs(1);

/// Counts useless messages.
#[derive(Debug, Default)]
pub struct Flood {
    begun: Option<Instant>,
    count: u64,
}

impl Flood {
    /// Notes so many; how long to wait before the next is read.
    pub fn note(&mut self, useless: u64, now: Instant) -> Option<Duration> {
        if useless == 0 {
            return None;
        }
        let begun = *self.begun.get_or_insert(now);
        let elapsed = now.saturating_duration_since(begun);
        if elapsed >= WINDOW {
            self.begun = Some(now);
            self.count = 0;
        }
        self.count += useless;
        if self.count < BEARABLE {
            return None;
        }
        self.begun = None;
        self.count = 0;
        Some(WINDOW.saturating_sub(elapsed).max(WINDOW / 10))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_slowed_down_and_a_trickle_is_not() {
        let mut flood = Flood::default();
        let start = Instant::now();
        for n in 0..10_000u64 {
            let now = start + Duration::from_millis(n);
            assert_eq!(flood.note(1, now), None, "1000 a second");
            assert_eq!(flood.note(0, now), None);
        }
        let mut flood = Flood::default();
        let mut now = start;
        let mut taken = 0;
        while now < start + Duration::from_secs(10) {
            taken += 1;
            now += flood.note(1, now).unwrap_or_default();
        }
        assert!((18_000..=22_000).contains(&taken), "{taken}");
    }
}
