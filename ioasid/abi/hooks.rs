// SPDX-License-Identifier: GPL-2.0

//! The functions of `include/linux/ioasid.h` that take functions of others: listeners and allocators.

use kernel::{
    error::from_result,
    ffi::{
        c_int,
        c_uint, //
    },
    prelude::*,
    sync::Arc, //
};

use kernel_ext::bindings;

use super::{
    callbacks::{
        AllocatorOps,
        NotifierBlock, //
    },
    exports::{
        number,
        SetPtr, //
    },
    system::system, //
};
use crate::{
    notify::{
        Audience,
        Event,
        Scope, //
    },
    set::{
        Set,
        Token,
        ROOT, //
    },
};

// --- Notifications -----------------------------------------------------------------------------

/// # Safety
///
/// `nb` is valid until it is unregistered.
unsafe fn listen(scope: Scope, nb: *mut bindings::notifier_block) -> Result {
    // SAFETY: By this function's contract.
    let priority = unsafe { nb.as_ref() }.ok_or(EINVAL)?.priority;
    // SAFETY: By this function's contract; it is dropped when the block was unregistered.
    let target = Arc::new(unsafe { NotifierBlock::new(nb) }, GFP_KERNEL)?;
    system()
        .listeners()
        .register(scope, priority, nb.addr(), target)
}

/// The ids that a listener to `set` means.
fn scope_of(set: SetPtr) -> Scope {
    match number(set) {
        ROOT => Scope::All,
        number => Scope::Set(number),
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
            Scope::Set(number) => Some(system().get_set(number)?),
            _ => None,
        };
        // SAFETY: By this function's contract.
        unsafe { listen(scope, nb) }?;
        // The number is the set's as long as somebody listens to it.
        handle.map(Set::into_handle);
        Ok(0)
    })
}

#[no_mangle]
extern "C" fn ioasid_unregister_notifier(set: SetPtr, nb: *mut bindings::notifier_block) {
    let scope = scope_of(set);
    match (system().listeners().unregister(scope, nb.addr()), scope) {
        (Ok(()), Scope::Set(number)) => drop(Set::from_handle(system(), number)),
        (Ok(()), _) => {}
        (Err(_), _) => pr_warn!("a notifier was to go which is not registered\n"),
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
        pr_warn!("a notifier was to go which is not registered\n");
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
        system().notify(ioasid, event, audience)?;
        Ok(0)
    })
}

// --- Custom allocators -------------------------------------------------------------------------

/// # Safety
///
/// `allocator` stays as it is until it is unregistered.
#[no_mangle]
unsafe extern "C" fn ioasid_register_allocator(
    allocator: *mut bindings::ioasid_allocator_ops,
) -> c_int {
    from_result(|| {
        // SAFETY: By this function's contract; it is dropped when the allocator was unregistered.
        let ops = unsafe { AllocatorOps::new(allocator) }?;
        let kind = ops.kind();
        let ops = Arc::new(ops, GFP_KERNEL)?;
        system().register(kind, allocator.addr(), ops)?;
        Ok(0)
    })
}

#[no_mangle]
extern "C" fn ioasid_unregister_allocator(allocator: *mut bindings::ioasid_allocator_ops) {
    if system().unregister(allocator.addr()).is_err() {
        pr_warn!("an allocator was to go which is not registered\n");
    }
}
