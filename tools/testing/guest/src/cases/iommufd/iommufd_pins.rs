// SPDX-License-Identifier: GPL-2.0

//! A driver that pins pages of an IOAS.

use super::has;
use crate::{
    harness::{
        Failure,
        cases, //
    },
    pin::{
        self,
        Pinner,
        READ,
        WRITE,
        pin_group, //
    },
};
use anyhow::Result;
use std::os::fd::{
    AsFd,
    AsRawFd, //
};
use support::{
    PAGE,
    machine::pinned_pages, //
};
use vfio_client::{
    Container,
    Errno,
    Group,
    Iommu,
    Iommufd,
    MapFlags,
    Memory,
    PAGE_SIZE, //
};

cases! {
    #[rows("T-X1")] pin_and_unpin,
    #[rows("T-X1")] #[requires(driver(C))] pin_and_unpin_several_pages,
    #[rows("T-X1")] pin_without_ioas_fails,
    #[rows("T-X1")] #[requires(driver(C))] pin_arguments,
    #[rows("T-X1")] pin_needs_access,
    #[rows("T-X1")] pin_of_unmapped_memory_fails,
    #[rows("T-X2")] same_page_pinned_twice,
    #[rows("T-X5")] read_and_write,
    #[rows("T-X5")] read_and_write_errors,
    #[rows("T-X6")] unmap_notifies_driver,
    #[rows("T-X6")] unmap_of_other_memory_does_not_notify,
    #[rows("V7")] detach_makes_driver_unpin,
    #[rows("V6")] replace_makes_driver_unpin,
    #[rows("V10")] close_unpins,
    #[rows("G15")] #[requires(groups)] pin_through_group_with_iommufd,
    #[rows("G15")] #[requires(groups)] unset_container_keeps_pins,
    #[requires(core(Rust), vfio_containers)] other_container_while_device_is_open,
}

/// The IOVA of the memory.
const IOVA: u64 = 0x10_0000;

/// The driver's device, which is attached to an IOAS with memory.
struct Setup {
    pinner: Pinner,
    iommufd: Iommufd,
    ioas: u32,
    memory: Memory,
}

/// Opens the file of the driver's device, attaches it to an IOAS, and maps pages there.
fn mapped(flags: MapFlags, pages: usize) -> Result<Setup> {
    let iommufd = Iommufd::open()?;
    let ioas = iommufd.ioas()?;
    let device = pin::open_file()?;
    device.bind(&iommufd)?;
    device.attach(ioas)?;
    let memory = Memory::anonymous(pages * PAGE_SIZE)?;
    iommufd.map(ioas, IOVA, &memory, flags)?;
    Ok(Setup {
        pinner: device.into(),
        iommufd,
        ioas,
        memory,
    })
}

fn setup() -> Result<Setup> {
    mapped(MapFlags::ReadWrite, 4)
}

fn pin_and_unpin() -> Result<()> {
    let before = pinned_pages()?;
    let setup = setup()?;
    setup.memory.write_u64(PAGE_SIZE, 0x1234);
    let pin = setup.pinner.pin(IOVA + PAGE, 1, READ | WRITE);
    assert_eq!(pin, Ok((1, 0x1234)));
    assert_eq!(setup.pinner.pin(IOVA + 2 * PAGE, 1, READ)?.0, 1);
    assert_eq!(pinned_pages()?, before + 2);
    setup.pinner.poke(IOVA + PAGE, 0x5678)?;
    assert_eq!(setup.memory.read_u64(PAGE_SIZE), 0x5678);
    assert_eq!(setup.pinner.pinned(), Ok(2));
    setup.pinner.unpin(IOVA, 4)?;
    assert_eq!(setup.pinner.pinned(), Ok(0));
    assert_eq!(pinned_pages()?, before);
    Ok(())
}

/// Pages that were pinned together must be unpinned together.
fn pin_and_unpin_several_pages() -> Result<()> {
    let before = pinned_pages()?;
    let setup = setup()?;
    for (iova, count) in [(IOVA, 4), (IOVA + PAGE, 2), (IOVA, 1)] {
        assert_eq!(setup.pinner.pin_only(iova, count, READ), Ok(count as i32));
        assert_eq!(pinned_pages()?, before + i64::from(count));
        setup.pinner.unpin_stray(iova, count)?;
        assert_eq!(pinned_pages()?, before);
    }
    Ok(())
}

/// Pins all pages of the memory, each of which the driver unpins alone.
fn pin_each(pinner: &Pinner, memory: &Memory) -> Result<()> {
    for page in 0..(memory.len() / PAGE_SIZE) as u64 {
        let pin = pinner.pin(IOVA + page * PAGE, 1, READ | WRITE)?;
        assert_eq!(pin.0, 1);
    }
    Ok(())
}

