//! Leases: one duty, two or three nodes, a store that forgets nothing unless
//! it is restarted empty.
//!
//! | step | in the code |
//! |---|---|
//! | `Acquire` | `lease_acquire.lua`, asked by `cluster/duties.rs` |
//! | `Renew` | `lease_renew.lua` |
//! | `Release` | `lease_release.lua` |
//! | `Write` | `record_fenced.lua`, a write of the duty's work |
//! | `Begin*`, `Hear`, `GiveUp`, `Stop` | `cluster/lease.rs`: what a node decides by its clock and the answers |
//! | `Late` | a script that runs although nobody waits for its answer any more |
//! | `Tick` | time; a lease lives for [`TTL`] of them |
//!
//! Whose turn it is: the first node that is alive as far as is known (rendezvous
//! hashing gives every duty such an order). A stand-in may ask at any time, which
//! is more than it does, so that safety does not depend on its patience.
//!
//! Fences are numbered anew in every state, which keeps their order and bounds
//! their number; `order` is the order in which grants were really given.

mod state;

use super::explore::Model;
pub(super) use state::{Answer, Grant, Shelf};
use state::{Ask, FRESH, Life, Node, Phase, Request, State};

/// Time to live of a lease, in ticks.
const TTL: u8 = 3;
/// A command that has not been answered for so many ticks is given up, and no
/// write takes longer on its way unless something was paused.
const COMMAND: u8 = 1;
/// A write that is older was paused, or was stopped.
const PAUSED: u8 = COMMAND + 1;

pub(super) const NODES: usize = 3;

/// What keeps the model right; each can be left out to see that it is needed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guards {
    /// `record_fenced.lua` compares fences.
    pub(super) writes_are_fenced: bool,
    /// `lease_renew.lua` and `lease_release.lua` compare holders.
    pub(super) holders_are_compared: bool,
    /// Work ends before the lease does by what a write may take.
    pub(super) margin: u8,
    /// A lease is believed from before it was asked for.
    pub(super) counted_from_before: bool,
    /// A node that was paused looks at its lease before it goes on.
    pub(super) stops_in_time: bool,
    /// `lease_acquire.lua` draws fences from the clock.
    pub(super) fences_are_times: bool,
    /// Work has ended when its lease is given back.
    pub(super) stopped_before_release: bool,
    /// A holder is told that it is another's turn.
    pub(super) holder_is_told: bool,
    /// `lease_release.lua` compares fences: one that is late ends nothing newer.
    pub(super) releases_name_their_fence: bool,
}

/// As it is.
pub(super) const GUARDED: Guards = Guards {
    writes_are_fenced: true,
    holders_are_compared: true,
    margin: COMMAND,
    counted_from_before: true,
    stops_in_time: true,
    fences_are_times: true,
    stopped_before_release: true,
    holder_is_told: true,
    releases_name_their_fence: true,
};

/// How often each fault may happen on one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Faults {
    pub(super) pauses: u8,
    pub(super) crashes: u8,
    /// Ticks that pass while commands are under way.
    pub(super) slow: u8,
    /// Times that the store cannot be reached; it may come back empty.
    pub(super) outages: u8,
    /// Times that a duty is defined anew: given back and asked for at once.
    pub(super) redefined: u8,
    /// Times that a node asks though it is another's turn.
    pub(super) stand_ins: u8,
    /// Writes of the work. Two are enough for one to be late.
    pub(super) writes: u8,
}

pub(super) const OVERLAP: &str = "two nodes work under a lease at the same time";
pub(super) const STALE_WRITE: &str = "a write replaced that of a newer holder";
pub(super) const LATE_WRITE: &str =
    "a write that was not paused came after the next holder's lease";

#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "whose step it is: printed in counterexamples")]
pub(super) enum Step {
    BeginAcquire(usize),
    /// Asks though it is another's turn.
    StandIn(usize),
    BeginRenew(usize),
    BeginRelease(usize),
    BeginWrite(usize),
    Acquire(usize),
    Renew(usize),
    Release(usize),
    Write(usize),
    Late(usize),
    Hear(usize),
    /// The same, and no other node hears that the lease is free.
    HearUnheard(usize),
    GiveUp(usize),
    Stop(usize),
    GoAlone(usize),
    Redefine(usize),
    Pause(usize),
    Resume(usize),
    Crash(usize),
    Restart(usize),
    Tick,
    SlowTick,
    Outage,
    Back,
    BackEmpty,
}

