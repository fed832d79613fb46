// SPDX-License-Identifier: GPL-2.0

//! The functions of `include/linux/ioasid.h`, which are for C.
//!
//! Functions that cannot return an error log it.

use core::ptr;

use kernel::{
    error::from_result,
    ffi::{
        c_int,
        c_uint,
        c_void, //
    },
    prelude::*,
    sync::Arc, //
};

use kernel_ext::{
    bindings,
    mm::may_warn, //
};

use crate::{
    allocator::abi::AllocatorOps,
    gfp::Gfp,
    id::{
        abi::{
            gfp_of,
            key_of, //
        },
        handle::Reference,
        key::Key,
        range::{
            IdRange,
            INVALID, //
        },
        state::Right, //
    },
    notifier::{
        abi::{
            event_of,
            register_block,
            scope_of,
            unregister_block, //
        },
        NotifyFlags,
        Scope, //
    },
    set::{
        abi::{
            quota_of,
            set_id,
            set_pointer,
            token_of,
            SetPtr, //
        },
        Set,
        SetId,
        Token, //
    },
    space::system,
    warn_failed, //
};

// --- Sets --------------------------------------------------------------------------------------

/// Creates a set. Returns it, or an error pointer.
#[no_mangle]
extern "C" fn ioasid_set_alloc(token: *mut c_void, quota: u32, kind: c_int) -> SetPtr {
    let created = token_of(token, kind).and_then(|token| system().new_set(token, quota_of(quota)));
    match created {
        Ok(set) => set_pointer(set.into_handle()),
        Err(e) => e.to_ptr(),
    }
}

/// Closes a set without ids, and drops the handle of its creator.
#[no_mangle]
extern "C" fn ioasid_set_free(set: SetPtr) -> c_int {
    from_result(|| system().free_set(set_id(set)).map(|()| 0))
}

/// Takes another handle of a set.
#[no_mangle]
extern "C" fn ioasid_set_get(set: SetPtr) {
    let set = set_id(set);
    match system().get_set(set) {
        Ok(handle) => _ = handle.into_handle(),
        Err(e) => warn_failed(fmt!("take a handle of set {}", set.number()), e),
    }
}

/// Drops a handle of a set.
#[no_mangle]
extern "C" fn ioasid_set_put(set: SetPtr) {
    let set = set_id(set);
    if let Err(e) = system().put_set(set) {
        warn_failed(fmt!("drop a handle of set {}", set.number()), e);
    }
}

/// Returns a handle of the set of a process, or an error pointer.
#[no_mangle]
extern "C" fn ioasid_find_mm_set(mm: *mut bindings::mm_struct) -> SetPtr {
    match system().find_mm_set(mm.addr()) {
        Ok(set) => set_pointer(set.into_handle()),
        Err(e) => e.to_ptr(),
    }
}

/// Calls `f` for each id of a set.
///
/// # Safety
///
/// `f` can be called with any id and `data`.
#[no_mangle]
unsafe extern "C" fn ioasid_set_for_each_ioasid(
    set: SetPtr,
    f: Option<unsafe extern "C" fn(u32, *mut c_void)>,
    data: *mut c_void,
) -> c_int {
    from_result(|| {
        let f = f.ok_or(EINVAL)?;
        // SAFETY: By this function's contract.
        system().for_each_in(set_id(set), |id| unsafe { f(id, data) })?;
        Ok(0)
    })
}

/// Lowers the capacity of the space.
#[no_mangle]
extern "C" fn ioasid_install_capacity(total: u32) -> c_int {
    from_result(|| system().install_capacity(total).map(|()| 0))
}

/// Reserves ids for the caller.
#[no_mangle]
extern "C" fn ioasid_reserve_capacity(count: u32) -> c_int {
    from_result(|| system().reserve_capacity(count).map(|()| 0))
}

/// Cancels reservations of [`ioasid_reserve_capacity`].
#[no_mangle]
extern "C" fn ioasid_cancel_capacity(count: u32) {
    if let Err(e) = system().cancel_capacity(count) {
        warn_failed(fmt!("cancel the reservation of {count} ids"), e);
    }
}

// --- Ids ---------------------------------------------------------------------------------------

/// Allocates an id in a set without sleeping. Returns it, or the invalid id.
#[no_mangle]
extern "C" fn ioasid_alloc(set: SetPtr, min: u32, max: u32, private: *mut c_void) -> u32 {
    let data = private.expose_provenance();
    let key = IdRange::new(min, max)
        .and_then(|range| system().alloc_in(set_id(set), range, data, Gfp::Atomic, Right::Anyone));
    key.map_or(INVALID, Key::id)
}

