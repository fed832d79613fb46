// SPDX-License-Identifier: GPL-2.0

//! The hardware PAMUs as the IOMMU of the PCI devices behind them.
//!
//! The IOMMU core of the kernel makes no IOMMU groups and claims no DMA without a driver. A kernel
//! with this module has no other driver of the PAMU, so this module registers the PAMUs there, too.
//! A group is in one of two domains:
//!
//! - the identity domain, for the kernel's drivers: its LIODNs may access all memory;
//! - the blocked domain, while userspace owns the DMA of the group. A container then claims the
//!   LIODNs and sets windows.
//!
//! All functions behind one PCI controller have its LIODNs, so they are one group.

#[allow(unsafe_code)]
mod abi;
mod liodns;

pub(crate) use abi::{
    init_lock,
    Registration, //
};
use liodns::{
    Attachment,
    GroupLiodns, //
};

use kernel::{
    device::Device,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    }, //
};

use kernel_ext::iommu::Group;

#[cfg(CONFIG_PPC)]
use crate::msi::controller::Interposed;

use crate::{
    container::report,
    firmware::{
        is_pci,
        liodns_of, //
    },
    system::System, //
};

/// The PAMUs as the IOMMU core knows them.
#[pin_data]
pub(crate) struct Iommu {
    system: Arc<System>,
    /// The LIODNs of the groups. The lock nests inside the locks of the IOMMU core.
    #[pin]
    groups: Mutex<GroupLiodns<ARef<Group>>>,
    /// The controllers of their devices.
    #[cfg(CONFIG_PPC)]
    #[pin]
    controllers: Mutex<KVec<Interposed>>,
    device: abi::IommuDevice,
}

/// What the IOMMU core's structure of a device refers to, as long as the device is in a group. The
/// core's callbacks need no memory and can't fail, because this has all that they need.
pub(crate) struct Member {
    iommu: Arc<Iommu>,
    attachment: Attachment,
}

impl Member {
    /// Returns the group of the devices that share a LIODN with this one, or a new one.
    ///
    /// # Errors
    ///
    /// `ENODEV` if it shares LIODNs with two groups, `ENOMEM`, and an error of sysfs.
    fn group(&self) -> Result<ARef<Group>> {
        let liodns = self.attachment.liodns();
        let group = self.iommu.groups.lock().group_of(liodns, abi::new_group);
        if group.as_ref().err() == Some(&ENODEV) {
            self.iommu.leave_out(liodns);
        }
        group
    }

    /// Lets the device access all memory, for a driver of the kernel.
    fn open(&self) {
        let open = |liodn| report(liodn, self.iommu.system.open(liodn));
        self.iommu.groups.lock().open(&self.attachment, open);
    }

    /// Lets the device access nothing, unless a container gives it windows, or a device that the
    /// kernel has shares its LIODN.
    fn block(&self) {
        let block = |liodn| report(liodn, self.iommu.system.block(liodn));
        self.iommu.groups.lock().block(&self.attachment, block);
    }

    /// Removes the device from those with its LIODNs.
    fn leave(&self) {
        self.iommu.groups.lock().block(&self.attachment, |_| {});
    }
}

/// Returns whether a PCI device with a driver is used outside of the groups of the PAMUs. `dma` tells
/// whether the driver does DMA in the kernel's address space, unlike those of bridges and of VFIO.
/// `registered` tells whether there are such groups: before, a group is VFIO's for a device without an
/// IOMMU.
fn is_outside(dma: bool, in_group: bool, registered: bool) -> bool {
    match registered {
        true => dma && !in_group,
        false => dma || in_group,
    }
}

impl Iommu {
    /// Returns the PAMUs of `system`, which are not registered yet.
    fn new(system: Arc<System>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                system,
                groups <- new_mutex!(GroupLiodns::new(), "vfio_pamu::groups"),
                #[cfg(CONFIG_PPC)]
                controllers <- new_mutex!(KVec::new(), "vfio_pamu::controllers"),
                device: abi::IommuDevice::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Returns what the IOMMU core's structure of a device shall refer to, if the device is behind the
    /// PAMUs and can be in a group.
    ///
    /// # Errors
    ///
    /// `ENODEV` if it isn't a PCI device with LIODNs that the hardware has, if the kernel uses its
    /// LIODNs outside of a group, or if it has a driver already; `ENOMEM`.
    fn member(self: &Arc<Self>, dev: &Device) -> Result<KBox<Member>> {
        let liodns = pci_liodns(dev)?;
        // A device that has a driver is too late for a group. `abi::reserve_used` decides what that
        // means for others.
        if abi::has_driver(dev) {
            return Err(ENODEV);
        }
        if !liodns.iter().all(|liodn| self.system.is_for_groups(*liodn)) {
            self.leave_out(&liodns);
            return Err(ENODEV);
        }
        #[cfg(CONFIG_PPC)]
        self.interpose(dev)?;
        let member = Member {
            iommu: self.clone(),
            attachment: Attachment::new(liodns),
        };
        Ok(KBox::new(member, GFP_KERNEL)?)
    }

    /// Takes care of the MSIs of the devices behind the controller of `dev`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    #[cfg(CONFIG_PPC)]
    fn interpose(&self, dev: &Device) -> Result {
        let mut controllers = self.controllers.lock();
        if controllers.iter().any(|known| known.is_of(dev)) {
            return Ok(());
        }
        controllers.reserve(1, GFP_KERNEL)?;
        if let Some(controller) = Interposed::new(dev)? {
            controllers.push(controller, GFP_KERNEL)?;
        }
        Ok(())
    }

    /// Reserves the LIODNs of a device that can't be in a group: it may get a driver of the kernel
    /// later, so userspace can't have devices with these LIODNs.
    fn leave_out(&self, liodns: &[u32]) {
        for liodn in liodns
            .iter()
            .filter(|liodn| self.system.entry(**liodn).is_some())
        {
            report(*liodn, self.system.reserve(*liodn));
        }
    }
}

/// Returns the LIODNs of a PCI device.
///
/// # Errors
///
/// `ENODEV` if it is no PCI device or has no LIODN; `ENOMEM`.
fn pci_liodns(dev: &Device) -> Result<KVec<u32>> {
    if !is_pci(dev) {
        return Err(ENODEV);
    }
    liodns_of(dev)
}

#[kunit_tests(vfio_pamu_iommu)]
mod tests {
    use super::*;

    #[test]
    fn drivers_use_devices_outside_of_groups() {
        for (dma, in_group, before, after) in [
            // A port, a bridge, `pci-stub`.
            (false, false, false, false),
            // VFIO without an IOMMU, and later VFIO with a PAMU.
            (false, true, true, false),
            // A driver that had the device before, and one that got it later.
            (true, false, true, true),
            (true, true, true, false),
        ] {
            assert_eq!(is_outside(dma, in_group, false), before);
            assert_eq!(is_outside(dma, in_group, true), after);
        }
    }
}
