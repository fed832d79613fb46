// SPDX-License-Identifier: GPL-2.0

//! Containers with emulated and physical groups.

use crate::{
    env::{
        EDU,
        NVME,
        group,
        msi_window, //
    },
    harness::{
        Failure,
        cases, //
    },
    mdev::{
        Mdev,
        UUIDS,
        open_mtty, //
    },
    requires, //
};
use anyhow::{
    Context,
    Result, //
};
use std::fs;
use support::{
    PAGE,
    machine::locked_pages, //
};
use vfio_client::{
    Container,
    Errno,
    Iommu,
    IovaRange,
    MapFlags,
    Memory,
    PAGE_SIZE,
    edu::{
        self,
        Edu, //
    },
    pci,
    raw,
    request, //
};

cases! {
    #[rows("T-I3")] iova_ranges_of_physical_group,
    #[rows("T-I3")] iova_ranges_after_physical_group_left,
    #[rows("T-G5")] mappings_are_pinned_when_physical_group_joins,
    #[rows("T-G3")] physical_group_refuses_mappings_it_cannot_have,
    #[rows("T-G7")] mappings_are_unpinned_when_physical_group_leaves,
    emulated_group_joins_and_leaves,
    two_physical_groups_and_two_emulated,
    #[rows("N2")] #[requires(noiommu)] noiommu_parameter_does_not_affect_groups_with_iommu,
}

fn iova_ranges_of_physical_group() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    let (alone, _group) = crate::env::attached(NVME, Iommu::Type1v2)?;
    let other = group(EDU)?;
    other.set_container(&open.container)?;
    assert_eq!(open.container.info()?.ranges(), alone.info()?.ranges());
    Ok(())
}

fn iova_ranges_after_physical_group_left() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    let other = group(EDU)?;
    other.set_container(&open.container)?;
    other.unset_container()?;
    let everything = IovaRange {
        start: 0,
        end: u64::MAX,
    };
    assert_eq!(open.container.info()?.ranges(), [everything]);
    Ok(())
}

fn mappings_are_pinned_when_physical_group_joins() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    let memory = Memory::anonymous(64 * PAGE_SIZE)?;
    open.container
        .map(0x10_0000, &memory, MapFlags::ReadWrite)?;
    assert_eq!(locked_pages(), 0);
    let other = group(EDU)?;
    other.set_container(&open.container)?;
    assert_eq!(locked_pages(), 64, "all mapped pages are pinned");
    let device = other.device(EDU)?;
    let edu = Edu::new(&device)?;
    memory.fill(5 * PAGE_SIZE, PAGE_SIZE, 0x5c);
    edu.load(0x10_0000 + 5 * PAGE, edu::MEMORY as u64)?;
    edu.store(0x10_0000 + 9 * PAGE, edu::MEMORY as u64)?;
    assert_eq!(
        memory.to_vec(9 * PAGE_SIZE, edu::MEMORY),
        [0x5c; edu::MEMORY]
    );
    // New mappings are pinned at once from here on.
    open.container
        .map_part(0x80_0000, &memory, 0, 2 * PAGE_SIZE, MapFlags::Read)?;
    assert_eq!(locked_pages(), 66);
    assert_eq!(open.container.unmap_all()?, 66 * PAGE);
    assert_eq!(locked_pages(), 0);
    Ok(())
}

/// A mapping that is valid without an IOMMU may be invalid for hardware.
fn physical_group_refuses_mappings_it_cannot_have() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    let other = group(EDU)?;
    // The aperture is unknown before the first physical group joins, so the page tables reject the
    // mapping.
    let mut refused = vec![(msi_window(EDU)?.start, Errno::EINVAL)];
    // The page tables of an SMMU reject it with a warning in the kernel's log, on both stacks.
    if !requires::smmu() {
        refused.push((1 << 60, Errno::ERANGE));
    }
    for (iova, errno) in refused {
        open.container.map(iova, &memory, MapFlags::ReadWrite)?;
        assert_eq!(other.set_container(&open.container).errno(), errno);
        assert_eq!(other.status()?, 1, "viable and without a container");
        assert_eq!((open.container.unmap_all()?, locked_pages()), (PAGE, 0));
    }
    // So does memory that cannot be pinned.
    let mut forbidden = Memory::anonymous(PAGE_SIZE)?;
    forbidden.protect(false, false)?;
    open.container.map(0, &memory, MapFlags::ReadWrite)?;
    open.container.map(PAGE, &forbidden, MapFlags::ReadWrite)?;
    assert_eq!(other.set_container(&open.container).errno(), Errno::EFAULT);
    assert_eq!((other.status()?, locked_pages()), (1, 0));
    assert_eq!(open.container.unmap(PAGE, PAGE)?, PAGE);
    other.set_container(&open.container)?;
    assert_eq!(locked_pages(), 1);
    Ok(())
}

