//! Boxes of what is large.

/// A box of what a function returns, made where it stays: `Box::new` makes it on the stack, and copies all its room, which of
/// a future is mostly for later.
pub fn in_place<T>(make: impl FnOnce() -> T) -> Box<T> {
    let room = Box::new_uninit();
    Box::write(room, make())
}
