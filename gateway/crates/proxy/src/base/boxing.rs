//! Large values built in place.

/// Builds a value inside its box. `Box::new` builds it on the stack and copies all of it, and a future is mostly room for what it will hold
/// later. Those copies were a quarter of what the hot path moved.
#[inline(always)]
pub fn boxed<T>(make: impl FnOnce() -> T) -> Box<T> {
    let room = Box::new_uninit();
    Box::write(room, make())
}
