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
        Guard::new(locked(self.0.lock()))
    }
}

/// What a thread waits for that lets go of a mutex meanwhile.
#[derive(Default)]
pub struct CondVar(loomed::Condvar);

impl CondVar {
    /// Something nobody waits for yet.
    pub fn new() -> Self {
        Self(loomed::Condvar::new())
    }

    /// Lets go of the mutex, waits to be woken, and takes the mutex again.
    pub fn wait<T>(&self, guard: &mut Guard<'_, T, MutexBackend>) {
        guard.exchange(|inner| locked(self.0.wait(inner)));
    }

    /// Wakes one thread that waits.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all threads that wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
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

    use loom::sync::MutexGuard;

    /// `kernel::sync::lock::mutex`.
    pub mod mutex {
        /// Says that a lock is a mutex.
        pub struct MutexBackend;
    }

    /// A lock that is held.
    pub struct Guard<'a, T, B>(Option<MutexGuard<'a, T>>, PhantomData<B>);

    impl<'a, T, B> Guard<'a, T, B> {
        pub(super) fn new(inner: MutexGuard<'a, T>) -> Self {
            Self(Some(inner), PhantomData)
        }

        pub(super) fn exchange(&mut self, f: impl FnOnce(MutexGuard<'a, T>) -> MutexGuard<'a, T>) {
            self.0 = self.0.take().map(f);
        }
    }

    impl<T, B> Deref for Guard<'_, T, B> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect("the mutex is held")
        }
    }

    // As the kernel's, of values that may be moved only.
    impl<T: Unpin, B> DerefMut for Guard<'_, T, B> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("the mutex is held")
        }
    }
}

/// A mutex around a value.
#[macro_export]
macro_rules! new_mutex {
    ($value:expr) => {
        $crate::sync::Mutex::new($value)
    };
}

/// A condition variable.
#[macro_export]
macro_rules! new_condvar {
    () => {
        $crate::sync::CondVar::new()
    };
}
