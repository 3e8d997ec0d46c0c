//! What there is at one moment: in the store, at the nodes, on its way.

use super::{Faults, Guards, NODES, PAUSED, TTL};

/// A lease as it was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Grant {
    pub(crate) order: u8,
    pub(crate) fence: u8,
}

/// What the scripts keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Shelf {
    /// KEYS[1]: holder and what is left.
    pub(crate) lease: Option<(u8, u8)>,
    /// KEYS[2].
    pub(crate) last: u8,
    /// KEYS[3]: who wants it, and for how much longer.
    pub(crate) wanted: Option<(u8, u8)>,
    /// The fenced record: the grant of its last writer.
    pub(crate) record: Option<Grant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Answer {
    Acquired(Grant),
    Held(u8),
    Kept,
    Wanted,
    Lost,
    Released,
    NotReleased,
}

/// One method per script.
impl Shelf {
    /// `lease_acquire.lua`. `grant` is what the clock and the counter yield.
    pub(crate) fn acquire(&mut self, caller: u8, is_turn: bool, grant: Grant) -> Answer {
        if let Some((holder, left)) = self.lease
            && holder != caller
        {
            if is_turn {
                self.wanted = Some((caller, TTL));
            }
            return Answer::Held(left);
        }
        self.lease = Some((caller, TTL));
        self.last = grant.fence;
        if self.wanted.is_some_and(|(node, _)| node == caller) {
            self.wanted = None;
        }
        Answer::Acquired(grant)
    }

    /// `lease_renew.lua`.
    pub(crate) fn renew(&mut self, caller: u8, guards: &Guards) -> Answer {
        match self.lease {
            Some((holder, _)) if holder == caller || !guards.holders_are_compared => {
                self.lease = Some((holder, TTL));
            }
            Some(_) | None => return Answer::Lost,
        }
        match self.wanted {
            Some((node, _)) if node != caller && guards.holder_is_told => Answer::Wanted,
            Some(_) | None => Answer::Kept,
        }
    }

    /// `lease_release.lua`.
    pub(crate) fn release(&mut self, caller: u8, fence: u8, guards: &Guards) -> Answer {
        let is_named = self.last == fence || !guards.releases_name_their_fence;
        match self.lease {
            Some((holder, _)) if (holder == caller && is_named) || !guards.holders_are_compared => {
                self.lease = None;
                Answer::Released
            }
            Some(_) | None => Answer::NotReleased,
        }
    }

    /// `record_fenced.lua`: whether it was written.
    pub(crate) fn write(&mut self, grant: Grant, guards: &Guards) -> bool {
        let newer = |stored: Grant| stored.fence > grant.fence;
        if guards.writes_are_fenced && self.record.is_some_and(newer) {
            return false;
        }
        self.record = Some(grant);
        true
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Life {
    Runs,
    Paused,
    Dead,
}

/// `cluster::lease::Phase`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Idle { wait: u8 },
    Held { grant: Grant, age: u8, wanted: bool },
    Alone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Ask {
    Acquire { is_turn: bool },
    Renew,
    Release { named: Grant },
}

/// A command under way; a node has one at a time for a duty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Request {
    pub(crate) ask: Ask,
    pub(crate) age: u8,
    pub(crate) answer: Option<Answer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) life: Life,
    pub(crate) phase: Phase,
    pub(crate) request: Option<Request>,
    /// Given up, and not run yet.
    pub(crate) late: Option<Ask>,
    /// A write of the work on its way: under which grant, since when.
    pub(crate) write: Option<(Grant, u8)>,
    /// Ticks since the others heard of it.
    pub(crate) silent: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) shelf: Shelf,
    pub(crate) nodes: [Node; NODES],
    /// The store cannot be reached, for so many ticks.
    pub(crate) away: Option<u8>,
    pub(crate) left: Faults,
    /// The grant given last, and to whom.
    pub(crate) granted: (u8, u8),
    /// The newest grant whose write was accepted since the store was empty.
    pub(crate) accepted: u8,
    /// For so many ticks somebody may believe in a lease that an emptied store forgot.
    pub(crate) forgot: u8,
    pub(crate) broken: Option<&'static str>,
}

pub(crate) const FRESH: Node = Node {
    life: Life::Runs,
    phase: Phase::Idle { wait: 0 },
    request: None,
    late: None,
    write: None,
    silent: 0,
};

impl Node {
    /// What the work has sent may still arrive; nobody waits for it.
    pub(crate) fn stop_work(&mut self) {
        if let Some((_, age)) = &mut self.write {
            *age = PAUSED;
        }
    }
}

impl State {
    pub(crate) fn with(&self, n: usize, change: impl FnOnce(&mut Node)) -> Self {
        let mut after = *self;
        change(&mut after.nodes[n]);
        after
    }

    /// Nodes before this one, of those that are thought to live.
    pub(crate) fn rank(&self, n: usize) -> usize {
        self.nodes[..n]
            .iter()
            .filter(|node| node.silent < TTL)
            .count()
    }

    /// `News::LeasesReleased`.
    pub(crate) fn told_of_release(mut self) -> Self {
        for n in 0..NODES {
            let is_turn = self.rank(n) == 0;
            if let (Life::Runs, Phase::Idle { wait }, true) =
                (self.nodes[n].life, &mut self.nodes[n].phase, is_turn)
            {
                *wait = 0;
            }
        }
        self
    }

    /// Every grant that somebody knows of.
    pub(crate) fn each(&mut self, visit: &mut dyn FnMut(&mut Grant)) {
        for node in &mut self.nodes {
            if let Phase::Held { grant, .. } = &mut node.phase {
                visit(grant);
            }
            if let Some(Ask::Release { named }) = &mut node.late {
                visit(named);
            }
            if let Some(request) = &mut node.request {
                if let Ask::Release { named } = &mut request.ask {
                    visit(named);
                }
                if let Some(Answer::Acquired(grant)) = &mut request.answer {
                    visit(grant);
                }
            }
            if let Some((grant, _)) = &mut node.write {
                visit(grant);
            }
        }
        self.shelf.record.iter_mut().for_each(visit);
    }

    pub(crate) fn highest_fence(&self) -> u8 {
        let (mut state, mut highest) = (*self, self.shelf.last);
        state.each(&mut |grant| highest = highest.max(grant.fence));
        highest
    }

    /// Numbers grants and fences anew, from 1, in the same order.
    pub(crate) fn renumbered(mut self) -> Self {
        let (mut orders, mut fences) = (Numbers::default(), Numbers::default());
        orders.note(self.granted.0);
        orders.note(self.accepted);
        fences.note(self.shelf.last);
        self.each(&mut |grant| {
            orders.note(grant.order);
            fences.note(grant.fence);
        });
        self.granted.0 = orders.place(self.granted.0);
        self.accepted = orders.place(self.accepted);
        self.shelf.last = fences.place(self.shelf.last);
        self.each(&mut |grant| {
            grant.order = orders.place(grant.order);
            grant.fence = fences.place(grant.fence);
        });
        self
    }
}

/// A set of numbers below 32. Zero stays zero: never.
#[derive(Default)]
struct Numbers(u32);

impl Numbers {
    fn note(&mut self, number: u8) {
        self.0 |= (1 << number) & !1;
    }

    fn place(&self, number: u8) -> u8 {
        let below = (1u32 << number) - 1;
        let place = (self.0 & below).count_ones() + u32::from(number > 0);
        u8::try_from(place).expect("below 32")
    }
}