pub(super) struct Leases {
    pub(super) nodes: usize,
    pub(super) faults: Faults,
    pub(super) guards: Guards,
}

impl Model for Leases {
    type State = State;
    type Step = Step;

    fn start(&self) -> State {
        let mut nodes = [FRESH; NODES];
        for absent in &mut nodes[self.nodes..] {
            absent.life = Life::Dead;
            absent.silent = TTL;
        }
        State {
            shelf: Shelf::default(),
            nodes,
            away: None,
            left: self.faults,
            granted: (0, 0),
            accepted: 0,
            forgot: 0,
            broken: None,
        }
    }

    fn steps(&self, state: &State, take: &mut dyn FnMut(Step, State)) {
        let mut to = |step, after: State| take(step, after.renumbered());
        for n in 0..self.nodes {
            self.steps_of_store(state, n, &mut to);
            match state.nodes[n].life {
                Life::Runs => self.steps_of_node(state, n, &mut to),
                Life::Paused => to(
                    Step::Resume(n),
                    state.with(n, |node| {
                        node.life = Life::Runs;
                        node.silent = 0;
                    }),
                ),
                Life::Dead => to(
                    Step::Restart(n),
                    state.with(n, |node| {
                        // Another incarnation: what the last one sent is as good as lost.
                        *node = FRESH;
                    }),
                ),
            }
        }
        self.steps_of_time(state, &mut to);
    }

    fn is_optional(&self, step: Step) -> bool {
        matches!(
            step,
            Step::StandIn(_)
                | Step::BeginWrite(_)
                | Step::Late(_)
                | Step::Redefine(_)
                | Step::Pause(_)
                | Step::Resume(_)
                | Step::Crash(_)
                | Step::Restart(_)
                | Step::SlowTick
                | Step::Outage
                | Step::Back
                | Step::BackEmpty
        )
    }

    fn broken(&self, state: &State) -> Option<&'static str> {
        let working = (0..self.nodes).filter(|n| self.works(&state.nodes[*n]));
        if state.forgot == 0 && working.count() > 1 {
            return Some(OVERLAP);
        }
        state.broken
    }

    /// Whose turn it is holds the lease and works; without the store everybody works.
    fn is_goal(&self, state: &State) -> bool {
        let mut running = (0..self.nodes).filter(|n| state.nodes[*n].life == Life::Runs);
        if state.away.is_some() {
            return running.all(|n| state.nodes[n].phase == Phase::Alone);
        }
        let nobody = running.clone().next().is_none();
        nobody || running.any(|n| self.works(&state.nodes[n]) && state.rank(n) == 0)
    }
}

impl Leases {
    fn believed(&self) -> u8 {
        TTL - self.guards.margin
    }

    /// Whether its work may take a step.
    fn works(&self, node: &Node) -> bool {
        let Phase::Held { age, .. } = node.phase else {
            return false;
        };
        node.life == Life::Runs && (age < self.believed() || !self.guards.stops_in_time)
    }

    fn steps_of_store(&self, state: &State, n: usize, to: &mut impl FnMut(Step, State)) {
        let node = &state.nodes[n];
        if state.away.is_some() {
            return;
        }
        if let Some(Request {
            ask, answer: None, ..
        }) = node.request
        {
            let (mut after, answer) = self.run(state, n, ask);
            if let Some(request) = &mut after.nodes[n].request {
                request.answer = Some(answer);
            }
            let step = match ask {
                Ask::Acquire { .. } => Step::Acquire(n),
                Ask::Renew => Step::Renew(n),
                Ask::Release { .. } => Step::Release(n),
            };
            to(step, after);
        }
        if let Some(ask) = node.late {
            let (mut after, _) = self.run(state, n, ask);
            after.nodes[n].late = None;
            to(Step::Late(n), after);
        }
        if let Some((grant, age)) = node.write {
            let mut after = *state;
            after.nodes[n].write = None;
            let (newest, holder) = state.granted;
            if age < PAUSED && newest > grant.order && holder != n as u8 && state.forgot == 0 {
                after.broken = Some(LATE_WRITE);
            }
            if after.shelf.write(grant, &self.guards) {
                if grant.order < state.accepted {
                    after.broken = Some(STALE_WRITE);
                }
                after.accepted = state.accepted.max(grant.order);
            }
            to(Step::Write(n), after);
        }
    }

