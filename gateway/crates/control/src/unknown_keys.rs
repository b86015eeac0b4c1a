//! Key ids that the control plane did not know a moment ago. Bounded, because anybody can invent ids.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};
use tenon_snapshot::KeyId;

const ENTRIES_MAX: usize = 10_000;
const LIFETIME: Duration = Duration::from_secs(30);

#[derive(Default)]
pub(crate) struct UnknownKeys {
    since: HashMap<KeyId, Instant>,
    order: VecDeque<KeyId>,
}

impl UnknownKeys {
    pub fn insert(&mut self, id: KeyId) {
        if self.since.insert(id, Instant::now()).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > ENTRIES_MAX {
            if let Some(oldest) = self.order.pop_front() {
                self.since.remove(&oldest);
            }
        }
    }

    pub fn contains(&self, id: &KeyId) -> bool {
        self.since.get(id).is_some_and(|since| since.elapsed() < LIFETIME)
    }

    /// The stream brought this key. Its entry in `order` stays and is dropped in its turn.
    pub fn remove(&mut self, id: &KeyId) {
        self.since.remove(id);
    }

    /// A full snapshot came: everything may have changed.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_bounded_and_forgets_what_was_created() {
        let mut unknown = UnknownKeys::default();
        let id = |n: usize| KeyId::try_from(format!("{n:010}").as_bytes()).unwrap();
        (0..ENTRIES_MAX + 5).for_each(|n| unknown.insert(id(n)));
        assert!(unknown.since.len() <= ENTRIES_MAX && !unknown.contains(&id(0)) && unknown.contains(&id(9)));
        unknown.remove(&id(9));
        assert!(!unknown.contains(&id(9)) && unknown.contains(&id(10)));
        unknown.clear();
        assert!(!unknown.contains(&id(10)));
    }
}
