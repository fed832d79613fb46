// SPDX-License-Identifier: GPL-2.0

//! Banks of message signalled interrupts (MSI): mapping them at windows, and tracking the devices
//! that use them.
//!
//! A device raises an interrupt by a write to the doorbell of a bank, which is a register at a
//! physical address. Each doorbell has an alias in a page of its own, so that a window of 4 KiB
//! contains one doorbell and nothing else.

#[allow(unsafe_code)]
mod abi;
#[cfg(CONFIG_PPC)]
pub(crate) mod controller;
pub(crate) mod file;

use kernel::{
    device::Device,
    prelude::*,
    sync::Arc,
    uaccess::UserPtr, //
};

#[cfg(CONFIG_PPC)]
use kernel_ext::mm::may_warn;

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
        Self::of(owner(dev)?.ok_or(EINVAL)?, bank)
    }

    /// Routes an interrupt of `dev` to the bank that the address of its message, as the kernel's
    /// driver of the banks composes it, belongs to. Returns `None` if no container has the device.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device has no LIODN; `EINVAL` if there is no such bank, or if it isn't mapped
    /// with write access. The log then says so.
    #[cfg(CONFIG_PPC)]
    fn of_message(dev: &Device, address: u64) -> Result<Option<Self>> {
        let Some(container) = owner(dev)? else {
            return Ok(None);
        };
        let mut banks = container.system.banks().iter();
        let Some(bank) = banks.position(|bank| bank.has_message(address)) else {
            if may_warn() {
                dev_warn!(dev, "no MSI bank has the address {address:#x}\n");
            }
            return Err(EINVAL);
        };
        let result = Self::of(container, Some(bank as u32));
        if result.is_err() && may_warn() {
            dev_warn!(
                dev,
                "no window leads to MSI bank {bank}: map it for writing before the interrupts are enabled\n"
            );
        }
        result.map(Some)
    }

    /// Adds a use of a bank that is mapped in `container`.
    fn of(container: Arc<Container>, bank: Option<u32>) -> Result<Self> {
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

/// Returns the container of a device, or `None` if it isn't in one.
///
/// # Errors
///
/// `ENODEV` if the device has no LIODN; `ENOMEM`.
fn owner(dev: &Device) -> Result<Option<Arc<Container>>> {
    let liodns = liodns_of(dev)?;
    Ok(container_of(*liodns.first().ok_or(ENODEV)?))
}

impl Drop for MsiBankUse {
    fn drop(&mut self) {
        let mut state = self.container.lock();
        let ContainerState { space, devices, .. } = &mut *state;
        space.release_bank(self.bank, devices);
    }
}
