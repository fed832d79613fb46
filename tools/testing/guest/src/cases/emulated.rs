// SPDX-License-Identifier: GPL-2.0

//! Containers with groups that have no IOMMU, alone and beside physical groups; interrupts of such
//! devices.

use crate::{
    env::{
        EDU,
        NVME,
        group, //
    },
    harness::{
        Failure,
        cases, //
    },
    leak::locked_kib,
    mdev::{
        Mdev,
        Open,
        UUIDS, //
    },
    stall::LIMIT, //
};
use anyhow::{
    Context,
    Result, //
};
use std::fs;
use vfio_client::{
    Bytes, Container, Errno, Interrupt, Iommu, IovaRange, MapFlags, Memory, PAGE_SIZE,
    edu::Edu,
    pci, raw, request,
    uapi::{
        VFIO_DMA_UNMAP_FLAG_VADDR,
        VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, //
    },
};

cases! {
    c04_extensions,
    c08_backends,
    t_i3_no_ranges,
    t_i3_ranges_of_a_physical_group,
    t_i3_ranges_after_a_physical_group,
    t_i4_page_sizes,
    t_m24_nothing_is_pinned,
    t_m24_any_address,
    t_m24_first_version,
    t_m21_too_large_to_track,
    t_u03_addresses_stay,
    several_groups_share_mappings,
    close_in_every_order,
    t_g5_physical_group_joins,
    t_g3_physical_group_joins_outside_of_its_ranges,
    t_g7_physical_group_leaves,
    emulated_group_joins_and_leaves,
    two_physical_groups_and_two_emulated,
    #[vfio_noiommu]
    n2_groups_stay_what_they_are,
    d23_arguments,
    set_irqs_intx,
    set_irqs_msi,
    set_irqs_one_kind_at_a_time,
    set_irqs_bad_descriptors,
}

const PAGE: u64 = PAGE_SIZE as u64;

/// Opens `mtty` in a new container.
fn open() -> Result<(Mdev, Open)> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let open = mdev.open()?;
    // The caller's variables are dropped last to first: removing an open device would wait
    // forever.
    Ok((mdev, open))
}

fn c04_extensions() -> Result<()> {
    let (_mdev, open) = open()?;
    let extensions = |numbers: &[u32]| {
        numbers
            .iter()
            .map(|number| open.container.check_extension(*number))
            .collect::<Result<Vec<_>, _>>()
    };
    // TYPE1, TYPE1v2, coherent DMA (no device is non-coherent), UNMAP_ALL; no UPDATE_VADDR.
    assert_eq!(extensions(&[1, 3, 4, 9])?, [1, 1, 1, 1]);
    assert_eq!(extensions(&[10])?, [0]);
    drop(open.device);
    drop(open.group);
    assert_eq!(open.container.check_extension(10)?, 0, "no backend");
    Ok(())
}

fn c08_backends() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let group = mdev.group()?;
    for (iommu, expected) in [
        (0u64, Err(Errno::ENODEV)),
        (1, Ok(0)),
        (2, Err(Errno::ENODEV)),
        (3, Ok(0)),
        (4, Err(Errno::ENODEV)),
        (8, Err(Errno::ENODEV)),
        (9, Err(Errno::EINVAL)),
    ] {
        let container = Container::open()?;
        group.set_container(&container)?;
        assert_eq!(
            raw::value(&container, request::SET_IOMMU, iommu),
            expected,
            "{iommu}"
        );
        group.unset_container()?;
    }
    Ok(())
}

fn t_i3_no_ranges() -> Result<()> {
    let (_mdev, open) = open()?;
    let info = open.container.info()?;
    assert!(info.cap(VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE).is_none());
    assert_eq!(info.dma_avail(), Some(65535));
    assert_eq!(info.flags, 3);
    Ok(())
}

fn t_i3_ranges_of_a_physical_group() -> Result<()> {
    let (_mdev, open) = open()?;
    let (alone, _group) = crate::env::attached(NVME, Iommu::Type1v2)?;
    let other = group(EDU)?;
    other.set_container(&open.container)?;
    assert_eq!(open.container.info()?.ranges(), alone.info()?.ranges());
    Ok(())
}

