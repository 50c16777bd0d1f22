//! What is made of one component once, for all who use it in the same way.

use std::{
    any::Any,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Values by type and key; they live as long as the component.
///
/// # Guarantees
/// Nobody waits while a value is made: two who need it in the same moment may both make it, and one of the two is kept.
#[derive(Default)]
pub struct Memo(Mutex<Vec<Entry>>);

/// Who made it: a number that no two of them share, and words of its own.
type Key<'a> = (u64, &'a [&'static str]);

struct Entry {
    maker: u64,
    words: Box<[&'static str]>,
    value: Arc<dyn Any + Send + Sync>,
}

impl Memo {
    /// The value of type `T` for `key`, made if it is not there.
    ///
    /// # Errors
    /// The error of `make`; it is not remembered.
    pub fn get_or_make<T, E>(
        &self,
        key: Key<'_>,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E>
    where
        T: Clone + Send + Sync + 'static,
    {
        if let Some(known) = self.find(key) {
            return Ok(known);
        }
        let made = make()?;
        let mut entries = self.lock();
        if let Some(known) = find(&entries, key) {
            return Ok(known);
        }
        entries.push(Entry {
            maker: key.0,
            words: key.1.into(),
            value: Arc::new(made.clone()),
        });
        Ok(made)
    }

    fn find<T: Clone + 'static>(&self, key: Key<'_>) -> Option<T> {
        find(&self.lock(), key)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Entry>> {
        // The list is whole after each statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// There are few: a host has few sets of plugins.
fn find<T: Clone + 'static>(entries: &[Entry], key: Key<'_>) -> Option<T> {
    let of_key = entries.iter().filter(|e| (e.maker, &*e.words) == key);
    let mut of_type = of_key.filter_map(|entry| entry.value.downcast_ref::<T>());
    of_type.next().cloned()
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memo({})", self.lock().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_once_for_each_key_and_type() {
        let memo = Memo::default();
        let fail = || Err::<u32, _>("no");
        assert_eq!(memo.get_or_make((1, &["a"]), fail), Err("no"));
        assert_eq!(
            memo.get_or_make((1, &["a"]), || Ok::<_, &str>(1_u32)),
            Ok(1)
        );
        assert_eq!(
            memo.get_or_make((1, &["a"]), fail),
            Ok(1),
            "an error is tried again"
        );
        assert_eq!(
            memo.get_or_make((1, &["a", "b"]), || Ok::<_, &str>(2_u32)),
            Ok(2)
        );
        assert_eq!(
            memo.get_or_make((2, &["a"]), || Ok::<_, &str>(3_u32)),
            Ok(3)
        );
        assert_eq!(
            memo.get_or_make((1, &["a"]), || Ok::<_, &str>("x")),
            Ok("x")
        );
        assert_eq!(format!("{memo:?}"), "Memo(4)");
    }
}
