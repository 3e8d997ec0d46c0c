//! The shared cache: one slot, one upstream, two or three nodes.
//!
//! | step | in the code |
//! |---|---|
//! | `Read` | `entry_read.lua`, asked by `cache/agree.rs` |
//! | `Lock` | `lock.lua`, asked by `cache/refresh.rs` |
//! | `Fetch` | the upstream is read; while that takes time, `lock_extend.lua` (in `Tick`) |
//! | `Unlock` | `lock_release.lua`: somebody had written meanwhile |
//! | `Write`, `LateWrite` | `entry_write.lua` under a fence, its answer heard or not |
//! | `PutBack` | `entry_write.lua` by what a node holds: the store has nothing, or something older |
//! | `Invalidate` | `invalidate.lua` after the upstream has changed, `cache/follow.rs` |
//! | `Hear*`, `Alone` | what a node makes of answers: `cache/refresh.rs`, `cache/agree.rs`, `cache/serve.rs` |
//! | `Deliver`, `Lose` | published messages, `cache/follow.rs`; lost ones end in a gap |
//! | `Tick` | time; a lock lives for [`TTL`] of them |
//!
//! Entries do not age here: they are out of date by invalidation, or absent.
//! Fences and the moments at which fetches without the store began are
//! numbered anew in every state, which keeps their order and bounds their number.

mod state;

use super::explore::Model;
use state::{Entry, FRESH, Flight, Inbox, Life, Looked, Node, Shelf, State, Turn, Waiter};

/// Time to live of a lock, in ticks.
const TTL: u8 = 2;

pub(super) const NODES: usize = 3;
/// Requests that wait at a node.
const WAITERS: usize = 2;

/// What keeps the model right; each can be left out to see that it is needed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guards {
    /// `entry_write.lua` compares generations.
    pub(super) writes_are_fenced: bool,
    /// A writer's fence is that of its lock, and not drawn when it writes.
    pub(super) fenced_before_fetch: bool,
    /// Who has taken the lock looks again whether it has to fetch.
    pub(super) looks_again: bool,
    /// A lock has a time to live.
    pub(super) locks_end: bool,
    /// Who waits for another node's fetch looks at the store now and then.
    pub(super) waiters_look: bool,
    /// After messages were lost nothing is trusted that was not checked.
    pub(super) gaps_are_heeded: bool,
    /// Nor what a flight brings that began before.
    pub(super) flights_heed_gaps: bool,
    /// A request takes nothing that was invalidated before it came.
    pub(super) requests_remember: bool,
    /// L1 keeps the newer of two copies.
    pub(super) copies_are_compared: bool,
    /// What was fetched without the store takes its place by the clock that
    /// was read, and not by that of the moment at which the write arrives.
    pub(super) ranked_by_reading: bool,
}

/// As it is.
pub(super) const GUARDED: Guards = Guards {
    writes_are_fenced: true,
    fenced_before_fetch: true,
    looks_again: true,
    locks_end: true,
    waiters_look: true,
    gaps_are_heeded: true,
    flights_heed_gaps: true,
    requests_remember: true,
    copies_are_compared: true,
    ranked_by_reading: true,
};

/// How often each thing may happen on one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Faults {
    /// Requests.
    pub(super) asks: u8,
    /// Changes of the upstream, each followed by an invalidation.
    pub(super) changes: u8,
    pub(super) pauses: u8,
    pub(super) crashes: u8,
    /// Ticks that pass while something could be done.
    pub(super) slow: u8,
    /// Times that a node misses what was published.
    pub(super) lost: u8,
    /// Writes whose outcome the writer does not learn; they may happen later.
    pub(super) unknown: u8,
    /// Times that the store cannot be reached; it may come back empty.
    pub(super) outages: u8,
}