fn pin_without_ioas_fails() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let device = pin::open_file()?;
    let pinner = Pinner::from(device.try_clone()?);
    assert_eq!(pinner.pin(IOVA, 1, READ), Err(Errno::EINVAL), "unbound");
    device.bind(&iommufd)?;
    assert_eq!(pinner.pin(IOVA, 1, READ), Err(Errno::ENOENT), "unattached");
    assert_eq!(pinner.read(IOVA, 8), Err(Errno::ENOENT));
    device.attach(iommufd.ioas()?)?;
    assert_eq!(pinner.pin(IOVA, 1, READ), Err(Errno::ENOENT), "unmapped");
    Ok(())
}

fn pin_arguments() -> Result<()> {
    let setup = setup()?;
    let pin = |iova, count| setup.pinner.pin(iova, count, READ);
    assert_eq!(pin(IOVA, 0), Err(Errno::EINVAL));
    assert_eq!(pin(u64::MAX - PAGE + 1, 2), Err(Errno::EOVERFLOW));
    // The offset in the page is ignored.
    assert_eq!(pin(IOVA + 8, 1)?.0, 1);
    assert_eq!(setup.pinner.pinned(), Ok(1));
    Ok(())
}

fn pin_needs_access() -> Result<()> {
    let setup = mapped(MapFlags::Read, 1)?;
    assert_eq!(setup.pinner.pin(IOVA, 1, WRITE), Err(Errno::EPERM));
    assert_eq!(setup.pinner.pin(IOVA, 1, READ)?.0, 1);
    drop(setup);
    let setup = mapped(MapFlags::Write, 1)?;
    assert_eq!(setup.pinner.pin(IOVA, 1, READ), Err(Errno::EPERM));
    assert_eq!(setup.pinner.pin(IOVA, 1, WRITE)?.0, 1);
    Ok(())
}

fn pin_of_unmapped_memory_fails() -> Result<()> {
    let before = pinned_pages()?;
    let setup = setup()?;
    for (iova, count) in [
        (0, 1),
        (IOVA - PAGE, 1),
        (IOVA - PAGE, 2),
        (IOVA + 4 * PAGE, 1),
        (IOVA + 3 * PAGE, 2),
    ] {
        let answer = setup.pinner.pin(iova, count, READ);
        assert_eq!(answer, Err(Errno::ENOENT), "{count} pages at {iova:#x}");
    }
    assert_eq!(pinned_pages()?, before);
    Ok(())
}

fn same_page_pinned_twice() -> Result<()> {
    let before = pinned_pages()?;
    let setup = setup()?;
    for _ in 0..3 {
        assert_eq!(setup.pinner.pin(IOVA, 1, READ | WRITE)?.0, 1);
    }
    assert_eq!(pinned_pages()?, before + 1);
    setup.pinner.unpin(IOVA, 1)?;
    assert_eq!(pinned_pages()?, before);
    Ok(())
}

fn read_and_write() -> Result<()> {
    let setup = setup()?;
    let bytes: Vec<_> = (0..6000).map(|i| ((i * 31) >> 3) as u8).collect();
    setup.pinner.write(IOVA + 100, &bytes)?;
    assert_eq!(setup.memory.to_vec(100, bytes.len()), bytes);
    assert_eq!(setup.pinner.read(IOVA + 100, bytes.len())?, bytes);
    setup.memory.write_u8(3 * PAGE_SIZE, 0x99);
    assert_eq!(setup.pinner.read(IOVA + 3 * PAGE, 1)?, [0x99]);
    Ok(())
}

fn read_and_write_errors() -> Result<()> {
    let setup = mapped(MapFlags::Read, 2)?;
    let pinner = &setup.pinner;
    assert_eq!(pinner.write(IOVA, &[1]), Err(Errno::EPERM));
    assert_eq!(pinner.read(IOVA, 0), Err(Errno::EINVAL));
    assert_eq!(pinner.read(IOVA - 1, 1), Err(Errno::ENOENT));
    assert_eq!(pinner.read(IOVA + 2 * PAGE - 1, 2), Err(Errno::ENOENT));
    assert_eq!(pinner.read(u64::MAX, 2), Err(Errno::EOVERFLOW));
    assert_eq!(pinner.read(IOVA + 2 * PAGE - 1, 1), Ok(vec![0]));
    Ok(())
}

fn unmap_notifies_driver() -> Result<()> {
    let before = pinned_pages()?;
    let setup = setup()?;
    let unmaps = setup.pinner.unmaps()?;
    pin_each(&setup.pinner, &setup.memory)?;
    assert_eq!(setup.iommufd.unmap(setup.ioas, IOVA, 4 * PAGE)?, 4 * PAGE);
    assert!(setup.pinner.unmaps()? > unmaps, "the driver was notified");
    assert_eq!(setup.pinner.pinned(), Ok(0), "and has unpinned the pages");
    assert_eq!(pinned_pages()?, before);
    assert_eq!(setup.pinner.pin(IOVA, 1, READ), Err(Errno::ENOENT));
    Ok(())
}

