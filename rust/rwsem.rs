// SPDX-License-Identifier: GPL-2.0

//! Sleeping locks with any number of readers or one writer.
//!
//! The locks of the `kernel` crate know only one kind of holder.
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

/// A value that many may read at a time, or one may change.
#[pin_data]
pub struct RwSem<T> {
    #[pin]
    sem: Opaque<bindings::rw_semaphore>,
    data: UnsafeCell<T>,
}

// SAFETY: The semaphore may be used from any task; the value goes where the lock goes.
unsafe impl<T: Send> Send for RwSem<T> {}
// SAFETY: The semaphore lets either readers or one writer to the value.
unsafe impl<T: Send + Sync> Sync for RwSem<T> {}

impl<T> RwSem<T> {
    /// A lock around `data`; `name` and `key` are for lockdep.
    pub fn new(
        data: T,
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: The semaphore stays where it is; name and key are static.
            sem <- Opaque::ffi_init(move |sem| unsafe {
                bindings::__init_rwsem(sem, name.as_char_ptr(), key.as_ptr())
            }),
            data: UnsafeCell::new(data),
        })
    }

    /// Waits until nobody changes the value.
    pub fn read(&self) -> ReadGuard<'_, T> {
        // SAFETY: The semaphore is initialised.
        unsafe { bindings::down_read(self.sem.get()) };
        // INVARIANT: Locked just now.
        ReadGuard(self, NotThreadSafe)
    }

    /// Waits until nobody else has the value.
    pub fn write(&self) -> WriteGuard<'_, T> {
        // SAFETY: The semaphore is initialised.
        unsafe { bindings::down_write(self.sem.get()) };
        // INVARIANT: Locked just now.
        WriteGuard(self, NotThreadSafe)
    }
}

/// Lets the value be read.
///
/// # Invariants
///
/// This task holds the semaphore for reading.
pub struct ReadGuard<'a, T>(&'a RwSem<T>, NotThreadSafe);

impl<T> Deref for ReadGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariant nobody changes the value.
        unsafe { &*self.0.data.get() }
    }
}

impl<T> Drop for ReadGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::up_read(self.0.sem.get()) }
    }
}

/// Lets the value be changed.
///
/// # Invariants
///
/// This task holds the semaphore for writing.
pub struct WriteGuard<'a, T>(&'a RwSem<T>, NotThreadSafe);

impl<T> Deref for WriteGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariant nobody else has the value.
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
