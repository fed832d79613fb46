// SPDX-License-Identifier: GPL-2.0

//! Groups whose container is an iommufd.

use super::{
    CLOSED,
    WithoutDriver,
    has,
    is_free,
    open,
    reaches, //
};
use crate::{
    env::{
        EDU,
        NVME,
        SHARED,
        group, //
    },
    harness::{
        Failure,
        cases, //
    },
    requires::{
        self,
        Language, //
    }, //
};
use anyhow::Result;
use std::{
    any::Any,
    fs::File,
    os::fd::{
        AsFd,
        AsRawFd, //
    },
};
use support::{
    PAGE,
    machine::pinned_pages,
    requests::{
        BindIommufd,
        DirtyPages,
        MapDma,
        UnmapDma, //
    },
};
use vfio_client::{
    Container, Device, Errno, Group, Iommu, Iommufd, MapFlags, Memory, PAGE_SIZE,
    edu::Edu,
    raw, request,
    uapi::{
        VFIO_DMA_CC_IOMMU,
        VFIO_NOIOMMU_IOMMU,
        VFIO_UNMAP_ALL,
        VFIO_UPDATE_VADDR, //
    },
};

cases! {
    #[rows("G15")] #[requires(groups)] set_container_creates_compat_ioas,
    #[rows("G15")] #[requires(groups)] existing_compat_ioas_is_kept,
    #[rows("G6")] #[requires(containers)] group_has_one_container,
    #[rows("G6")] #[requires(groups, device_files)] files_that_are_no_container,
    #[rows("G5", "G15")] #[requires(groups)] status,
    #[rows("G15")] #[requires(groups)] dma_ownership_is_claimed_by_open,
    #[rows("G15")] #[requires(groups)] host_driver_can_bind_until_device_is_opened,
    #[rows("G11", "G15")] #[requires(groups)] device_needs_no_set_iommu,
    #[rows("G12", "G15")] #[requires(groups)] device_can_be_opened_again,
    #[rows("G15")] #[requires(groups)] open_without_compat_ioas_fails,
    #[rows("G15")] #[requires(groups)] device_is_attached_to_compat_ioas,
    #[rows("G10", "G15")] #[requires(containers)] unset_container,
    #[rows("G10", "G15")] #[requires(groups)] unset_container_while_device_is_open,
    #[rows("G10", "G15")] #[requires(vfio_containers)] other_container_while_device_is_open,
    #[rows("G13", "G15")] #[requires(groups)] close_in_every_order,
    #[rows("G13", "G15")] #[requires(core(C), vfio_containers, device_files)] group_is_opened_again_while_device_is_open,
    #[rows("G13", "G15")] #[requires(core(Rust), groups, device_files)] open_device_keeps_group,
    #[rows("V8", "V2")] #[requires(groups)] device_has_no_bind_and_attach,
    #[rows("G8", "G15")] #[requires(groups)] two_groups_in_one_iommufd,
    #[rows("G15")] #[requires(groups, device_files)] group_and_device_file_in_one_iommufd,
    #[rows("G22", "G15")] #[requires(groups)] group_without_devices_leaves_iommufd,
    #[rows("V12")] #[requires(groups)] extensions,
    #[rows("V12")] #[requires(groups)] set_iommu,
    #[rows("V12")] #[requires(groups)] info,
    #[rows("V12")] #[requires(groups)] map_and_unmap,
    #[rows("V12")] #[requires(groups)] unmap_inside_mapping,
    #[rows("V12")] #[requires(groups)] no_vaddr_update_and_no_dirty_pages,
    #[rows("V12")] #[requires(groups)] registers_cannot_be_mapped,
    #[rows("V12")] #[requires(groups)] requests_without_compat_ioas,
}

/// A device that was opened through a group whose container is an iommufd.
struct Opened {
    device: Device,
    group: Group,
    iommufd: Iommufd,
    /// The iommufd, for the requests of a container.
    container: Container,
}

impl Opened {
    fn new(bdf: &str) -> Result<Self> {
        let (group, iommufd) = joined(bdf)?;
        Ok(Self {
            device: group.device(bdf)?,
            group,
            container: iommufd.as_container()?,
            iommufd,
        })
    }
}

