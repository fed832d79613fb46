// SPDX-License-Identifier: GPL-2.0

//! MSI banks: all ways to map them, and interrupts that arrive through them.

use super::{
    LIODN,
    PAGE,
    divided,
    refused_write,
    unreached, //
};
use crate::{
    harness::{
        Failure,
        cases, //
    },
    stall::LIMIT, //
};
use anyhow::Result;
use pamu_dma::{
    Engine,
    open, //
};
use std::{
    fs::File,
    os::fd::AsRawFd, //
};
use support::requests::SetIrqs;
use vfio_client::{
    Errno,
    Interrupt,
    MapFlags,
    Memory,
    pamu::{
        self,
        Content,
        Pamu, //
    },
    raw,
    uapi::VFIO_IRQ_INFO_EVENTFD, //
};

cases! {
    interrupt_through_a_window,
    bank_must_be_mapped_first,
    interrupt_goes_to_the_bank_of_the_device,
    read_only_bank_gives_no_interrupt,
    bank_in_use_cannot_be_unmapped,
    bank_mapping_arguments,
    bank_unmapping_arguments,
    window_contains_only_the_doorbell,
    doorbell_page_stores_nothing,
    kernel_chooses_the_banks,
    too_few_banks,
    file_of_banks,
    file_access_raises_sigbus,
    #[requires(core(Rust))] file_of_a_group,
    file_bad_ranges,
    kernel_maps_the_banks,
    last_windows_are_reserved_for_banks,
    banks_leave_no_window_for_memory,
    kernel_keeps_a_bank_in_use,
    interrupt_after_violation,
    failed_request_leaves_the_interrupt_enabled,
    interrupt_requests_are_checked,
}

/// The bank to which engine 0 is wired.
const BANK: u32 = 0;

/// The offset of the doorbell in its page.
const DOORBELL: u64 = 0x140;

/// Checks that a write to `address` raises the interrupt.
#[track_caller]
fn interrupts(engine: &Engine, address: u64) {
    let interrupt = Interrupt::new().unwrap();
    engine.enable_interrupt(&interrupt).unwrap();
    assert_eq!(engine.msi_address().unwrap(), address);
    for _ in 0..3 {
        assert_eq!(engine.interrupt().unwrap(), Ok(()));
        assert_eq!(interrupt.wait(LIMIT).unwrap(), 1);
    }
    engine.disable_interrupt().unwrap();
    assert_eq!(engine.msi_address().unwrap(), 0);
}

fn interrupt_through_a_window() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    for window in [0, 5, 7] {
        pamu.map_bank(BANK, window * PAGE, MapFlags::Write)?;
        interrupts(&engine, window * PAGE + DOORBELL);
        pamu.unmap_bank(window * PAGE)?;
    }
    Ok(())
}

fn bank_must_be_mapped_first() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    let interrupt = Interrupt::new()?;
    assert_eq!(engine.enable_interrupt(&interrupt).errno(), Errno::EINVAL);
    assert_eq!(engine.interrupt()?, Err(Errno::ENXIO));
    // Other banks do not help.
    pamu.map_bank(1, PAGE, MapFlags::Write)?;
    pamu.map_bank(2, 2 * PAGE, MapFlags::Write)?;
    assert_eq!(engine.enable_interrupt(&interrupt).errno(), Errno::EINVAL);
    pamu.map_bank(BANK, 3 * PAGE, MapFlags::Write)?;
    interrupts(&engine, 3 * PAGE + DOORBELL);
    Ok(())
}

/// Each engine is wired to its own bank.
fn interrupt_goes_to_the_bank_of_the_device() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    let group = pamu_dma::group(1)?;
    group.set_container(pamu.container())?;
    let other = Engine::open(group, 1)?;
    pamu.map_bank(1, 2 * PAGE, MapFlags::Write)?;
    pamu.map_bank(0, 3 * PAGE, MapFlags::Write)?;
    interrupts(&engine, 3 * PAGE + DOORBELL);
    interrupts(&other, 2 * PAGE + DOORBELL);
    Ok(())
}

fn read_only_bank_gives_no_interrupt() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    pamu.map_bank(BANK, 0, MapFlags::Read)?;
    let interrupt = Interrupt::new()?;
    assert_eq!(engine.enable_interrupt(&interrupt).errno(), Errno::EINVAL);
    Ok(())
}

