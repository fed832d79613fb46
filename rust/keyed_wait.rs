// SPDX-License-Identifier: GPL-2.0

//! A wait queue that wakes only the threads that wait for a given key.
//!
//! A condition variable cannot select the thread to wake. It would have to wake all of them: half a
//! million wakeups if a thousand threads wait for one another.
//!
//! C header: [`include/linux/wait.h`](srctree/include/linux/wait.h)

use kernel::{
    prelude::*,
    sync::lock::{
        mutex::MutexBackend,
        Guard, //
    },
    types::Opaque, //
};

use crate::{
    bindings,
    mm::fatal_signal_pending, //
};

/// Sleeping threads. Each sleeps until [`wake`](Self::wake) is called with its key.
#[pin_data]
pub struct KeyedWait {
    #[pin]
    waits: Opaque<bindings::kernel_ext_keyed_waits>,
}

// SAFETY: The queue isn't bound to a thread.
unsafe impl Send for KeyedWait {}
// SAFETY: The queue has its own lock.
unsafe impl Sync for KeyedWait {}

impl KeyedWait {
    /// Returns a queue without threads.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: The queues are pinned.
            waits <- Opaque::ffi_init(|waits| unsafe {
                bindings::kernel_ext_keyed_waits_init(waits);
            }),
        })
    }

    /// Unlocks a mutex, sleeps until `key` is woken, and locks the mutex again. The sleep may also
    /// end earlier or later. If `killable`, it ends when the task is being killed.
    ///
    /// Returns the mutex, and whether the task is being killed and `killable`.
    ///
    /// A wakeup isn't missed if the waker holds the mutex when it wakes `key`, or held it before.
    pub fn wait<'a, T>(
        &self,
        key: u64,
        guard: Guard<'a, T, MutexBackend>,
        killable: bool,
    ) -> (Guard<'a, T, MutexBackend>, bool) {
        let entry = Opaque::uninit();
        let lock = guard.lock_ref();
        // SAFETY: The queues are initialised. The entry isn't moved until it is removed below.
        unsafe {
            bindings::kernel_ext_keyed_wait_begin(self.waits.get(), entry.get(), key, killable);
        }
        drop(guard);
        // SAFETY: This is the entry that was added above.
        unsafe { bindings::kernel_ext_keyed_wait_end(self.waits.get(), entry.get()) };
        (lock.lock(), killable && fatal_signal_pending())
    }

    /// Wakes all threads that wait for `key`.
    pub fn wake(&self, key: u64) {
        // SAFETY: The queues are initialised.
        unsafe { bindings::kernel_ext_keyed_wake(self.waits.get(), key) };
    }
}
