// SPDX-License-Identifier: GPL-2.0

//! The functions of `include/linux/ioasid.h`, but for those that take functions of others.
//!
//! A `struct ioasid_set *` is not an address but the set's number, so a wrong one does no harm: it is
//! looked up. Null stands for no set, or for any.

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
    pasid::Reference,
    range::{
        IdRange,
        INVALID, //
    },
    set::{
        Quota,
        Set,
        Token, //
    },
};

/// A set, as C calls it.
pub(super) type SetPtr = *mut bindings::ioasid_set;

/// How C calls the set with this number.
pub(super) fn set_pointer(number: u32) -> SetPtr {
    ptr::without_provenance_mut(number as usize)
}

/// The set that C means, of which null is the one for all others.
pub(super) fn number(set: SetPtr) -> u32 {
    // What is no set's number is refused when it is looked up.
    u32::try_from(set.addr()).unwrap_or(INVALID)
}

/// The set that an id must be in; null is any.
fn required(set: SetPtr) -> Option<u32> {
    (!set.is_null()).then(|| number(set))
}

/// Says why a function failed which can't tell its caller.
fn complain(what: &CStr, id: u32, result: Result) {
    if let Err(e) = result {
        pr_warn!("can't {} id {}: {:?}\n", what, id, e);
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

/// The token that C means.
///
/// # Errors
///
/// `EINVAL` if the type is unknown, or doesn't go with the token.
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
    from_result(|| system().free_set(number(set)).map(|()| 0))
}

#[no_mangle]
extern "C" fn ioasid_set_get(set: SetPtr) {
    match system().get_set(number(set)) {
        Ok(set) => drop(set.into_handle()),
        Err(_) => pr_warn!("there is no set {}\n", number(set)),
    }
}

#[no_mangle]
extern "C" fn ioasid_set_put(set: SetPtr) {
    drop(Set::from_handle(system(), number(set)));
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
        system().for_each_in(number(set), |id| unsafe { f(id, data) })?;
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
    system().cancel_capacity(count);
}

// --- Ids ---------------------------------------------------------------------------------------

fn alloc(set: SetPtr, min: u32, max: u32, private: *mut c_void, gfp: Gfp) -> Result<u32> {
    let range = IdRange::new(min, max)?;
    system().alloc_in(number(set), range, private.expose_provenance(), gfp)
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
        let may_sleep = gfp & (1 << bindings::___GFP_DIRECT_RECLAIM_BIT) != 0;
        let accounted = gfp & (1 << bindings::___GFP_ACCOUNT_BIT) != 0;
        let gfp = match (may_sleep, accounted) {
            (false, _) => Gfp::Atomic,
            (true, false) => Gfp::Kernel,
            (true, true) => Gfp::KernelAccount,
        };
        let id = alloc(set, min, max, private, gfp)?;
        // SAFETY: By this function's contract.
        unsafe { ioasid.write(id) };
        Ok(0)
    })
}

#[no_mangle]
extern "C" fn ioasid_free(set: SetPtr, ioasid: u32) {
    complain(c"free", ioasid, system().free(required(set), ioasid));
}

#[no_mangle]
extern "C" fn ioasid_get(set: SetPtr, ioasid: u32) -> c_int {
    from_result(|| {
        let reference = system().get(required(set), ioasid)?;
        reference.into_id();
        Ok(0)
    })
}

#[no_mangle]
extern "C" fn ioasid_put(set: SetPtr, ioasid: u32) -> bool {
    let put = system().put(required(set), ioasid);
    let gone = put.unwrap_or(false);
    complain(c"put", ioasid, put.map(drop));
    gone
}

/// # Safety
///
/// `getter` is null or can be called with the id's private data, under RCU.
#[no_mangle]
unsafe extern "C" fn ioasid_find(
    set: SetPtr,
    ioasid: u32,
    getter: Option<unsafe extern "C" fn(*mut c_void) -> bool>,
) -> *mut c_void {
    let found = system().find(required(set), ioasid, |data| {
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
        system().set_data(ioasid, data.expose_provenance())?;
        Ok(0)
    })
}

#[no_mangle]
extern "C" fn ioasid_attach_data(ioasid: u32, data: *mut c_void) -> c_int {
    from_result(|| {
        system().attach_data(ioasid, data.expose_provenance())?;
        Ok(0)
    })
}

#[no_mangle]
extern "C" fn ioasid_detach_data(ioasid: u32) {
    complain(c"detach data of", ioasid, system().detach_data(ioasid));
}

// --- SPIDs -------------------------------------------------------------------------------------

#[no_mangle]
extern "C" fn ioasid_attach_spid(ioasid: u32, spid: u32) -> c_int {
    from_result(|| system().attach_spid(ioasid, spid).map(|()| 0))
}

#[no_mangle]
extern "C" fn ioasid_detach_spid(ioasid: u32) {
    complain(c"detach the SPID of", ioasid, system().detach_spid(ioasid));
}

#[no_mangle]
extern "C" fn ioasid_find_by_spid(set: SetPtr, spid: u32, get: bool) -> u32 {
    let found = if get {
        let reference = system().get_by_spid(number(set), spid);
        reference.map(Reference::into_id)
    } else {
        system().by_spid(number(set), spid)
    };
    found.unwrap_or(INVALID)
}