fn t_i3_ranges_after_a_physical_group() -> Result<()> {
    let (_mdev, open) = open()?;
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

fn t_i4_page_sizes() -> Result<()> {
    let (_mdev, open) = open()?;
    let alone = open.container.info()?.page_sizes;
    assert_eq!(alone, !(PAGE - 1), "any size from a page on");
    let other = group(EDU)?;
    other.set_container(&open.container)?;
    let mixed = open.container.info()?.page_sizes;
    assert_eq!(mixed & PAGE, PAGE);
    assert_ne!(mixed, alone);
    other.unset_container()?;
    assert_eq!(open.container.info()?.page_sizes, alone);
    Ok(())
}

fn t_m24_nothing_is_pinned() -> Result<()> {
    let (_mdev, open) = open()?;
    let memory = Memory::anonymous(64 * PAGE_SIZE)?;
    open.container
        .map(0x10_0000, &memory, MapFlags::ReadWrite)?;
    assert_eq!(locked_kib(), 0);
    assert_eq!(open.container.info()?.dma_avail(), Some(65534));
    // Inaccessible memory can be mapped, because it is not pinned.
    let mut forbidden = Memory::anonymous(PAGE_SIZE)?;
    forbidden.protect(false, false)?;
    open.container
        .map(0x80_0000, &forbidden, MapFlags::ReadWrite)?;
    let again = open.container.map(0x10_1000, &forbidden, MapFlags::Read);
    assert_eq!(again.errno(), Errno::EEXIST);
    assert_eq!(open.container.unmap(0x10_0000, 64 * PAGE)?, 64 * PAGE);
    assert_eq!(open.container.unmap_all()?, PAGE);
    Ok(())
}

fn t_m24_any_address() -> Result<()> {
    let (_mdev, open) = open()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    // The interrupt window, an address beyond all address widths, and the last page.
    for iova in [0xfee0_0000, 1 << 60, u64::MAX - (PAGE - 1)] {
        open.container.map(iova, &memory, MapFlags::ReadWrite)?;
    }
    assert_eq!(open.container.unmap(1 << 60, PAGE)?, PAGE);
    assert_eq!(open.container.unmap_all()?, 2 * PAGE);
    Ok(())
}

fn t_m24_first_version() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let group = mdev.group()?;
    let container = Container::open()?;
    group.set_container(&container)?;
    container.set_iommu(Iommu::Type1)?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    assert_eq!(container.unmap(PAGE, PAGE)?, 0);
    assert_eq!(container.unmap(0, PAGE)?, 4 * PAGE);
    Ok(())
}

fn t_u03_addresses_stay() -> Result<()> {
    let (_mdev, open) = open()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    open.container.map(0, &memory, MapFlags::ReadWrite)?;
    let mut unmap = Bytes::new()
        .u32(24)
        .u32(VFIO_DMA_UNMAP_FLAG_VADDR)
        .u64(0)
        .u64(PAGE);
    let answer = raw::bytes(&open.container, request::IOMMU_UNMAP_DMA, &mut unmap);
    assert_eq!(answer, Err(Errno::EBUSY));
    assert_eq!(open.container.unmap_all()?, PAGE);
    Ok(())
}

fn several_groups_share_mappings() -> Result<()> {
    let (_first, open) = open()?;
    let second = Mdev::new("mdpy-vga", UUIDS[1])?;
    let third = Mdev::new("mtty-2", UUIDS[2])?;
    let groups = [second.group()?, third.group()?];
    let memory = Memory::anonymous(PAGE_SIZE)?;
    open.container.map(0, &memory, MapFlags::ReadWrite)?;
    for group in &groups {
        group.set_container(&open.container)?;
        assert_eq!(group.set_container(&open.container).errno(), Errno::EINVAL);
    }
    let device = groups[0].device(UUIDS[1])?;
    assert_eq!(groups[0].unset_container().errno(), Errno::EBUSY);
    drop(device);
    for group in &groups {
        group.unset_container()?;
    }
    assert_eq!(
        open.container.unmap_all()?,
        PAGE,
        "one group is still there"
    );
    Ok(())
}

fn close_in_every_order() -> Result<()> {
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let (mdev, open) = open()?;
        let mut device = Some(open.device);
        let mut group = Some(open.group);
        let mut container = Some(open.container);
        for step in order {
            match step {
                0 => drop(device.take()),
                1 => drop(group.take()),
                _ => drop(container.take()),
            }
        }
        drop(mdev.open()?);
    }
    Ok(())
}

