// SPDX-License-Identifier: GPL-2.0

//! Notifiers that are implemented in C.

use kernel::{
    ffi::{
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

use super::{
    Event,
    Notifier,
    NotifierArgs,
    Scope, //
};
use crate::{
    id::range::INVALID,
    set::{
        abi::{
            set_id,
            set_pointer,
            SetPtr, //
        },
        SetId, //
    },
    space::system, //
};

/// Returns the scope of a notifier of a set in the C interface.
pub(crate) fn scope_of(set: SetPtr) -> Scope {
    match set_id(set) {
        SetId::ROOT => Scope::All,
        set => Scope::Set(set),
    }
}

/// Returns the event for a command of `ioasid_notify()`.
///
/// # Errors
///
/// `EINVAL` for an event that only the module causes, or an unknown one.
pub(crate) fn event_of(cmd: c_uint) -> Result<Event> {
    match cmd {
        bindings::ioasid_notify_val_IOASID_NOTIFY_BIND => Ok(Event::Bind),
        bindings::ioasid_notify_val_IOASID_NOTIFY_UNBIND => Ok(Event::Unbind),
        _ => Err(EINVAL),
    }
}

/// Registers a C notifier in the system's space.
///
/// # Errors
///
/// `EINVAL` if `nb` is null; `EEXIST` if it is already registered for this scope; `ENOMEM`.
///
/// # Safety
///
/// `nb` is valid until it is unregistered.
pub(crate) unsafe fn register_block(scope: Scope, nb: *mut bindings::notifier_block) -> Result {
    // SAFETY: By this function's contract.
    let priority = unsafe { nb.as_ref() }.ok_or(EINVAL)?.priority;
    // INVARIANT: By this function's contract. The notifier is dropped when the block has been
    // unregistered.
    let notifier = Arc::new(NotifierBlock(nb), GFP_KERNEL)?;
    system()
        .notifiers
        .register(scope, priority, nb.addr(), notifier)
}

/// Unregisters a C notifier from the system's space. Returns false if it is not registered.
pub(crate) fn unregister_block(scope: Scope, nb: *mut bindings::notifier_block) -> bool {
    let registered = system().notifiers.unregister(scope, nb.addr()).is_ok();
    if !registered && may_warn() {
        pr_warn!("notifier is not registered\n");
    }
    registered
}

/// A `struct notifier_block`.
///
/// # Invariants
///
/// The block and its function are valid as long as this exists.
struct NotifierBlock(*mut bindings::notifier_block);

// SAFETY: By contract, notifiers can be called from any thread.
unsafe impl Send for NotifierBlock {}
// SAFETY: As above.
unsafe impl Sync for NotifierBlock {}

impl Notifier for NotifierBlock {
    fn notify(&self, event: Event, args: &NotifierArgs) {
        let mut c_args = bindings::ioasid_nb_args {
            id: args.id,
            spid: args.spid.unwrap_or(INVALID),
            set: set_pointer(args.set),
            pdata: args.data as *mut c_void,
        };
        // SAFETY: The block is valid by the type invariant, and the function expects these
        // arguments.
        unsafe {
            if let Some(call) = (*self.0).notifier_call {
                call(self.0, event as usize, (&raw mut c_args).cast());
            }
        }
    }
}
