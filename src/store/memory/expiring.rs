//! A map whose items expire and whose weight is bounded.
//!
//! Expired items are never seen and are removed by the next change of the map,
//! whatever key that is about; no task sweeps.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use tokio::time::Instant;

/// What an item costs beside its own bytes, roughly.
const OVERHEAD: usize = 128;

/// The map would grow beyond its bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Debug)]
pub(super) struct Expiring<K, V> {
    items: HashMap<K, Item<V>>,
    /// By expiry, made unique by the item's number.
    order: BTreeMap<(Instant, u64), K>,
    next_number: u64,
    weight: usize,
    max_weight: usize,
}

#[derive(Debug)]
struct Item<V> {
    value: V,
    weight: usize,
    /// `None`: never.
    expires: Option<Instant>,
    number: u64,
}

impl<K: Hash + Eq + Clone, V> Expiring<K, V> {
    pub(super) fn new(max_weight: usize) -> Self {
        Self {
            items: HashMap::new(),
            order: BTreeMap::new(),
            next_number: 0,
            weight: 0,
            max_weight,
        }
    }

    pub(super) fn get(&self, key: &K, now: Instant) -> Option<&V> {
        let item = self.items.get(key)?;
        item.is_alive(now).then_some(&item.value)
    }

    /// When the item expires; `None` when it is not there or never does.
    pub(super) fn expires(&self, key: &K, now: Instant) -> Option<Instant> {
        let item = self.items.get(key)?;
        item.expires.filter(|_| item.is_alive(now))
    }

    /// Puts `value` in the place of what was there.
    pub(super) fn insert(
        &mut self,
        key: K,
        value: V,
        bytes: usize,
        expires: Option<Instant>,
        now: Instant,
    ) -> Result<(), Full> {
        self.sweep(now);
        let weight = bytes + OVERHEAD;
        let before = self.items.get(&key).map_or(0, |item| item.weight);
        if self.weight - before + weight > self.max_weight {
            return Err(Full);
        }
        self.remove(&key, now);
        let number = self.next_number;
        self.next_number += 1;
        self.weight += weight;
        if let Some(at) = expires {
            self.order.insert((at, number), key.clone());
        }
        let item = Item {
            value,
            weight,
            expires,
            number,
        };
        self.items.insert(key, item);
        Ok(())
    }

    /// Like [`insert`](Self::insert), but makes room by dropping what would
    /// expire next. Fails only when `value` alone is too heavy.
    pub(super) fn insert_or_evict(
        &mut self,
        key: K,
        value: V,
        bytes: usize,
        expires: Instant,
        now: Instant,
    ) -> Result<(), Full> {
        if bytes + OVERHEAD > self.max_weight {
            return Err(Full);
        }
        self.remove(&key, now);
        while self.weight + bytes + OVERHEAD > self.max_weight {
            let Some((_, next)) = self.order.pop_first() else {
                return Err(Full);
            };
            self.forget(&next);
        }
        self.insert(key, value, bytes, Some(expires), now)
    }

    pub(super) fn remove(&mut self, key: &K, now: Instant) -> Option<V> {
        let item = self.forget(key)?;
        if let Some(at) = item.expires {
            self.order.remove(&(at, item.number));
        }
        item.is_alive(now).then_some(item.value)
    }

    /// Gives a living item another time to live; `false` when there is none.
    pub(super) fn touch(&mut self, key: &K, expires: Instant, now: Instant) -> bool {
        self.sweep(now);
        let Some(item) = self.items.get_mut(key) else {
            return false;
        };
        if let Some(before) = item.expires.replace(expires) {
            self.order.remove(&(before, item.number));
        }
        self.order.insert((expires, item.number), key.clone());
        true
    }

