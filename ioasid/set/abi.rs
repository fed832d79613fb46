// SPDX-License-Identifier: GPL-2.0

//! Sets in the C interface, and the XArray of the sets of a space.
//!
//! C header: [`include/linux/xarray.h`](srctree/include/linux/xarray.h)

use core::{
    pin::Pin,
    ptr::{
        self,
        NonNull, //
    }, //
};

use kernel::{
    error::to_result,
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    sync::{
        rcu,
        Arc, //
    },
    types::Opaque, //
};

use kernel_ext::bindings;

use super::{
    Quota,
    SetId,
    SetState,
    Token, //
};
use crate::{
    gfp::Gfp,
    kmem_cache::{
        self,
        KmemCache, //
    }, //
};

/// A set in the C interface: not an address, but the id of the set. It is looked up, so that an
/// invalid one does no harm. A null pointer means no set or any set.
pub(crate) type SetPtr = *mut bindings::ioasid_set;

// A set's id fits into a pointer.
const _: () = assert!(size_of::<usize>() == size_of::<u64>());

/// Returns the C pointer for a set. It is null for [`SetId::ROOT`].
pub(crate) fn set_pointer(set: SetId) -> SetPtr {
    ptr::without_provenance_mut(set.to_raw() as usize)
}

/// Returns the id of the set for a C pointer. The lookup detects an invalid id.
pub(crate) fn set_id(set: SetPtr) -> SetId {
    SetId::from_raw(set.addr() as u64)
}

/// Returns the token for a C token and its type.
///
/// # Errors
///
/// `EINVAL` if the type is unknown or does not match the token.
pub(crate) fn token_of(token: *mut c_void, kind: c_int) -> Result<Token> {
    match (u32::try_from(kind), token.is_null()) {
        (Ok(bindings::ioasid_set_type_IOASID_SET_TYPE_NULL), true) => Ok(Token::None),
        (Ok(bindings::ioasid_set_type_IOASID_SET_TYPE_MM), false) => Ok(Token::Mm(token.addr())),
        (Ok(bindings::ioasid_set_type_IOASID_SET_TYPE_PRIVATE), false) => {
            Ok(Token::Private(token.addr()))
        }
        _ => Err(EINVAL),
    }
}

/// Returns the quota for a number of ids in C, where 0 means all ids that are left.
pub(crate) fn quota_of(quota: u32) -> Quota {
    match quota {
        0 => Quota::Rest,
        count => Quota::Exactly(count),
    }
}

/// The sets of a space by their numbers. Also allocates the numbers.
///
/// Lookups take no lock. A set is freed only when every reader that may see it has left its RCU
/// read-side critical section.
///
/// Changes take a spinlock with interrupts disabled, so all methods may be called from any context.
/// Memory is allocated with the flags that the caller passes.
///
/// # Invariants
///
/// Each entry points at an initialised object of `cache`. The object is freed at the earliest a
/// grace period after it was removed from the array.
#[pin_data(PinnedDrop)]
pub(crate) struct SetMap {
    #[pin]
    xa: Opaque<bindings::xarray>,
    cache: Arc<KmemCache<SetState>>,
}

// SAFETY: The array has its own lock, and sets are `Send` and `Sync`.
unsafe impl Send for SetMap {}
// SAFETY: As above.
unsafe impl Sync for SetMap {}

// The argument of the above.
const _: fn() = || {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<SetState>();
};