fn bank_in_use_cannot_be_unmapped() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    let memory = Memory::anonymous(4096)?;
    pamu.map(PAGE, &memory, MapFlags::ReadWrite)?;
    pamu.map_bank(BANK, 2 * PAGE, MapFlags::Write)?;
    let interrupt = Interrupt::new()?;
    engine.enable_interrupt(&interrupt)?;
    assert_eq!(pamu.unmap_bank(2 * PAGE).errno(), Errno::EBUSY);
    assert_eq!(pamu.unmap(0, 8 * PAGE).errno(), Errno::EBUSY);
    // Nothing was unmapped, and the interrupt works.
    assert_eq!(engine.read(PAGE)?, Ok(0));
    assert_eq!(engine.interrupt()?, Ok(()));
    assert_eq!(interrupt.take()?, 1);
    // The second eventfd replaces the first one.
    let second = Interrupt::new()?;
    engine.enable_interrupt(&second)?;
    assert_eq!(engine.interrupt()?, Ok(()));
    assert_eq!((interrupt.take()?, second.take()?), (0, 1));
    engine.disable_interrupt()?;
    pamu.unmap_bank(2 * PAGE)?;
    Ok(())
}

fn bank_mapping_arguments() -> Result<()> {
    let (pamu, _engine) = divided(8, 2 * PAGE)?;
    let at = |bank, iova| pamu.map_bank(bank, iova, MapFlags::Write);
    for (bank, iova, errno) in [
        (3, 0, Errno::ENODEV),
        (u32::MAX, 0, Errno::ENODEV),
        (0, PAGE, Errno::EINVAL),
        (0, 1, Errno::EINVAL),
        (0, 16 * PAGE, Errno::EINVAL),
        (0, u64::MAX, Errno::EINVAL),
    ] {
        assert_eq!(at(bank, iova).errno(), errno, "{bank} {iova:#x}");
    }
    at(0, 0)?;
    assert_eq!(at(1, 0).errno(), Errno::EEXIST);
    assert_eq!(at(0, 2 * PAGE).errno(), Errno::EEXIST);
    let window = pamu.window(0)?;
    assert_eq!((window.content, window.size), (Content::Bank(0), PAGE));
    let memory = Memory::anonymous(4096)?;
    assert_eq!(pamu.map(0, &memory, MapFlags::Read).errno(), Errno::EEXIST);
    Ok(())
}

fn bank_unmapping_arguments() -> Result<()> {
    let (pamu, _engine) = divided(8, 2 * PAGE)?;
    let memory = Memory::anonymous(4096)?;
    pamu.map(0, &memory, MapFlags::Read)?;
    pamu.map_bank(0, 2 * PAGE, MapFlags::Write)?;
    for iova in [0, PAGE, 3 * PAGE, 4 * PAGE, 16 * PAGE, u64::MAX] {
        assert_eq!(pamu.unmap_bank(iova).errno(), Errno::EINVAL, "{iova:#x}");
    }
    pamu.unmap_bank(2 * PAGE)?;
    assert_eq!(pamu.unmap_bank(2 * PAGE).errno(), Errno::EINVAL);
    // UNMAP_DMA unmaps banks and memory.
    pamu.map_bank(1, 4 * PAGE, MapFlags::Write)?;
    assert_eq!(pamu.unmap(0, 16 * PAGE)?, 2 * PAGE);
    Ok(())
}

fn window_contains_only_the_doorbell() -> Result<()> {
    let (pamu, engine) = divided(8, 4 * PAGE)?;
    pamu.map_bank(BANK, 4 * PAGE, MapFlags::Write)?;
    interrupts(&engine, 4 * PAGE + DOORBELL);
    for iova in [3 * PAGE, 5 * PAGE, 7 * PAGE, 8 * PAGE] {
        refused_write(&pamu, &engine, iova);
    }
    Ok(())
}

/// Data that a device writes to the page of a doorbell cannot be read there, by that device or
/// another.
fn doorbell_page_stores_nothing() -> Result<()> {
    let (first, engine) = divided(8, PAGE)?;
    let (second, other) = open(1)?;
    second.set_geometry(0, 8 * PAGE - 1)?;
    second.set_windows(8)?;
    for pamu in [&first, &second] {
        pamu.map_bank(BANK, 0, MapFlags::ReadWrite)?;
    }
    for offset in [0, DOORBELL, DOORBELL + 8, PAGE - 8] {
        assert_eq!(engine.write(offset, 0x5ec_4e7)?, Ok(()));
        assert_eq!(other.read(offset)?, Ok(0), "{offset:#x}");
        assert_eq!(engine.read(offset)?, Ok(0), "{offset:#x}");
    }
    interrupts(&engine, DOORBELL);
    Ok(())
}

