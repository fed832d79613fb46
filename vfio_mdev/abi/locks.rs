// SPDX-License-Identifier: GPL-2.0

//! The locks of what is generic in the driver.
//!
//! Generic code is compiled into the module of each driver: the name of a lock that it makes is that
//! module's, and the class is ours. lockdep warns of a class that has several names. So these locks are
//! made by functions which are compiled once, here.

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

/// What is taken of a parent's capacity: nothing.
#[inline(never)]
pub(super) fn taken() -> impl PinInit<Mutex<Taken>> {
    new_mutex!(Taken::default(), "vfio_mdev::taken")
}

/// The users of a device: none.
#[inline(never)]
pub(super) fn session() -> impl PinInit<RwSem<Session>> {
    RwSem::new(
        Session::default(),
        c"vfio_mdev::session",
        static_lock_class!(),
    )
}

/// Where a device is: it runs.
#[inline(never)]
pub(super) fn machine() -> impl PinInit<Mutex<Machine>> {
    new_mutex!(Machine::new(), "vfio_mdev::machine")
}
