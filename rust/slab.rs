// SPDX-License-Identifier: GPL-2.0

//! Memory for objects of one type, which readers may see until a grace period after their end.
//!
//! C header: [`include/linux/slab.h`](srctree/include/linux/slab.h)

use core::{
    marker::PhantomData,
    mem::{
        needs_drop,
        size_of, //
    },
    ptr::NonNull, //
};

use kernel::{
    prelude::*,
    types::Opaque, //
};

use crate::{
    bindings,
    gfp::Gfp, //
};

/// An object in a [`Slab`], with what the kernel needs to give it back after a grace period.
#[repr(C)]
struct Node<T> {
    value: T,
    rcu: Opaque<bindings::kvfree_rcu_head>,
}

/// Memory for objects of one type.
///
/// # Invariants
///
/// The pointer is a valid `struct kmem_cache` for objects of `Node<T>`.
pub struct Slab<T>(NonNull<bindings::kmem_cache>, PhantomData<fn() -> T>);

// SAFETY: Slab caches are made for use by everybody at once.
unsafe impl<T> Send for Slab<T> {}
// SAFETY: As above.
unsafe impl<T> Sync for Slab<T> {}

impl<T> Slab<T> {
    /// How much memory an object takes, in bytes. Objects are given back as mere memory.
    const OBJECT_SIZE: usize = {
        assert!(!needs_drop::<T>());
        size_of::<Node<T>>()
    };

    /// Creates a slab cache, which `/proc/slabinfo` shows as `name`. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(name: &'static CStr) -> Result<Self> {
        let mut args = bindings::kmem_cache_args {
            align: align_of::<Node<T>>() as u32,
            ..pin_init::zeroed()
        };
        // SAFETY: The name and the arguments are valid.
        let cache = unsafe {
            bindings::__kmem_cache_create_args(
                name.as_char_ptr(),
                Self::OBJECT_SIZE as u32,
                &mut args,
                0,
            )
        };
        // INVARIANT: It was just made, for this size and alignment.
        Ok(Self(NonNull::new(cache).ok_or(ENOMEM)?, PhantomData))
    }

    /// A new object.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or what `init` fails with.
    pub(crate) fn alloc<E>(&self, init: impl PinInit<T, E>, gfp: Gfp) -> Result<NonNull<T>>
    where
        Error: From<E>,
    {
        // SAFETY: The cache is valid by the type invariant.
        let node = unsafe { bindings::kmem_cache_alloc_noprof(self.0.as_ptr(), gfp.as_raw()) };
        let value = NonNull::new(node.cast::<T>()).ok_or(ENOMEM)?;
        // SAFETY: The memory is fresh, and never moves; the value is the node's first field.
        match unsafe { init.__init(value.as_ptr()) } {
            Ok(()) => Ok(value),
            Err(e) => {
                // SAFETY: The object is from this cache, and nobody else knows it.
                unsafe { self.free(value) };
                Err(e.into())
            }
        }
    }

    /// Gives an object back at once.
    ///
    /// # Safety
    ///
    /// It is from this slab, and nobody refers to it.
    pub(crate) unsafe fn free(&self, value: NonNull<T>) {
        // SAFETY: By this function's contract.
        unsafe { bindings::kmem_cache_free(self.0.as_ptr(), value.as_ptr().cast()) };
    }
}

impl<T> Drop for Slab<T> {
    fn drop(&mut self) {
        // SAFETY: Valid by the type invariant. Who uses a slab keeps it, and has given all objects
        // back; the kernel waits for what is yet to be given back after a grace period.
        unsafe { bindings::kmem_cache_destroy(self.0.as_ptr()) };
    }
}

/// Gives an object back after a grace period. From any context.
///
/// # Safety
///
/// It is from a [`Slab`], and nobody but readers that have RCU locked refers to it.
pub(crate) unsafe fn free_later<T>(value: NonNull<T>) {
    let node = value.cast::<Node<T>>().as_ptr();
    // SAFETY: By this function's contract it is a node's value, and nobody else uses its head.
    unsafe { bindings::kvfree_call_rcu((&raw const (*node).rcu).cast_mut().cast(), node.cast()) };
}
