// SPDX-License-Identifier: GPL-2.0

//! The ioctls that report violations and re-enable a LIODN.
//!
//! A violation disables the LIODN. The first violation of each LIODN is kept until the LIODN is
//! revived.

use kernel::{
    prelude::*,
    sync::Arc,
    uaccess::UserPtr, //
};

use kernel_ext::{
    bindings,
    eventfd::EventFd,
    uapi, //
};

use crate::{
    container::Container,
    request::read_without_flags, //
};

impl Container {
    /// Handles `VFIO_IOMMU_PAMU_SET_VIOLATION_EVENTFD`.
    ///
    /// # Errors
    ///
    /// `EFAULT`; `EBADF` or `EINVAL` if the descriptor isn't an eventfd; `ENOMEM`.
    pub(crate) fn ioctl_set_event(&self, arg: UserPtr) -> Result<isize> {
        let fd: i32 = uapi::read(arg)?;
        let event = match fd {
            -1 => None,
            fd => Some(Arc::new(EventFd::from_fd(fd)?, GFP_KERNEL_ACCOUNT)?),
        };
        let mut state = self.lock();
        for liodn in state.devices.iter() {
            liodn.set_violation_event(event.clone());
        }
        let former = core::mem::replace(&mut state.event, event);
        drop(state);
        drop(former);
        Ok(0)
    }

    /// Handles `VFIO_IOMMU_PAMU_GET_VIOLATION`. Reports the lowest stopped LIODN from the given
    /// number on.
    ///
    /// # Errors
    ///
    /// `EFAULT`; `EINVAL` for a short argument or flags; `ENOENT` if no such LIODN is stopped.
    pub(crate) fn ioctl_violation(&self, arg: UserPtr) -> Result<isize> {
        let mut user: bindings::vfio_pamu_violation = read_without_flags(arg)?;
        let from = user.liodn;
        self.system.poll();
        let state = self.lock();
        let shut = state
            .devices
            .iter()
            .filter(|liodn| liodn.number() >= from)
            .filter_map(|liodn| Some((liodn.number(), liodn.violation()?)))
            .min_by_key(|(number, _)| *number);
        drop(state);
        let (number, violation) = shut.ok_or(ENOENT)?;

        user.liodn = number;
        user.status = violation.status;
        user.iova = violation.address;
        uapi::write(arg, &user)?;
        Ok(0)
    }

    /// Handles `VFIO_IOMMU_PAMU_REVIVE`.
    ///
    /// # Errors
    ///
    /// `EFAULT`; `ENODEV` if the LIODN isn't in the container; `EINVAL` if it isn't stopped.
    pub(crate) fn ioctl_revive(&self, arg: UserPtr) -> Result<isize> {
        let number = uapi::read(arg)?;
        let state = self.lock();
        let liodn = state.devices.get(number).ok_or(ENODEV)?;
        match liodn.revive()? {
            true => Ok(0),
            false => Err(EINVAL),
        }
    }
}
