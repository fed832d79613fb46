// SPDX-License-Identifier: GPL-2.0

//! A map from ids to objects, with lookups that take no lock.
//!
//! The objects are allocated from a [`Slab`]. They are freed only when every reader that may see
//! them has left its RCU read section.
//!
//! C header: [`include/linux/xarray.h`](srctree/include/linux/xarray.h)

use core::{
    marker::PhantomData,
    ops::Deref,
    pin::Pin,
    ptr::NonNull, //
};

use kernel::{
    error::to_result,
    prelude::*,
    sync::{
        rcu,
        Arc, //
    },
    types::Opaque, //
};

use crate::{
    bindings,
    gfp::Gfp,
    slab::{
        self,
        Slab, //
    }, //
};

/// A map from 32-bit ids to objects, which also allocates ids.
///
/// Lookups take no lock. Changes take a spinlock with interrupts disabled, so all methods may be
/// called from any context. Memory is allocated with the flags that the caller passes.
///
/// # Invariants
///
/// Each entry points at an initialised object of `slab`. The object is freed at the earliest a
/// grace period after it was removed from the array.
#[pin_data(PinnedDrop)]
pub struct IdMap<T> {
    #[pin]
    xa: Opaque<bindings::xarray>,
    slab: Arc<Slab<T>>,
}

// SAFETY: The array has its own lock, and the objects are `Send` and `Sync`.
unsafe impl<T: Send + Sync> Send for IdMap<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for IdMap<T> {}

impl<T: Send + Sync + 'static> IdMap<T> {
    /// Returns an empty map, whose objects are allocated from `slab`.
    pub fn new(slab: Arc<Slab<T>>) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: The array is pinned. INVARIANT: It is empty.
            xa <- Opaque::ffi_init(|xa| unsafe { bindings::kernel_ext_xa_init(xa) }),
            slab,
        })
    }

    /// Adds an object with the lowest free id between `first` and `last`. Returns the id.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if no id is free; `ENOMEM`; the errors of `init`.
    pub fn alloc<E>(&self, first: u32, last: u32, init: impl PinInit<T, E>, gfp: Gfp) -> Result<u32>
    where
        Error: From<E>,
    {
        let node = self.slab.alloc(init, gfp)?;
        let mut id = 0;
        // SAFETY: The array is valid. INVARIANT: The object is an initialised one of the slab.
        let ret = unsafe {
            bindings::kernel_ext_xa_alloc(
                self.xa.get(),
                &mut id,
                node.as_ptr().cast(),
                first,
                last,
                gfp.as_raw(),
            )
        };
        self.entered(ret, node)
            .map_err(|e| if e == EBUSY { ENOSPC } else { e })?;
        Ok(id)
    }

    /// Adds an object with the id `id`.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the id is in use; `ENOMEM`; the errors of `init`.
    pub fn insert<E>(&self, id: u32, init: impl PinInit<T, E>, gfp: Gfp) -> Result
    where
        Error: From<E>,
    {
        let node = self.slab.alloc(init, gfp)?;
        // SAFETY: The array is valid. INVARIANT: The object is an initialised one of the slab.
        let ret = unsafe {
            bindings::kernel_ext_xa_insert(
                self.xa.get(),
                id as usize,
                node.as_ptr().cast(),
                gfp.as_raw(),
            )
        };
        self.entered(ret, node)
    }

    /// Frees the object if it could not be added.
    fn entered(&self, ret: kernel::ffi::c_int, node: NonNull<T>) -> Result {
        to_result(ret).inspect_err(|_| {
            // SAFETY: The object is from this slab, and wasn't added to the array.
            unsafe { self.slab.free(node) }
        })
    }

    /// Returns the object with the id `id`.
    #[inline]
    pub fn get<'g>(&'g self, id: u32, _guard: &'g rcu::Guard) -> Option<Pin<&'g T>> {
        // SAFETY: The array is valid, and the guard proves that RCU is locked.
        let node = unsafe { bindings::kernel_ext_xa_load_rcu(self.xa.get(), id as usize) };
        // SAFETY: By the type invariant this is an object, which stays valid as long as the guard.
        NonNull::new(node.cast::<T>()).map(|value| unsafe { pinned(value) })
    }

    /// Returns the object with the lowest id that is at least `from`.
    pub fn next<'g>(&'g self, from: u32, _guard: &'g rcu::Guard) -> Option<(u32, Pin<&'g T>)> {
        let mut index = from as usize;
        // SAFETY: The array is valid.
        let node = unsafe {
            bindings::xa_find(
                self.xa.get(),
                &mut index,
                u32::MAX as usize,
                bindings::XA_PRESENT,
            )
        };
        // SAFETY: By the type invariant this is an object, which stays valid as long as the guard.
        NonNull::new(node.cast::<T>()).map(|value| (index as u32, unsafe { pinned(value) }))
    }

    /// Removes an object. Its id is free immediately.
    pub fn remove(&self, id: u32) -> Option<Removed<'_, T>> {
        // SAFETY: The array is valid.
        let node = unsafe { bindings::kernel_ext_xa_erase(self.xa.get(), id as usize) };
        // INVARIANT: The object was just removed from the array, and only this call got it.
        NonNull::new(node.cast()).map(|node| Removed(node, PhantomData))
    }

    /// Returns whether the map is empty.
    pub fn is_empty(&self) -> bool {
        // SAFETY: The array is valid.
        unsafe { bindings::kernel_ext_xa_empty(self.xa.get()) }
    }
}

/// # Safety
///
/// The object belongs to an [`IdMap`] and stays valid for `'g`.
unsafe fn pinned<'g, T>(value: NonNull<T>) -> Pin<&'g T> {
    // SAFETY: By this function's contract; objects don't move.
    unsafe { Pin::new_unchecked(value.as_ref()) }
}

#[pinned_drop]
impl<T> PinnedDrop for IdMap<T> {
    fn drop(self: Pin<&mut Self>) {
        let mut index = 0;
        loop {
            // SAFETY: The array is valid, and nothing else can use it any more.
            let node = unsafe {
                bindings::xa_find(self.xa.get(), &mut index, usize::MAX, bindings::XA_PRESENT)
            };
            let Some(node) = NonNull::new(node.cast()) else {
                break;
            };
            // SAFETY: As above. The object is then in no array, and no reader has a reference,
            // because references don't outlive the map.
            unsafe {
                bindings::kernel_ext_xa_erase(self.xa.get(), index);
                self.slab.free(node);
            }
        }
        // SAFETY: As above.
        unsafe { bindings::xa_destroy(self.xa.get()) };
    }
}

/// An object that was removed from its map. Dropping it frees the memory when no reader can see it
/// any more.
///
/// # Invariants
///
/// The object is initialised and in no array, and this value is its only owner.
pub struct Removed<'m, T>(NonNull<T>, PhantomData<&'m IdMap<T>>);

impl<T> Deref for Removed<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: By the type invariant.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Drop for Removed<'_, T> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant it is an object of a slab, and only readers refer to it.
        unsafe { slab::free_later(self.0) };
    }
}
