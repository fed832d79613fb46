// SPDX-License-Identifier: GPL-2.0

//! Devices join and leave a container, and access only what is mapped for them.

use super::{
    LIODN,
    OTHER_LIODN,
    PAGE,
    divided,
    join,
    unreached, //
};
use crate::{
    harness::{
        Failure,
        cases, //
    },
    leak::locked_kib,
};
use anyhow::Result;
use pamu_dma::{
    Engine,
    open, //
};
use std::{
    sync::atomic::{
        AtomicBool,
        Ordering, //
    },
    thread, //
};
use vfio_client::{
    Errno,
    Interrupt,
    Iommu,
    MapFlags,
    Memory,
    raw, //
};

cases! {
    no_access_before_windows_are_set,
    type1_does_not_enable_a_liodn,
    all_devices_have_the_same_windows,
    device_joins_later,
    device_leaves,
    device_belongs_to_one_container,
    foreign_liodn,
    unowned_liodn_has_no_access,
    windows_change_under_a_working_device,
    register_accesses,
}

/// On other kernels, a device that is attached for the first time still has the access that the
/// firmware gave it.
fn no_access_before_windows_are_set() -> Result<()> {
    let (pamu, engine) = open(0)?;
    for iova in [0, PAGE, 1 << 20, 1 << 30] {
        unreached(&pamu, &engine, iova);
    }
    pamu.set_geometry(0, (1 << 36) - 1)?;
    unreached(&pamu, &engine, 1 << 20);
    pamu.set_windows(1)?;
    unreached(&pamu, &engine, 1 << 20);
    Ok(())
}

/// Type 1 accepts groups of software devices. It does not use the PAMU.
fn type1_does_not_enable_a_liodn() -> Result<()> {
    let group = pamu_dma::group(0)?;
    let container = group.attach(Iommu::Type1v2)?;
    let memory = Memory::anonymous(4096)?;
    container.map(PAGE, &memory, MapFlags::ReadWrite)?;
    let engine = Engine::open(group, 0)?;
    assert_eq!(engine.read(PAGE)?, Err(Errno::EFAULT));
    let interrupt = Interrupt::new()?;
    assert_eq!(engine.enable_interrupt(&interrupt).errno(), Errno::EINVAL);
    Ok(())
}

fn all_devices_have_the_same_windows() -> Result<()> {
    let (pamu, engine) = open(0)?;
    let other = join(&pamu)?;
    pamu.set_geometry(0, 8 * PAGE - 1)?;
    pamu.set_windows(8)?;
    let memory = Memory::anonymous(4096)?;
    pamu.map(3 * PAGE, &memory, MapFlags::ReadWrite)?;
    assert_eq!(engine.write(3 * PAGE, 11)?, Ok(()));
    assert_eq!(other.read(3 * PAGE)?, Ok(11));
    pamu.unmap(3 * PAGE, PAGE)?;
    assert_eq!(other.read(3 * PAGE)?, Err(Errno::EFAULT));
    assert_eq!(engine.read(3 * PAGE)?, Err(Errno::EFAULT));
    Ok(())
}

fn device_joins_later() -> Result<()> {
    let (pamu, _engine) = divided(8, PAGE)?;
    let memory = Memory::anonymous(8192)?;
    memory.write_u64(0, 21);
    memory.write_u64(4096, 22);
    pamu.map_part(0, &memory, 0, 4096, MapFlags::Read)?;
    pamu.map_part(6 * PAGE, &memory, 4096, 4096, MapFlags::Read)?;
    pamu.map_bank(1, 7 * PAGE, MapFlags::Write)?;
    let other = join(&pamu)?;
    assert_eq!((other.read(0)?, other.read(6 * PAGE)?), (Ok(21), Ok(22)));
    let interrupt = Interrupt::new()?;
    other.enable_interrupt(&interrupt)?;
    assert_eq!(other.interrupt()?, Ok(()));
    assert_eq!(interrupt.take()?, 1);
    assert_eq!(other.read(PAGE)?, Err(Errno::EFAULT));
    Ok(())
}

fn device_leaves() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    let memory = Memory::anonymous(4096)?;
    pamu.map(0, &memory, MapFlags::Read)?;
    let other = join(&pamu)?;
    assert_eq!(other.read(0)?, Ok(0));
    drop(other);
    // The engine has left, but the first one can still use its LIODN to see what it could access.
    engine.pretend(OTHER_LIODN)?;
    assert_eq!(engine.read(0)?, Err(Errno::EFAULT));
    engine.pretend(LIODN)?;
    assert_eq!(engine.read(0)?, Ok(0));
    assert_eq!(pamu.violation(0)?, None);
    // The memory stays mapped for the first engine.
    assert_eq!(locked_kib(), 4);
    let again = join(&pamu)?;
    assert_eq!(again.read(0)?, Ok(0));
    Ok(())
}