pub(super) const REPLACED: &str = "an older generation replaced a newer one";
pub(super) const OUT_OF_DATE: &str = "what was invalidated was served as fresh";
pub(super) const TOO_OLD: &str = "a request was answered with what was invalidated before it came";
pub(super) const TWO_FETCHES: &str = "the upstream was asked more than once for one version";

#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "whose step it is: printed in counterexamples")]
pub(super) enum Step {
    Ask(usize),
    Read(usize),
    HearRead(usize),
    PutBack(usize),
    PutBackLate(usize),
    Lock(usize),
    Unlock(usize),
    Alone(usize),
    AloneBehind(usize),
    Fetch(usize),
    Write(usize),
    WriteUnheard(usize),
    LateWrite(usize),
    HearWritten(usize),
    Deliver(usize),
    Lose(usize),
    Pause(usize),
    Resume(usize),
    Crash(usize),
    Restart(usize),
    Change,
    Invalidate,
    Tick,
    SlowTick,
    Outage,
    Back,
    BackEmpty,
}

pub(super) struct Cache {
    pub(super) nodes: usize,
    pub(super) faults: Faults,
    pub(super) guards: Guards,
    /// Whether every version is fetched once only: so it is without faults.
    pub(super) fetches_once: bool,
}

impl Model for Cache {
    type State = State;
    type Step = Step;

    fn start(&self) -> State {
        let mut nodes = [FRESH; NODES];
        for absent in &mut nodes[self.nodes..] {
            absent.life = Life::Dead;
        }
        State {
            shelf: Shelf::default(),
            is_away: false,
            version: 1,
            is_told: true,
            nodes,
            left: self.faults,
            fetches: 0,
            broken: None,
        }
    }

    fn steps(&self, state: &State, take: &mut dyn FnMut(Step, State)) {
        let mut to = |step, after: State| take(step, after.renumbered());
        for n in 0..self.nodes {
            match state.nodes[n].life {
                Life::Runs => {
                    self.ask(state, n, &mut to);
                    self.deliver(state, n, &mut to);
                    self.fly(state, n, &mut to);
                    self.suffer(state, n, &mut to);
                }
                Life::Paused => to(
                    Step::Resume(n),
                    state.with(n, |node| node.life = Life::Runs),
                ),
                Life::Dead => to(Step::Restart(n), state.with(n, |node| *node = FRESH)),
            }
            if let Some((token, fence, data)) = state.nodes[n].late
                && !state.is_away
            {
                let mut after = state.with(n, |node| node.late = None);
                after.write(
                    token,
                    Entry {
                        generation: fence,
                        data,
                    },
                    &self.guards,
                );
                to(Step::LateWrite(n), after);
            }
        }
        self.steps_of_world(state, &mut to);
    }

    fn is_optional(&self, step: Step) -> bool {
        matches!(
            step,
            Step::Ask(_)
                | Step::PutBackLate(_)
                | Step::WriteUnheard(_)
                | Step::LateWrite(_)
                | Step::Lose(_)
                | Step::Pause(_)
                | Step::Resume(_)
                | Step::Crash(_)
                | Step::Restart(_)
                | Step::Change
                | Step::SlowTick
                | Step::Outage
                | Step::Back
                | Step::BackEmpty
        )
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        if self.fetches_once && state.fetches > state.version {
            return Some(TWO_FETCHES);
        }
        state.broken
    }

    /// Nobody waits.
    fn is_goal(&self, state: &State) -> bool {
        let running = state.nodes.iter().filter(|node| node.life == Life::Runs);
        running
            .into_iter()
            .all(|node| node.waiters == [None; WAITERS])
    }
}

