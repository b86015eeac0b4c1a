//! A list whose freed slots are used again, so that an item keeps its index for as long as it lives.

use std::cell::RefCell;
use std::rc::Rc;

pub struct Slots<T> {
    slots: RefCell<Vec<Option<Rc<T>>>>,
    free: RefCell<Vec<usize>>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { slots: RefCell::default(), free: RefCell::default() }
    }
}

impl<T> Slots<T> {
    pub fn insert(&self, item: Rc<T>) -> usize {
        let mut slots = self.slots.borrow_mut();
        if let Some(index) = self.free.borrow_mut().pop() {
            slots[index] = Some(item);
            return index;
        }
        slots.push(Some(item));
        slots.len() - 1
    }

    pub fn remove(&self, index: usize) {
        if self.slots.borrow_mut()[index].take().is_some() {
            self.free.borrow_mut().push(index);
        }
    }

    pub fn len(&self) -> usize {
        self.slots.borrow().len() - self.free.borrow().len()
    }

    /// `each` may wake tasks but not insert or remove: it runs on the list itself.
    pub fn each(&self, each: impl FnMut(&Rc<T>)) {
        self.slots.borrow().iter().flatten().for_each(each);
    }
}