fn kernel_chooses_the_banks() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    pamu.map_bank(1, 0, MapFlags::Write)?;
    pamu.map_any_banks(4 * PAGE, 2 * PAGE)?;
    let banks: Vec<_> = pamu.all_windows()?.iter().map(|w| w.content).collect();
    let free = Content::Free;
    let expected = [
        Content::Bank(1),
        free,
        free,
        free,
        Content::Bank(0),
        Content::Bank(2),
        free,
        free,
    ];
    assert_eq!(banks, expected);
    interrupts(&engine, 4 * PAGE + DOORBELL);
    assert_eq!(pamu.unmap(4 * PAGE, 2 * PAGE)?, 2 * PAGE);
    pamu.map_any_banks(7 * PAGE, PAGE)?;
    assert_eq!(pamu.window(7)?.content, Content::Bank(0));
    Ok(())
}

fn too_few_banks() -> Result<()> {
    let (pamu, _engine) = divided(8, 2 * PAGE)?;
    for (iova, size, errno) in [
        (0, 8 * PAGE, Errno::ENOSPC),
        (0, PAGE, Errno::EINVAL),
        (0, 3 * PAGE, Errno::EINVAL),
        (PAGE, 2 * PAGE, Errno::EINVAL),
        (14 * PAGE, 4 * PAGE, Errno::EINVAL),
        (0, 0, Errno::EINVAL),
    ] {
        assert_eq!(pamu.map_any_banks(iova, size).errno(), errno, "{size:#x}");
    }
    pamu.map_any_banks(0, 6 * PAGE)?;
    assert_eq!(
        pamu.map_any_banks(6 * PAGE, 2 * PAGE).errno(),
        Errno::ENOSPC
    );
    assert_eq!(
        pamu.map_any_banks(4 * PAGE, 4 * PAGE).errno(),
        Errno::EEXIST
    );
    Ok(())
}

/// Returns the container's file that represents the banks.
fn file(pamu: &Pamu) -> Result<std::os::fd::OwnedFd> {
    Ok(pamu::msi_file_of_container(pamu.container())?)
}

fn file_of_banks() -> Result<()> {
    let (pamu, engine) = divided(8, 2 * PAGE)?;
    let file = file(&pamu)?;
    let banks = Memory::from_file(&file, 0, 3 * 4096, false)?;
    drop(file);
    let map =
        |iova, bank: usize, len| pamu.map_part(iova, &banks, bank * 4096, len, MapFlags::Write);
    map(2 * PAGE, 0, 4096)?;
    map(4 * PAGE, 2, 4096)?;
    assert_eq!(pamu.window(1)?.content, Content::Bank(0));
    assert_eq!(pamu.window(2)?.content, Content::Bank(2));
    interrupts(&engine, 2 * PAGE + DOORBELL);
    assert_eq!(map(6 * PAGE, 0, 4096).errno(), Errno::EEXIST);
    assert_eq!(map(6 * PAGE, 1, 8192).errno(), Errno::EINVAL);
    pamu.unmap(0, 16 * PAGE)?;
    // A mapping of the file alone holds nothing.
    drop(banks);
    pamu.set_windows(4)?;
    Ok(())
}

fn file_access_raises_sigbus() -> Result<()> {
    let (pamu, _engine) = divided(4, PAGE)?;
    let mut banks = Memory::from_file(file(&pamu)?, 0, 3 * 4096, true)?;
    // If there were any bytes, the kernel would read them.
    for nr in [pamu::GET_ATTR, pamu::SET_ATTR, pamu::REVIVE] {
        let sent = raw::at(pamu.container(), nr, &mut banks, 0x140);
        assert_eq!(sent, Err(Errno::EFAULT));
    }
    Ok(())
}

