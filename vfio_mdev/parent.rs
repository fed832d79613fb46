// SPDX-License-Identifier: GPL-2.0

//! Parents: the devices that drivers share, and the types of device that each of them offers.
//!
//! [`types`] has the directories of the types in sysfs.

#[allow(unsafe_code)]
mod abi;
#[allow(unsafe_code)]
#[path = "parent/types/abi.rs"]
mod types;

use kernel::prelude::*;

use crate::bus;

pub(crate) use abi::{
    register,
    unregister,
    Parent,
    Staying,
    UnregGuard, //
};
pub(crate) use types::Type;

impl Parent {
    /// Makes a new parent visible. `max_instances` is the maximum number of its devices, unless its
    /// driver counts them.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and the errors of sysfs.
    fn publish(&self, max_instances: u32) -> Result {
        let counted = self.driver().get_available.is_none();
        bus::add_parent(self.key(), counted.then_some(max_instances))?;
        // A write to `create` of the first type must fail until the last type was added: if that
        // fails, nothing removes the device.
        let stopped = self.stop();
        self.add_types()
            .inspect_err(|_| bus::remove_parent(self.key()))?;
        drop(stopped);
        if self.link().is_err() {
            dev_warn!(
                self.device(),
                "MDEV: failed to create the link in /sys/class/mdev_bus, which older tools use\n"
            );
        }
        dev_info!(self.device(), "MDEV: Registered\n");
        self.send_uevent(c"MDEV_STATE=registered");
        Ok(())
    }

    /// Undoes [`Parent::publish`]. Removes the devices of the parent first, and waits until they
    /// have no users.
    fn unpublish(&self) {
        dev_info!(self.device(), "MDEV: Unregistering\n");
        let stopped = self.stop();
        self.unlink();
        stopped.remove_devices();
        self.remove_types(self.types().len());
        drop(stopped);
        bus::remove_parent(self.key());
        self.send_uevent(c"MDEV_STATE=unregistered");
    }
}