/// Allocates an id in a set, and writes it to `ioasid`.
///
/// # Safety
///
/// `ioasid` is valid for writes.
#[no_mangle]
unsafe extern "C" fn ioasid_alloc_gfp(
    set: SetPtr,
    min: u32,
    max: u32,
    private: *mut c_void,
    gfp: bindings::gfp_t,
    ioasid: *mut u32,
) -> c_int {
    from_result(|| {
        let range = IdRange::new(min, max)?;
        let data = private.expose_provenance();
        let key = system().alloc_in(set_id(set), range, data, gfp_of(gfp), Right::Anyone)?;
        // SAFETY: By this function's contract.
        unsafe { ioasid.write(key.id()) };
        Ok(0)
    })
}

/// Allocates an id in no set. Returns its handle: the upper half is the id's generation, the lower
/// half its number. Without an id, the lower half is the invalid id.
#[no_mangle]
extern "C" fn ioasid_alloc_owned(min: u32, max: u32) -> u64 {
    let key = IdRange::new(min, max)
        .and_then(|range| system().alloc_in(SetId::ROOT, range, 0, Gfp::Kernel, Right::Owner));
    key.ok().and_then(Key::to_raw).unwrap_or(u64::MAX)
}

/// Frees the id of a handle.
#[no_mangle]
extern "C" fn ioasid_free_owned(handle: u64) {
    let key = Key::from_raw(handle, Right::Owner);
    if let Err(e) = system().free(key) {
        warn_failed(fmt!("free id {}", key.id()), e);
    }
}

/// Frees an id.
#[no_mangle]
extern "C" fn ioasid_free(set: SetPtr, ioasid: u32) {
    if let Err(e) = system().free(key_of(set, ioasid)) {
        warn_failed(fmt!("free id {ioasid}"), e);
    }
}

/// Takes a reference to an id.
#[no_mangle]
extern "C" fn ioasid_get(set: SetPtr, ioasid: u32) -> c_int {
    from_result(|| {
        let reference = system().get(key_of(set, ioasid))?;
        reference.into_id();
        Ok(0)
    })
}

/// Drops a reference to an id. Returns true if the id is gone.
#[no_mangle]
extern "C" fn ioasid_put(set: SetPtr, ioasid: u32) -> bool {
    system().put(key_of(set, ioasid)).unwrap_or_else(|e| {
        warn_failed(fmt!("drop a reference to id {ioasid}"), e);
        false
    })
}

/// Returns the private data of an id, null if `getter` returns false for them, or an error pointer.
///
/// # Safety
///
/// `getter` is null, or can be called with the id's private data inside an RCU read-side critical
/// section.
#[no_mangle]
unsafe extern "C" fn ioasid_find(
    set: SetPtr,
    ioasid: u32,
    getter: Option<unsafe extern "C" fn(*mut c_void) -> bool>,
) -> *mut c_void {
    let found = system().find(key_of(set, ioasid), |data| {
        let data = ptr::with_exposed_provenance_mut(data);
        // SAFETY: By this function's contract.
        let accepted = getter.is_none_or(|getter| unsafe { getter(data) });
        if accepted {
            data
        } else {
            ptr::null_mut()
        }
    });
    found.unwrap_or_else(Error::to_ptr)
}

/// Replaces the private data of an id.
#[no_mangle]
extern "C" fn ioasid_set_data(ioasid: u32, data: *mut c_void) -> c_int {
    let (key, data) = (Key::new(None, ioasid), data.expose_provenance());
    from_result(|| system().set_data(key, data).map(|()| 0))
}

/// Sets the private data of an id that has none.
#[no_mangle]
extern "C" fn ioasid_attach_data(ioasid: u32, data: *mut c_void) -> c_int {
    let (key, data) = (Key::new(None, ioasid), data.expose_provenance());
    from_result(|| system().attach_data(key, data).map(|()| 0))
}

/// Removes the private data of an id.
#[no_mangle]
extern "C" fn ioasid_detach_data(ioasid: u32) {
    if let Err(e) = system().detach_data(Key::new(None, ioasid)) {
        warn_failed(fmt!("detach the private data of id {ioasid}"), e);
    }
}

// --- SPIDs -------------------------------------------------------------------------------------