fn file_of_a_group() -> Result<()> {
    let (pamu, engine) = divided(4, PAGE)?;
    let file = pamu::msi_file(&engine.group)?;
    let banks = Memory::from_file(&file, 4096, 4096, false)?;
    pamu.map(0, &banks, MapFlags::Write)?;
    assert_eq!(pamu.window(0)?.content, Content::Bank(1));
    assert_eq!(raw::none(&file, pamu::GET_ATTR), Err(Errno::ENOTTY));
    drop((engine, pamu, banks));
    // The file holds nothing either.
    drop(file);
    let group = pamu_dma::group(0)?;
    assert_eq!(pamu::msi_file(&group).errno(), Errno::EINVAL);
    Ok(())
}

fn file_bad_ranges() -> Result<()> {
    let (pamu, _engine) = divided(4, PAGE)?;
    let file = file(&pamu)?;
    for (offset, len) in [(0, 4 * 4096), (3 * 4096, 4096), (1 << 40, 4096)] {
        let mapped = Memory::from_file(&file, offset, len, false);
        assert_eq!(mapped.errno(), Errno::EINVAL);
    }
    // A request that extends beyond the end of the file.
    let banks = Memory::from_file(&file, 4096, 2 * 4096, false)?;
    pamu.map(0, &banks, MapFlags::Write)?;
    assert_eq!(pamu.window(1)?.content, Content::Bank(2));
    Ok(())
}

fn kernel_maps_the_banks() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    pamu.set_implicit(true)?;
    assert!(pamu.implicit()?);
    let memory = Memory::anonymous(8192)?;
    let interrupt = Interrupt::new()?;
    assert_eq!(engine.enable_interrupt(&interrupt).errno(), Errno::EINVAL);
    pamu.map(PAGE, &memory, MapFlags::ReadWrite)?;
    for bank in 0..3 {
        let window = pamu.window(5 + bank)?;
        assert_eq!(
            (window.content, window.implicit),
            (Content::Bank(bank), true)
        );
    }
    interrupts(&engine, 5 * PAGE + DOORBELL);
    // After part of the memory is unmapped, the banks stay mapped.
    assert_eq!(pamu.unmap(PAGE, PAGE)?, PAGE);
    interrupts(&engine, 5 * PAGE + DOORBELL);
    // Unmapping the last of the memory unmaps them.
    assert_eq!(pamu.unmap(0, 8 * PAGE)?, PAGE);
    assert!(
        pamu.all_windows()?
            .iter()
            .all(|w| w.content == Content::Free)
    );
    unreached(&pamu, &engine, 5 * PAGE + DOORBELL);
    pamu.set_implicit(false)?;
    pamu.map_bank(BANK, 0, MapFlags::Write)?;
    Ok(())
}

fn last_windows_are_reserved_for_banks() -> Result<()> {
    let (pamu, _engine) = divided(8, PAGE)?;
    pamu.set_implicit(true)?;
    let memory = Memory::anonymous(8192)?;
    // Both before and after the banks are mapped.
    for mapped in [false, true] {
        assert_eq!(
            pamu.map(4 * PAGE, &memory, MapFlags::Read).errno(),
            Errno::EEXIST
        );
        assert_eq!(pamu.map_bank(0, 0, MapFlags::Write).errno(), Errno::EINVAL);
        assert_eq!(pamu.map_any_banks(0, PAGE).errno(), Errno::EINVAL);
        let first = pamu.map(0, &memory, MapFlags::Read);
        let errno = first.err().map(|error| error.errno());
        assert_eq!(errno, mapped.then_some(Errno::EEXIST));
    }
    assert_eq!(pamu.unmap_bank(5 * PAGE).errno(), Errno::EINVAL);
    assert_eq!(pamu.unmap(5 * PAGE, 3 * PAGE)?, 0);
    assert_eq!(pamu.window(5)?.content, Content::Bank(0));
    Ok(())
}

fn banks_leave_no_window_for_memory() -> Result<()> {
    let memory = Memory::anonymous(4096)?;
    for (count, errno) in [
        (1, Some(Errno::ENOSPC)),
        (2, Some(Errno::ENOSPC)),
        (4, None),
    ] {
        let (pamu, _engine) = divided(count, PAGE)?;
        pamu.set_implicit(true)?;
        let mapped = pamu.map(0, &memory, MapFlags::Read);
        assert_eq!(mapped.err().map(|error| error.errno()), errno);
    }
    Ok(())
}

