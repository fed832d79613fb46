// SPDX-License-Identifier: GPL-2.0

//! Banks of message signalled interrupts (MSI): mapping them at windows, and tracking the devices
//! that use them.
//!
//! A device raises an interrupt by a write to the doorbell of a bank, which is a register at a
//! physical address. Each doorbell has an alias in a page of its own, so that a window of 4 KiB
//! contains one doorbell and nothing else.

#[allow(unsafe_code)]
mod abi;
pub(crate) mod file;

use kernel::{
    device::Device,
    prelude::*,
    sync::Arc,
    uaccess::UserPtr, //
};

use crate::{
    container::{
        container_of,
        Container,
        ContainerState, //
    },
    firmware::liodns_of,
    request::{
        read_unmap_bank,
        MapBankRequest, //
    },
};

pub use abi::MsiBank;

impl Container {
    /// Returns the number of banks.
    pub(crate) fn bank_count(&self) -> u32 {
        self.system.banks().len() as u32
    }

    /// Handles `VFIO_IOMMU_PAMU_MAP_MSI_BANK`.
    ///
    /// # Errors
    ///
    /// Those of [`MapBankRequest::read`] and
    /// [`free_doorbell`](crate::windows::AddressSpace::free_doorbell).
    pub(crate) fn ioctl_map_bank(&self, arg: UserPtr) -> Result<isize> {
        let request = MapBankRequest::read(arg)?;
        let mut state = self.lock();
        let ContainerState { space, devices, .. } = &mut *state;
        let free = space.free_doorbell(request.bank, request.iova)?;
        free.map(&[request.bank], request.prot, devices)?;
        Ok(0)
    }

    /// Handles `VFIO_IOMMU_PAMU_UNMAP_MSI_BANK`.
    ///
    /// # Errors
    ///
    /// `EFAULT`; `EINVAL` for a short argument, and those of
    /// [`check_unmap_bank`](crate::windows::AddressSpace::check_unmap_bank).
    pub(crate) fn ioctl_unmap_bank(&self, arg: UserPtr) -> Result<isize> {
        let iova = read_unmap_bank(arg)?;
        let mut state = self.lock();
        let ContainerState { space, devices, .. } = &mut *state;
        let window = space.check_unmap_bank(iova)?;
        space.unmap(window, window, devices);
        Ok(0)
    }
}

/// A device's use of a bank. The bank can't be unmapped until this is dropped.
pub struct MsiBankUse {
    container: Arc<Container>,
    bank: u32,
    address: u64,
}

impl MsiBankUse {
    /// Routes the interrupts of `dev` to `bank`, or to the first bank that is mapped for the
    /// device.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device has no LIODN; `EINVAL` if no container has it, or if the bank isn't
    /// mapped there with write access.
    pub fn new(dev: &Device, bank: Option<u32>) -> Result<Self> {
        let liodn = *liodns_of(dev)?.first().ok_or(ENODEV)?;
        let container = container_of(liodn).ok_or(EINVAL)?;
        let (bank, window) = container.lock().space.use_bank(bank)?;
        let doorbell = container.system.banks().get(bank as usize);
        let offset = doorbell.map_or(0, |bank| bank.offset());
        Ok(Self {
            container,
            bank,
            address: window + offset,
        })
    }

    /// Returns the number of the bank.
    pub fn bank(&self) -> u32 {
        self.bank
    }

    /// Returns the address that the device writes to.
    pub fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for MsiBankUse {
    fn drop(&mut self) {
        let mut state = self.container.lock();
        let ContainerState { space, devices, .. } = &mut *state;
        space.release_bank(self.bank, devices);
    }
}