    fn run(&self, state: &State, n: usize, ask: Ask) -> (State, Answer) {
        let mut after = *state;
        let caller = n as u8;
        let answer = match ask {
            Ask::Acquire { is_turn } => {
                let grant = Grant {
                    order: state.granted.0 + 1,
                    fence: 1 + if self.guards.fences_are_times {
                        state.highest_fence()
                    } else {
                        state.shelf.last
                    },
                };
                let answer = after.shelf.acquire(caller, is_turn, grant);
                if let Answer::Acquired(grant) = answer {
                    after.granted = (grant.order, caller);
                }
                answer
            }
            Ask::Renew => after.shelf.renew(caller, &self.guards),
            Ask::Release { named } => after.shelf.release(caller, named.fence, &self.guards),
        };
        (after, answer)
    }

    fn steps_of_node(&self, state: &State, n: usize, to: &mut impl FnMut(Step, State)) {
        let node = &state.nodes[n];
        if let Phase::Held { grant, .. } = node.phase
            && self.works(node)
            && node.write.is_none()
            && state.left.writes > 0
        {
            let mut after = state.with(n, |node| node.write = Some((grant, 0)));
            after.left.writes -= 1;
            to(Step::BeginWrite(n), after);
        }
        if let Some(request) = node.request {
            self.steps_of_request(state, n, request, to);
        } else {
            self.steps_of_keeper(state, n, to);
        }
        if state.left.pauses > 0 {
            let mut after = state.with(n, |node| node.life = Life::Paused);
            after.left.pauses -= 1;
            to(Step::Pause(n), after);
        }
        if state.left.crashes > 0 {
            let mut after = state.with(n, |node| {
                node.life = Life::Dead;
                node.phase = Phase::Idle { wait: 0 };
                // What is under way may still arrive.
                node.late = node
                    .request
                    .take()
                    .filter(|sent| sent.answer.is_none())
                    .map(|sent| sent.ask);
            });
            after.left.crashes -= 1;
            to(Step::Crash(n), after);
        }
    }

    /// The keeper waits for an answer.
    fn steps_of_request(
        &self,
        state: &State,
        n: usize,
        request: Request,
        to: &mut impl FnMut(Step, State),
    ) {
        if let Some(answer) = request.answer {
            let heard = state.with(n, |node| {
                node.request = None;
                self.hear(node, request, answer);
            });
            if answer == Answer::Released {
                to(Step::HearUnheard(n), heard);
                to(Step::Hear(n), heard.told_of_release());
            } else {
                to(Step::Hear(n), heard);
            }
        }
        if request.age >= COMMAND || state.away.is_some() {
            let unrun = request.answer.is_none() && state.away.is_none();
            to(
                Step::GiveUp(n),
                state.with(n, |node| {
                    node.request = None;
                    if unrun {
                        node.late = Some(request.ask);
                    }
                }),
            );
        }
    }

    /// What an answer makes a node believe.
    fn hear(&self, node: &mut Node, request: Request, answer: Answer) {
        let age = if self.guards.counted_from_before {
            request.age
        } else {
            0
        };
        match (answer, node.phase) {
            (Answer::Acquired(grant), _) => {
                node.phase = Phase::Held {
                    grant,
                    age,
                    wanted: false,
                }
            }
            (Answer::Held(left), _) => {
                node.stop_work();
                node.phase = Phase::Idle { wait: left };
            }
            (Answer::Kept | Answer::Wanted, Phase::Held { grant, .. }) => {
                let wanted = answer == Answer::Wanted;
                node.phase = Phase::Held { grant, age, wanted };
            }
            (Answer::Lost, Phase::Held { .. }) => {
                node.stop_work();
                node.phase = Phase::Idle { wait: 0 };
            }
            (Answer::Kept | Answer::Wanted | Answer::Lost, Phase::Idle { .. } | Phase::Alone)
            | (Answer::Released | Answer::NotReleased, _) => {}
        }
    }