/// Sets the container of a group.
fn set(group: &Group, file: impl AsFd) -> vfio_client::Result<()> {
    group.set_container_fd(file.as_fd().as_raw_fd())
}

/// Opens the group of a device, with a new iommufd as its container.
fn joined(bdf: &str) -> Result<(Group, Iommufd)> {
    let iommufd = Iommufd::open()?;
    let group = group(bdf)?;
    set(&group, &iommufd)?;
    Ok((group, iommufd))
}

fn set_container_creates_compat_ioas() -> Result<()> {
    let iommufd = Iommufd::open()?;
    assert_eq!(iommufd.compat_ioas().errno(), Errno::ENODEV);
    let group = group(EDU)?;
    set(&group, &iommufd)?;
    let ioas = iommufd.compat_ioas()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    iommufd.map(ioas, 0, &memory, MapFlags::ReadWrite)?;
    group.unset_container()?;
    assert_eq!(iommufd.compat_ioas()?, ioas, "it stays");
    set(&group, &iommufd)?;
    assert_eq!(iommufd.compat_ioas()?, ioas);
    assert_eq!(iommufd.unmap_all(ioas)?, PAGE);
    Ok(())
}

fn existing_compat_ioas_is_kept() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let ioas = iommufd.ioas()?;
    iommufd.set_compat_ioas(ioas)?;
    let group = group(EDU)?;
    set(&group, &iommufd)?;
    assert_eq!(iommufd.compat_ioas()?, ioas);
    group.device(EDU)?;
    Ok(())
}

fn group_has_one_container() -> Result<()> {
    let (group, iommufd) = joined(EDU)?;
    let container = Container::open()?;
    assert_eq!(set(&group, &iommufd).errno(), Errno::EINVAL);
    assert_eq!(set(&group, Iommufd::open()?).errno(), Errno::EINVAL);
    assert_eq!(set(&group, &container).errno(), Errno::EINVAL);
    group.unset_container()?;
    set(&group, &container)?;
    assert_eq!(set(&group, &iommufd).errno(), Errno::EINVAL);
    Ok(())
}

fn files_that_are_no_container() -> Result<()> {
    let group = group(EDU)?;
    let null = File::open("/dev/null")?;
    let device = open(NVME)?;
    let other = crate::env::group(NVME)?;
    let files: [&dyn AsFd; 4] = [&null, &device, &other, &group];
    for file in files {
        assert_eq!(set(&group, file.as_fd()).errno(), Errno::EBADFD);
    }
    assert_eq!(group.set_container_fd(CLOSED).errno(), Errno::EBADF);
    assert_eq!(group.set_container_fd(-1).errno(), Errno::EBADF);
    assert_eq!(group.status()?, 1);
    // A group with an iommufd refuses any file that exists.
    set(&group, Iommufd::open()?)?;
    for file in files {
        assert_eq!(set(&group, file.as_fd()).errno(), Errno::EINVAL);
    }
    assert_eq!(group.set_container_fd(CLOSED).errno(), Errno::EBADF);
    Ok(())
}

fn status() -> Result<()> {
    let group = group(EDU)?;
    assert_eq!(group.status()?, 1);
    let iommufd = Iommufd::open()?;
    set(&group, &iommufd)?;
    assert_eq!(group.status()?, 3);
    let device = group.device(EDU)?;
    assert_eq!(group.status()?, 3);
    drop(device);
    group.unset_container()?;
    assert_eq!(group.status()?, 1);
    Ok(())
}

fn dma_ownership_is_claimed_by_open() -> Result<()> {
    let group = group(SHARED)?;
    assert_eq!(group.status()?, 0, "the sibling has a host driver");
    let iommufd = Iommufd::open()?;
    set(&group, &iommufd)?;
    assert_eq!(group.status()?, 3, "a group with an iommufd seems viable");
    assert_eq!(group.device(SHARED).errno(), Errno::EPERM);
    let sibling = WithoutDriver::new()?;
    let device = group.device(SHARED)?;
    device.info()?;
    drop(device);
    sibling.bind_driver()?;
    assert_eq!(group.device(SHARED).errno(), Errno::EPERM);
    Ok(())
}