fn t_g5_physical_group_joins() -> Result<()> {
    let (_mdev, open) = open()?;
    let memory = Memory::anonymous(64 * PAGE_SIZE)?;
    open.container
        .map(0x10_0000, &memory, MapFlags::ReadWrite)?;
    assert_eq!(locked_kib(), 0);
    let other = group(EDU)?;
    other.set_container(&open.container)?;
    assert_eq!(locked_kib(), 256, "all is pinned when hardware comes");
    let device = other.device(EDU)?;
    let edu = Edu::new(&device)?;
    memory.fill(5 * PAGE_SIZE, PAGE_SIZE, 0x5c);
    edu.load(0x10_5000, PAGE)?;
    edu.store(0x10_9000, PAGE)?;
    assert_eq!(memory.to_vec(9 * PAGE_SIZE, PAGE_SIZE), [0x5c; PAGE_SIZE]);
    // New mappings are pinned at once from here on.
    open.container
        .map_part(0x80_0000, &memory, 0, 2 * PAGE_SIZE, MapFlags::Read)?;
    assert_eq!(locked_kib(), 264);
    assert_eq!(open.container.unmap_all()?, 66 * PAGE);
    assert_eq!(locked_kib(), 0);
    Ok(())
}

/// A mapping that is valid without an IOMMU may be invalid for hardware.
fn t_g3_physical_group_joins_outside_of_its_ranges() -> Result<()> {
    let (_mdev, open) = open()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    let other = group(EDU)?;
    // The aperture is unknown before the first physical group joins, so the page tables reject the
    // mapping.
    for (iova, errno) in [(0xfee0_0000, Errno::EINVAL), (1 << 60, Errno::ERANGE)] {
        open.container.map(iova, &memory, MapFlags::ReadWrite)?;
        assert_eq!(other.set_container(&open.container).errno(), errno);
        assert_eq!(other.status()?, 1, "it is as it was");
        assert_eq!((open.container.unmap_all()?, locked_kib()), (PAGE, 0));
    }
    // So does memory that cannot be pinned.
    let mut forbidden = Memory::anonymous(PAGE_SIZE)?;
    forbidden.protect(false, false)?;
    open.container.map(0, &memory, MapFlags::ReadWrite)?;
    open.container.map(PAGE, &forbidden, MapFlags::ReadWrite)?;
    assert_eq!(other.set_container(&open.container).errno(), Errno::EFAULT);
    assert_eq!((other.status()?, locked_kib()), (1, 0));
    assert_eq!(open.container.unmap(PAGE, PAGE)?, PAGE);
    other.set_container(&open.container)?;
    assert_eq!(locked_kib(), 4);
    Ok(())
}

fn t_g7_physical_group_leaves() -> Result<()> {
    let (_mdev, open) = open()?;
    let other = group(EDU)?;
    other.set_container(&open.container)?;
    let memory = Memory::anonymous(8 * PAGE_SIZE)?;
    open.container.map(0, &memory, MapFlags::ReadWrite)?;
    assert_eq!(locked_kib(), 32);
    other.unset_container()?;
    assert_eq!(locked_kib(), 0, "nobody needs the pages now");
    assert_eq!(
        open.container.info()?.dma_avail(),
        Some(65534),
        "it is still mapped"
    );
    // The group joins again.
    other.set_container(&open.container)?;
    assert_eq!(locked_kib(), 32);
    let device = other.device(EDU)?;
    Edu::new(&device)?.load(0, PAGE)?;
    drop(device);
    drop(other);
    assert_eq!((locked_kib(), open.container.unmap_all()?), (0, 8 * PAGE));
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
    assert_eq!((locked_kib(), container.check_extension(10)?), (32, 0));
    let tty = emulated.device(UUIDS[0])?;
    let device = physical.device(EDU)?;
    Edu::new(&device)?.load(0, PAGE)?;
    drop(tty);
    emulated.unset_container()?;
    assert_eq!((locked_kib(), container.check_extension(10)?), (32, 1));
    Edu::new(&device)?.load(PAGE, PAGE)?;
    Ok(())
}

fn two_physical_groups_and_two_emulated() -> Result<()> {
    let (_first, open) = open()?;
    let mdev = Mdev::new("mtty-1", UUIDS[1])?;
    let second = mdev.group()?;
    let (edu, nvme) = (group(EDU)?, group(NVME)?);
    let memory = Memory::anonymous(8 * PAGE_SIZE)?;
    for group in [&edu, &second, &nvme] {
        group.set_container(&open.container)?;
    }
    open.container.map(0, &memory, MapFlags::ReadWrite)?;
    assert_eq!(locked_kib(), 32);
    edu.unset_container()?;
    assert_eq!(locked_kib(), 32, "the disk still needs the pages");
    edu.set_container(&open.container)?;
    nvme.unset_container()?;
    second.unset_container()?;
    assert_eq!(locked_kib(), 32);
    let device = edu.device(EDU)?;
    Edu::new(&device)?.load(0, PAGE)?;
    Ok(())
}

