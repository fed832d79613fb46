// SPDX-License-Identifier: GPL-2.0

//! Sleeping reader/writer locks.
//!
//! The locks of the `kernel` crate are exclusive only.
//!
//! C header: [`include/linux/rwsem.h`](srctree/include/linux/rwsem.h)

use core::{
    cell::UnsafeCell,
    ops::{
        Deref,
        DerefMut, //
    }, //
};

use kernel::{
    prelude::*,
    sync::LockClassKey,
    types::{
        NotThreadSafe,
        Opaque, //
    }, //
};

use crate::bindings;

/// A value that several readers or one writer can access.
#[pin_data]
pub struct RwSem<T> {
    #[pin]
    sem: Opaque<bindings::rw_semaphore>,
    data: UnsafeCell<T>,
}

// SAFETY: The semaphore may be used from any task, and the value moves together with the lock.
unsafe impl<T: Send> Send for RwSem<T> {}
// SAFETY: The semaphore permits either readers or one writer to access the value.
unsafe impl<T: Send + Sync> Sync for RwSem<T> {}

impl<T> RwSem<T> {
    /// Returns a lock that protects `data`. `name` and `key` are for lockdep.
    pub fn new(
        data: T,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: The semaphore is pinned. Name and key are static.
            sem <- Opaque::ffi_init(move |sem| unsafe {
                bindings::__init_rwsem(sem, name.as_char_ptr(), key.as_ptr())
            }),
            data: UnsafeCell::new(data),
        })
    }

    /// Locks the value for reading. Waits until no writer holds it.
    pub fn read(&self) -> ReadGuard<'_, T> {
        // SAFETY: The semaphore is initialised.
        unsafe { bindings::down_read(self.sem.get()) };
        // INVARIANT: The semaphore was just locked.
        ReadGuard(self, NotThreadSafe)
    }

    /// Locks the value for writing. Waits until no other task holds it.
    pub fn write(&self) -> WriteGuard<'_, T> {
        // SAFETY: The semaphore is initialised.
        unsafe { bindings::down_write(self.sem.get()) };
        // INVARIANT: The semaphore was just locked.
        WriteGuard(self, NotThreadSafe)
    }
}

/// Shared access to the value.
///
/// # Invariants
///
/// This task holds the semaphore for reading.
pub struct ReadGuard<'a, T>(&'a RwSem<T>, NotThreadSafe);

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariant no task changes the value.
        unsafe { &*self.0.data.get() }
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::up_read(self.0.sem.get()) }
    }
}

/// Exclusive access to the value.
///
/// # Invariants
///
/// This task holds the semaphore for writing.
pub struct WriteGuard<'a, T>(&'a RwSem<T>, NotThreadSafe);

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariant no other task accesses the value.
        unsafe { &*self.0.data.get() }
    }
}

impl<T> DerefMut for WriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: As above.
        unsafe { &mut *self.0.data.get() }
    }
}

impl<T> Drop for WriteGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::up_write(self.0.sem.get()) }
    }
}
