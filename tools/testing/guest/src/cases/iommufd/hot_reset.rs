// SPDX-License-Identifier: GPL-2.0

//! Hot resets of a slot whose devices are bound to an iommufd.

use super::{
    bound,
    open, //
};
use crate::{
    cases::nic::NIC,
    env::EDU,
    harness::{
        Failure,
        cases, //
    },
    slow_sysfs::{
        self,
        IN_GROUP,
        REGISTRATION, //
    },
};
use anyhow::Result;
use vfio_client::{
    Bytes, Device, Errno, Iommufd, raw, request,
    structures::{
        HotReset,
        argsz, //
    },
    uapi::{
        VFIO_PCI_DEVID_NOT_OWNED,
        VFIO_PCI_DEVID_OWNED,
        VFIO_PCI_HOT_RESET_FLAG_DEV_ID,
        VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED, //
    },
};

cases! {
    #[rows("D4")] affected_devices_have_ids,
    #[rows("D4")] #[requires(containers)] group_device_reports_groups,
    #[rows("D4", "K8")] reset_needs_all_devices_of_slot,
    #[rows("D4")] #[requires(containers)] reset_takes_no_groups,
    #[rows("D4")] root_bus_cannot_be_reset,
    #[rows("D4")] #[requires(groups)] info_does_not_wait_for_sysfs,
    #[rows("D4")] #[requires(groups)] reset_does_not_wait_for_sysfs,
}

/// The other function of the slot of [`NIC`]. It is in the same group.
const OTHER: &str = "0000:01:00.1";

/// Returns the flags, and the id or the group of each affected device.
fn affected(device: &Device) -> Result<(u32, Vec<u32>), Errno> {
    // An affected device: its id, segment, bus and function.
    const ENTRY: usize = 8;
    const COUNT: usize = 4;
    let header = HotReset {
        argsz: argsz::<HotReset>() + (COUNT * ENTRY) as u32,
        ..HotReset::default()
    };
    let mut bytes = Bytes::of(&header).fill(0, COUNT * ENTRY);
    raw::bytes(device, request::DEVICE_GET_PCI_HOT_RESET_INFO, &mut bytes)?;
    let HotReset { flags, count, .. } = bytes.get(0);
    let id = |i: usize| bytes.get_u32(size_of::<HotReset>() + i * ENTRY);
    Ok((flags, (0..count as usize).map(id).collect()))
}

/// Resets the slot of a device that was opened by its own file.
fn reset(device: &Device) -> vfio_client::Result<()> {
    device.hot_reset(&[])
}

const BY_ID: u32 = VFIO_PCI_HOT_RESET_FLAG_DEV_ID;
const ALL_OWNED: u32 = VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED;

fn affected_devices_have_ids() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let first = open(NIC)?;
    let first_id = first.bind(&iommufd)?;
    // The other function is in the same group, so nothing else can use it.
    let (flags, ids) = affected(&first)?;
    assert_eq!(flags, BY_ID | ALL_OWNED);
    assert_eq!(ids, [first_id, VFIO_PCI_DEVID_OWNED]);
    let second = open(OTHER)?;
    let second_id = second.bind(&iommufd)?;
    assert_eq!(affected(&first)?, (flags, vec![first_id, second_id]));
    assert_eq!(affected(&second)?, (flags, vec![first_id, second_id]));
    drop(first);
    let (flags, ids) = affected(&second)?;
    assert_eq!(flags, BY_ID | ALL_OWNED);
    assert_eq!(ids, [VFIO_PCI_DEVID_OWNED, second_id]);
    Ok(())
}

fn group_device_reports_groups() -> Result<()> {
    let setup = crate::env::Setup::with(NIC, vfio_client::Iommu::Type1v2)?;
    let group = vfio_client::pci::group_of(NIC)?;
    assert_eq!(affected(&setup.device)?, (0, vec![group, group]));
    Ok(())
}

fn reset_needs_all_devices_of_slot() -> Result<()> {
    let (first, iommufd) = bound(NIC)?;
    reset(&first)?;
    first.info()?;
    let second = open(OTHER)?;
    second.bind(&iommufd)?;
    reset(&second)?;
    // Without vfio-pci, nothing owns the other function.
    drop(second);
    vfio_client::pci::unbind(OTHER)?;
    let without = reset(&first);
    let (flags, ids) = affected(&first)?;
    vfio_client::pci::bind(OTHER, "vfio-pci")?;
    assert_eq!(without.errno(), Errno::EINVAL);
    assert_eq!(flags, BY_ID);
    // CAST: The id is -1 in a field of 32 bits.
    assert_eq!(ids[1], VFIO_PCI_DEVID_NOT_OWNED as u32);
    reset(&first)?;
    Ok(())
}

fn reset_takes_no_groups() -> Result<()> {
    let (device, _iommufd) = bound(NIC)?;
    let group = crate::env::group(EDU)?;
    assert_eq!(device.hot_reset(&[&group]).errno(), Errno::EINVAL);
    let setup = crate::env::Setup::with("0000:02:00.0", vfio_client::Iommu::Type1v2)?;
    assert_eq!(reset(&setup.device).errno(), Errno::EINVAL);
    Ok(())
}

fn root_bus_cannot_be_reset() -> Result<()> {
    let (device, _iommufd) = bound(EDU)?;
    assert_eq!(affected(&device), Err(Errno::ENODEV));
    assert_eq!(reset(&device).errno(), Errno::ENODEV);
    Ok(())
}

fn info_does_not_wait_for_sysfs() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let device = open(NIC)?;
    let id = device.bind(&iommufd)?;
    slow_sysfs::while_mdev_comes_and_goes(&REGISTRATION, || {
        // The group of the other function is looked up.
        let (flags, ids) = affected(&device)?;
        assert_eq!(flags, BY_ID | ALL_OWNED);
        assert_eq!(ids, [id, VFIO_PCI_DEVID_OWNED]);
        Ok(())
    })
}

fn reset_does_not_wait_for_sysfs() -> Result<()> {
    let (device, _iommufd) = bound(NIC)?;
    slow_sysfs::while_mdev_comes_and_goes(&IN_GROUP, || Ok(reset(&device)?))
}
