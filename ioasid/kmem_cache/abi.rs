// SPDX-License-Identifier: GPL-2.0

//! Slab caches for objects of one type, which can be freed after an RCU grace period.
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

use kernel_ext::bindings;

use crate::gfp::Gfp;

/// An object of a [`KmemCache`], with the head that the kernel needs to free it after a grace
/// period.
#[repr(C)]
struct Object<T> {
    value: T,
    rcu: Opaque<bindings::kvfree_rcu_head>,
}

/// A slab cache for objects of one type.
///
/// # Invariants
///
/// The pointer is a valid `struct kmem_cache` for objects of `Object<T>`.
pub(crate) struct KmemCache<T>(NonNull<bindings::kmem_cache>, PhantomData<fn(T) -> T>);

// SAFETY: Slab caches may be used concurrently.
unsafe impl<T> Send for KmemCache<T> {}
// SAFETY: As above.
unsafe impl<T> Sync for KmemCache<T> {}

impl<T> KmemCache<T> {
    /// The size of an object in bytes. Objects are freed without being dropped.
    const SIZE: usize = {
        assert!(!needs_drop::<T>());
        size_of::<Object<T>>()
    };

    /// Creates a slab cache, which `/proc/slabinfo` shows as `name`. May sleep.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(name: &'static CStr) -> Result<Self> {
        let mut args = bindings::kmem_cache_args {
            align: align_of::<Object<T>>() as u32,
            ..pin_init::zeroed()
        };
        // SAFETY: The name and the arguments are valid.
        let cache = unsafe {
            bindings::__kmem_cache_create_args(name.as_char_ptr(), Self::SIZE as u32, &mut args, 0)
        };
        // INVARIANT: The cache was just created, for this size and alignment.
        Ok(Self(NonNull::new(cache).ok_or(ENOMEM)?, PhantomData))
    }

    /// Allocates an object.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, or the errors of `init`.
    pub(crate) fn alloc<E>(&self, init: impl PinInit<T, E>, gfp: Gfp) -> Result<NonNull<T>>
    where
        Error: From<E>,
    {
        // SAFETY: The cache is valid by the type invariant.
        let object = unsafe { bindings::kmem_cache_alloc_noprof(self.0.as_ptr(), gfp.as_raw()) };
        let value = NonNull::new(object.cast::<T>()).ok_or(ENOMEM)?;
        // SAFETY: The memory is fresh and never moves. The value is the first field of the object.
        match unsafe { init.__init(value.as_ptr()) } {
            Ok(()) => Ok(value),
            Err(e) => {
                // SAFETY: The object is from this cache, and nothing else refers to it.
                unsafe { self.free(value) };
                Err(e.into())
            }
        }
    }

    /// Frees an object immediately.
    ///
    /// # Safety
    ///
    /// The object is from this cache, and nothing refers to it.
    pub(crate) unsafe fn free(&self, value: NonNull<T>) {
        // SAFETY: By this function's contract.
        unsafe { bindings::kmem_cache_free(self.0.as_ptr(), value.as_ptr().cast()) };
    }
}

impl<T> Drop for KmemCache<T> {
    fn drop(&mut self) {
        // SAFETY: The cache is valid by the type invariant. Users of a cache keep a reference to it
        // and have freed all objects. The kernel waits for objects that are yet to be freed after a
        // grace period.
        unsafe { bindings::kmem_cache_destroy(self.0.as_ptr()) };
    }
}

/// Frees an object after a grace period. May be called from any context.
///
/// # Safety
///
/// The object is from a [`KmemCache`]. Only readers that hold the RCU lock refer to it.
pub(crate) unsafe fn free_later<T>(value: NonNull<T>) {
    let object = value.cast::<Object<T>>().as_ptr();
    // SAFETY: By this function's contract it is the value of an object, and nothing else uses the
    // object's head.
    unsafe {
        bindings::kvfree_call_rcu((&raw const (*object).rcu).cast_mut().cast(), object.cast());
    }
}