impl Cache {
    /// `cache::serve`: a request comes.
    fn ask(&self, state: &State, n: usize, to: &mut impl FnMut(Step, State)) {
        let node = &state.nodes[n];
        let Some(place) = node.waiters.iter().position(Option::is_none) else {
            return;
        };
        if state.left.asks == 0 {
            return;
        }
        let mut after = *state;
        after.left.asks -= 1;
        if let Some(held) = node.held
            && held.entry.generation >= node.epoch
            && node.is_checked
            && node.newest <= held.entry.generation
        {
            after.serve_as_fresh(n, held.entry);
        } else {
            let node = &mut after.nodes[n];
            node.waiters[place] = Some(Waiter {
                asked_after: node.epoch,
                knew: node.knows,
            });
            if node.flight == Flight::None {
                node.look();
            }
        }
        to(Step::Ask(n), after);
    }

    fn deliver(&self, state: &State, n: usize, to: &mut impl FnMut(Step, State)) {
        if state.nodes[n].inbox == Inbox::default() {
            return;
        }
        to(
            Step::Deliver(n),
            state.with(n, |node| {
                let Inbox {
                    generation,
                    epoch,
                    invalidated,
                    released,
                } = std::mem::take(&mut node.inbox);
                node.newest = node.newest.max(generation);
                node.epoch = node.epoch.max(epoch);
                node.knows = node.knows.max(invalidated);
                if node.flight == Flight::Held && (generation > 0 || released) {
                    node.look();
                }
            }),
        );
        if state.left.lost > 0 {
            let mut after = state.with(n, |node| {
                node.inbox = Inbox::default();
                node.miss(&self.guards);
            });
            after.left.lost -= 1;
            to(Step::Lose(n), after);
        }
    }

    fn fly(&self, state: &State, n: usize, to: &mut impl FnMut(Step, State)) {
        let node = &state.nodes[n];
        match node.flight {
            Flight::None | Flight::Held => {}
            Flight::Look {
                turn: None,
                looked: None,
            }
            | Flight::Lock
                if state.is_away =>
            {
                self.take_turn_alone(state, n, to);
            }
            // Under the lock, and the store is away: goes on as it was.
            Flight::Look {
                turn: Some(turn),
                looked: None,
            } if state.is_away => {
                to(
                    Step::HearRead(n),
                    state.with(n, |node| node.flight = Flight::Fetch { turn }),
                );
            }
            Flight::Look { turn, looked: None } => {
                let looked = Some(Looked {
                    found: state.shelf.entry,
                    epoch: state.shelf.epoch,
                    invalidated: state.shelf.invalidated,
                });
                to(
                    Step::Read(n),
                    state.with(n, |node| node.flight = Flight::Look { turn, looked }),
                );
            }
            Flight::Look {
                turn,
                looked: Some(looked),
            } => {
                let mut after = *state;
                if after.nodes[n].hear(looked) {
                    after.nodes[n].flight = Flight::PutBack { turn };
                } else {
                    self.decide(&mut after, n, turn);
                }
                to(Step::HearRead(n), after);
            }
            Flight::PutBack { turn } => self.put_back(state, n, turn, to),
            Flight::Lock => to(Step::Lock(n), self.lock(state, n)),
            Flight::Unlock { turn } => {
                let mut after = *state;
                if !state.is_away
                    && state
                        .shelf
                        .lock
                        .is_some_and(|(token, _)| token == turn.fence)
                {
                    after.shelf.lock = None;
                    after.publish(|inbox| inbox.released = true);
                }
                after.land(n, &self.guards, false);
                to(Step::Unlock(n), after);
            }
            Flight::Fetch { turn } => {
                let data = state.version;
                let mut after = state.with(n, |node| node.flight = Flight::Write { turn, data });
                if self.fetches_once {
                    after.fetches += 1;
                }
                to(Step::Fetch(n), after);
            }
            Flight::Write { turn, data } => self.write(state, n, turn, data, to),
            Flight::Written { refused: true, .. } => {
                to(Step::HearWritten(n), state.with(n, Node::look));
            }
            Flight::Written {
                fence,
                data,
                refused: false,
            } => {
                let mut after = *state;
                after.keep(
                    n,
                    Entry {
                        generation: fence,
                        data,
                    },
                    None,
                    &self.guards,
                );
                after.land(n, &self.guards, true);
                to(Step::HearWritten(n), after);
            }
        }
    }