    /// Changes a living item; `change` answers how many bytes came and went.
    pub(super) fn change<T>(
        &mut self,
        key: &K,
        now: Instant,
        adds: usize,
        change: impl FnOnce(&mut V) -> (usize, T),
    ) -> Result<Option<T>, Full> {
        self.sweep(now);
        let Some(item) = self.items.get_mut(key) else {
            return Ok(None);
        };
        if self.weight + adds > self.max_weight {
            return Err(Full);
        }
        let (removed, result) = change(&mut item.value);
        item.weight = item.weight + adds - removed;
        self.weight = self.weight + adds - removed;
        Ok(Some(result))
    }

    /// Removes what has expired.
    fn sweep(&mut self, now: Instant) {
        while let Some(next) = self.order.first_entry() {
            if next.key().0 > now {
                break;
            }
            let key = next.remove();
            self.forget(&key);
        }
    }

    fn forget(&mut self, key: &K) -> Option<Item<V>> {
        let item = self.items.remove(key)?;
        self.weight -= item.weight;
        Some(item)
    }

    #[cfg(test)]
    fn size(&self) -> (usize, usize, usize) {
        (self.items.len(), self.order.len(), self.weight)
    }
}

impl<V> Item<V> {
    fn is_alive(&self, now: Instant) -> bool {
        self.expires.is_none_or(|at| at > now)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn expired_items_are_unseen_and_removed_by_any_change() {
        let now = Instant::now();
        let mut map = Expiring::new(1 << 20);
        for key in 0..100 {
            map.insert(key, key, 10, Some(now + SECOND), now)
                .expect("room");
        }
        map.insert(1000, 1000, 10, None, now).expect("room");
        assert_eq!(map.get(&7, now), Some(&7));
        let later = now + SECOND;
        assert_eq!(map.get(&7, later), None);
        assert_eq!(map.remove(&7, later), None);
        map.insert(2000, 2000, 10, Some(later + SECOND), later)
            .expect("room");
        assert_eq!(map.size(), (2, 1, 2 * (10 + OVERHEAD)));
        assert_eq!(map.get(&1000, later), Some(&1000));
    }

    #[test]
    fn weight_is_bounded_and_given_back() {
        let now = Instant::now();
        let mut map = Expiring::new(3 * (100 + OVERHEAD));
        let at = Some(now + SECOND);
        for key in 0..3 {
            map.insert(key, (), 100, at, now).expect("room");
        }
        assert_eq!(map.insert(3, (), 100, at, now), Err(Full));
        map.insert(2, (), 100, at, now)
            .expect("replacing needs no room");
        assert_eq!(map.change(&0, now, 1, |()| (0, ())), Err(Full));
        map.remove(&1, now);
        map.insert(3, (), 100, at, now).expect("room again");
        for key in [0, 2, 3] {
            map.remove(&key, now);
        }
        assert_eq!(map.size(), (0, 0, 0));
    }

    #[test]
    fn eviction_takes_what_expires_next() {
        let now = Instant::now();
        let mut map = Expiring::new(2 * (100 + OVERHEAD));
        for (key, life) in [(1, 30), (2, 20), (3, 40)] {
            map.insert_or_evict(key, (), 100, now + life * SECOND, now)
                .expect("room by eviction");
        }
        assert!(map.get(&1, now).is_some() && map.get(&3, now).is_some());
        assert!(map.get(&2, now).is_none());
        assert_eq!(
            map.insert_or_evict(9, (), 1000, now + SECOND, now),
            Err(Full)
        );
    }

    #[test]
    fn touching_moves_the_expiry() {
        let now = Instant::now();
        let mut map = Expiring::new(1 << 20);
        map.insert(1, (), 0, Some(now + SECOND), now).expect("room");
        assert!(map.touch(&1, now + 5 * SECOND, now));
        assert!(map.get(&1, now + 4 * SECOND).is_some());
        assert!(!map.touch(&1, now + 9 * SECOND, now + 5 * SECOND));
        assert_eq!(map.size(), (0, 0, 0));
    }
}
