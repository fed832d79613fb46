// SPDX-License-Identifier: GPL-2.0

//! MSIs of a PCI device, which reach their bank by a window, in all ways to map it.

use super::{
    COUNT,
    LIODN,
    Machine,
    PAGE,
    pages, //
};
use crate::{
    env::PAMU_EDU,
    harness::{
        Failure,
        cases, //
    },
    stall::LIMIT, //
};
use anyhow::Result;
use std::{
    fs::File,
    os::unix::fs::FileExt,
    time::Duration, //
};
use vfio_client::{
    Errno,
    Interrupt,
    MapFlags,
    Memory,
    pamu::{
        self,
        Content, //
    },
    pci,
    uapi::{
        VFIO_PCI_INTX_IRQ_INDEX,
        VFIO_PCI_MSI_IRQ_INDEX, //
    }, //
};

cases! {
    bank_at_any_window,
    banks_that_the_kernel_chooses,
    banks_of_the_file,
    banks_that_the_kernel_maps,
    enabling_needs_a_window_to_the_bank,
    bank_in_use_stays_mapped,
    closed_device_uses_no_bank,
    intx_needs_no_window,
    violation_stops_interrupts_until_revived,
}

/// The bank that the kernel's driver takes: the first one that isn't full.
const BANK: u32 = 0;
/// The offset of the doorbell in its page.
const DOORBELL: u64 = 0x140;
/// How long an interrupt is waited for that must not come.
const NEVER: Duration = Duration::from_millis(100);