fn host_driver_can_bind_until_device_is_opened() -> Result<()> {
    let sibling = WithoutDriver::new()?;
    let (group, iommufd) = joined(SHARED)?;
    sibling.bind_driver()?;
    drop(sibling);
    let sibling = WithoutDriver::new()?;
    let device = group.device(SHARED)?;
    assert_eq!(sibling.bind_driver().errno(), Errno::EBUSY);
    drop((group, iommufd));
    assert_eq!(sibling.bind_driver().errno(), Errno::EBUSY);
    drop(device);
    sibling.bind_driver()?;
    Ok(())
}

fn device_needs_no_set_iommu() -> Result<()> {
    let opened = Opened::new(EDU)?;
    assert!(Edu::new(&opened.device)?.is_alive());
    assert_eq!(opened.group.device(NVME).errno(), Errno::ENODEV);
    assert_eq!(opened.group.device("").errno(), Errno::ENODEV);
    Ok(())
}

fn device_can_be_opened_again() -> Result<()> {
    let opened = Opened::new(EDU)?;
    let again = opened.group.device(EDU)?;
    let edu = Edu::new(&again)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    opened.container.map(0, &memory, MapFlags::ReadWrite)?;
    assert!(reaches(&edu, &memory, 0)?);
    drop(opened.device);
    assert!(reaches(&edu, &memory, 0)?, "the device is still open");
    drop((edu, again));
    let third = opened.group.device(EDU)?;
    assert!(reaches(&Edu::new(&third)?, &memory, 0)?);
    Ok(())
}

fn open_without_compat_ioas_fails() -> Result<()> {
    let (group, iommufd) = joined(EDU)?;
    let ioas = iommufd.compat_ioas()?;
    iommufd.clear_compat_ioas()?;
    for _ in 0..3 {
        assert_eq!(group.device(EDU).errno(), Errno::ENODEV);
    }
    for id in 1..10 {
        let object = iommufd.destroy(id);
        assert_eq!(object.is_ok(), id == ioas, "object {id}");
    }
    let ioas = iommufd.ioas()?;
    iommufd.set_compat_ioas(ioas)?;
    group.device(EDU)?.info()?;
    // Destroying it has the same effect.
    iommufd.destroy(ioas)?;
    assert_eq!(group.device(EDU).errno(), Errno::ENODEV);
    drop(group);
    is_free(EDU)
}

fn device_is_attached_to_compat_ioas() -> Result<()> {
    let opened = Opened::new(EDU)?;
    let ioas = opened.iommufd.compat_ioas()?;
    assert!(has(&opened.iommufd, ioas)?, "the device uses it");
    let edu = Edu::new(&opened.device)?;
    let (one, two) = (Memory::anonymous(PAGE_SIZE)?, Memory::anonymous(PAGE_SIZE)?);
    opened.container.map(0x10_0000, &one, MapFlags::ReadWrite)?;
    opened
        .iommufd
        .map(ioas, 0x20_0000, &two, MapFlags::ReadWrite)?;
    assert!(reaches(&edu, &one, 0x10_0000)?);
    assert!(reaches(&edu, &two, 0x20_0000)?);
    // The device stays with its IOAS when another one is chosen.
    let other = opened.iommufd.ioas()?;
    opened.iommufd.set_compat_ioas(other)?;
    assert!(reaches(&edu, &one, 0x10_0000)?);
    drop((edu, opened.device));
    opened.iommufd.destroy(ioas)?;
    Ok(())
}

fn unset_container() -> Result<()> {
    let (group, iommufd) = joined(EDU)?;
    group.unset_container()?;
    assert_eq!(group.unset_container().errno(), Errno::EINVAL);
    assert_eq!(group.device(EDU).errno(), Errno::EINVAL);
    assert_eq!(group.status()?, 1);
    set(&group, &iommufd)?;
    group.device(EDU)?;
    group.unset_container()?;
    let _container = {
        let container = Container::open()?;
        group.set_container(&container)?;
        container.set_iommu(Iommu::Type1v2)?;
        container
    };
    group.device(EDU)?;
    Ok(())
}

