// SPDX-License-Identifier: GPL-2.0

//! Software groups, for devices without an IOMMU of their own.
//!
//! The hardware does not define which of these devices belong together, so their groups can be
//! changed: a driver puts devices that share resources into one group, and thereby assigns them to
//! one user. The VFIO core knows whether a group is in use, so it is the core that moves a device.
//! It registers its implementation with [`Registration`]. A driver that wants to move a device
//! does not depend on the core being loaded.

use kernel::{
    device::Device,
    prelude::*,
    sync::aref::ARef, //
};

use crate::abi::REGROUPER;

/// Moves devices from one software group to another.
pub trait Regroup: Sync {
    /// Moves `dev` to the group of the first of `companions` that is in one. If none is, moves it
    /// to a group of its own. Calls `commit` once, as soon as success is certain. From before
    /// until after that call, the groups and their devices cannot be opened.
    ///
    /// # Errors
    ///
    /// On failure nothing changes. `EBUSY` if one of the two groups or one of its devices is in
    /// use; `ENODEV` if `dev` is in no usable software group; `ENOMEM`; those of sysfs.
    fn regroup(
        &self,
        dev: &Device,
        companions: &[ARef<Device>],
        commit: &mut dyn FnMut(),
    ) -> Result;
}

/// Returns whether a [`Regroup`] implementation is registered.
pub fn can_regroup() -> bool {
    REGROUPER.lock().is_some()
}

/// Moves a device to another software group, as described at [`Regroup::regroup`].
///
/// Only one device is moved at a time.
///
/// # Errors
///
/// Those of [`Regroup::regroup`]; `ENODEV` if no implementation is registered.
pub fn regroup(dev: &Device, companions: &[ARef<Device>], commit: &mut dyn FnMut()) -> Result {
    let regrouper = REGROUPER.lock();
    (*regrouper).ok_or(ENODEV)?.regroup(dev, companions, commit)
}

/// The registration of a [`Regroup`] implementation, until it is dropped.
pub struct Registration(());

impl Registration {
    /// Registers an implementation. There can be one at a time.
    ///
    /// # Errors
    ///
    /// `EBUSY` if one is registered.
    pub fn new(regrouper: &'static dyn Regroup) -> Result<Self> {
        let mut current = REGROUPER.lock();
        if current.is_some() {
            return Err(EBUSY);
        }
        *current = Some(regrouper);
        Ok(Self(()))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        *REGROUPER.lock() = None;
    }
}
