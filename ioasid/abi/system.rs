// SPDX-License-Identifier: GPL-2.0

//! The system's own space.

use core::ptr;

use kernel::{
    prelude::*,
    sync::atomic::{
        Acquire,
        Atomic,
        Release, //
    },
};

use crate::space::Space;

/// The system's space, from module init to module exit.
static SPACE: Atomic<*mut Space> = Atomic::new(ptr::null_mut());

/// The system's space.
///
/// For modules that depend on this one, which is how they find the function, and for its tests: the
/// space is there whenever their code can run.
pub fn system() -> &'static Space {
    let space = SPACE.load(Acquire);
    // SAFETY: Before the module's init has ended and after its exit has begun nobody can call this.
    // In between the pointer is that of the space which `Installed` owns.
    unsafe { &*space }
}

/// Makes a space the system's.
pub(crate) struct Installed(Pin<KBox<Space>>);

impl Installed {
    /// Makes `space` the system's. Called once, by module init.
    pub(crate) fn new(space: Pin<KBox<Space>>) -> Self {
        SPACE.store(ptr::from_ref::<Space>(&space).cast_mut(), Release);
        Self(space)
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        self.0.check_unused();
        SPACE.store(ptr::null_mut(), Release);
    }
}
