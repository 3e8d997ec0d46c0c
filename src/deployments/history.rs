//! What is remembered of containers beyond what the engine says: whether their
//! servers answer, whether calls are sent there, how often they failed. Kept by
//! the node that reconciles; what another node needs to go on is in the record
//! that it publishes ([`super::record`]).

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::plan::{Life, Pace, Seen};

/// What is remembered of one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Past {
    /// Its server answered since it was started then, for the first time at that moment.
    pub ready: Option<(u64, Instant)>,
    /// Its server has answered in some life of the container.
    pub served: bool,
    /// All nodes were told to send calls there, and not told otherwise.
    pub routed: bool,
    /// Since when all nodes are told not to.
    pub withdrawn: Option<Instant>,
    /// Failures in a row.
    pub failures: u32,
    /// How often it was started again.
    pub restarts: u32,
    /// It is not tried again before.
    pub not_before: Option<Instant>,
    /// The end that was counted last.
    over: Option<u64>,
    /// We ended it ourselves: that is no failure.
    pub told_to_stop: bool,
}

impl Past {
    /// Whether the server answered in the container's present life.
    #[must_use]
    pub fn is_ready(&self, since: u64) -> bool {
        self.ready.is_some_and(|(life, _)| life == since)
    }

    /// The server answers.
    pub fn answered(&mut self, since: u64, now: Instant) {
        if !self.is_ready(since) {
            self.ready = Some((since, now));
        }
        self.served = true;
    }

    /// It ended, or could not be made or started. The first failure of one that
    /// worked costs no pause, and is forgotten when it works for long again.
    pub fn failed(&mut self, now: Instant, pace: &Pace) {
        let worked = self.ready.take();
        let settled = worked.is_some_and(|(_, at)| now.duration_since(at) >= pace.settled);
        self.failures = if settled { 1 } else { self.failures + 1 };
        let pause = match (worked, self.failures) {
            // What worked until now is most likely to work again at once.
            (Some(_), 1) => Duration::ZERO,
            (_, failures) => pace.pause(failures),
        };
        self.not_before = Some(now + pause);
    }

    /// It was started, by us: what is heard of it next is new, also within
    /// the same second of the engine's clock.
    pub fn started(&mut self) {
        self.over = None;
        self.ready = None;
        self.told_to_stop = false;
    }

    /// It ended and may run again by now: it has to answer anew.
    pub fn interrupted(&mut self) {
        self.ready = None;
    }

    /// Takes note of what the engine says; whether it was found to have ended.
    pub fn notice(&mut self, life: Life, now: Instant, pace: &Pace) -> bool {
        let Life::Exited(at) = life else {
            // One that is told to stop runs for a while. That it runs again was
            // somebody else's doing.
            if let Life::Running(_) = life
                && self.over.take().is_some()
            {
                self.told_to_stop = false;
            }
            return false;
        };
        if self.over == Some(at) {
            return false;
        }
        self.over = Some(at);
        if self.told_to_stop {
            self.ready = None;
            return false;
        }
        self.failed(now, pace);
        true
    }
}

/// What is remembered of the containers of a deployment, by their names.
#[derive(Debug, Clone, Default)]
pub struct History(BTreeMap<String, Past>);

impl History {
    /// What is remembered of a container; nothing of an unknown one.
    #[must_use]
    pub fn of(&self, name: &str) -> Past {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Whether anything is remembered of a container.
    #[must_use]
    pub fn is_known(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// What is remembered of a container, to be changed.
    pub fn entry(&mut self, name: &str) -> &mut Past {
        self.0.entry(name.to_owned()).or_default()
    }

    /// Takes note of all containers there are, and forgets those that are gone
    /// unless they are waited for (`is_wanted`). Names those that were found to
    /// have ended.
    pub fn notice(
        &mut self,
        seen: &[Seen],
        now: Instant,
        pace: &Pace,
        is_wanted: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        self.0
            .retain(|name, _| is_wanted(name) || seen.iter().any(|one| one.name == *name));
        let ended = seen
            .iter()
            .filter(|one| self.entry(&one.name).notice(one.life, now, pace));
        ended.map(|one| one.name.clone()).collect::<Vec<_>>()
    }

    /// Failures so far count no more.
    pub fn forgive(&mut self) {
        for past in self.0.values_mut() {
            past.failures = 0;
            past.not_before = None;
        }
    }

    /// These are to stand still: however they ended, that is no failure, and
    /// they have nobody to stand in for.
    pub fn rest(&mut self, seen: &[Seen]) {
        for one in seen {
            if let Life::Exited(_) = one.life {
                self.entry(&one.name).told_to_stop = true;
            }
        }
    }

    /// All nodes were told that calls go to these containers, and to no others.
    pub fn published(&mut self, is_routed: impl Fn(&str) -> bool, now: Instant) {
        for (name, past) in &mut self.0 {
            let routed = is_routed(name);
            if routed {
                past.withdrawn = None;
            } else if past.routed {
                past.withdrawn = Some(now);
            }
            past.routed = routed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_double_up_to_a_cap_and_begin_anew_after_a_settled_time() {
        let pace = Pace::default();
        let mut past = Past::default();
        let mut pauses = Vec::new();
        for life in 0..10 {
            let now = Instant::now();
            assert!(past.notice(Life::Exited(life), now, &pace));
            assert!(!past.notice(Life::Exited(life), now, &pace), "counted once");
            pauses.push(past.not_before.expect("a pause") - now);
        }
        let millis: Vec<_> = pauses.iter().map(Duration::as_millis).collect();
        let expected = [
            500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000,
        ];
        assert_eq!(millis, expected);
        past.answered(20, Instant::now());
        tokio::time::advance(pace.settled).await;
        past.notice(Life::Exited(20), Instant::now(), &pace);
        assert_eq!(past.failures, 1);
        assert_eq!(past.not_before, Some(Instant::now()), "at once");
        // One that only just answered is not settled.
        past.answered(21, Instant::now());
        past.notice(Life::Exited(21), Instant::now(), &pace);
        assert_eq!(past.failures, 2);
        let pause = past.not_before.expect("a pause") - Instant::now();
        assert_eq!(pause, pace.pause(2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_was_asked_for_is_no_failure() {
        let pace = Pace::default();
        let mut past = Past {
            told_to_stop: true,
            ..Past::default()
        };
        assert!(!past.notice(Life::Exited(1), Instant::now(), &pace));
        assert_eq!((past.failures, past.not_before), (0, None));
        // Somebody else starts it: its next end is one.
        past.notice(Life::Running(2), Instant::now(), &pace);
        assert!(past.notice(Life::Exited(3), Instant::now(), &pace));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_takes_its_time_to_end_is_still_told_to() {
        let pace = Pace::default();
        let mut past = Past::default();
        assert!(past.notice(Life::Exited(1), Instant::now(), &pace));
        past.started();
        past.answered(2, Instant::now());
        past.told_to_stop = true;
        past.notice(Life::Running(2), Instant::now(), &pace);
        assert!(past.told_to_stop);
        assert!(!past.notice(Life::Exited(3), Instant::now(), &pace));
        assert_eq!(past.failures, 1);
    }
}
