// SPDX-License-Identifier: GPL-2.0

//! A list that is read under SRCU, and from which entries can be removed without allocating memory.

#[allow(unsafe_code)]
mod abi;

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        LockClassKey,
        Mutex, //
    }, //
};

pub(crate) use abi::Reader;

use abi::SrcuCell;

/// A list with entries of type `T`.
///
/// There are two copies, which are equal whenever the mutex is not held. Readers use the current
/// copy. A change is made to the spare copy, which then becomes the current one. Both copies have
/// capacity for their entries, so only an addition allocates memory.
#[pin_data]
pub(crate) struct SrcuList<T: Clone + Send + Sync> {
    #[pin]
    current: SrcuCell<KVec<T>>,
    #[pin]
    spare: Mutex<Option<KBox<KVec<T>>>>,
    length: Atomic<u32>,
}

impl<T: Clone + Send + Sync> SrcuList<T> {
    /// Creates an empty list. `name` is the name of its readers for lockdep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            current <- SrcuCell::new(name, key),
            spare <- new_mutex!(None, "ioasid::SrcuList::spare"),
            length: Atomic::new(0),
        })
    }

    /// Returns the current number of entries.
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        self.length.load(Acquire)
    }

    /// Returns the list, which does not change until the reader is dropped, or `None` if it is
    /// empty.
    #[inline]
    pub(crate) fn read(&self) -> Option<Reader<'_, KVec<T>>> {
        if self.len() == 0 {
            return None;
        }
        // The last entry may have been removed meanwhile.
        self.current.read().filter(|list| !list.is_empty())
    }

    /// Calls `make` with the list, and adds the entry that it returns at the position that it
    /// returns. Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and the errors of `make`.
    pub(crate) fn add(&self, make: impl FnOnce(&[T]) -> Result<(usize, T)>) -> Result {
        let mut spare = self.spare.lock();
        let list = spare.as_deref().map_or(&[][..], |list| list);
        let (at, entry) = make(list)?;
        let current = with(list, at, &entry)?;
        *spare = Some(with(list, at, &entry)?);
        drop(self.current.replace(Some(current)));
        self.update_length(&spare);
        Ok(())
    }

    /// Removes the entry for which `matches` returns true. Waits until no reader uses the entry.
    /// Sleeps.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such entry.
    pub(crate) fn remove(&self, matches: impl Fn(&T) -> bool) -> Result<T> {
        let mut spare = self.spare.lock();
        let list = spare.as_deref_mut().ok_or(ENOENT)?;
        let at = list.iter().position(matches).ok_or(ENOENT)?;
        let entry = list.remove(at).map_err(|_| ENOENT)?;
        self.update_length(&spare);
        *spare = self.current.replace(spare.take());
        if let Some(list) = spare.as_deref_mut() {
            drop(list.remove(at));
        }
        Ok(entry)
    }

    fn update_length(&self, list: &Option<KBox<KVec<T>>>) {
        let length = list.as_deref().map_or(0, KVec::len);
        self.length.store(length as u32, Release);
    }
}

/// Returns a copy of `list` with `entry` inserted at position `at`.
fn with<T: Clone>(list: &[T], at: usize, entry: &T) -> Result<KBox<KVec<T>>> {
    let (before, after) = list.split_at_checked(at).ok_or(EINVAL)?;
    let mut copy = KVec::with_capacity(list.len() + 1, GFP_KERNEL)?;
    copy.extend_from_slice(before, GFP_KERNEL)?;
    copy.push(entry.clone(), GFP_KERNEL)?;
    copy.extend_from_slice(after, GFP_KERNEL)?;
    Ok(KBox::new(copy, GFP_KERNEL)?)
}

#[kunit_tests(ioasid_srcu_list)]
mod tests {
    use super::*;
    use kernel::{
        static_lock_class,
        sync::Arc, //
    };

    #[test]
    fn a_list_that_is_read_has_entries() -> Result {
        let list = SrcuList::new(c"ioasid_srcu_list", static_lock_class!());
        let list = Arc::pin_init(list, GFP_KERNEL)?;
        assert!(list.read().is_none());
        list.add(|_| Ok((0, 7)))?;
        assert_eq!(list.read().map(|list| list[0]), Some(7));
        let before = list.len();
        assert_eq!(list.remove(|_| true), Ok(7));
        assert!(list.read().is_none());
        // The last entry is removed after a reader has read the length.
        list.length.store(before, Release);
        assert!(list.read().is_none());
        Ok(())
    }
}
