// SPDX-License-Identifier: GPL-2.0

//! Software groups: of devices that have no IOMMU of their own.
//!
//! Nothing in the hardware keeps such devices together or apart, so their groups can be changed: a
//! driver puts devices that share resources into one group, and with that into the hands of one user.
//! It is the VFIO core which knows whether a group is in use, so it is the core which moves a device.
//! It says how by [`Registration`]; who wants a device moved needs no core to be loaded.

use kernel::{
    device::Device,
    prelude::*,
    sync::aref::ARef, //
};

use crate::abi::REGROUPER;

/// Moves devices from one software group to another.
pub trait Regroup: Sync {
    /// Puts `dev` into the group of the first of `companions` that is in one; without any such, into a
    /// group where it is alone. Calls `commit` once, if it is certain that this succeeds: from before
    /// until after the call nobody can open the groups or their devices.
    ///
    /// # Errors
    ///
    /// What fails changes nothing. `EBUSY` if one of the two groups is in use, or one of its devices,
    /// `ENODEV` if `dev` is in no software group that can be used, `ENOMEM`, or what sysfs says.
    fn regroup(
        &self,
        dev: &Device,
        companions: &[ARef<Device>],
        commit: &mut dyn FnMut(),
    ) -> Result;
}

/// Whether there is a core that moves devices.
pub fn can_regroup() -> bool {
    REGROUPER.lock().is_some()
}

/// Moves a device to another software group, as described at [`Regroup::regroup`].
///
/// Regrouping is done one at a time.
///
/// # Errors
///
/// Those of [`Regroup::regroup`], `ENODEV` if nobody moves devices.
pub fn regroup(dev: &Device, companions: &[ARef<Device>], commit: &mut dyn FnMut()) -> Result {
    let regrouper = REGROUPER.lock();
    (*regrouper).ok_or(ENODEV)?.regroup(dev, companions, commit)
}

/// Says who moves devices, until this is dropped.
pub struct Registration(());

impl Registration {
    /// Registers the one who moves devices; there is one at a time.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there is one.
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