fn unset_container_while_device_is_open() -> Result<()> {
    let opened = Opened::new(EDU)?;
    let edu = Edu::new(&opened.device)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    opened.container.map(0, &memory, MapFlags::ReadWrite)?;
    opened.group.unset_container()?;
    assert_eq!(opened.group.status()?, 0, "the device owns the DMA");
    assert_eq!(opened.group.device(EDU).errno(), Errno::EINVAL);
    assert!(reaches(&edu, &memory, 0)?, "the device stays attached");
    opened.device.info()?;
    drop((opened.iommufd, opened.container));
    assert!(reaches(&edu, &memory, 0)?);
    drop((edu, opened.device));
    assert_eq!(opened.group.status()?, 1);
    Ok(())
}

fn other_container_while_device_is_open() -> Result<()> {
    let opened = Opened::new(EDU)?;
    opened.group.unset_container()?;
    let container = Container::open()?;
    let refused = opened.group.set_container(&container);
    assert_eq!(refused.errno(), Errno::EPERM, "the device owns the DMA");
    assert_eq!(opened.group.unset_container().errno(), Errno::EINVAL);
    // The former iommufd again.
    set(&opened.group, &opened.iommufd)?;
    let again = opened.group.device(EDU)?;
    drop(opened.device);
    again.info()?;
    drop(again);
    opened.group.unset_container()?;
    opened.group.set_container(&container)?;
    Ok(())
}

const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

fn close_in_every_order() -> Result<()> {
    type Slot = Option<Box<dyn Any>>;
    let before = pinned_pages()?;
    for order in ORDERS {
        let opened = Opened::new(EDU)?;
        let memory = Memory::anonymous(16 * PAGE_SIZE)?;
        opened.container.map(0, &memory, MapFlags::ReadWrite)?;
        let mut slots: [Slot; 3] = [
            Some(Box::new((opened.iommufd, opened.container))),
            Some(Box::new(opened.group)),
            Some(Box::new(opened.device)),
        ];
        for (step, i) in order.into_iter().enumerate() {
            slots[i] = None;
            let pinned = pinned_pages()? - before;
            let expected = if slots[2].is_some() { 16 } else { 0 };
            assert_eq!(pinned, expected, "order {order:?}, step {step}");
            // An open device of C holds the group's file only with a container.
            let held = requires::core(Language::Rust) && slots[2].is_some();
            let free = slots[1].is_none() && !held;
            assert_eq!(group(EDU).is_ok(), free, "order {order:?}, step {step}");
        }
    }
    is_free(EDU)
}

/// A defect of C: another process could open the group, and share the device that is open.
fn group_is_opened_again_while_device_is_open() -> Result<()> {
    let opened = Opened::new(EDU)?;
    drop(opened.group);
    let file = open(EDU)?;
    assert_eq!(file.bind(&opened.iommufd).errno(), Errno::EINVAL);
    let group = group(EDU)?;
    assert_eq!(group.status()?, 0, "the device owns the DMA");
    assert_eq!(group.device(EDU).errno(), Errno::EINVAL);
    let refused = group.set_container(&Container::open()?);
    assert_eq!(refused.errno(), Errno::EPERM);
    assert_eq!(file.bind(&opened.iommufd).errno(), Errno::EBUSY);
    set(&group, &opened.iommufd)?;
    let again = group.device(EDU)?;
    drop(opened.device);
    again.info()?;
    drop(again);
    assert_eq!(group.status()?, 3);
    drop(group);
    file.bind(&opened.iommufd)?;
    Ok(())
}

fn open_device_keeps_group() -> Result<()> {
    let opened = Opened::new(EDU)?;
    drop(opened.group);
    assert!(group(EDU).is_err(), "the device keeps the group");
    let file = open(EDU)?;
    assert_eq!(file.bind(&opened.iommufd).errno(), Errno::EBUSY);
    opened.device.info()?;
    drop(opened.device);
    assert_eq!(group(EDU)?.status()?, 1);
    file.bind(&opened.iommufd)?;
    Ok(())
}

