//! A cache that forgets what was not used for long. Bounded by weight.
//!
//! Values stand in a queue. Who is used gets a mark; who comes to the front with
//! one goes to the back without it, and who comes without one is forgotten. So a
//! use costs one look into a table, whether the cache holds a hundred values or a
//! million, and what was put and not yet used stays until as much came after it
//! as the cache holds.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Marked values that one `put` sends to the back, at most: so it never takes long,
/// even where everything is in use. After so many, the next goes with its mark.
const SPARED: u32 = 32;

/// Values by key, up to a total weight. Its lock is held for moments only.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    shelf: Mutex<Shelf<K, V>>,
    limit: usize,
}

#[derive(Debug)]
struct Shelf<K, V> {
    values: HashMap<K, Held<V>>,
    /// Who goes next stands in front. Those whose number is no longer that of the
    /// value were replaced or forgotten since.
    queue: VecDeque<(K, u64)>,
    /// The next number.
    next: u64,
    weight: usize,
}

#[derive(Debug)]
struct Held<V> {
    value: V,
    weight: usize,
    /// Of its place in the queue.
    number: u64,
    used: bool,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    pub(crate) fn new(limit: usize) -> Self {
        let shelf = Shelf { values: HashMap::new(), queue: VecDeque::new(), next: 0, weight: 0 };
        Self { shelf: Mutex::new(shelf), limit }
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        let mut shelf = self.shelf();
        let held = shelf.values.get_mut(key)?;
        held.used = true;
        Some(held.value.clone())
    }

    /// Whether it is there. That is no use of it.
    pub(crate) fn holds(&self, key: &K) -> bool {
        self.shelf().values.contains_key(key)
    }

    /// Keeps `value`. What weighs more than the whole cache is not kept.
    pub(crate) fn put(&self, key: K, value: V, weight: usize) {
        if weight > self.limit {
            return;
        }
        // Dropped after the lock: giving memory back may take a while.
        let mut gone = Vec::new();
        let mut shelf = self.shelf();
        gone.extend(shelf.forget(&key));
        shelf.next += 1;
        let number = shelf.next;
        shelf.queue.push_back((key.clone(), number));
        shelf.values.insert(key, Held { value, weight, number, used: false });
        shelf.weight += weight;
        let mut spared = 0;
        while shelf.weight > self.limit {
            let Some((key, place)) = shelf.queue.pop_front() else { break };
            match shelf.values.get_mut(&key) {
                // It alone is never too heavy.
                Some(_) if place == number => shelf.queue.push_back((key, place)),
                Some(held) if held.number == place && held.used && spared < SPARED => {
                    spared += 1;
                    held.used = false;
                    shelf.queue.push_back((key, place));
                }
                Some(held) if held.number == place => gone.extend(shelf.forget(&key)),
                _ => {}
            }
        }
        shelf.tidy();
        drop(shelf);
    }

    pub(crate) fn forget(&self, key: &K) {
        let gone = self.shelf().forget(key);
        drop(gone);
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf<K, V>> {
        // A cache that lost a value half-way only reads it again.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash, V> Shelf<K, V> {
    fn forget(&mut self, key: &K) -> Option<V> {
        let held = self.values.remove(key)?;
        self.weight -= held.weight;
        Some(held.value)
    }

    /// Keeps the places of values that are gone from outnumbering the others.
    fn tidy(&mut self) {
        if self.queue.len() > 2 * self.values.len() + 16 {
            let values = &self.values;
            self.queue
                .retain(|(key, number)| values.get(key).is_some_and(|held| held.number == *number));
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

    #[test]
    fn what_came_stays_until_as_much_came_after_it() {
        let cache = Cache::new(1000);
        for number in 0..1000 {
            cache.put(number, (), 1);
            // Somebody else's, used all the time.
            cache.get(&0);
        }
        cache.put(1000, (), 1);
        cache.put(1001, (), 1);
        let gone: Vec<_> = (0..1000).filter(|number| !cache.holds(number)).collect();
        assert_eq!(gone, [1, 2]);
    }

    #[test]
    fn everything_in_use_is_no_reason_to_stop_and_the_queue_stays_short() {
        let cache = Cache::new(100);
        (0..100).for_each(|number| cache.put(number, (), 1));
        (0..100).for_each(|number| assert!(cache.get(&number).is_some()));
        cache.put(100, (), 1);
        assert_eq!((0..=100).filter(|number| cache.holds(number)).count(), 100);
        for _ in 0..1000 {
            cache.forget(&7);
            cache.put(7, (), 1);
        }
        assert!(cache.shelf().queue.len() <= 2 * 100 + 16);
    }
}
