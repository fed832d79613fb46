// SPDX-License-Identifier: GPL-2.0

//! The functions of `include/linux/ioasid.h` that register C functions: listeners and allocators.

use kernel::{
    error::from_result,
    ffi::{
        c_int,
        c_uint, //
    },
    prelude::*,
    sync::Arc, //
};

use kernel_ext::{
    bindings,
    mm::may_warn, //
};

use super::{
    callbacks::{
        AllocatorOps,
        NotifierBlock, //
    },
    exports::{
        set_id,
        SetPtr, //
    },
    system::system, //
};
use crate::{
    key::Key,
    notify::{
        Audience,
        Event,
        Scope, //
    },
    set::{
        Set,
        Token, //
    },
    set_id::SetId, //
};

// --- Notifications -----------------------------------------------------------------------------

/// # Safety
///
/// `nb` is valid until it is unregistered.
unsafe fn listen(scope: Scope, nb: *mut bindings::notifier_block) -> Result {
    // SAFETY: By this function's contract.
    let priority = unsafe { nb.as_ref() }.ok_or(EINVAL)?.priority;
    // SAFETY: By this function's contract. The target is dropped when the block has been
    // unregistered.
    let target = Arc::new(unsafe { NotifierBlock::new(nb) }, GFP_KERNEL)?;
    system()
        .listeners()
        .register(scope, priority, nb.addr(), target)
}

/// Returns the scope of a listener to `set`.
fn scope_of(set: SetPtr) -> Scope {
    match set_id(set) {
        SetId::ROOT => Scope::All,
        set => Scope::Set(set),
    }
}

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
        unsafe { listen(scope, nb) }?;
        // The set exists as long as it has a listener.
        handle.map(Set::into_handle);
        Ok(0)
    })
}

fn warn_of_notifier() {
    if may_warn() {
        pr_warn!("notifier is not registered\n");
    }
}

#[no_mangle]
extern "C" fn ioasid_unregister_notifier(set: SetPtr, nb: *mut bindings::notifier_block) {
    let scope = scope_of(set);
    match (system().listeners().unregister(scope, nb.addr()), scope) {
        (Ok(()), Scope::Set(set)) => drop(Set::from_handle(system(), set)),
        (Ok(()), _) => {}
        (Err(_), _) => warn_of_notifier(),
    }
}

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
        unsafe { listen(Scope::Owner(Token::Mm(mm.addr())), nb) }?;
        Ok(0)
    })
}

#[no_mangle]
extern "C" fn ioasid_unregister_notifier_mm(
    mm: *mut bindings::mm_struct,
    nb: *mut bindings::notifier_block,
) {
    let scope = Scope::Owner(Token::Mm(mm.addr()));
    if system().listeners().unregister(scope, nb.addr()).is_err() {
        warn_of_notifier();
    }
}

#[no_mangle]
extern "C" fn ioasid_notify(ioasid: u32, cmd: c_uint, flags: c_uint) -> c_int {
    from_result(|| {
        let event = match cmd {
            bindings::ioasid_notify_val_IOASID_NOTIFY_BIND => Event::Bind,
            bindings::ioasid_notify_val_IOASID_NOTIFY_UNBIND => Event::Unbind,
            _ => return Err(EINVAL),
        };
        let audience = Audience::from_flags(flags).ok_or(EINVAL)?;
        let key = Key::new(None, ioasid);
        system().notify(key, event, audience).map(|()| 0)
    })
}

// --- Custom allocators -------------------------------------------------------------------------

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
        system().register(kind, allocator.addr(), ops)?;
        Ok(0)
    })
}

#[no_mangle]
extern "C" fn ioasid_unregister_allocator(allocator: *mut bindings::ioasid_allocator_ops) {
    if system().unregister(allocator.addr()).is_err() && may_warn() {
        pr_warn!("allocator is not registered\n");
    }
}
