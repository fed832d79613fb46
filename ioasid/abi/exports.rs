// SPDX-License-Identifier: GPL-2.0

//! The functions of `include/linux/ioasid.h`, except for those that register C functions.
//!
//! A `struct ioasid_set *` is not an address but contains the id of the set. It is looked up, so
//! that an invalid one does no harm. A null pointer means no set or any set.

use core::ptr;

use kernel::{
    error::from_result,
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*, //
};

use kernel_ext::{
    bindings,
    gfp::Gfp, //
};

use super::system::system;
use crate::{
    complain::complain,
    key::Key,
    life::Right,
    pasid::Reference,
    range::{
        IdRange,
        INVALID, //
    },
    set::{
        Quota,
        Token, //
    },
    set_id::SetId, //
};

/// A set in the C interface.
pub(super) type SetPtr = *mut bindings::ioasid_set;

// A set's id fits into a pointer.
const _: () = assert!(size_of::<usize>() == size_of::<u64>());

/// Returns the C pointer for a set. It is null for [`SetId::ROOT`].
pub(super) fn set_pointer(set: SetId) -> SetPtr {
    ptr::without_provenance_mut(set.to_raw() as usize)
}

/// Returns the id of the set for a C pointer. The lookup detects an invalid id.
pub(super) fn set_id(set: SetPtr) -> SetId {
    SetId::from_raw(set.addr() as u64)
}

/// Returns the key for an id in the C interface. The id must be in the set, unless the pointer is
/// null.
fn key(set: SetPtr, ioasid: u32) -> Key {
    Key::new((!set.is_null()).then(|| set_id(set)), ioasid)
}

/// Logs the error of a function that cannot return it.
fn complain_of(what: &CStr, id: u32, result: Result) {
    if let Err(e) = result {
        complain(what, id, e);
    }
}

// --- Sets --------------------------------------------------------------------------------------

#[no_mangle]
extern "C" fn ioasid_set_alloc(token: *mut c_void, quota: u32, kind: c_int) -> SetPtr {
    let created = token_of(token, kind).and_then(|token| {
        let quota = match quota {
            0 => Quota::Rest,
            count => Quota::Exactly(count),
        };
        system().new_set(token, quota)
    });
    match created {
        Ok(set) => set_pointer(set.into_handle()),
        Err(e) => e.to_ptr(),
    }
}

/// Returns the token for a C token and its type.
///
/// # Errors
///
/// `EINVAL` if the type is unknown or does not match the token.
fn token_of(token: *mut c_void, kind: c_int) -> Result<Token> {
    match (u32::try_from(kind), token.is_null()) {
        (Ok(bindings::ioasid_set_type_IOASID_SET_TYPE_NULL), true) => Ok(Token::None),
        (Ok(bindings::ioasid_set_type_IOASID_SET_TYPE_MM), false) => Ok(Token::Mm(token.addr())),
        (Ok(bindings::ioasid_set_type_IOASID_SET_TYPE_PRIVATE), false) => {
            Ok(Token::Private(token.addr()))
        }
        _ => Err(EINVAL),
    }
}

#[no_mangle]
extern "C" fn ioasid_set_free(set: SetPtr) -> c_int {
    from_result(|| system().free_set(set_id(set)).map(|()| 0))
}

#[no_mangle]
extern "C" fn ioasid_set_get(set: SetPtr) {
    let got = system().get_set(set_id(set));
    let got = got.map(|set| _ = set.into_handle());
    complain_of(c"get set", set_id(set).number(), got);
}

#[no_mangle]
extern "C" fn ioasid_set_put(set: SetPtr) {
    complain_of(
        c"put set",
        set_id(set).number(),
        system().put_set(set_id(set)),
    );
}

#[no_mangle]
extern "C" fn ioasid_find_mm_set(mm: *mut bindings::mm_struct) -> SetPtr {
    match system().find_mm_set(mm.addr()) {
        Ok(set) => set_pointer(set.into_handle()),
        Err(e) => e.to_ptr(),
    }
}

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

#[no_mangle]
extern "C" fn ioasid_install_capacity(total: u32) -> c_int {
    from_result(|| system().install_capacity(total).map(|()| 0))
}

#[no_mangle]
extern "C" fn ioasid_reserve_capacity(count: u32) -> c_int {
    from_result(|| system().reserve_capacity(count).map(|()| 0))
}

#[no_mangle]
extern "C" fn ioasid_cancel_capacity(count: u32) {
    let cancelled = system().cancel_capacity(count);
    complain_of(c"cancel as many ids as", count, cancelled);
}

// --- Ids ---------------------------------------------------------------------------------------