fn unmap_of_other_memory_does_not_notify() -> Result<()> {
    let setup = setup()?;
    let other = Memory::anonymous(PAGE_SIZE)?;
    let iommufd = &setup.iommufd;
    iommufd.map(setup.ioas, 0, &other, MapFlags::ReadWrite)?;
    setup.pinner.pin(IOVA, 1, READ)?;
    let unmaps = setup.pinner.unmaps()?;
    iommufd.unmap(setup.ioas, 0, PAGE)?;
    assert_eq!(setup.pinner.unmaps()?, unmaps);
    assert_eq!(setup.pinner.pinned(), Ok(1));
    Ok(())
}

fn detach_makes_driver_unpin() -> Result<()> {
    let before = pinned_pages()?;
    let setup = setup()?;
    pin_each(&setup.pinner, &setup.memory)?;
    setup.pinner.device().detach()?;
    assert_eq!(setup.pinner.pinned(), Ok(0));
    assert_eq!(pinned_pages()?, before);
    assert_eq!(setup.pinner.pin(IOVA, 1, READ), Err(Errno::ENOENT));
    setup.pinner.device().attach(setup.ioas)?;
    pin_each(&setup.pinner, &setup.memory)?;
    Ok(())
}

fn replace_makes_driver_unpin() -> Result<()> {
    let setup = setup()?;
    let other = setup.iommufd.ioas()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    memory.write_u64(0, 0x77);
    setup
        .iommufd
        .map(other, IOVA, &memory, MapFlags::ReadWrite)?;
    pin_each(&setup.pinner, &setup.memory)?;
    setup.pinner.device().attach(other)?;
    assert_eq!(setup.pinner.pinned(), Ok(0));
    assert_eq!(setup.pinner.pin(IOVA, 1, READ), Ok((1, 0x77)));
    setup.iommufd.destroy(setup.ioas)?;
    Ok(())
}

fn close_unpins() -> Result<()> {
    let before = pinned_pages()?;
    let setup = setup()?;
    pin_each(&setup.pinner, &setup.memory)?;
    assert!(has(&setup.iommufd, setup.ioas)?);
    drop(setup.pinner);
    assert_eq!(pinned_pages()?, before);
    setup.iommufd.destroy(setup.ioas)?;
    Ok(())
}

/// Opens the driver's device through its group, with an iommufd as the container.
fn through_group() -> Result<(Pinner, Group, Iommufd)> {
    let iommufd = Iommufd::open()?;
    let group = pin_group()?;
    group.set_container_fd(iommufd.as_fd().as_raw_fd())?;
    let device = pin::open_again(&group)?;
    Ok((device.into(), group, iommufd))
}

fn pin_through_group_with_iommufd() -> Result<()> {
    let before = pinned_pages()?;
    let (pinner, _group, iommufd) = through_group()?;
    let container = iommufd.as_container()?;
    let memory = Memory::anonymous(2 * PAGE_SIZE)?;
    memory.write_u64(0, 0x1234);
    container.map(IOVA, &memory, MapFlags::ReadWrite)?;
    assert_eq!(pinner.pin(IOVA, 1, READ | WRITE), Ok((1, 0x1234)));
    pin_each(&pinner, &memory)?;
    assert_eq!(pinner.read(IOVA, 8)?, 0x1234_u64.to_le_bytes());
    assert_eq!(container.unmap(IOVA, 2 * PAGE)?, 2 * PAGE);
    assert_eq!(pinner.pinned(), Ok(0));
    assert_eq!(pinned_pages()?, before);
    Ok(())
}

fn unset_container_keeps_pins() -> Result<()> {
    let (pinner, group, iommufd) = through_group()?;
    let container = iommufd.as_container()?;
    let memory = Memory::anonymous(2 * PAGE_SIZE)?;
    container.map(IOVA, &memory, MapFlags::ReadWrite)?;
    pinner.pin(IOVA, 1, READ | WRITE)?;
    group.unset_container()?;
    assert_eq!(pinner.pinned(), Ok(1));
    assert_eq!(pinner.pin(IOVA + PAGE, 1, READ)?.0, 1, "still attached");
    assert_eq!(pin::open_again(&group).errno(), Errno::EINVAL);
    drop(pinner);
    assert_eq!(container.unmap_all()?, 2 * PAGE);
    Ok(())
}

/// Nothing owns the DMA of the group, which would keep it out of a container. The last close of the
/// device must undo what its first open did, whichever file is closed last.
fn other_container_while_device_is_open() -> Result<()> {
    for first_closed_first in [false, true] {
        let (first, group, iommufd) = through_group()?;
        let ioas = iommufd.compat_ioas()?;
        group.unset_container()?;
        let container = Container::open()?;
        let second = group
            .set_container(&container)
            .and_then(|()| container.set_iommu(Iommu::Type1v2))
            .and_then(|()| pin::open_again(&group));
        if first_closed_first {
            drop(first);
            drop(second);
        } else {
            drop(second);
            drop(first);
        }
        iommufd.destroy(ioas)?;
        drop(group);
        // The group and its device can be used again.
        let pinning = pin::mapped(1)?;
        assert_eq!(pinning.0.pinner.pin(pin::IOVA, 1, READ)?.0, 1);
    }
    Ok(())
}
