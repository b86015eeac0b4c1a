//! Markings as bit sets: "is every marking of the ceiling cleared here" is one AND per 64 names.

use std::collections::HashMap;

/// A set of markings. Compare only sets whose bits were assigned by the same [`Markings`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MarkingSet(Box<[u64]>);

impl MarkingSet {
    #[must_use]
    pub fn is_subset_of(&self, other: &Self) -> bool {
        self.0.iter().enumerate().all(|(i, word)| word & !other.0.get(i).copied().unwrap_or(0) == 0)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

/// Assigns each marking name a bit. It only grows: names are few, and a reused bit would clear the wrong thing.
#[derive(Debug, Default)]
pub struct Markings {
    bits: HashMap<Box<str>, usize>,
}

impl Markings {
    pub fn set_of(&mut self, names: &[String]) -> MarkingSet {
        let mut words: Vec<u64> = Vec::new();
        for name in names {
            let next = self.bits.len();
            let bit = *self.bits.entry(name.as_str().into()).or_insert(next);
            if words.len() <= bit / 64 {
                words.resize(bit / 64 + 1, 0);
            }
            words[bit / 64] |= 1 << (bit % 64);
        }
        MarkingSet(words.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_inside_another_only_when_every_name_is() {
        let mut markings = Markings::default();
        let names: Vec<String> = (0..130).map(|i| format!("m{i}")).collect();
        let all = markings.set_of(&names);
        let last = markings.set_of(&names[129..]);
        let none = markings.set_of(&[]);
        assert!(last.is_subset_of(&all) && none.is_subset_of(&last) && none.is_subset_of(&none));
        assert!(!all.is_subset_of(&last) && !last.is_subset_of(&none));
        assert!(!markings.set_of(&["new".into()]).is_subset_of(&all));
    }
}