fn device_belongs_to_one_container() -> Result<()> {
    let (first, engine) = divided(8, PAGE)?;
    let (second, other) = open(1)?;
    second.set_geometry(0, 8 * PAGE - 1)?;
    second.set_windows(8)?;
    let (a, b) = (Memory::anonymous(4096)?, Memory::anonymous(4096)?);
    a.write_u64(0, 1);
    b.write_u64(0, 2);
    first.map(0, &a, MapFlags::Read)?;
    second.map(0, &b, MapFlags::Read)?;
    assert_eq!((engine.read(0)?, other.read(0)?), (Ok(1), Ok(2)));
    first.unmap(0, PAGE)?;
    assert_eq!(
        (engine.read(0)?, other.read(0)?),
        (Err(Errno::EFAULT), Ok(2))
    );
    assert_eq!(second.revive(LIODN).errno(), Errno::ENODEV);
    assert_eq!(second.violation(0)?, None);
    Ok(())
}

/// A device that uses the LIODN of another can access what the other can.
fn foreign_liodn() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    let memory = Memory::anonymous(4096)?;
    pamu.map(0, &memory, MapFlags::Read)?;
    let (second, other) = open(1)?;
    engine.pretend(OTHER_LIODN)?;
    assert_eq!(engine.read(0)?, Err(Errno::EFAULT));
    // The violation is attributed to the other device, because only its LIODN is known.
    assert_eq!(pamu.violation(0)?, None);
    engine.device().reset()?;
    assert_eq!(engine.read(0)?, Ok(0));
    drop((second, other));
    Ok(())
}

fn unowned_liodn_has_no_access() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    for liodn in [OTHER_LIODN, 0, 1279, 1280, 65535] {
        engine.pretend(liodn)?;
        assert_eq!(engine.read(0)?, Err(Errno::EFAULT), "{liodn}");
    }
    assert_eq!(pamu.violation(0)?, None);
    Ok(())
}

/// One window is mapped and unmapped while the device reads another. The device must only see what
/// is mapped there.
fn windows_change_under_a_working_device() -> Result<()> {
    const ROUNDS: usize = 300;
    let (pamu, engine) = divided(4, PAGE)?;
    let steady = Memory::anonymous(4096)?;
    steady.write_u64(0, 1);
    let moving = [Memory::anonymous(4096)?, Memory::anonymous(4096)?];
    moving[0].write_u64(0, 2);
    moving[1].write_u64(0, 3);
    pamu.map(PAGE, &steady, MapFlags::Read)?;
    let over = AtomicBool::new(false);
    let (reads, seen) = thread::scope(|scope| {
        let reader = scope.spawn(|| -> Result<_> {
            let (mut reads, mut seen) = (0u32, [0u32; 3]);
            while !over.load(Ordering::Relaxed) {
                match engine.read(0)? {
                    Ok(value) => seen[value as usize - 2] += 1,
                    Err(_) => {
                        seen[2] += 1;
                        pamu.revive(LIODN)?;
                    }
                }
                assert_eq!(engine.read(PAGE)?, Ok(1));
                reads += 1;
            }
            Ok((reads, seen))
        });
        for round in 0..ROUNDS {
            pamu.map(0, &moving[round % 2], MapFlags::Read)?;
            pamu.unmap(0, PAGE)?;
        }
        over.store(true, Ordering::Relaxed);
        reader.join().expect("the reader ends")
    })?;
    assert_eq!(seen.iter().sum::<u32>(), reads);
    Ok(())
}

/// An access is 4 or 8 aligned bytes of the registers. Those of the interrupt are read-only.
fn register_accesses() -> Result<()> {
    const SOURCE: u64 = 0x08;
    const MSI_ADDRESS: u64 = 0x20;
    const MSI_DATA: u64 = 0x28;
    const SIZE: u64 = 0x38;
    let (_pamu, engine) = open(0)?;
    let device = engine.device();
    let region = device.region(0)?;
    assert_eq!((region.offset, region.size), (0, SIZE));
    assert_eq!(device.region(1).errno(), Errno::EINVAL);
    for (offset, len) in [
        (SOURCE, 0),
        (SOURCE, 1),
        (SOURCE, 2),
        (SOURCE, 5),
        (SOURCE, 16),
        (SOURCE + 1, 4),
        (SOURCE + 2, 4),
        (SOURCE + 4, 8),
        (SIZE - 4, 8),
        (SIZE, 4),
        (SIZE, 8),
        (1 << 32, 4),
        (1 << 62, 8),
    ] {
        let mut data = [0; 16];
        let data = &mut data[..len];
        let read = raw::pread(device, data, offset);
        assert_eq!(read, Err(Errno::EINVAL), "{len} bytes at {offset:#x}");
        let written = raw::pwrite(device, data, offset);
        assert_eq!(written, Err(Errno::EINVAL), "{len} bytes at {offset:#x}");
    }
    for (offset, len) in [(SOURCE, 8), (MSI_ADDRESS, 8), (MSI_DATA, 4)] {
        let (written, mut read) = ([0x5a; 8], [0xff; 8]);
        let (written, read) = (&written[..len], &mut read[..len]);
        assert_eq!(raw::pwrite(device, written, offset)?, len);
        assert_eq!(raw::pread(device, read, offset)?, len);
        let kept = if offset == SOURCE { 0x5a } else { 0 };
        assert!(read.iter().all(|byte| *byte == kept), "{read:x?}");
    }
    device.write(&region, SOURCE + 4, &[1, 2, 3, 4])?;
    let mut source = [0; 8];
    device.read(&region, SOURCE, &mut source)?;
    assert_eq!(source, [0x5a, 0x5a, 0x5a, 0x5a, 1, 2, 3, 4]);
    Ok(())
}
