//! What is to be done for one deployment, now: a pure function of what is
//! wanted, which containers there are and what is remembered of them.
//!
//! It can be asked again after any part of what it said was done, also by a
//! node that remembers no more than what was published. The order within a
//! rolling update follows from what it waits for: a new replica answers, all
//! nodes were told of it, an old one is taken out of routing, its calls have had
//! time to end, it is removed.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::Instant;

use super::{
    definition::SpecHash,
    history::{History, Past},
};

#[cfg(test)]
mod tests;

/// What a deployment is to come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// So many replicas of this run.
    Run {
        /// What they run.
        spec: SpecHash,
        /// How many.
        replicas: u32,
    },
    /// Nothing runs; containers stay, with their logs.
    Stopped,
    /// Nothing is left.
    Gone,
}

/// A container of the deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub name: String,
    /// What it runs.
    pub spec: SpecHash,
    /// Which of the replicas.
    pub ordinal: u32,
    /// What it does.
    pub life: Life,
}

/// What a container does, as far as it matters here. Times only tell one
/// occurrence from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// Made, never started.
    Created,
    /// Running since then.
    Running(u64),
    /// Halted by somebody.
    Paused,
    /// Over since then.
    Exited(u64),
    /// Being removed, or beyond repair.
    Going,
}

/// A step. Doing it twice does no harm.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Make and start the replica of that ordinal.
    Create(u32),
    /// Start a container that is there.
    Start(String),
    /// Ask a container whether its server answers.
    Probe(String),
    /// End a container and keep it.
    Stop(String),
    /// End a container and remove it.
    Remove(String),
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The steps, in no order.
    pub actions: Vec<Action>,
    /// Names of the containers that calls may go to. What leaves this set has
    /// to be published before more happens to it.
    pub routed: BTreeSet<String>,
    /// When there is more to do by itself.
    pub again: Option<Instant>,
}

/// Times that a plan keeps.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Time for the calls of a replica that an update or a smaller count puts
    /// out of use.
    pub drain: Duration,
    /// Time for nodes to hear that a replica is out of routing.
    pub notice: Duration,
    /// Pause after the first failure; doubles with each.
    pub backoff: Duration,
    /// Longest pause.
    pub backoff_cap: Duration,
    /// A replica that has answered for so long has not failed before.
    pub settled: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            drain: Duration::from_secs(30),
            notice: Duration::from_secs(1),
            backoff: Duration::from_millis(500),
            backoff_cap: Duration::from_secs(60),
            settled: Duration::from_secs(60),
        }
    }
}

impl Pace {
    /// The pause after so many failures in a row.
    #[must_use]
    pub fn pause(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        (self.backoff * 2_u32.pow(doublings)).min(self.backoff_cap)
    }
}

/// What is to be done. `name` makes the name of a replica's container.
#[must_use]
pub fn plan(
    goal: &Goal,
    seen: &[Seen],
    history: &History,
    now: Instant,
    pace: &Pace,
    name: impl Fn(&SpecHash, u32) -> String,
) -> Plan {
    let mut planner = Planner {
        history,
        now,
        pace,
        plan: Plan::default(),
    };
    match goal {
        Goal::Run { spec, replicas } => {
            let wanted: Vec<_> = (0..*replicas)
                .map(|ordinal| {
                    let name = name(spec, ordinal);
                    let there = seen.iter().find(|one| one.name == name);
                    Wanted {
                        ordinal,
                        name,
                        there,
                    }
                })
                .collect();
            planner.run(&wanted, seen);
        }
        Goal::Stopped => seen.iter().for_each(|one| planner.stop(one)),
        Goal::Gone => {
            let notice = pace.notice;
            seen.iter().for_each(|one| planner.retire(one, notice));
        }
    }
    planner.plan
}

struct Wanted<'a> {
    ordinal: u32,
    name: String,
    there: Option<&'a Seen>,
}

struct Planner<'a> {
    history: &'a History,
    now: Instant,
    pace: &'a Pace,
    plan: Plan,
}

