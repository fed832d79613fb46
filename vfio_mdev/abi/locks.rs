// SPDX-License-Identifier: GPL-2.0

//! Constructors for the locks of generic code.
//!
//! Generic code is compiled into the module of each driver. The name of a lock that it initialises
//! then lies in that module, but the lock class lies in this one. lockdep warns about a class with
//! several names. Therefore these locks are initialised by functions that are compiled only once,
//! in this module.

use kernel::{
    new_mutex,
    prelude::*,
    static_lock_class,
    sync::Mutex, //
};
use kernel_ext::rwsem::RwSem;

use super::instance::Session;
use crate::{
    capacity::Taken,
    migration::Machine, //
};

/// The capacity in use of a new parent: none.
#[inline(never)]
pub(super) fn taken() -> impl PinInit<Mutex<Taken>> {
    new_mutex!(Taken::default(), "vfio_mdev::taken")
}

/// The session of a new device: closed.
#[inline(never)]
pub(super) fn session() -> impl PinInit<RwSem<Session>> {
    RwSem::new(
        Session::default(),
        c"vfio_mdev::session",
        static_lock_class!(),
    )
}

/// The migration state of a new device: running.
#[inline(never)]
pub(super) fn machine() -> impl PinInit<Mutex<Machine>> {
    new_mutex!(Machine::new(), "vfio_mdev::machine")
}
