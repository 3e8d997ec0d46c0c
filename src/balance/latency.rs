//! How long a replica takes to answer: a moving average that believes a peak
//! at once and forgets it slowly (peak EWMA, as in Finagle's and linkerd's load
//! balancers). A replica that turns slow is avoided after one answer, one that
//! recovered gets its share back within some times [`DECAY`].

use std::time::Duration;

/// Time after which a measurement counts 1/e; Finagle and linkerd take the same.
const DECAY: Duration = Duration::from_secs(10);

/// A moving average as one word, so that it fits into an atomic.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PeakEwma {
    /// When it was measured last, on the owner's clock; wraps after 49 days.
    at_ms: u32,
    /// Zero: never measured.
    micros: f32,
}

impl PeakEwma {
    /// Reads [`to_bits`](Self::to_bits); 0 is one that measured nothing yet.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = bits.to_le_bytes();
        Self {
            at_ms: u32::from_le_bytes([a, b, c, d]),
            micros: f32::from_le_bytes([e, f, g, h]),
        }
    }

    /// As one word.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        let ([a, b, c, d], [e, f, g, h]) = (self.at_ms.to_le_bytes(), self.micros.to_le_bytes());
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    /// The average after one more answer, which came at `now` after `took`.
    /// `now` is in milliseconds on any clock that does not go back.
    #[must_use]
    pub fn observe(self, now: u32, took: Duration) -> Self {
        let took = (took.as_secs_f32() * 1e6).max(1.0);
        let kept = self.kept_at(now);
        let decayed = self.micros * kept;
        if took >= decayed {
            return Self {
                at_ms: now,
                micros: took,
            };
        }
        // Of several answers within a millisecond the first one counts: each
        // of them would carry no weight and still move the time on.
        if now == self.at_ms {
            return self;
        }
        Self {
            at_ms: now,
            micros: decayed + took * (1.0 - kept),
        }
    }

    /// The average as it is at `now`; `None` when nothing was measured. It
    /// sinks while nothing is measured, so that a replica that was slow once
    /// is tried again.
    #[must_use]
    pub fn estimate(self, now: u32) -> Option<Duration> {
        (self.micros > 0.0).then(|| {
            let micros = self.micros * self.kept_at(now);
            Duration::from_secs_f32(micros / 1e6)
        })
    }

    /// The weight that the past has at `now`.
    fn kept_at(self, now: u32) -> f32 {
        // Threads may see times in either order: a little in the past is now.
        let elapsed = now.wrapping_sub(self.at_ms);
        if elapsed > u32::MAX / 2 {
            return 1.0;
        }
        (-(elapsed as f32) / DECAY.as_millis() as f32).exp()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_peak_is_believed_at_once_and_forgotten_slowly() {
        let calm = PeakEwma::default().observe(0, ms(10));
        let peak = calm.observe(100, ms(1000));
        assert_eq!(peak.estimate(100), Some(ms(1000)));
        let after = |now| peak.observe(now, ms(10)).estimate(now).expect("measured");
        assert!(after(200) > ms(980));
        assert!(after(10_100) > ms(360) && after(10_100) < ms(390));
        assert!(after(100_000) < ms(11));
    }

    #[test]
    fn what_is_not_measured_sinks_and_what_was_never_measured_is_unknown() {
        assert_eq!(PeakEwma::from_bits(0).estimate(5), None);
        let slow = PeakEwma::default().observe(7, ms(1000));
        assert!(slow.estimate(60_007).expect("measured") < ms(3));
    }

    #[test]
    fn many_answers_within_a_millisecond_do_not_freeze_it() {
        let mut average = PeakEwma::default().observe(0, ms(1000));
        for now in 0..60_000 {
            for _ in 0..3 {
                average = average.observe(now, ms(1));
            }
        }
        assert!(average.estimate(60_000).expect("measured") < ms(4));
    }

    proptest! {
        #[test]
        fn it_stays_between_the_least_and_the_greatest_and_fits_a_word(
            answers in prop::collection::vec((0u32..5000, 1u64..10_000), 1..50),
        ) {
            let (mut average, mut now) = (PeakEwma::default(), u32::MAX - 20_000);
            for &(pause, took) in &answers {
                now = now.wrapping_add(pause);
                average = average.observe(now, ms(took));
                prop_assert_eq!(PeakEwma::from_bits(average.to_bits()), average);
                let most = answers.iter().map(|(_, took)| ms(*took)).max().expect("some");
                let estimate = average.estimate(now).expect("measured");
                prop_assert!(estimate <= most + Duration::from_millis(1));
                prop_assert!(estimate >= Duration::from_micros(900));
            }
        }
    }
}
