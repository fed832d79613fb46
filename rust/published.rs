// SPDX-License-Identifier: GPL-2.0

//! A value that many read without waiting, and that is replaced as a whole.
//!
//! Readers may sleep and may be in any context; who replaces the value waits until the last reader
//! of the old one has ended. So a list of callbacks can be gone through without a lock, and whoever
//! removed one knows that it doesn't run any more.
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
    },
};

/// A value, or none, that can be read and replaced at the same time.
///
/// # Invariants
///
/// `current` is null or comes from [`KBox::into_raw`] and belongs to this object. A value which was
/// replaced lives until every reader that began before has ended.
#[pin_data(PinnedDrop)]
pub struct Published<T: Send + Sync> {
    current: Atomic<*mut T>,
    #[pin]
    srcu: Srcu,
    _owns: PhantomData<T>,
}

impl<T: Send + Sync> Published<T> {
    /// Starts with no value. For lockdep, readers are called `name`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // INVARIANT: There is no value yet.
            current: Atomic::new(ptr::null_mut()),
            srcu <- Srcu::new(name, key),
            _owns: PhantomData,
        })
    }

    /// Whether there is no value just now. Cheap: for those who mostly have nothing to do.
    #[inline]
    pub fn is_none(&self) -> bool {
        self.current.load(Acquire).is_null()
    }

    /// The current value, which stays until the reader is dropped.
    pub fn read(&self) -> Option<Reader<'_, T>> {
        let guard = self.srcu.read_lock();
        let value = self.current.load(Acquire);
        // SAFETY: By the type invariant this is null or a value that outlives the read section.
        let value = unsafe { value.as_ref() }?;
        Some(Reader {
            value,
            _guard: guard,
        })
    }

    /// Replaces the value and returns the old one, when nobody reads that any more.
    ///
    /// Sleeps. A reader that calls this waits for itself, forever.
    pub fn replace(&self, new: Option<KBox<T>>) -> Option<KBox<T>> {
        let new = new.map_or(ptr::null_mut(), KBox::into_raw);
        // INVARIANT: The new value is a box's; the old one stays until `synchronize` returns.
        let old = self.current.xchg(new, Full);
        self.srcu.synchronize();
        // SAFETY: The pointer was a box's by the type invariant, nobody can find it any more, and
        // those who had found it have ended.
        (!old.is_null()).then(|| unsafe { KBox::from_raw(old) })
    }
}

#[pinned_drop]
impl<T: Send + Sync> PinnedDrop for Published<T> {
    fn drop(self: Pin<&mut Self>) {
        drop(self.replace(None));
    }
}

/// A value which stays as it is while this exists.
pub struct Reader<'a, T> {
    value: &'a T,
    _guard: kernel::sync::srcu::Guard<'a>,
}

impl<T> Deref for Reader<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value
    }
}
