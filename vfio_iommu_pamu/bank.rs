// SPDX-License-Identifier: GPL-2.0

//! MSI banks: mapping them, and tracking the devices that use them.

use kernel::{
    device::Device,
    prelude::*,
    sync::Arc,
    uaccess::UserPtr, //
};

use crate::{
    abi::routes,
    container::{
        Container,
        State, //
    },
    firmware::liodns_of,
    request::{
        read_unmap_bank,
        MapBankRequest, //
    },
};

impl Container {
    /// Returns the number of banks.
    pub(crate) fn bank_count(&self) -> u32 {
        self.system.banks().len() as u32
    }

    /// Handles `VFIO_IOMMU_PAMU_MAP_MSI_BANK`.
    ///
    /// # Errors
    ///
    /// Those of [`MapBankRequest::read`] and [`check_bank`](crate::windows::Space::check_bank).
    pub(crate) fn ioctl_map_bank(&self, arg: UserPtr) -> Result<isize> {
        let request = MapBankRequest::read(arg)?;
        let mut state = self.lock();
        let State { space, devices, .. } = &mut *state;
        let window = space.check_bank(request.bank, request.iova)?;
        space.map_banks(window, &[request.bank], request.prot, devices);
        Ok(0)
    }

    /// Handles `VFIO_IOMMU_PAMU_UNMAP_MSI_BANK`.
    ///
    /// # Errors
    ///
    /// `EFAULT`; `EINVAL` for a short argument, and those of
    /// [`check_unmap_bank`](crate::windows::Space::check_unmap_bank).
    pub(crate) fn ioctl_unmap_bank(&self, arg: UserPtr) -> Result<isize> {
        let iova = read_unmap_bank(arg)?;
        let mut state = self.lock();
        let State { space, devices, .. } = &mut *state;
        let window = space.check_unmap_bank(iova)?;
        space.unmap(window, window, devices);
        Ok(0)
    }
}

/// A device's use of a bank. The bank can't be unmapped until this is dropped.
pub(crate) struct BankUse {
    container: Arc<Container>,
    bank: u32,
    address: u64,
}

impl BankUse {
    /// Routes the interrupts of `dev` to `bank`, or to the first bank that is mapped for the
    /// device.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device has no LIODN; `EINVAL` if no container has it, or if the bank isn't
    /// mapped there with write access.
    pub(crate) fn new(dev: &Device, bank: Option<u32>) -> Result<Self> {
        let liodn = *liodns_of(dev)?.first().ok_or(ENODEV)?;
        let container = routes::container_of(liodn).ok_or(EINVAL)?;
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
    pub(crate) fn bank(&self) -> u32 {
        self.bank
    }

    /// Returns the address that the device writes to.
    pub(crate) fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for BankUse {
    fn drop(&mut self) {
        let mut state = self.container.lock();
        let State { space, devices, .. } = &mut *state;
        space.release_bank(self.bank, devices);
    }
}