/// Allowing devices without an IOMMU changes nothing for devices that have one.
fn n2_groups_stay_what_they_are() -> Result<()> {
    let parameter = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
    assert_eq!(fs::read_to_string(parameter)?, "N\n");
    assert_eq!(Container::open()?.check_extension(8)?, 0);
    fs::write(parameter, "Y")?;
    let inner = || -> Result<()> {
        let container = Container::open()?;
        assert_eq!(container.check_extension(8)?, 1);
        pci::unbind(NVME)?;
        pci::bind(NVME, "vfio-pci")?;
        let group = group(NVME).context("it has the name of a group with an IOMMU")?;
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

const NONE: u32 = 1;
const BOOL: u32 = 2;
const EVENTFD: u32 = 4;
const MASK: u32 = 8;
const UNMASK: u32 = 16;
const TRIGGER: u32 = 32;

const INTX: u32 = 0;
const MSI: u32 = 1;

fn set_irqs(
    open: &Open,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
    data: &[u8],
) -> Result<i32, Errno> {
    let mut bytes = Bytes::new()
        .u32(20 + data.len() as u32)
        .u32(flags)
        .u32(index)
        .u32(start)
        .u32(count)
        .raw(data);
    raw::bytes(&open.device, request::DEVICE_SET_IRQS, &mut bytes)
}

fn eventfd(open: &Open, index: u32, fd: i32) -> Result<i32, Errno> {
    set_irqs(open, EVENTFD | TRIGGER, index, 0, 1, &fd.to_ne_bytes())
}

fn off(open: &Open, index: u32) -> Result<i32, Errno> {
    set_irqs(open, NONE | TRIGGER, index, 0, 0, &[])
}

fn d23_arguments() -> Result<()> {
    let (_mdev, open) = open()?;
    // `mtty` sets its own counts only when it is asked for them.
    assert_eq!(open.device.info()?.irqs, 5);
    let einval = Err(Errno::EINVAL);
    for (flags, index, start, count) in [
        (NONE | TRIGGER, 5, 0, 1),
        (NONE | TRIGGER, u32::MAX, 0, 1),
        (NONE | TRIGGER, INTX, 0, u32::MAX),
        (NONE | TRIGGER, INTX, 1, u32::MAX - 1),
        (NONE | TRIGGER, INTX, 5, 1),
        (NONE | TRIGGER, INTX, 0, 6),
        (NONE | TRIGGER, INTX, 4, 2),
        (NONE | TRIGGER | 64, INTX, 0, 1),
        (NONE | TRIGGER | (1 << 31), INTX, 0, 1),
        (TRIGGER, INTX, 0, 1),
        (NONE | BOOL | TRIGGER, INTX, 0, 1),
        (BOOL | EVENTFD | TRIGGER, INTX, 0, 1),
    ] {
        let answer = set_irqs(&open, flags, index, start, count, &[0; 64]);
        assert_eq!(answer, einval, "{flags:#x} {index} {start} {count}");
    }
    // Too little data.
    assert_eq!(set_irqs(&open, BOOL | TRIGGER, INTX, 0, 1, &[]), einval);
    assert_eq!(
        set_irqs(&open, EVENTFD | TRIGGER, INTX, 0, 1, &[0; 3]),
        einval
    );
    let mut short = Bytes::new().u32(19).u32(NONE | TRIGGER).fill(0, 12);
    assert_eq!(
        raw::bytes(&open.device, request::DEVICE_SET_IRQS, &mut short),
        einval
    );
    // The driver itself rejects these requests.
    for (flags, index) in [(NONE | TRIGGER, INTX), (BOOL | TRIGGER, MSI)] {
        assert_eq!(set_irqs(&open, flags, index, 0, 1, &[1]), einval);
    }
    for index in [2, 3, 4] {
        let answer = set_irqs(&open, NONE | TRIGGER, index, 0, 1, &[]);
        assert_eq!(answer, Err(Errno::ENOTTY), "index {index}");
    }
    Ok(())
}

fn set_irqs_intx() -> Result<()> {
    let (_mdev, open) = open()?;
    open.device.info()?;
    let interrupt = Interrupt::new()?;
    assert_eq!(eventfd(&open, INTX, interrupt.number()), Ok(0));
    let trigger = || set_irqs(&open, NONE | TRIGGER, INTX, 0, 1, &[]);
    assert_eq!(trigger(), Ok(0));
    assert_eq!(interrupt.wait(LIMIT)?, 1);
    assert_eq!(trigger(), Ok(0));
    assert_eq!(interrupt.take()?, 0, "it masks itself");
    assert_eq!(set_irqs(&open, NONE | UNMASK, INTX, 0, 1, &[]), Ok(0));
    assert_eq!(set_irqs(&open, BOOL | TRIGGER, INTX, 0, 1, &[0]), Ok(0));
    assert_eq!(interrupt.take()?, 0);
    assert_eq!(set_irqs(&open, BOOL | TRIGGER, INTX, 0, 1, &[1]), Ok(0));
    assert_eq!(interrupt.wait(LIMIT)?, 1);
    assert_eq!(set_irqs(&open, BOOL | UNMASK, INTX, 0, 1, &[1]), Ok(0));
    assert_eq!(set_irqs(&open, NONE | MASK, INTX, 0, 1, &[]), Ok(0));
    assert_eq!(trigger(), Ok(0));
    assert_eq!(interrupt.take()?, 0);
    let number = interrupt.number().to_ne_bytes();
    for action in [MASK, UNMASK] {
        let answer = set_irqs(&open, EVENTFD | action, INTX, 0, 1, &number);
        assert_eq!(answer, Err(Errno::ENOTTY));
    }
    assert_eq!(off(&open, INTX), Ok(0));
    assert_eq!(trigger(), Err(Errno::EINVAL));
    Ok(())
}

fn set_irqs_msi() -> Result<()> {
    let (_mdev, open) = open()?;
    open.device.info()?;
    let interrupt = Interrupt::new()?;
    assert_eq!(eventfd(&open, MSI, interrupt.number()), Ok(0));
    for _ in 0..3 {
        assert_eq!(set_irqs(&open, NONE | TRIGGER, MSI, 0, 1, &[]), Ok(0));
    }
    assert_eq!(interrupt.wait(LIMIT)?, 3);
    for action in [MASK, UNMASK] {
        let answer = set_irqs(&open, NONE | action, MSI, 0, 1, &[]);
        assert_eq!(answer, Err(Errno::ENOTTY));
    }
    // Closing the device releases the eventfd.
    drop(open);
    assert_eq!(interrupt.take()?, 0);
    Ok(())
}

fn set_irqs_one_kind_at_a_time() -> Result<()> {
    let (_mdev, open) = open()?;
    open.device.info()?;
    let (first, second) = (Interrupt::new()?, Interrupt::new()?);
    assert_eq!(eventfd(&open, INTX, first.number()), Ok(0));
    assert_eq!(eventfd(&open, MSI, second.number()), Err(Errno::EINVAL));
    assert_eq!(off(&open, MSI), Err(Errno::EINVAL));
    assert_eq!(eventfd(&open, INTX, second.number()), Ok(0), "another one");
    assert_eq!(set_irqs(&open, NONE | TRIGGER, INTX, 0, 1, &[]), Ok(0));
    assert_eq!((first.take()?, second.wait(LIMIT)?), (0, 1));
    assert_eq!(eventfd(&open, INTX, -1), Ok(0), "none");
    assert_eq!(eventfd(&open, MSI, second.number()), Ok(0));
    Ok(())
}

fn set_irqs_bad_descriptors() -> Result<()> {
    use std::os::fd::AsRawFd;
    let (_mdev, open) = open()?;
    open.device.info()?;
    let null = fs::File::open("/dev/null")?;
    for index in [INTX, MSI] {
        assert_eq!(eventfd(&open, index, 1000), Err(Errno::EBADF));
        assert_eq!(eventfd(&open, index, null.as_raw_fd()), Err(Errno::EINVAL));
        assert_eq!(
            set_irqs(&open, NONE | TRIGGER, index, 0, 1, &[]),
            Err(Errno::EINVAL)
        );
    }
    Ok(())
}

fn t_m21_too_large_to_track() -> Result<()> {
    let (_mdev, open) = open()?;
    let track = |flags| {
        let mut bytes = Bytes::new().u32(8).u32(flags);
        raw::bytes(&open.container, request::IOMMU_DIRTY_PAGES, &mut bytes)
    };
    // Nothing is pinned, so the memory need not exist.
    let map = |iova: u64, pages: u64| {
        let mut bytes = Bytes::new().u32(32).u32(3);
        bytes = bytes.u64(1 << 63).u64(iova).u64(pages * PAGE);
        raw::bytes(&open.container, request::IOMMU_MAP_DMA, &mut bytes)
    };
    let most = (1 << 31) - 1;
    assert_eq!(map(0, most + 1), Ok(0));
    assert_eq!(track(1), Err(Errno::EINVAL));
    assert_eq!(open.container.unmap_all()?, (most + 1) * PAGE);
    assert_eq!(track(1), Ok(0));
    assert_eq!(map(0, most + 1), Err(Errno::EINVAL));
    assert_eq!(open.container.info()?.dma_avail(), Some(65535));
    Ok(())
}
