// SPDX-License-Identifier: GPL-2.0

//! Parents without hardware.

#[allow(unsafe_code)]
mod abi;

use core::ops::Deref;

use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    Driver,
    Parent,
    ParentRegistration, //
};
use abi::{
    VirtualClass,
    VirtualDevice, //
};

/// A parent without hardware. Its device is `/sys/devices/virtual/<NAME>/<NAME>`, in the class
/// `NAME`, where `NAME` is that of the [`Parent`].
pub struct VirtualParent<P: Parent> {
    // Dropped before the device.
    registration: ParentRegistration<P>,
    device: VirtualDevice,
}

impl<P: Parent> VirtualParent<P> {
    /// Registers the driver, creates the device and registers `parent` on it.
    ///
    /// # Errors
    ///
    /// `EBUSY` or `EEXIST` if the name is taken, `ENOMEM`, and the errors of sysfs.
    pub fn new(parent: P) -> Result<Self> {
        let driver = Driver::new()?;
        let class = Arc::new(VirtualClass::new(P::NAME)?, GFP_KERNEL)?;
        Self::register(driver, class, P::NAME, parent)
    }

    /// Registers another parent of the same driver, on a new device `name` of the same class.
    ///
    /// # Errors
    ///
    /// As for [`new`](VirtualParent::new).
    pub fn beside(&self, name: &CStr, parent: P) -> Result<Self> {
        let driver = self.registration.driver().clone();
        Self::register(driver, self.device.class.clone(), name, parent)
    }

    fn register(
        driver: Arc<Driver<P>>,
        class: Arc<VirtualClass>,
        name: &CStr,
        parent: P,
    ) -> Result<Self> {
        let device = VirtualDevice::new(class, name)?;
        Ok(Self {
            registration: ParentRegistration::register(driver, device.device(), parent)?,
            device,
        })
    }
}

impl<P: Parent> Deref for VirtualParent<P> {
    type Target = Arc<P>;

    fn deref(&self) -> &Arc<P> {
        &self.registration
    }
}
