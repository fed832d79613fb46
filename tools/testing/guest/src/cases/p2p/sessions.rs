// SPDX-License-Identifier: GPL-2.0

//! Consecutive users of a device: the second finds no data of the first, and the first has no more
//! access to the device. The cases use `samples/mdev_null`, whose driver does nothing to ensure
//! this.

use crate::{
    abi::{
        Ring,
        splice, //
    },
    env::{
        EDU,
        attached, //
    },
    harness::{
        Failure,
        cases, //
    },
    mdev::{
        Mdev,
        UUIDS, //
    },
};
use anyhow::Result;
use vfio_client::{
    Device,
    Errno,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    Register, //
};
use vgpu_copy::Kind;

cases! {
    memory_is_zero_for_the_next_user,
    memory_in_a_mapping_is_zero_for_the_next_user,
    registers_are_reset_for_the_next_user,
    mapping_keeps_device_open,
    second_descriptor_keeps_memory,
    device_memory_cannot_be_pinned,
    mapping_at_any_page,
    partial_register_access,
}

/// A type with a page of memory and a register.
const NULL: &str = "mdev_null-page";
const MEMORY: u32 = 0;
const REGISTER: u32 = 1;
const VALUE: Register<u32> = Register::at(0);
const SECRET: [u8; PAGE_SIZE] = [0x5a; PAGE_SIZE];
const ZEROES: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

fn page(device: &Device) -> Result<Vec<u8>> {
    let mut bytes = vec![0xff; PAGE_SIZE];
    device.read(&device.region(MEMORY)?, 0, &mut bytes)?;
    assert_eq!(device.map_whole(MEMORY)?.to_vec(0, PAGE_SIZE), bytes);
    Ok(bytes)
}

fn memory_is_zero_for_the_next_user() -> Result<()> {
    let mdev = Mdev::new(NULL, UUIDS[0])?;
    let first = mdev.open()?;
    let region = first.device.region(MEMORY)?;
    first.device.write(&region, 0, &SECRET)?;
    assert_eq!(page(&first.device)?, SECRET);
    drop(first);
    assert_eq!(page(&mdev.open()?.device)?, ZEROES);
    Ok(())
}

fn memory_in_a_mapping_is_zero_for_the_next_user() -> Result<()> {
    let mdev = Mdev::new(NULL, UUIDS[0])?;
    let first = mdev.open()?;
    let memory = first.device.map_whole(MEMORY)?;
    memory.write(0, &SECRET);
    drop((first, memory));
    assert_eq!(page(&mdev.open()?.device)?, ZEROES);
    Ok(())
}

fn register(device: &Device) -> Result<u32> {
    Ok(device.get(&device.region(REGISTER)?, VALUE)?)
}

fn registers_are_reset_for_the_next_user() -> Result<()> {
    let mdev = Mdev::new(NULL, UUIDS[0])?;
    let first = mdev.open()?;
    let region = first.device.region(REGISTER)?;
    first.device.set(&region, VALUE, 7)?;
    assert_eq!(register(&first.device)?, 7);
    drop(first);
    assert_eq!(register(&mdev.open()?.device)?, 0);
    Ok(())
}

fn mapping_keeps_device_open() -> Result<()> {
    let mdev = Mdev::new(NULL, UUIDS[0])?;
    let first = mdev.open()?;
    let memory = first.device.map_whole(MEMORY)?;
    drop(first);
    assert_eq!(mdev.group().errno(), Errno::EBUSY);
    memory.write(0, &SECRET);
    assert_eq!(memory.to_vec(0, PAGE_SIZE), SECRET);
    drop(memory);
    assert_eq!(page(&mdev.open()?.device)?, ZEROES);
    Ok(())
}

fn second_descriptor_keeps_memory() -> Result<()> {
    let mdev = Mdev::new(NULL, UUIDS[0])?;
    let open = mdev.open()?;
    let second = open.group.device(mdev.uuid())?;
    open.device.map_whole(MEMORY)?.write(0, &SECRET);
    drop(open.device);
    assert_eq!(page(&second)?, SECRET);
    // The last close counts, although the group stays open.
    drop(second);
    assert_eq!(page(&open.group.device(mdev.uuid())?)?, ZEROES);
    Ok(())
}

/// A pinned page would remain accessible when the next user has the device.
fn device_memory_cannot_be_pinned() -> Result<()> {
    let page = Mdev::new(NULL, UUIDS[0])?;
    let vgpu = Mdev::new(Kind::Single, UUIDS[1])?;
    let (page, vgpu) = (page.open()?, vgpu.open()?);
    let (page, pages) = (page.device.map_whole(MEMORY)?, vgpu.device.map_whole(2)?);
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    for memory in [&page, &pages] {
        assert_eq!(Ring::new()?.register(memory), Err(Errno::EFAULT));
        assert_eq!(splice(memory).err(), Some(Errno::EFAULT));
        let mapped = container.map(0x10_0000, memory, MapFlags::ReadWrite);
        assert_eq!(mapped.errno(), Errno::EFAULT);
        let mapped = container.map(0x10_0000, memory, MapFlags::Read);
        assert_eq!(mapped.errno(), Errno::EFAULT);
    }
    // Other memory can be pinned.
    let other = Memory::anonymous(PAGE_SIZE)?;
    assert_eq!(Ring::new()?.register(&other), Ok(0));
    drop(splice(&other)?);
    container.map(0x10_0000, &other, MapFlags::ReadWrite)?;
    Ok(())
}

/// Each page is at its place, wherever a mapping begins.
fn mapping_at_any_page() -> Result<()> {
    let mdev = Mdev::new(Kind::Double, UUIDS[0])?;
    let open = mdev.open()?;
    let region = open.device.region(2)?;
    let count = region.size as usize / PAGE_SIZE;
    let address = |page: usize| (page * PAGE_SIZE) as u64;
    let number = |page: usize| Register::<u32>::at(page * PAGE_SIZE);
    for page in 0..count {
        open.device.set(&region, number(page), page as u32 + 1)?;
    }
    for first in [0, 1, count / 2, count - 1] {
        let len = (count - first) * PAGE_SIZE;
        let memory = open.device.map_region(&region, address(first), len)?;
        for page in first..count {
            assert_eq!(memory.get(number(page - first)), page as u32 + 1);
        }
        let beyond = open
            .device
            .map_region(&region, address(first), len + PAGE_SIZE);
        assert_eq!(beyond.errno(), Errno::EINVAL);
    }
    Ok(())
}

fn partial_register_access() -> Result<()> {
    let mdev = Mdev::new(NULL, UUIDS[0])?;
    let open = mdev.open()?;
    let region = open.device.region(REGISTER)?;
    open.device.write(&region, 0, &[1, 2, 3, 4])?;
    for (offset, len) in [(0, 1), (1, 1), (2, 2)] {
        let written = open.device.write(&region, offset, &vec![9; len]);
        assert_eq!(written.errno(), Errno::EINVAL, "{len} bytes at {offset}");
        let read = open.device.read(&region, offset, &mut vec![9; len]);
        assert_eq!(read.errno(), Errno::EINVAL, "{len} bytes at {offset}");
    }
    assert_eq!(register(&open.device)?, 0x0403_0201);
    Ok(())
}