fn device_has_no_bind_and_attach() -> Result<()> {
    let opened = Opened::new(EDU)?;
    let bind = BindIommufd {
        iommufd: opened.iommufd.as_fd().as_raw_fd(),
        ..BindIommufd::default()
    };
    let errno = match requires::device_files() {
        true => Errno::EINVAL,
        false => Errno::ENOTTY,
    };
    assert_eq!(bind.send(&opened.device), Err(errno));
    let ioas = opened.iommufd.ioas()?;
    assert_eq!(opened.device.attach(ioas).errno(), Errno::ENOTTY);
    assert_eq!(opened.device.detach().errno(), Errno::ENOTTY);
    if requires::device_files() {
        let file = open(EDU)?;
        assert_eq!(file.bind(&opened.iommufd).errno(), Errno::EBUSY);
    }
    Ok(())
}

fn two_groups_in_one_iommufd() -> Result<()> {
    let first = Opened::new(EDU)?;
    let second = group(NVME)?;
    set(&second, &first.iommufd)?;
    let device = second.device(NVME)?;
    device.info()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    first.container.map(0, &memory, MapFlags::ReadWrite)?;
    assert!(reaches(&Edu::new(&first.device)?, &memory, 0)?);
    drop((first.device, first.group));
    device.info()?;
    let ioas = first.iommufd.compat_ioas()?;
    assert!(has(&first.iommufd, ioas)?, "the other device uses it");
    Ok(())
}

fn group_and_device_file_in_one_iommufd() -> Result<()> {
    let first = Opened::new(EDU)?;
    let second = open(NVME)?;
    second.bind(&first.iommufd)?;
    let ioas = first.iommufd.compat_ioas()?;
    second.attach(ioas)?;
    drop((first.device, first.group));
    assert!(has(&first.iommufd, ioas)?, "the other device uses it");
    second.detach()?;
    first.iommufd.destroy(ioas)?;
    assert_eq!(first.iommufd.compat_ioas().errno(), Errno::ENODEV);
    Ok(())
}

fn group_without_devices_leaves_iommufd() -> Result<()> {
    let (group, iommufd) = joined(EDU)?;
    vfio_client::pci::unbind(EDU)?;
    let status = group.status();
    let device = group.device(EDU);
    let unset = group.unset_container();
    let set_again = set(&group, &iommufd);
    vfio_client::pci::bind(EDU, "vfio-pci")?;
    assert_eq!(status.errno(), Errno::ENODEV);
    assert_eq!(device.errno(), Errno::ENODEV);
    assert_eq!(unset, Ok(()), "the group has kept the iommufd");
    assert_eq!(set_again.errno(), Errno::ENODEV);
    drop(group);
    is_free(EDU)
}

fn extensions() -> Result<()> {
    let opened = Opened::new(EDU)?;
    let container = &opened.container;
    for (extension, answer) in [
        (Iommu::Type1.number(), 1),
        (Iommu::Type1v2.number(), 1),
        (VFIO_UNMAP_ALL, 1),
        (VFIO_NOIOMMU_IOMMU, 1),
        (VFIO_DMA_CC_IOMMU, 0),
        (VFIO_UPDATE_VADDR, 0),
        (6, 0),
        (99, 0),
    ] {
        let found = container.check_extension(extension)?;
        assert_eq!(found, answer, "extension {extension}");
    }
    assert_eq!(container.api_version()?, 0);
    Ok(())
}

fn set_iommu() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let container = iommufd.as_container()?;
    assert_eq!(container.set_iommu(Iommu::Type1v2).errno(), Errno::ENODEV);
    let group = group(EDU)?;
    set(&group, &iommufd)?;
    container.set_iommu(Iommu::Type1v2)?;
    container.set_iommu(Iommu::Type1)?;
    container.set_iommu(Iommu::Type1v2)?;
    for other in [0, 2, u64::from(VFIO_NOIOMMU_IOMMU), 99] {
        let answer = raw::value(&container, request::SET_IOMMU, other);
        assert_eq!(answer, Err(Errno::EINVAL), "type {other}");
    }
    group.device(EDU)?;
    Ok(())
}

