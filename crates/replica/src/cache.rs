//! A cache that forgets what was not used for longest. Bounded by weight.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Values by key, up to a total weight. Its lock is held for moments only.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    shelf: Mutex<Shelf<K, V>>,
    limit: usize,
}

#[derive(Debug)]
struct Shelf<K, V> {
    values: HashMap<K, Held<V>>,
    /// By time of last use.
    ages: BTreeMap<u64, K>,
    clock: u64,
    weight: usize,
}

#[derive(Debug)]
struct Held<V> {
    value: V,
    weight: usize,
    used: u64,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    pub(crate) fn new(limit: usize) -> Self {
        let shelf = Shelf { values: HashMap::new(), ages: BTreeMap::new(), clock: 0, weight: 0 };
        Self { shelf: Mutex::new(shelf), limit }
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let mut shelf = self.shelf();
        shelf.clock += 1;
        let now = shelf.clock;
        let held = shelf.values.get_mut(key)?;
        let before = std::mem::replace(&mut held.used, now);
        let value = held.value.clone();
        shelf.ages.remove(&before);
        shelf.ages.insert(now, key.clone());
        Some(value)
    }

    /// Keeps `value`. What weighs more than the whole cache is not kept.
    pub(crate) fn put(&self, key: K, value: V, weight: usize) {
        if weight > self.limit {
            return;
        }
        let mut shelf = self.shelf();
        shelf.forget(&key);
        shelf.clock += 1;
        let used = shelf.clock;
        shelf.ages.insert(used, key.clone());
        shelf.values.insert(key, Held { value, weight, used });
        shelf.weight += weight;
        while shelf.weight > self.limit {
            let Some((_, oldest)) = shelf.ages.first_key_value() else { return };
            let oldest = oldest.clone();
            shelf.forget(&oldest);
        }
    }

    pub(crate) fn forget(&self, key: &K) {
        self.shelf().forget(key);
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf<K, V>> {
        // A cache that lost a value half-way only reads it again.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash, V> Shelf<K, V> {
    fn forget(&mut self, key: &K) {
        if let Some(held) = self.values.remove(key) {
            self.ages.remove(&held.used);
            self.weight -= held.weight;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_goes_first() {
        let cache = Cache::new(10);
        cache.put("a", 1, 4);
        cache.put("b", 2, 4);
        cache.get(&"a");
        cache.put("c", 3, 4);
        assert_eq!((cache.get(&"a"), cache.get(&"b"), cache.get(&"c")), (Some(1), None, Some(3)));
        cache.put("huge", 4, 11);
        assert_eq!(cache.get(&"huge"), None);
        cache.put("a", 5, 10);
        assert_eq!((cache.get(&"a"), cache.get(&"c")), (Some(5), None));
    }
}