impl SetMap {
    /// Creates an empty map, whose sets are allocated from `cache`.
    pub(crate) fn new(cache: Arc<KmemCache<SetState>>) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: The array is pinned. INVARIANT: It is empty.
            xa <- Opaque::ffi_init(|xa| unsafe { bindings::kernel_ext_xa_init(xa) }),
            cache,
        })
    }

    /// Adds a set with the lowest free number between `first` and `last`. Returns the number.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if no number is free; `ENOMEM`.
    pub(crate) fn alloc(
        &self,
        first: u32,
        last: u32,
        init: impl PinInit<SetState>,
        gfp: Gfp,
    ) -> Result<u32> {
        let set = self.cache.alloc(init, gfp)?;
        let mut number = 0;
        // SAFETY: The array is valid. INVARIANT: The object is an initialised one of the cache.
        let ret = unsafe {
            bindings::kernel_ext_xa_alloc(
                self.xa.get(),
                &mut number,
                set.as_ptr().cast(),
                first,
                last,
                gfp.as_raw(),
            )
        };
        self.added(ret, set)
            .map_err(|e| if e == EBUSY { ENOSPC } else { e })?;
        Ok(number)
    }

    /// Adds a set with this number.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the number is in use; `ENOMEM`.
    pub(crate) fn insert(&self, number: u32, init: impl PinInit<SetState>, gfp: Gfp) -> Result {
        let set = self.cache.alloc(init, gfp)?;
        // SAFETY: The array is valid. INVARIANT: The object is an initialised one of the cache.
        let ret = unsafe {
            bindings::kernel_ext_xa_insert(
                self.xa.get(),
                number as usize,
                set.as_ptr().cast(),
                gfp.as_raw(),
            )
        };
        self.added(ret, set)
    }

    /// Frees the set if it could not be added.
    fn added(&self, ret: c_int, set: NonNull<SetState>) -> Result {
        to_result(ret).inspect_err(|_| {
            // SAFETY: The object is from this cache, and wasn't added to the array.
            unsafe { self.cache.free(set) }
        })
    }

    /// Returns the set with this number.
    #[inline]
    pub(crate) fn get<'g>(
        &'g self,
        number: u32,
        _guard: &'g rcu::Guard,
    ) -> Option<Pin<&'g SetState>> {
        // SAFETY: The array is valid, and the guard proves that RCU is locked.
        let set = unsafe { bindings::kernel_ext_xa_load_rcu(self.xa.get(), number as usize) };
        // SAFETY: By the type invariant this is a set, which stays valid as long as the guard.
        NonNull::new(set.cast()).map(|set| unsafe { pinned(set) })
    }

    /// Returns the set with the lowest number that is at least `from`, and its number.
    pub(crate) fn next<'g>(
        &'g self,
        from: u32,
        _guard: &'g rcu::Guard,
    ) -> Option<(u32, Pin<&'g SetState>)> {
        let mut number = from as usize;
        // SAFETY: The array is valid.
        let set = unsafe {
            bindings::xa_find(
                self.xa.get(),
                &mut number,
                u32::MAX as usize,
                bindings::XA_PRESENT,
            )
        };
        // SAFETY: By the type invariant this is a set, which stays valid as long as the guard.
        NonNull::new(set.cast()).map(|set| (number as u32, unsafe { pinned(set) }))
    }

    /// Removes the set with this number, if there is one. The number is free immediately, the
    /// memory when no reader can see the set any more.
    pub(crate) fn remove(&self, number: u32) {
        // SAFETY: The array is valid.
        let set = unsafe { bindings::kernel_ext_xa_erase(self.xa.get(), number as usize) };
        if let Some(set) = NonNull::new(set.cast::<SetState>()) {
            // SAFETY: By the type invariant it is an initialised object, which is not freed yet.
            unsafe { set.as_ref() }.spids.clear();
            // SAFETY: By the type invariant it is an object of the cache. It was just removed from
            // the array, and only this call got it, so only readers refer to it.
            unsafe { kmem_cache::free_later(set) };
        }
    }
}

/// # Safety
///
/// The set belongs to a [`SetMap`] and stays valid for `'g`.
unsafe fn pinned<'g>(set: NonNull<SetState>) -> Pin<&'g SetState> {
    // SAFETY: By this function's contract; objects don't move.
    unsafe { Pin::new_unchecked(set.as_ref()) }
}

#[pinned_drop]
impl PinnedDrop for SetMap {
    fn drop(self: Pin<&mut Self>) {
        let mut number = 0;
        loop {
            // SAFETY: The array is valid, and nothing else can use it any more.
            let set = unsafe {
                bindings::xa_find(self.xa.get(), &mut number, usize::MAX, bindings::XA_PRESENT)
            };
            let Some(set) = NonNull::new(set.cast::<SetState>()) else {
                break;
            };
            // SAFETY: By the type invariant it is an initialised object.
            unsafe { set.as_ref() }.spids.clear();
            // SAFETY: As above. The set is then in no array, and no reader has a reference, because
            // references don't outlive the map.
            unsafe {
                bindings::kernel_ext_xa_erase(self.xa.get(), number);
                self.cache.free(set);
            }
        }
        // SAFETY: As above.
        unsafe { bindings::xa_destroy(self.xa.get()) };
    }
}