impl Planner<'_> {
    fn run(&mut self, wanted: &[Wanted<'_>], seen: &[Seen]) {
        let is_wanted = |one: &Seen| wanted.iter().any(|wanted| wanted.name == one.name);
        let surplus: Vec<_> = seen.iter().filter(|one| !is_wanted(one)).collect();
        let there = wanted.iter().filter_map(|wanted| wanted.there);
        // Those that all nodes know of: only they stand in for others.
        let serving = there
            .clone()
            .filter(|one| self.is_ready(one) && self.past(one).routed)
            .count();
        let needed = wanted.len().saturating_sub(serving);
        let kept = self.kept(&surplus, needed);
        for one in &surplus {
            if kept.contains(&one.name) {
                self.keep(one);
            } else {
                self.retire(one, self.pace.drain);
            }
        }
        let is_update = surplus
            .iter()
            .any(|one| kept.contains(&one.name) && self.is_ready(one));
        let pending = there.clone().filter(|one| !self.is_ready(one)).count();
        // During an update one replica more than wanted runs, not twice as many.
        let mut may_create = if is_update {
            usize::from(pending == 0)
        } else {
            wanted.len()
        };
        for one in wanted {
            match one.there {
                Some(there) => self.keep(there),
                None if may_create == 0 => {}
                None => {
                    may_create -= 1;
                    self.when_due(&one.name, Action::Create(one.ordinal));
                }
            }
        }
        if self.plan.routed.is_empty() {
            // A server whose replicas are all about to come back is still there,
            // though its containers may not be.
            let kept = surplus.iter().filter(|one| kept.contains(&one.name));
            let names = wanted.iter().map(|one| &one.name);
            let returning = names.chain(kept.map(|one| &one.name));
            let returning = returning.filter(|name| self.history.of(name).served);
            self.plan.routed = returning.cloned().collect();
        }
    }

    /// The containers put out of use that still have to serve: the best of them.
    fn kept(&self, surplus: &[&Seen], needed: usize) -> BTreeSet<String> {
        let mut worth: Vec<_> = surplus
            .iter()
            .filter(|one| self.is_ready(one) || self.past(one).served)
            .filter(|one| one.life != Life::Going && !self.is_stopped(one))
            .collect();
        worth.sort_by_key(|one| (!self.is_ready(one), one.ordinal, &one.name));
        let kept = worth.into_iter().take(needed);
        kept.map(|one| one.name.clone()).collect()
    }

    /// A container that is in use, or to be.
    fn keep(&mut self, one: &Seen) {
        match one.life {
            Life::Running(_) if self.is_ready(one) => {
                self.plan.routed.insert(one.name.clone());
            }
            Life::Running(_) => self.act(Action::Probe(one.name.clone())),
            Life::Created | Life::Exited(_) => {
                self.when_due(&one.name, Action::Start(one.name.clone()));
            }
            // Whoever halted it will go on with it.
            Life::Paused => {}
            Life::Going => self.when_due(&one.name, Action::Remove(one.name.clone())),
        }
    }

    /// A container that is out of use.
    fn retire(&mut self, one: &Seen, drain: Duration) {
        match one.life {
            Life::Running(_) | Life::Paused => {
                if let Some(ended) = self.out_of_routing(one, drain) {
                    self.at(ended, Action::Remove(one.name.clone()));
                }
            }
            Life::Created | Life::Exited(_) | Life::Going => {
                self.when_due(&one.name, Action::Remove(one.name.clone()));
            }
        }
    }

    fn stop(&mut self, one: &Seen) {
        match one.life {
            Life::Running(_) | Life::Paused => {
                if let Some(ended) = self.out_of_routing(one, self.pace.notice) {
                    self.at(ended, Action::Stop(one.name.clone()));
                }
            }
            Life::Created | Life::Exited(_) => {}
            Life::Going => self.when_due(&one.name, Action::Remove(one.name.clone())),
        }
    }

    /// When nobody calls it any more; `None` while nodes still do.
    fn out_of_routing(&self, one: &Seen, drain: Duration) -> Option<Instant> {
        let past = self.past(one);
        match past.withdrawn {
            _ if past.routed => None,
            Some(withdrawn) => Some(withdrawn + drain),
            None => Some(self.now),
        }
    }

    /// Whether it ends, or has ended, because it was to: it does not have to
    /// serve, unless it was wanted again meanwhile and does.
    fn is_stopped(&self, one: &Seen) -> bool {
        let past = self.past(one);
        past.told_to_stop && !(past.routed && self.is_ready(one))
    }

    fn is_ready(&self, one: &Seen) -> bool {
        matches!(one.life, Life::Running(since) if self.past(one).is_ready(since))
    }

    fn past(&self, one: &Seen) -> Past {
        self.history.of(&one.name)
    }

    fn act(&mut self, action: Action) {
        self.plan.actions.push(action);
    }

    /// After the pause that failures of the container have earned it.
    fn when_due(&mut self, name: &str, action: Action) {
        let due = self.history.of(name).not_before.unwrap_or(self.now);
        self.at(due, action);
    }

    fn at(&mut self, due: Instant, action: Action) {
        if due <= self.now {
            self.act(action);
        } else {
            let again = self.plan.again.map_or(due, |again| again.min(due));
            self.plan.again = Some(again);
        }
    }
}
