// SPDX-License-Identifier: GPL-2.0

//! Locking two mutexes of the same kind.
//!
//! C header: [`include/linux/mutex.h`](srctree/include/linux/mutex.h)

use core::{
    cmp::Ordering,
    ptr, //
};

use kernel::sync::{
    Mutex,
    MutexGuard, //
};

use crate::bindings;

/// Locks two mutexes, the one with the lower address first. Returns `None` if they are the same.
///
/// No thread locks two mutexes of their kind in another way.
pub fn lock_both<'a, T>(
    a: &'a Mutex<T>,
    b: &'a Mutex<T>,
) -> Option<(MutexGuard<'a, T>, MutexGuard<'a, T>)> {
    match ptr::from_ref(a).cmp(&ptr::from_ref(b)) {
        Ordering::Less => {
            let a = a.lock();
            Some((a, lock_nested(b)))
        }
        Ordering::Greater => {
            let b = b.lock();
            Some((lock_nested(a), b))
        }
        Ordering::Equal => None,
    }
}

/// Locks `mutex` while another one of its kind is locked. The kernel's `lock()` would make lockdep
/// report that.
fn lock_nested<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // CAST: The `struct mutex` is the first field, and the type is `repr(C)`.
    let raw = ptr::from_ref(mutex).cast_mut().cast();
    // SAFETY: A `Mutex` is only created with an initialised `struct mutex`.
    unsafe { bindings::kernel_ext_mutex_lock_nested(raw) };
    // SAFETY: This thread has just locked the mutex.
    unsafe { MutexGuard::new(mutex, ()) }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(kernel_ext_mutex)]
mod tests {
    use kernel::{
        new_mutex,
        prelude::*,
        sync::Arc, //
    };

    use super::*;

    #[test]
    fn both_are_locked_in_any_order() -> Result {
        let new = |value: i32| Arc::pin_init(new_mutex!(value, "kernel_ext_mutex"), GFP_KERNEL);
        let (one, two) = (new(1)?, new(2)?);
        for (a, b) in [(&one, &two), (&two, &one)] {
            let (first, second) = lock_both(a, b).ok_or(EINVAL)?;
            assert!(a.try_lock().is_none());
            assert!(b.try_lock().is_none());
            assert_eq!(*first + *second, 3);
        }
        assert!(lock_both(&one, &one).is_none());
        assert!(one.try_lock().is_some());
        assert!(two.try_lock().is_some());
        Ok(())
    }
}
