// SPDX-License-Identifier: GPL-2.0

//! The system's own space.

use core::{
    cell::UnsafeCell,
    ptr, //
};

use kernel::prelude::*;

use crate::space::Space;

/// Where the system's space is, from module init to module exit.
///
/// # Invariants
///
/// It is written by module init and module exit only, when nobody else can look at it.
struct Place(UnsafeCell<*const Space>);

// SAFETY: By the type invariant nobody reads while it is written.
unsafe impl Sync for Place {}

static PLACE: Place = Place(UnsafeCell::new(ptr::null()));

/// The system's space.
///
/// For modules that depend on this one, which is how they find the function, and for its tests: the
/// space is there whenever their code can run.
pub fn system() -> &'static Space {
    // SAFETY: Before the module's init has ended and after its exit has begun nobody can call this.
    // In between the pointer is that of the space which `Installed` owns.
    unsafe { &**PLACE.0.get() }
}

/// Makes a space the system's.
pub(crate) struct Installed(Pin<KBox<Space>>);

impl Installed {
    /// Makes `space` the system's. Called once, by module init.
    pub(crate) fn new(space: Pin<KBox<Space>>) -> Self {
        // SAFETY: Module init runs once, and nobody can call this module before its end.
        // INVARIANT: As above.
        unsafe { PLACE.0.get().write(ptr::from_ref(&*space)) };
        Self(space)
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        self.0.check_unused();
        // SAFETY: Nobody calls this module any more. INVARIANT: As above.
        unsafe { PLACE.0.get().write(ptr::null()) };
    }
}