fn info() -> Result<()> {
    let opened = Opened::new(EDU)?;
    let info = opened.container.info()?;
    assert_eq!(info.flags, 3);
    assert_eq!(info.page_sizes & PAGE, PAGE);
    assert_eq!(info.dma_avail(), Some(u32::MAX));
    let ioas = opened.iommufd.compat_ioas()?;
    assert_eq!(info.ranges(), opened.iommufd.iova_ranges(ioas)?.ranges);
    assert!(info.cap(2).is_none(), "no dirty pages");
    Ok(())
}

fn map_and_unmap() -> Result<()> {
    let opened = Opened::new(EDU)?;
    let container = &opened.container;
    let edu = Edu::new(&opened.device)?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    container.map(0x10_0000, &memory, MapFlags::ReadWrite)?;
    assert!(reaches(&edu, &memory, 0x10_0000)?);
    let again = container.map(0x10_0000, &memory, MapFlags::ReadWrite);
    assert_eq!(again.errno(), Errno::EEXIST);
    let inside = container.unmap(0x10_0000, PAGE);
    assert_eq!(inside.errno(), Errno::ENOENT, "it bisects the mapping");
    assert_eq!(container.unmap(0x10_0000, 4 * PAGE)?, 4 * PAGE);
    assert!(!reaches(&edu, &memory, 0x10_0000)?);
    let nothing = container.unmap(0x10_0000, 4 * PAGE);
    assert_eq!(nothing, Ok(0));
    container.map(0x10_0000, &memory, MapFlags::Read)?;
    container.map(0x20_0000, &memory, MapFlags::Read)?;
    assert_eq!(container.unmap_all()?, 8 * PAGE);
    Ok(())
}

/// The first version of type 1 unmaps any part of a mapping.
fn unmap_inside_mapping() -> Result<()> {
    let opened = Opened::new(EDU)?;
    let container = &opened.container;
    container.set_iommu(Iommu::Type1)?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    container.map(0x10_0000, &memory, MapFlags::ReadWrite)?;
    assert_eq!(container.unmap(0x10_1000, PAGE)?, PAGE);
    let edu = Edu::new(&opened.device)?;
    let first = reaches(&edu, &memory, 0x10_0000)?;
    let second = reaches(&edu, &memory, 0x10_1000)?;
    assert_eq!((first, second), (true, false));
    assert_eq!(container.unmap_all()?, 3 * PAGE);
    Ok(())
}

fn no_vaddr_update_and_no_dirty_pages() -> Result<()> {
    let opened = Opened::new(EDU)?;
    let container = &opened.container;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    let update = MapDma {
        flags: MapDma::VADDR,
        vaddr: memory.addr(),
        ..MapDma::default()
    };
    assert_eq!(update.send(container), Err(Errno::EINVAL));
    for flags in [UnmapDma::VADDR, UnmapDma::GET_DIRTY_BITMAP] {
        let unmap = UnmapDma {
            flags,
            ..UnmapDma::of(0, PAGE)
        };
        assert_eq!(unmap.send(container), Err(Errno::EINVAL));
    }
    let start = DirtyPages::track(DirtyPages::START).send(container);
    assert_eq!(start, Err(Errno::ENOTTY));
    Ok(())
}

fn registers_cannot_be_mapped() -> Result<()> {
    let opened = Opened::new(EDU)?;
    let edu = Edu::new(&opened.device)?;
    let map = opened
        .container
        .map(0, edu.registers(), MapFlags::ReadWrite);
    assert_eq!(map.errno(), Errno::EFAULT);
    Ok(())
}

fn requests_without_compat_ioas() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let container = iommufd.as_container()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    assert_eq!(container.info().errno(), Errno::ENODEV);
    let map = container.map(0, &memory, MapFlags::Read);
    assert_eq!(map.errno(), Errno::ENODEV);
    assert_eq!(container.unmap(0, PAGE).errno(), Errno::ENODEV);
    let ioas = iommufd.ioas()?;
    assert_eq!(iommufd.set_compat_ioas(ioas + 1).errno(), Errno::ENOENT);
    iommufd.set_compat_ioas(ioas)?;
    container.map(0, &memory, MapFlags::Read)?;
    assert_eq!(iommufd.unmap_all(ioas)?, PAGE);
    Ok(())
}
