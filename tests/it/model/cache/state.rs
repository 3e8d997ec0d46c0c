//! What there is at one moment: in the store, at the nodes, on its way.

use super::{Faults, Guards, NODES, OUT_OF_DATE, REPLACED, TOO_OLD, WAITERS};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    pub(crate) generation: u8,
    /// The version of the upstream that was read.
    pub(crate) data: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Shelf {
    pub(crate) entry: Option<Entry>,
    /// Token (the fence it was given with), and what is left.
    pub(crate) lock: Option<(u8, u8)>,
    pub(crate) epoch: u8,
    /// The version of the upstream that the latest invalidation was about.
    pub(crate) invalidated: u8,
}

/// A copy in L1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Held {
    pub(crate) entry: Entry,
    /// `Origin::Alone`: when its fetch began.
    pub(crate) alone: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Waiter {
    /// The epoch known when it came, and the version that it stands for.
    pub(crate) asked_after: u8,
    pub(crate) knew: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Turn {
    pub(crate) fence: u8,
    /// Without a lock; the fence is a guess, this is the true moment.
    pub(crate) alone: Option<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Looked {
    pub(crate) found: Option<Entry>,
    pub(crate) epoch: u8,
    pub(crate) invalidated: u8,
}

/// `cache::refresh`, step by step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Flight {
    None,
    /// Looks, before or after the lock was taken.
    Look {
        turn: Option<Turn>,
        looked: Option<Looked>,
    },
    /// Puts its copy back into the store.
    PutBack {
        turn: Option<Turn>,
    },
    Lock,
    /// Another node holds the lock.
    Held,
    Unlock {
        turn: Turn,
    },
    Fetch {
        turn: Turn,
    },
    Write {
        turn: Turn,
        data: u8,
    },
    /// The script has run.
    Written {
        fence: u8,
        data: u8,
        refused: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Life {
    Runs,
    Paused,
    Dead,
}

/// What was published and not heard yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Inbox {
    pub(crate) generation: u8,
    pub(crate) epoch: u8,
    pub(crate) invalidated: u8,
    pub(crate) released: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(crate) life: Life,
    pub(crate) held: Option<Held>,
    pub(crate) is_checked: bool,
    /// Messages were lost since its flight looked first.
    pub(crate) gap_in_flight: bool,
    pub(crate) newest: u8,
    pub(crate) epoch: u8,
    /// The newest version it knows to have replaced others.
    pub(crate) knows: u8,
    pub(crate) inbox: Inbox,
    pub(crate) waiters: [Option<Waiter>; WAITERS],
    pub(crate) flight: Flight,
    /// A write of which it knows nothing any more: token, fence, data.
    pub(crate) late: Option<(u8, u8, u8)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct State {
    pub(crate) shelf: Shelf,
    pub(crate) is_away: bool,
    /// The upstream's version, and whether everybody was told.
    pub(crate) version: u8,
    pub(crate) is_told: bool,
    pub(crate) nodes: [Node; NODES],
    pub(crate) left: Faults,
    pub(crate) fetches: u8,
    pub(crate) broken: Option<&'static str>,
}

pub(crate) const FRESH: Node = Node {
    life: Life::Runs,
    held: None,
    is_checked: true,
    gap_in_flight: false,
    newest: 0,
    epoch: 0,
    knows: 0,
    inbox: Inbox {
        generation: 0,
        epoch: 0,
        invalidated: 0,
        released: false,
    },
    waiters: [None; WAITERS],
    flight: Flight::None,
    late: None,
};

impl Node {
    /// `Cache::consult`; whether this node's copy has to be put into the store.
    pub(crate) fn hear(&mut self, looked: Looked) -> bool {
        if let Some(held) = &mut self.held
            && let Some(began) = held.alone
            && held.entry.generation >= self.epoch
        {
            // `rank_again`: the store's clock is known now.
            held.entry.generation = began;
        }
        self.epoch = self.epoch.max(looked.epoch);
        self.knows = self.knows.max(looked.invalidated);
        match (self.held, looked.found) {
            (Some(ours), Some(theirs)) if ours.entry.generation <= theirs.generation => {
                self.adopt(theirs);
                false
            }
            (Some(ours), _) => {
                self.is_checked = !self.gap_in_flight;
                self.newest = ours.entry.generation;
                let in_store = looked.found.is_some_and(|found| found == ours.entry);
                !in_store && ours.entry.generation >= self.epoch
            }
            (None, Some(theirs)) => {
                self.adopt(theirs);
                false
            }
            (None, None) => false,
        }
    }

    pub(crate) fn adopt(&mut self, entry: Entry) {
        self.held = Some(Held { entry, alone: None });
        self.is_checked = !self.gap_in_flight;
    }

    /// A flight starts, or starts over.
    pub(crate) fn look(&mut self) {
        self.flight = Flight::Look {
            turn: None,
            looked: None,
        };
        self.gap_in_flight = false;
    }

    /// A gap: messages may have been lost.
    pub(crate) fn miss(&mut self, guards: &Guards) {
        self.is_checked = !guards.gaps_are_heeded;
        self.gap_in_flight = guards.flights_heed_gaps;
    }

    /// The newest moment of the store's clock that it has seen.
    pub(crate) fn seen(&self) -> u8 {
        let held = self.held.map_or(0, |held| held.entry.generation);
        self.epoch.max(held)
    }
}

impl State {
    pub(crate) fn with(&self, n: usize, change: impl FnOnce(&mut Node)) -> Self {
        let mut after = *self;
        change(&mut after.nodes[n]);
        after
    }

    pub(crate) fn publish(&mut self, word: impl Fn(&mut Inbox)) {
        for node in self.nodes.iter_mut().filter(|node| node.life != Life::Dead) {
            word(&mut node.inbox);
        }
    }

    /// `entry_write.lua`; false: refused.
    pub(crate) fn write(&mut self, token: u8, entry: Entry, guards: &Guards) -> bool {
        if self.shelf.lock.is_some_and(|(held, _)| held == token) {
            self.shelf.lock = None;
        }
        if let Some(stored) = self.shelf.entry
            && stored.generation > entry.generation
        {
            if guards.writes_are_fenced {
                return false;
            }
            self.broken = Some(REPLACED);
        }
        self.shelf.entry = Some(entry);
        self.publish(|inbox| inbox.generation = inbox.generation.max(entry.generation));
        true
    }

    pub(crate) fn put_back(&mut self, n: usize, held: Held, guards: &Guards) {
        // Without a lock two may have the same place: the first one stays.
        let is_there = |stored: Entry| stored.generation == held.entry.generation;
        let refused = held.alone.is_some() && self.shelf.entry.is_some_and(is_there);
        if !refused && self.write(0, held.entry, guards) {
            let (epoch, invalidated) = (self.shelf.epoch, self.shelf.invalidated);
            let node = &mut self.nodes[n];
            node.held = Some(Held {
                alone: None,
                ..held
            });
            node.epoch = node.epoch.max(epoch);
            node.knows = node.knows.max(invalidated);
        } else if let Some(stored) = self.shelf.entry {
            self.nodes[n].adopt(stored);
        }
    }

    /// `L1::offer`.
    pub(crate) fn keep(&mut self, n: usize, entry: Entry, alone: Option<u8>, guards: &Guards) {
        let node = &mut self.nodes[n];
        if let Some(there) = node.held
            && there.entry.generation > entry.generation
        {
            if guards.copies_are_compared {
                return;
            }
            self.broken = Some(REPLACED);
        }
        node.held = Some(Held { entry, alone });
        node.is_checked = !node.gap_in_flight;
    }

    /// Ends the flight; who is not served by what it brought flies again.
    pub(crate) fn land(&mut self, n: usize, guards: &Guards, is_fetched: bool) {
        let node = self.nodes[n];
        self.nodes[n].flight = Flight::None;
        let Some(held) = node.held else {
            self.nodes[n].look();
            return;
        };
        let is_fresh = held.entry.generation >= node.epoch;
        for place in 0..WAITERS {
            let Some(waiter) = node.waiters[place] else {
                continue;
            };
            let is_for_it =
                held.entry.generation >= waiter.asked_after || !guards.requests_remember;
            if is_for_it && (is_fresh || is_fetched) {
                self.nodes[n].waiters[place] = None;
                if held.entry.data < waiter.knew {
                    self.broken = Some(TOO_OLD);
                }
            } else {
                self.nodes[n].look();
            }
        }
    }

    /// Served without asking anybody, to a request that comes now.
    pub(crate) fn serve_as_fresh(&mut self, n: usize, entry: Entry) {
        let node = &self.nodes[n];
        // What it has heard of, and what it must have heard if nothing is on its way.
        let told = match node.inbox.invalidated == 0 && !self.is_away {
            true => node.knows.max(self.shelf.invalidated),
            false => node.knows,
        };
        if entry.data < told {
            self.broken = Some(OUT_OF_DATE);
        }
    }

    /// Above everything that was given before: the store's clock.
    pub(crate) fn now(&self) -> u8 {
        let mut highest = 0;
        let mut state = *self;
        state.each(&mut |fence| highest = highest.max(*fence));
        highest + 1
    }

    pub(crate) fn make_room_above(&mut self, below: u8) {
        self.each(&mut |fence| {
            if *fence > below {
                *fence += 1;
            }
        });
    }

    /// Every fence and moment there is.
    pub(crate) fn each(&mut self, visit: &mut dyn FnMut(&mut u8)) {
        visit(&mut self.shelf.epoch);
        if let Some(entry) = &mut self.shelf.entry {
            visit(&mut entry.generation);
        }
        if let Some((token, _)) = &mut self.shelf.lock {
            visit(token);
        }
        for node in &mut self.nodes {
            node.each(visit);
        }
    }

    /// Numbers fences anew, from 1, in the same order. Zero stays zero: never.
    pub(crate) fn renumbered(mut self) -> Self {
        let mut present = 0u64;
        self.each(&mut |fence| present |= (1 << *fence) & !1);
        self.each(&mut |fence| {
            let below = present & ((1 << *fence) - 1);
            let place = below.count_ones() + u32::from(*fence > 0);
            *fence = u8::try_from(place).expect("below 64");
        });
        self
    }
}

impl Node {
    pub(crate) fn each(&mut self, visit: &mut dyn FnMut(&mut u8)) {
        if let Some(held) = &mut self.held {
            visit(&mut held.entry.generation);
            held.alone.iter_mut().for_each(&mut *visit);
        }
        visit(&mut self.newest);
        visit(&mut self.epoch);
        visit(&mut self.inbox.generation);
        visit(&mut self.inbox.epoch);
        for waiter in self.waiters.iter_mut().flatten() {
            visit(&mut waiter.asked_after);
        }
        if let Some((token, fence, _)) = &mut self.late {
            visit(token);
            visit(fence);
        }
        let turn = match &mut self.flight {
            Flight::None | Flight::Lock | Flight::Held => None,
            Flight::Look { turn, looked } => {
                if let Some(looked) = looked {
                    visit(&mut looked.epoch);
                    if let Some(found) = &mut looked.found {
                        visit(&mut found.generation);
                    }
                }
                turn.as_mut()
            }
            Flight::PutBack { turn } => turn.as_mut(),
            Flight::Unlock { turn } | Flight::Fetch { turn } | Flight::Write { turn, .. } => {
                Some(turn)
            }
            Flight::Written { fence, .. } => {
                visit(fence);
                None
            }
        };
        if let Some(turn) = turn {
            visit(&mut turn.fence);
            turn.alone.iter_mut().for_each(visit);
        }
    }
}