    /// The keeper decides: `Phase::step`.
    fn steps_of_keeper(&self, state: &State, n: usize, to: &mut impl FnMut(Step, State)) {
        let node = &state.nodes[n];
        let is_turn = state.rank(n) == 0;
        let begin = |ask| {
            state.with(n, |node| {
                node.request = Some(Request {
                    ask,
                    age: 0,
                    answer: None,
                })
            })
        };
        let gone_for_long = state.away == Some(TTL);
        let reachable = state.away.is_none();
        let release = |grant: Grant| {
            state.with(n, |node| {
                if self.guards.stopped_before_release {
                    node.stop_work();
                    node.phase = Phase::Idle { wait: 0 };
                }
                let named = Grant { order: 0, ..grant };
                node.request = Some(Request {
                    ask: Ask::Release { named },
                    age: 0,
                    answer: None,
                });
            })
        };
        match node.phase {
            Phase::Held { age, .. } if age >= self.believed() && self.guards.stops_in_time => {
                to(
                    Step::Stop(n),
                    state.with(n, |node| {
                        node.stop_work();
                        node.phase = if gone_for_long {
                            Phase::Alone
                        } else {
                            Phase::Idle { wait: 0 }
                        };
                    }),
                );
            }
            Phase::Held {
                wanted: true,
                grant,
                ..
            } if reachable && !is_turn => {
                to(Step::BeginRelease(n), release(grant));
            }
            Phase::Held { age, grant, .. } => {
                if reachable && age > 0 {
                    to(Step::BeginRenew(n), begin(Ask::Renew));
                }
                if reachable && state.left.redefined > 0 {
                    let mut after = release(grant);
                    after.left.redefined -= 1;
                    to(Step::Redefine(n), after);
                }
            }
            Phase::Idle { .. } if gone_for_long => {
                to(
                    Step::GoAlone(n),
                    state.with(n, |node| node.phase = Phase::Alone),
                );
            }
            Phase::Idle { wait } if reachable => {
                if !is_turn && state.left.stand_ins > 0 {
                    let mut after = begin(Ask::Acquire { is_turn });
                    after.left.stand_ins -= 1;
                    to(Step::StandIn(n), after);
                } else if is_turn && wait == 0 {
                    to(Step::BeginAcquire(n), begin(Ask::Acquire { is_turn }));
                }
            }
            Phase::Alone if reachable && is_turn => {
                to(Step::BeginAcquire(n), begin(Ask::Acquire { is_turn }));
            }
            Phase::Alone if reachable => {
                to(
                    Step::Stop(n),
                    state.with(n, |node| node.phase = Phase::Idle { wait: 0 }),
                );
            }
            Phase::Idle { .. } | Phase::Alone => {}
        }
    }

    /// Time, and the store's own faults.
    fn steps_of_time(&self, state: &State, to: &mut impl FnMut(Step, State)) {
        // A node that can do something does it before time passes, unless it is paused.
        let mut has_to_act = false;
        let mut waits = false;
        for n in 0..self.nodes {
            if state.nodes[n].life != Life::Runs {
                continue;
            }
            if let Some(request) = state.nodes[n].request {
                let is_over = request.age >= COMMAND || state.away.is_some();
                has_to_act |= is_over;
                waits |= !is_over;
            } else {
                self.steps_of_keeper(state, n, &mut |step, _| {
                    has_to_act |= !self.is_optional(step);
                });
            }
        }
        if !has_to_act && !waits {
            to(Step::Tick, self.tick(state));
        }
        if !has_to_act && waits && state.left.slow > 0 {
            let mut after = self.tick(state);
            after.left.slow -= 1;
            to(Step::SlowTick, after);
        }
        match state.away {
            None if state.left.outages > 0 => {
                let mut after = *state;
                after.left.outages -= 1;
                after.away = Some(0);
                to(Step::Outage, after);
            }
            None => {}
            Some(_) => {
                let mut after = *state;
                after.away = None;
                to(Step::Back, after);
                after.forgot = if state.shelf.lease.is_some() {
                    TTL
                } else {
                    state.forgot
                };
                after.shelf = Shelf::default();
                after.accepted = 0;
                to(Step::BackEmpty, after);
            }
        }
    }

    fn tick(&self, state: &State) -> State {
        let mut after = *state;
        let passed = |left: &mut Option<(u8, u8)>| {
            *left = left.and_then(|(node, left)| (left > 1).then(|| (node, left - 1)));
        };
        passed(&mut after.shelf.lease);
        passed(&mut after.shelf.wanted);
        after.away = state.away.map(|ticks| (ticks + 1).min(TTL));
        after.forgot = state.forgot.saturating_sub(1);
        for node in &mut after.nodes[..self.nodes] {
            match &mut node.phase {
                Phase::Idle { wait } => *wait = wait.saturating_sub(1),
                Phase::Held { age, .. } => *age = (*age + 1).min(TTL),
                Phase::Alone => {}
            }
            if let Some(request) = &mut node.request {
                request.age = (request.age + 1).min(TTL);
            }
            if let Some((_, age)) = &mut node.write {
                *age = (*age + 1).min(PAUSED);
            }
            if node.life != Life::Runs {
                node.silent = (node.silent + 1).min(TTL);
            }
        }
        after
    }
}