/// Returns the address in the MSI capability of the device, as the device has it: `vfio-pci` shows
/// the program another one.
fn address() -> Result<u64> {
    const CAPABILITY: u64 = 0x40;
    let config = File::open(pci::sysfs(PAMU_EDU).join("config"))?;
    let mut bytes = [0; 8];
    config.read_exact_at(&mut bytes, CAPABILITY + 4)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Checks that the device raises interrupts by writing to the doorbell at `window`.
#[track_caller]
fn interrupts(machine: &Machine, window: u64) {
    let interrupt = Interrupt::new().unwrap();
    let enabled = machine
        .device
        .enable_irqs(VFIO_PCI_MSI_IRQ_INDEX, &[&interrupt]);
    enabled.unwrap();
    assert_eq!(address().unwrap(), window * PAGE + DOORBELL);
    for round in 1..=3 {
        machine.edu.raise(round);
        assert_eq!(interrupt.wait(LIMIT).unwrap(), 1);
        assert_eq!(machine.edu.acknowledge(), round);
    }
    assert_eq!(machine.pamu.violation(0).unwrap(), None);
    machine.device.disable_irqs(VFIO_PCI_MSI_IRQ_INDEX).unwrap();
}

/// Option A: a request for a bank.
fn bank_at_any_window() -> Result<()> {
    let machine = Machine::new(COUNT)?;
    for window in [0, 5, 15] {
        machine
            .pamu
            .map_bank(BANK, window * PAGE, MapFlags::Write)?;
        interrupts(&machine, window);
        machine.pamu.unmap_bank(window * PAGE)?;
    }
    Ok(())
}

/// Option B: a flag of the request for memory.
fn banks_that_the_kernel_chooses() -> Result<()> {
    let machine = Machine::new(COUNT)?;
    machine.pamu.map_bank(1, 0, MapFlags::Write)?;
    machine.pamu.map_any_banks(6 * PAGE, 2 * PAGE)?;
    assert_eq!(machine.pamu.window(6)?.content, Content::Bank(BANK));
    interrupts(&machine, 6);
    Ok(())
}

/// Option C: memory of a file.
fn banks_of_the_file() -> Result<()> {
    let machine = Machine::new(COUNT)?;
    let file = pamu::msi_file(&machine.group)?;
    let banks = Memory::from_file(&file, 0, 3 * PAGE as usize, false)?;
    machine.pamu.map(9 * PAGE, &banks, MapFlags::Write)?;
    interrupts(&machine, 9);
    Ok(())
}

/// The kernel maps the banks, in order, at the last windows.
fn banks_that_the_kernel_maps() -> Result<()> {
    let machine = Machine::new(COUNT)?;
    machine.pamu.set_implicit(true)?;
    let (memory, _) = pages()?;
    machine.pamu.map(0, &memory, MapFlags::Read)?;
    let banks = u64::from(machine.pamu.bank_count()?);
    interrupts(&machine, u64::from(COUNT) - banks);
    Ok(())
}

fn enabling_needs_a_window_to_the_bank() -> Result<()> {
    let machine = Machine::new(COUNT)?;
    let interrupt = Interrupt::new()?;
    let enable = || {
        let interrupts = &[&interrupt];
        let enabled = machine
            .device
            .enable_irqs(VFIO_PCI_MSI_IRQ_INDEX, interrupts);
        enabled.errno()
    };
    assert_eq!(enable(), Errno::EINVAL, "nothing is mapped");
    let (memory, _) = pages()?;
    machine.pamu.map(0, &memory, MapFlags::ReadWrite)?;
    assert_eq!(enable(), Errno::EINVAL, "memory is mapped");
    machine.pamu.map_bank(1, 4 * PAGE, MapFlags::Write)?;
    assert_eq!(enable(), Errno::EINVAL, "another bank is mapped");
    machine.pamu.map_bank(BANK, 5 * PAGE, MapFlags::Read)?;
    assert_eq!(enable(), Errno::EINVAL, "devices can't write");
    machine.pamu.unmap_bank(5 * PAGE)?;
    machine.pamu.map_bank(BANK, 5 * PAGE, MapFlags::Write)?;
    interrupts(&machine, 5);
    Ok(())
}

fn bank_in_use_stays_mapped() -> Result<()> {
    let machine = Machine::new(COUNT)?;
    machine.pamu.map_bank(BANK, 2 * PAGE, MapFlags::Write)?;
    let interrupt = Interrupt::new()?;
    machine
        .device
        .enable_irqs(VFIO_PCI_MSI_IRQ_INDEX, &[&interrupt])?;
    assert_eq!(machine.pamu.unmap_bank(2 * PAGE).errno(), Errno::EBUSY);
    let all = u64::from(COUNT) * PAGE;
    assert_eq!(machine.pamu.unmap(0, all).errno(), Errno::EBUSY);
    machine.edu.raise(1);
    assert_eq!(interrupt.wait(LIMIT)?, 1);
    machine.device.disable_irqs(VFIO_PCI_MSI_IRQ_INDEX)?;
    machine.pamu.unmap_bank(2 * PAGE)?;
    Ok(())
}

fn closed_device_uses_no_bank() -> Result<()> {
    let machine = Machine::new(COUNT)?;
    machine.pamu.map_bank(BANK, 2 * PAGE, MapFlags::Write)?;
    let interrupt = Interrupt::new()?;
    machine
        .device
        .enable_irqs(VFIO_PCI_MSI_IRQ_INDEX, &[&interrupt])?;
    let Machine {
        edu,
        pamu,
        device,
        group,
    } = machine;
    drop((edu, device));
    pamu.unmap_bank(2 * PAGE)?;
    drop(group);
    Ok(())
}

fn intx_needs_no_window() -> Result<()> {
    let machine = Machine::new(COUNT)?;
    let interrupt = Interrupt::new()?;
    machine
        .device
        .enable_irqs(VFIO_PCI_INTX_IRQ_INDEX, &[&interrupt])?;
    machine.edu.raise(1);
    assert_eq!(interrupt.wait(LIMIT)?, 1);
    machine.edu.acknowledge();
    Ok(())
}

fn violation_stops_interrupts_until_revived() -> Result<()> {
    let machine = Machine::new(COUNT)?;
    machine.pamu.map_bank(BANK, 2 * PAGE, MapFlags::Write)?;
    let interrupt = Interrupt::new()?;
    machine
        .device
        .enable_irqs(VFIO_PCI_MSI_IRQ_INDEX, &[&interrupt])?;
    machine.edu.load(7 * PAGE, PAGE)?;
    let violation = machine.pamu.violation(0)?;
    assert_eq!(violation.map(|found| found.iova), Some(7 * PAGE));
    machine.edu.raise(1);
    assert_eq!(interrupt.wait(NEVER)?, 0);
    machine.edu.acknowledge();
    machine.pamu.revive(LIODN)?;
    machine.edu.raise(1);
    assert_eq!(interrupt.wait(LIMIT)?, 1);
    Ok(())
}