fn alloc(set: SetPtr, min: u32, max: u32, private: *mut c_void, gfp: Gfp) -> Result<u32> {
    let range = IdRange::new(min, max)?;
    let data = private.expose_provenance();
    let key = system().alloc_in(set_id(set), range, data, gfp, Right::Anyone)?;
    Ok(key.id)
}

/// Converts GFP flags. If reclaim is restricted in any way, as with `GFP_NOFS`, the allocation must
/// not sleep.
fn gfp_of(gfp: bindings::gfp_t) -> Gfp {
    let has = |bit: u32| gfp & (1 << bit) != 0;
    let reclaims = has(bindings::___GFP_DIRECT_RECLAIM_BIT)
        && has(bindings::___GFP_IO_BIT)
        && has(bindings::___GFP_FS_BIT);
    match (reclaims, has(bindings::___GFP_ACCOUNT_BIT)) {
        (false, _) => Gfp::Atomic,
        (true, false) => Gfp::Kernel,
        (true, true) => Gfp::KernelAccount,
    }
}

#[no_mangle]
extern "C" fn ioasid_alloc(set: SetPtr, min: u32, max: u32, private: *mut c_void) -> u32 {
    alloc(set, min, max, private, Gfp::Atomic).unwrap_or(INVALID)
}

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
        let id = alloc(set, min, max, private, gfp_of(gfp))?;
        // SAFETY: By this function's contract.
        unsafe { ioasid.write(id) };
        Ok(0)
    })
}

/// The value for no handle. Its lower half is the invalid id.
const NO_HANDLE: u64 = u64::MAX;

/// Returns the handle of an id in no set. The upper half is its generation, the lower half its
/// number.
#[no_mangle]
extern "C" fn ioasid_alloc_owned(min: u32, max: u32) -> u64 {
    let key = IdRange::new(min, max)
        .and_then(|range| system().alloc_in(SetId::ROOT, range, 0, Gfp::Kernel, Right::Owner));
    key.ok().and_then(Key::to_raw).unwrap_or(NO_HANDLE)
}

#[no_mangle]
extern "C" fn ioasid_free_owned(handle: u64) {
    let key = Key::from_raw(handle, Right::Owner);
    complain_of(c"free id", key.id, system().free(key));
}

#[no_mangle]
extern "C" fn ioasid_free(set: SetPtr, ioasid: u32) {
    complain_of(c"free id", ioasid, system().free(key(set, ioasid)));
}

#[no_mangle]
extern "C" fn ioasid_get(set: SetPtr, ioasid: u32) -> c_int {
    from_result(|| {
        let reference = system().get(key(set, ioasid))?;
        reference.into_id();
        Ok(0)
    })
}

#[no_mangle]
extern "C" fn ioasid_put(set: SetPtr, ioasid: u32) -> bool {
    system().put(key(set, ioasid)).unwrap_or_else(|e| {
        complain(c"put id", ioasid, e);
        false
    })
}

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
    let found = system().find(key(set, ioasid), |data| {
        let data = ptr::with_exposed_provenance_mut(data);
        // SAFETY: By this function's contract.
        let wanted = getter.is_none_or(|getter| unsafe { getter(data) });
        if wanted {
            data
        } else {
            ptr::null_mut()
        }
    });
    found.unwrap_or_else(Error::to_ptr)
}

#[no_mangle]
extern "C" fn ioasid_set_data(ioasid: u32, data: *mut c_void) -> c_int {
    from_result(|| {
        let data = data.expose_provenance();
        system().set_data(Key::new(None, ioasid), data).map(|()| 0)
    })
}

#[no_mangle]
extern "C" fn ioasid_attach_data(ioasid: u32, data: *mut c_void) -> c_int {
    from_result(|| {
        let data = data.expose_provenance();
        system()
            .attach_data(Key::new(None, ioasid), data)
            .map(|()| 0)
    })
}

#[no_mangle]
extern "C" fn ioasid_detach_data(ioasid: u32) {
    let detached = system().detach_data(Key::new(None, ioasid));
    complain_of(c"detach the data of id", ioasid, detached);
}

// --- SPIDs -------------------------------------------------------------------------------------

#[no_mangle]
extern "C" fn ioasid_attach_spid(ioasid: u32, spid: u32) -> c_int {
    from_result(|| {
        system()
            .attach_spid(Key::new(None, ioasid), spid)
            .map(|()| 0)
    })
}

#[no_mangle]
extern "C" fn ioasid_detach_spid(ioasid: u32) {
    let detached = system().detach_spid(Key::new(None, ioasid));
    complain_of(c"detach the SPID of id", ioasid, detached);
}

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
