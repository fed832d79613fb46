// SPDX-License-Identifier: GPL-2.0

//! Tasks that sleep until something with a certain number happens.
//!
//! With a condition variable all of them would have to be woken, as who wakes them can't tell one from
//! another: a thousand tasks that wait for one another would be woken half a million times.
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

use crate::bindings;

/// Tasks that sleep, each until [`wake`](Self::wake) is called with its key.
#[pin_data]
pub struct KeyedWait {
    #[pin]
    head: Opaque<bindings::wait_queue_head>,
}

// SAFETY: The queue belongs to no task.
unsafe impl Send for KeyedWait {}
// SAFETY: The queue has a lock of its own.
unsafe impl Sync for KeyedWait {}

impl KeyedWait {
    /// Nobody sleeps yet.
    pub fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: The queue stays where it is.
            head <- Opaque::ffi_init(|head| unsafe { bindings::kernel_ext_keyed_wait_init(head) }),
        })
    }

    /// Unlocks a mutex, sleeps until somebody wakes `key`, or longer or shorter, and locks it again.
    ///
    /// Who wakes `key` with the mutex held, or after holding it, is not missed.
    pub fn wait<'a, T>(
        &self,
        key: u64,
        guard: Guard<'a, T, MutexBackend>,
    ) -> Guard<'a, T, MutexBackend> {
        let entry = Opaque::uninit();
        let lock = guard.lock_ref();
        // SAFETY: The queue is initialised; the entry stays where it is until it is taken out below.
        unsafe {
            bindings::kernel_ext_keyed_wait_begin(self.head.get(), entry.get(), key);
        }
        drop(guard);
        // SAFETY: This is the entry that was entered above.
        unsafe { bindings::kernel_ext_keyed_wait_end(self.head.get(), entry.get()) };
        lock.lock()
    }

    /// Wakes all that wait for `key`.
    pub fn wake(&self, key: u64) {
        // SAFETY: The queue is initialised.
        unsafe { bindings::kernel_ext_keyed_wake(self.head.get(), key) };
    }
}
