// SPDX-License-Identifier: GPL-2.0

//! `kernel::sync`, on top of loom's.

use loom::sync as loomed;

use self::lock::{
    mutex::MutexBackend,
    Guard, //
};

/// A lock that one thread holds at a time.
pub struct Mutex<T>(loomed::Mutex<T>);

impl<T> Mutex<T> {
    /// A lock around `value`.
    pub fn new(value: T) -> Self {
        Self(loomed::Mutex::new(value))
    }

    /// Waits until nobody holds it, and takes it.
    pub fn lock(&self) -> Guard<'_, T, MutexBackend> {
        Guard::new(&self.0)
    }
}

/// The guard, also of a mutex whose last holder has panicked: that ends the check anyway.
fn locked<G>(result: loomed::LockResult<G>) -> G {
    result.unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// `kernel::sync::lock`.
pub mod lock {
    use std::{
        marker::PhantomData,
        ops::{
            Deref,
            DerefMut, //
        },
    };

    use loom::sync::{
        Mutex,
        MutexGuard, //
    };

    use super::locked;

    /// `kernel::sync::lock::mutex`.
    pub mod mutex {
        /// Says that a lock is a mutex.
        pub struct MutexBackend;
    }

    /// A lock that is held.
    pub struct Guard<'a, T, B> {
        mutex: &'a Mutex<T>,
        inner: Option<MutexGuard<'a, T>>,
        backend: PhantomData<B>,
    }

    impl<'a, T, B> Guard<'a, T, B> {
        pub(super) fn new(mutex: &'a Mutex<T>) -> Self {
            Self {
                mutex,
                inner: Some(locked(mutex.lock())),
                backend: PhantomData,
            }
        }

        /// Lets go of the mutex, and takes it again.
        pub(crate) fn again(self) -> Self {
            let mutex = self.mutex;
            drop(self);
            Self::new(mutex)
        }

        pub(crate) fn exchange(
            mut self,
            f: impl FnOnce(MutexGuard<'a, T>) -> MutexGuard<'a, T>,
        ) -> Self {
            self.inner = self.inner.take().map(f);
            self
        }
    }

    impl<T, B> Deref for Guard<'_, T, B> {
        type Target = T;

        fn deref(&self) -> &T {
            self.inner.as_ref().expect("the mutex is held")
        }
    }

    // As the kernel's, of values that may be moved only.
    impl<T: Unpin, B> DerefMut for Guard<'_, T, B> {
        fn deref_mut(&mut self) -> &mut T {
            self.inner.as_mut().expect("the mutex is held")
        }
    }
}

/// A mutex around a value.
#[macro_export]
macro_rules! new_mutex {
    ($value:expr) => {
        move || $crate::sync::Mutex::new($value)
    };
}