    /// What is there will do, or it takes a fetch.
    fn decide(&self, after: &mut State, n: usize, turn: Option<Turn>) {
        let node = &mut after.nodes[n];
        let will_do = node
            .held
            .is_some_and(|held| held.entry.generation >= node.epoch);
        match turn {
            None if will_do => after.land(n, &self.guards, false),
            None => node.flight = Flight::Lock,
            Some(turn) if will_do => node.flight = Flight::Unlock { turn },
            Some(turn) => node.flight = Flight::Fetch { turn },
        }
    }

    /// `lock.lua`, and its answer.
    fn lock(&self, state: &State, n: usize) -> State {
        let mut after = *state;
        after.nodes[n].flight = if state.shelf.lock.is_some() {
            Flight::Held
        } else {
            let fence = state.now();
            after.shelf.lock = Some((fence, TTL));
            let turn = Turn { fence, alone: None };
            if self.guards.looks_again {
                Flight::Look {
                    turn: Some(turn),
                    looked: None,
                }
            } else {
                Flight::Fetch { turn }
            }
        };
        after
    }

    /// The store cannot be asked: the clock is a guess, somewhere between what
    /// this node has seen of it and the truth.
    fn take_turn_alone(&self, state: &State, n: usize, to: &mut impl FnMut(Step, State)) {
        let began = state.now();
        let turn = Turn {
            fence: began,
            alone: Some(began),
        };
        to(
            Step::Alone(n),
            state.with(n, |node| node.flight = Flight::Fetch { turn }),
        );
        let mut behind = *state;
        let seen = behind.nodes[n].seen();
        if seen + 1 < began {
            behind.make_room_above(seen);
            let turn = Turn {
                fence: seen + 1,
                alone: Some(behind.now()),
            };
            behind.nodes[n].flight = Flight::Fetch { turn };
            to(Step::AloneBehind(n), behind);
        }
    }

    fn write(
        &self,
        state: &State,
        n: usize,
        turn: Turn,
        data: u8,
        to: &mut impl FnMut(Step, State),
    ) {
        let entry = Entry {
            generation: turn.fence,
            data,
        };
        if turn.alone.is_some() || state.is_away {
            // Kept here; put back when the store answers again.
            let mut after = *state;
            after.keep(n, entry, turn.alone, &self.guards);
            after.land(n, &self.guards, true);
            return to(Step::Write(n), after);
        }
        let mut after = *state;
        let fence = if self.guards.fenced_before_fetch {
            turn.fence
        } else {
            state.now()
        };
        let entry = Entry {
            generation: fence,
            data,
        };
        let refused = !after.write(turn.fence, entry, &self.guards);
        after.nodes[n].flight = Flight::Written {
            fence,
            data,
            refused,
        };
        if !refused {
            let node = &mut after.nodes[n];
            node.epoch = node.epoch.max(state.shelf.epoch);
            node.knows = node.knows.max(state.shelf.invalidated);
        }
        to(Step::Write(n), after);
        if state.left.unknown > 0 {
            // It may happen at once, later, or never; the writer goes on.
            let mut after = *state;
            after.left.unknown -= 1;
            after.nodes[n].late = Some((turn.fence, fence, data));
            after.keep(n, entry, None, &self.guards);
            after.land(n, &self.guards, true);
            to(Step::WriteUnheard(n), after);
        }
    }

