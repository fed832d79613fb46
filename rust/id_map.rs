// SPDX-License-Identifier: GPL-2.0

//! Numbers, each with an object, that are looked up without a lock.
//!
//! Objects lie in a [`Slab`] of their own and are only given back when every reader that may see
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

/// A map from 32-bit numbers to objects, which also finds free numbers.
///
/// Lookups take no lock. Changes take a spinlock with interrupts disabled, so that all of this may be
/// called from any context; memory is allocated with what the caller allows.
///
/// # Invariants
///
/// Each entry points at an initialised object of `slab`, which is given back a grace period after it
/// left the array at least.
#[pin_data(PinnedDrop)]
pub struct IdMap<T> {
    #[pin]
    xa: Opaque<bindings::xarray>,
    slab: Arc<Slab<T>>,
}

// SAFETY: The array has its lock, and objects may be sent and shared.
unsafe impl<T: Send + Sync> Send for IdMap<T> {}
// SAFETY: As above.
unsafe impl<T: Send + Sync> Sync for IdMap<T> {}

impl<T: Send + Sync + 'static> IdMap<T> {
    /// An empty map, whose objects come from `slab`.
    pub fn new(slab: Arc<Slab<T>>) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: The array is pinned. INVARIANT: It is empty.
            xa <- Opaque::ffi_init(|xa| unsafe { bindings::kernel_ext_xa_init(xa) }),
            slab,
        })
    }

    /// Enters an object under the lowest free number between `first` and `last`, and returns that.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if no number is free; `ENOMEM`; what `init` fails with.
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

    /// Enters an object under the number `id`.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the number is taken; `ENOMEM`; what `init` fails with.
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

    /// Gives the object back if it could not be entered.
    fn entered(&self, ret: kernel::ffi::c_int, node: NonNull<T>) -> Result {
        to_result(ret).inspect_err(|_| {
            // SAFETY: It is from this slab and did not come into the array.
            unsafe { self.slab.free(node) }
        })
    }

    /// The object with the number `id`.
    #[inline]
    pub fn get<'g>(&'g self, id: u32, _guard: &'g rcu::Guard) -> Option<Pin<&'g T>> {
        // SAFETY: The array is valid, and the guard proves that RCU is locked.
        let node = unsafe { bindings::kernel_ext_xa_load_rcu(self.xa.get(), id as usize) };
        // SAFETY: By the type invariant this is an object, which stays as long as the guard.
        NonNull::new(node.cast::<T>()).map(|value| unsafe { pinned(value) })
    }

    /// The object with the lowest number that is not below `from`.
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
        // SAFETY: By the type invariant this is an object, which stays as long as the guard.
        NonNull::new(node.cast::<T>()).map(|value| (index as u32, unsafe { pinned(value) }))
    }

    /// Takes an object out; its number is free at once.
    pub fn remove(&self, id: u32) -> Option<Removed<'_, T>> {
        // SAFETY: The array is valid.
        let node = unsafe { bindings::kernel_ext_xa_erase(self.xa.get(), id as usize) };
        // INVARIANT: The object has just left the array, for whoever took it out.
        NonNull::new(node.cast()).map(|node| Removed(node, PhantomData))
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        // SAFETY: The array is valid.
        unsafe { bindings::kernel_ext_xa_empty(self.xa.get()) }
    }
}

/// # Safety
///
/// The object is one of an [`IdMap`] and stays for `'g`.
unsafe fn pinned<'g, T>(value: NonNull<T>) -> Pin<&'g T> {
    // SAFETY: By this function's contract; objects don't move.
    unsafe { Pin::new_unchecked(value.as_ref()) }
}

#[pinned_drop]
impl<T> PinnedDrop for IdMap<T> {
    fn drop(self: Pin<&mut Self>) {
        let mut index = 0;
        loop {
            // SAFETY: The array is valid, and nobody else can use it any more.
            let node = unsafe {
                bindings::xa_find(self.xa.get(), &mut index, usize::MAX, bindings::XA_PRESENT)
            };
            let Some(node) = NonNull::new(node.cast()) else {
                break;
            };
            // SAFETY: As above; the object is then in no array, and readers can't have a reference
            // that outlives the map.
            unsafe {
                bindings::kernel_ext_xa_erase(self.xa.get(), index);
                self.slab.free(node);
            }
        }
        // SAFETY: As above.
        unsafe { bindings::xa_destroy(self.xa.get()) };
    }
}

/// An object that left its map. Dropping it gives the memory back, once no reader can see it.
///
/// # Invariants
///
/// The object is initialised, in no array, and this is the only owner.
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
        // SAFETY: By the type invariant it is a slab's object, and only readers refer to it.
        unsafe { slab::free_later(self.0) };
    }
}
