// SPDX-License-Identifier: GPL-2.0

//! A value that is read under SRCU, and replaced as a whole.
//!
//! Readers may sleep and may run in any context. Replacing the value waits until the last reader of
//! the old value has ended. A list of callbacks can thus be walked without a lock, and a callback
//! that was removed from it does not run any more.
//!
//! C header: [`include/linux/srcu.h`](srctree/include/linux/srcu.h)

use core::{
    marker::PhantomData,
    ops::Deref,
    pin::Pin,
    ptr, //
};

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Full, //
        },
        LockClassKey,
        Srcu, //
    }, //
};

/// An optional value that is read under SRCU, and replaced as a whole.
///
/// # Invariants
///
/// `current` is null, or it is from [`KBox::into_raw`] and this object owns it. A value that was
/// replaced lives until every reader that began before has ended.
#[pin_data(PinnedDrop)]
pub(crate) struct SrcuCell<T: Send + Sync> {
    current: Atomic<*mut T>,
    #[pin]
    srcu: Srcu,
    _owns: PhantomData<T>,
}

impl<T: Send + Sync> SrcuCell<T> {
    /// Creates a cell without a value. `name` is the name of the readers for lockdep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        name: &'static CStr,
        key: Pin<&'static LockClassKey>,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // INVARIANT: There is no value yet.
            current: Atomic::new(ptr::null_mut()),
            srcu <- Srcu::new(name, key),
            _owns: PhantomData,
        })
    }

    /// Returns the current value. It stays valid until the reader is dropped.
    pub(crate) fn read(&self) -> Option<Reader<'_, T>> {
        let guard = self.srcu.read_lock();
        let value = self.current.load(Acquire);
        // SAFETY: By the type invariant this is null or a value that outlives the read section.
        let value = unsafe { value.as_ref() }?;
        Some(Reader {
            value,
            _guard: guard,
        })
    }

    /// Replaces the value. Returns the old value when it has no readers any more.
    ///
    /// Sleeps. A reader that calls this waits for itself forever.
    pub(crate) fn replace(&self, new: Option<KBox<T>>) -> Option<KBox<T>> {
        let new = new.map_or(ptr::null_mut(), KBox::into_raw);
        // INVARIANT: The new value is from a box. The old one stays until `synchronize` returns.
        let old = self.current.xchg(new, Full);
        self.srcu.synchronize();
        // SAFETY: By the type invariant the pointer was from a box. No new reader can find it any
        // more, and all previous readers have ended.
        (!old.is_null()).then(|| unsafe { KBox::from_raw(old) })
    }
}

#[pinned_drop]
impl<T: Send + Sync> PinnedDrop for SrcuCell<T> {
    fn drop(self: Pin<&mut Self>) {
        drop(self.replace(None));
    }
}

/// Read access to a value, which stays valid and unchanged while this exists.
pub(crate) struct Reader<'a, T> {
    value: &'a T,
    _guard: kernel::sync::srcu::Guard<'a>,
}

impl<T> Deref for Reader<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
    }
}