fn mappings_are_unpinned_when_physical_group_leaves() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    let other = group(EDU)?;
    other.set_container(&open.container)?;
    let memory = Memory::anonymous(8 * PAGE_SIZE)?;
    open.container.map(0, &memory, MapFlags::ReadWrite)?;
    assert_eq!(locked_pages(), 8);
    other.unset_container()?;
    assert_eq!(locked_pages(), 0, "no group needs the pages");
    assert_eq!(
        open.container.info()?.dma_avail(),
        Some(65534),
        "the mapping is left"
    );
    // The group joins again.
    other.set_container(&open.container)?;
    assert_eq!(locked_pages(), 8);
    let device = other.device(EDU)?;
    Edu::new(&device)?.load(0, edu::MEMORY as u64)?;
    drop(device);
    drop(other);
    assert_eq!((locked_pages(), open.container.unmap_all()?), (0, 8 * PAGE));
    Ok(())
}

fn emulated_group_joins_and_leaves() -> Result<()> {
    let (container, physical) = crate::env::attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(8 * PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    assert_eq!(container.check_extension(10)?, 1);
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let emulated = mdev.group()?;
    emulated.set_container(&container)?;
    assert_eq!((locked_pages(), container.check_extension(10)?), (8, 0));
    let tty = emulated.device(UUIDS[0])?;
    let device = physical.device(EDU)?;
    Edu::new(&device)?.load(0, edu::MEMORY as u64)?;
    drop(tty);
    emulated.unset_container()?;
    assert_eq!((locked_pages(), container.check_extension(10)?), (8, 1));
    Edu::new(&device)?.load(PAGE, edu::MEMORY as u64)?;
    Ok(())
}

fn two_physical_groups_and_two_emulated() -> Result<()> {
    let (_first, open) = open_mtty()?;
    let mdev = Mdev::new("mtty-1", UUIDS[1])?;
    let second = mdev.group()?;
    let (edu, nvme) = (group(EDU)?, group(NVME)?);
    let memory = Memory::anonymous(8 * PAGE_SIZE)?;
    for group in [&edu, &second, &nvme] {
        group.set_container(&open.container)?;
    }
    open.container.map(0, &memory, MapFlags::ReadWrite)?;
    assert_eq!(locked_pages(), 8);
    edu.unset_container()?;
    assert_eq!(locked_pages(), 8, "the disk still needs the pages");
    edu.set_container(&open.container)?;
    nvme.unset_container()?;
    second.unset_container()?;
    assert_eq!(locked_pages(), 8);
    let device = edu.device(EDU)?;
    Edu::new(&device)?.load(0, edu::MEMORY as u64)?;
    Ok(())
}

/// Allowing devices without an IOMMU changes nothing for devices that have one.
fn noiommu_parameter_does_not_affect_groups_with_iommu() -> Result<()> {
    let parameter = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
    assert_eq!(fs::read_to_string(parameter)?, "N\n");
    assert_eq!(Container::open()?.check_extension(8)?, 0);
    fs::write(parameter, "Y")?;
    let inner = || -> Result<()> {
        let container = Container::open()?;
        assert_eq!(container.check_extension(8)?, 1);
        pci::unbind(NVME)?;
        pci::bind(NVME, "vfio-pci")?;
        let group = group(NVME).context("its node has the name of a group with an IOMMU")?;
        group.set_container(&container)?;
        assert_eq!(container.check_extension(8)?, 0, "not for this group");
        let set = raw::value(&container, request::SET_IOMMU, 8);
        assert_eq!(set, Err(Errno::ENODEV));
        container.set_iommu(Iommu::Type1v2)?;
        Ok(())
    };
    let outcome = inner();
    fs::write(parameter, "N")?;
    assert_eq!(Container::open()?.check_extension(8)?, 0);
    let tainted: u64 = fs::read_to_string("/proc/sys/kernel/tainted")?
        .trim()
        .parse()?;
    assert_eq!(tainted & (1 << 6), 0);
    outcome
}