    /// `Cache::put_back`: this node's copy is newer than what the store has.
    fn put_back(
        &self,
        state: &State,
        n: usize,
        turn: Option<Turn>,
        to: &mut impl FnMut(Step, State),
    ) {
        let Some(held) = state.nodes[n].held else {
            return;
        };
        let mut after = *state;
        if !state.is_away {
            after.put_back(n, held, &self.guards);
        }
        self.decide(&mut after, n, turn);
        to(Step::PutBack(n), after);
        if held.alone.is_some()
            && !self.guards.ranked_by_reading
            && state.left.slow > 0
            && !state.is_away
        {
            // Counted from when the write arrives: after what happened while it was on its way.
            let mut after = *state;
            after.left.slow -= 1;
            let mut held = held;
            held.entry.generation = state.now();
            after.put_back(n, held, &self.guards);
            self.decide(&mut after, n, turn);
            to(Step::PutBackLate(n), after);
        }
    }

    fn suffer(&self, state: &State, n: usize, to: &mut impl FnMut(Step, State)) {
        if state.left.pauses > 0 && state.nodes[n].flight != Flight::None {
            let mut after = state.with(n, |node| node.life = Life::Paused);
            after.left.pauses -= 1;
            to(Step::Pause(n), after);
        }
        if state.left.crashes > 0 {
            let mut after = state.with(n, |node| {
                *node = Node {
                    life: Life::Dead,
                    late: node.late,
                    ..FRESH
                };
            });
            after.left.crashes -= 1;
            to(Step::Crash(n), after);
        }
    }

    /// The upstream, time, and the store's own faults.
    fn steps_of_world(&self, state: &State, to: &mut impl FnMut(Step, State)) {
        if state.left.changes > 0 && state.is_told {
            let mut after = *state;
            after.left.changes -= 1;
            after.version += 1;
            after.is_told = false;
            to(Step::Change, after);
        }
        if !state.is_told && !state.is_away {
            let mut after = *state;
            let epoch = state.now();
            after.is_told = true;
            after.shelf.epoch = epoch;
            after.shelf.invalidated = state.version;
            after.publish(|inbox| {
                inbox.epoch = epoch;
                inbox.invalidated = state.version;
            });
            to(Step::Invalidate, after);
        }
        let running = || {
            state.nodes[..self.nodes]
                .iter()
                .filter(|node| node.life == Life::Runs)
        };
        let has_to_act = running().any(|node| {
            node.inbox != Inbox::default() || !matches!(node.flight, Flight::None | Flight::Held)
        });
        let waits = running().any(|node| node.flight == Flight::Held);
        if !has_to_act && waits {
            to(Step::Tick, self.tick(state));
        } else if state.left.slow > 0 && state.shelf.lock.is_some() {
            let mut after = self.tick(state);
            after.left.slow -= 1;
            to(Step::SlowTick, after);
        }
        if state.is_away {
            let mut after = *state;
            after.is_away = false;
            for node in &mut after.nodes {
                node.miss(&self.guards);
                if node.flight == Flight::Held {
                    node.look();
                }
            }
            to(Step::Back, after);
            after.shelf = Shelf::default();
            to(Step::BackEmpty, after);
        } else if state.left.outages > 0 {
            let mut after = *state;
            after.left.outages -= 1;
            after.is_away = true;
            // What was published and is not delivered is lost with the connection.
            for node in &mut after.nodes {
                node.inbox = Inbox::default();
            }
            to(Step::Outage, after);
        }
    }

    fn tick(&self, state: &State) -> State {
        let mut after = *state;
        if let Some((token, left)) = state.shelf.lock {
            // `lock_extend.lua`, by whoever fetches under it.
            let extends = |node: &Node| {
                let fetches = matches!(node.flight, Flight::Fetch { turn } if turn.fence == token);
                fetches && node.life == Life::Runs && !state.is_away
            };
            after.shelf.lock = if state.nodes.iter().any(extends) {
                Some((token, TTL))
            } else if left > 1 || !self.guards.locks_end {
                Some((token, left.saturating_sub(1)))
            } else {
                None
            };
        }
        for node in &mut after.nodes {
            if node.flight == Flight::Held && node.life == Life::Runs && self.guards.waiters_look {
                node.look();
            }
        }
        after
    }
}