/// Sets the SPID of an id.
#[no_mangle]
extern "C" fn ioasid_attach_spid(ioasid: u32, spid: u32) -> c_int {
    let key = Key::new(None, ioasid);
    from_result(|| system().attach_spid(key, spid).map(|()| 0))
}

/// Removes the SPID of an id.
#[no_mangle]
extern "C" fn ioasid_detach_spid(ioasid: u32) {
    if let Err(e) = system().detach_spid(Key::new(None, ioasid)) {
        warn_failed(fmt!("detach the SPID of id {ioasid}"), e);
    }
}

/// Returns the id with an SPID in a set, or the invalid id. Takes a reference to it if `get`.
#[no_mangle]
extern "C" fn ioasid_find_by_spid(set: SetPtr, spid: u32, get: bool) -> u32 {
    let found = if get {
        let reference = system().get_by_spid(set_id(set), spid);
        reference.map(Reference::into_id)
    } else {
        system().by_spid(set_id(set), spid)
    };
    found.unwrap_or(INVALID)
}

// --- Notifiers ---------------------------------------------------------------------------------

/// Registers a notifier for the ids of a set, or for all ids if `set` is null.
///
/// # Safety
///
/// `nb` is valid until it is unregistered.
#[no_mangle]
unsafe extern "C" fn ioasid_register_notifier(
    set: SetPtr,
    nb: *mut bindings::notifier_block,
) -> c_int {
    from_result(|| {
        let scope = scope_of(set);
        let handle = match scope {
            Scope::Set(set) => Some(system().get_set(set)?),
            _ => None,
        };
        // SAFETY: By this function's contract.
        unsafe { register_block(scope, nb) }?;
        // The set exists as long as it has a notifier.
        handle.map(Set::into_handle);
        Ok(0)
    })
}

/// Unregisters a notifier of [`ioasid_register_notifier`].
#[no_mangle]
extern "C" fn ioasid_unregister_notifier(set: SetPtr, nb: *mut bindings::notifier_block) {
    let scope = scope_of(set);
    if let (true, Scope::Set(set)) = (unregister_block(scope, nb), scope) {
        drop(Set::from_handle(system(), set));
    }
}

/// Registers a notifier for the ids of a process, which need not have a set yet.
///
/// # Safety
///
/// `nb` is valid until it is unregistered.
#[no_mangle]
unsafe extern "C" fn ioasid_register_notifier_mm(
    mm: *mut bindings::mm_struct,
    nb: *mut bindings::notifier_block,
) -> c_int {
    from_result(|| {
        if mm.is_null() {
            return Err(EINVAL);
        }
        // SAFETY: By this function's contract.
        unsafe { register_block(Scope::Token(Token::Mm(mm.addr())), nb) }?;
        Ok(0)
    })
}

/// Unregisters a notifier of [`ioasid_register_notifier_mm`].
#[no_mangle]
extern "C" fn ioasid_unregister_notifier_mm(
    mm: *mut bindings::mm_struct,
    nb: *mut bindings::notifier_block,
) {
    unregister_block(Scope::Token(Token::Mm(mm.addr())), nb);
}

/// Binds or unbinds an id, and calls the notifiers that `flags` select.
#[no_mangle]
extern "C" fn ioasid_notify(ioasid: u32, cmd: c_uint, flags: c_uint) -> c_int {
    from_result(|| {
        let (event, flags) = (event_of(cmd)?, NotifyFlags::from_raw(flags)?);
        let key = Key::new(None, ioasid);
        system().notify(key, event, flags).map(|()| 0)
    })
}

// --- Custom allocators -------------------------------------------------------------------------

/// Registers a custom allocator.
///
/// # Safety
///
/// `allocator` does not change until it is unregistered.
#[no_mangle]
unsafe extern "C" fn ioasid_register_allocator(
    allocator: *mut bindings::ioasid_allocator_ops,
) -> c_int {
    from_result(|| {
        // SAFETY: By this function's contract. `ops` is dropped when the allocator has been
        // unregistered.
        let ops = unsafe { AllocatorOps::new(allocator) }?;
        let kind = ops.kind();
        let ops = Arc::new(ops, GFP_KERNEL)?;
        system().add_allocator(kind, allocator.addr(), ops)?;
        Ok(0)
    })
}

/// Unregisters a custom allocator.
#[no_mangle]
extern "C" fn ioasid_unregister_allocator(allocator: *mut bindings::ioasid_allocator_ops) {
    if system().remove_allocator(allocator.addr()).is_err() && may_warn() {
        pr_warn!("allocator is not registered\n");
    }
}
