//! A queue in which everybody who waits gets the same share, in bytes: deficit
//! round robin (Shreedhar and Varghese, 1995). Pure.
//!
//! How much may wait is bounded by whoever puts it in.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
};

/// What a lane may send each time it is its turn, in bytes.
const QUANTUM: usize = 64 * 1024;

/// Lanes of waiting items, served in turn.
#[derive(Debug)]
pub struct Fair<K, T> {
    lanes: HashMap<K, Lane<T>>,
    turn: VecDeque<K>,
}

#[derive(Debug)]
struct Lane<T> {
    items: VecDeque<(usize, T)>,
    credit: usize,
}

impl<K, T> Default for Fair<K, T> {
    fn default() -> Self {
        Self {
            lanes: HashMap::new(),
            turn: VecDeque::new(),
        }
    }
}

impl<K: Eq + Hash + Clone, T> Fair<K, T> {
    /// Puts an item of `cost` bytes at the end of a lane.
    pub fn push(&mut self, lane: &K, cost: usize, item: T) {
        let waiting = self.lanes.entry(lane.clone()).or_insert_with(|| {
            self.turn.push_back(lane.clone());
            Lane {
                items: VecDeque::new(),
                credit: QUANTUM,
            }
        });
        waiting.items.push_back((cost, item));
    }

    /// The item whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        loop {
            let name = self.turn.front()?;
            let alone = self.turn.len() == 1;
            // Every name in turn has a lane, and no lane is empty.
            let lane = self.lanes.get_mut(name)?;
            let (cost, _) = lane.items.front()?;
            if alone || *cost <= lane.credit {
                let (cost, item) = lane.items.pop_front()?;
                lane.credit = lane.credit.saturating_sub(cost);
                if lane.items.is_empty() {
                    self.lanes.remove(name);
                    self.turn.pop_front();
                }
                return Some(item);
            }
            // What it could not use it keeps for its next turn.
            lane.credit += QUANTUM;
            self.turn.rotate_left(1);
        }
    }

    /// Everything that waits, in no fair order.
    pub fn drain(&mut self) -> Vec<T> {
        self.turn.clear();
        let lanes = std::mem::take(&mut self.lanes);
        let items = lanes.into_values().flat_map(|lane| lane.items);
        items.map(|(_, item)| item).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_items_do_not_wait_for_all_large_ones() {
        let mut fair = Fair::default();
        for n in 0..4 {
            fair.push(&"large", 15 << 20, ("large", n));
        }
        for n in 0..100 {
            fair.push(&"small", 300 << 10, ("small", n));
        }
        let order: Vec<_> = std::iter::from_fn(|| fair.pop()).collect();
        assert_eq!(order.len(), 104);
        let before = |n| {
            let at = order.iter().position(|item| *item == ("large", n));
            order[..at.unwrap()]
                .iter()
                .filter(|(lane, _)| *lane == "small")
                .count()
        };
        // 15 MiB are about 51 times 300 KiB.
        assert!((45..=55).contains(&before(0)), "{}", before(0));
        assert!(before(1) >= 90, "{}", before(1));
    }

    #[test]
    fn equal_items_take_turns() {
        let mut fair = Fair::default();
        for n in 0..3 {
            for lane in ["a", "b", "c"] {
                fair.push(&lane, QUANTUM, (lane, n));
            }
        }
        let order: Vec<_> = std::iter::from_fn(|| fair.pop()).collect();
        for (round, items) in order.chunks(3).enumerate() {
            let mut lanes: Vec<_> = items.iter().map(|(lane, _)| *lane).collect();
            lanes.sort_unstable();
            assert_eq!(lanes, ["a", "b", "c"], "round {round}");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_lanes_keep_their_order(items in prop::collection::vec((0u8..5, 0usize..300_000), 0..100)) {
            let mut fair = Fair::default();
            for (n, (lane, cost)) in items.iter().enumerate() {
                fair.push(lane, *cost, (*lane, n));
            }
            let order: Vec<_> = std::iter::from_fn(|| fair.pop()).collect();
            prop_assert_eq!(order.len(), items.len());
            for lane in 0..5 {
                let of_lane = order.iter().filter(|(l, _)| *l == lane).map(|(_, n)| *n);
                prop_assert!(of_lane.is_sorted());
            }
        }

        #[test]
        fn while_all_wait_nobody_is_far_ahead(costs in prop::collection::vec(1usize..500_000, 1..4)) {
            let mut fair = Fair::default();
            let total = 20_000_000;
            for (lane, cost) in costs.iter().enumerate() {
                for _ in 0..total / cost + 1 {
                    fair.push(&lane, *cost, (lane, *cost));
                }
            }
            let mut sent = vec![0usize; costs.len()];
            while sent.iter().all(|bytes| *bytes < total / 2) {
                let (lane, cost) = fair.pop().unwrap();
                sent[lane] += cost;
            }
            let most = sent.iter().max().unwrap();
            let least = sent.iter().min().unwrap();
            let largest = costs.iter().max().unwrap();
            prop_assert!(most - least <= 2 * (largest + QUANTUM), "{sent:?} {costs:?}");
        }
    }
}