fn kernel_keeps_a_bank_in_use() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    pamu.set_implicit(true)?;
    let memory = Memory::anonymous(4096)?;
    pamu.map(0, &memory, MapFlags::Read)?;
    let interrupt = Interrupt::new()?;
    engine.enable_interrupt(&interrupt)?;
    assert_eq!(pamu.unmap(0, PAGE)?, PAGE);
    assert_eq!(pamu.window(5)?.content, Content::Bank(0));
    assert_eq!(pamu.window(6)?.content, Content::Free);
    assert_eq!(engine.interrupt()?, Ok(()));
    assert_eq!(interrupt.take()?, 1);
    assert_eq!(pamu.set_windows(4).errno(), Errno::EBUSY);
    engine.disable_interrupt()?;
    assert_eq!(pamu.window(5)?.content, Content::Free);
    pamu.set_windows(4)?;
    Ok(())
}

fn interrupt_after_violation() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    pamu.map_bank(BANK, 0, MapFlags::Write)?;
    let interrupt = Interrupt::new()?;
    engine.enable_interrupt(&interrupt)?;
    assert_eq!(engine.write(PAGE, 0)?, Err(Errno::EFAULT));
    assert_eq!(engine.interrupt()?, Err(Errno::EFAULT));
    assert_eq!(interrupt.take()?, 0);
    pamu.revive(LIODN)?;
    assert_eq!(engine.interrupt()?, Ok(()));
    assert_eq!(interrupt.take()?, 1);
    Ok(())
}

/// Sends SET_IRQS with an eventfd for the interrupt of an engine.
fn set_eventfd(engine: &Engine, fd: i32) -> Result<i32, Errno> {
    let request = SetIrqs {
        flags: SetIrqs::EVENTFD | SetIrqs::TRIGGER,
        data: &fd.to_ne_bytes(),
        ..SetIrqs::default()
    };
    request.send(engine.device())
}

fn failed_request_leaves_the_interrupt_enabled() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    pamu.map_bank(BANK, 0, MapFlags::Write)?;
    let interrupt = Interrupt::new()?;
    engine.enable_interrupt(&interrupt)?;
    let null = File::open("/dev/null")?;
    for (fd, errno) in [(1000, Errno::EBADF), (null.as_raw_fd(), Errno::EINVAL)] {
        assert_eq!(set_eventfd(&engine, fd), Err(errno));
        assert_eq!(engine.interrupt()?, Ok(()));
        assert_eq!(interrupt.take()?, 1);
    }
    // A reset leaves it enabled, too.
    engine.device().reset()?;
    assert_eq!(engine.msi_address()?, DOORBELL);
    assert_eq!(engine.interrupt()?, Ok(()));
    assert_eq!(interrupt.take()?, 1);
    assert_eq!(set_eventfd(&engine, -1), Ok(0));
    assert_eq!(engine.interrupt()?, Err(Errno::ENXIO));
    Ok(())
}

fn interrupt_requests_are_checked() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    pamu.map_bank(BANK, 0, MapFlags::Write)?;
    let interrupt = Interrupt::new()?;
    let fd = interrupt.number().to_ne_bytes();
    let valid = SetIrqs {
        flags: SetIrqs::EVENTFD | SetIrqs::TRIGGER,
        data: &fd,
        ..SetIrqs::default()
    };
    let flags = |flags| SetIrqs { flags, ..valid };
    for request in [
        SetIrqs { index: 1, ..valid },
        SetIrqs { start: 1, ..valid },
        SetIrqs { count: 2, ..valid },
        SetIrqs { count: 0, ..valid },
        SetIrqs {
            data: &fd[..3],
            ..valid
        },
        flags(SetIrqs::EVENTFD | SetIrqs::MASK),
        flags(SetIrqs::BOOL | SetIrqs::TRIGGER),
        flags(SetIrqs::NONE | SetIrqs::TRIGGER),
    ] {
        let sent = request.send(engine.device());
        assert_eq!(sent, Err(Errno::EINVAL), "{request:?}");
        assert_eq!(engine.interrupt()?, Err(Errno::ENXIO));
    }
    assert_eq!(valid.send(engine.device()), Ok(0));
    assert_eq!(engine.interrupt()?, Ok(()));
    assert_eq!(interrupt.take()?, 1);
    let info = engine.device().irq(0)?;
    assert_eq!((info.flags, info.count), (VFIO_IRQ_INFO_EVENTFD, 1));
    assert_eq!(engine.device().irq(1).errno(), Errno::EINVAL);
    Ok(())
}
