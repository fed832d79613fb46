// SPDX-License-Identifier: GPL-2.0

//! A PCI device behind a PAMU that the module drives by its registers: the one in our QEMU, on
//! 32-bit PowerPC.

mod disk;
mod msi;

use crate::{
    env::{
        PAMU_EDU,
        PAMU_NVME, //
    },
    harness::cases,
    stall::LIMIT, //
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use libtest_mimic::Trial;
use std::fs;
use support::devices::{
    group,
    group_number, //
};
use vfio_client::{
    Container,
    Device,
    Group,
    Interrupt,
    MapFlags,
    Memory,
    edu::Edu,
    pamu::Pamu,
    pci, //
};

cases! {
    devices_behind_one_controller_are_one_group,
    no_group_beside_a_driver,
    dma_through_windows,
    dma_through_the_only_window,
    unmapped_window_is_refused,
    physical_address_is_refused,
    permissions_apply,
    part_of_a_window_is_mapped,
    transfer_across_windows,
    nothing_mapped_is_silent,
    violation_shuts_off_until_revived,
    kernel_gets_the_device_back,
}

/// Returns all cases.
pub fn all() -> Vec<Trial> {
    [cases(), msi::cases(), disk::cases()]
        .into_iter()
        .flatten()
        .collect()
}

/// The LIODN of the controller that [`PAMU_EDU`] is behind.
const LIODN: u32 = 0x94;
/// Its line in debugfs while it may access all memory.
const OPEN: &str = "LIODN 148: on, 0x0-0xfffffffff, windows: 1, stash: 0";
const PAGE: u64 = 4096;
const COUNT: u32 = 16;

/// An `edu` in a container whose windows have one page each.
struct Machine {
    edu: Edu,
    pamu: Pamu,
    // Closed last.
    device: Device,
    group: Group,
}

impl Machine {
    /// Opens the device, with `count` windows of a page from address 0 on.
    fn new(count: u32) -> Result<Self> {
        Self::divided(count, PAGE)
    }

    /// Opens the device, with `count` windows of `size` bytes from address 0 on.
    fn divided(count: u32, size: u64) -> Result<Self> {
        let group = group(PAMU_EDU)?;
        let container = Container::open()?;
        group.set_container(&container)?;
        let pamu = Pamu::new(container)?;
        pamu.set_geometry(0, u64::from(count) * size - 1)?;
        pamu.set_windows(count)?;
        let device = group.device(PAMU_EDU)?;
        Ok(Self {
            edu: Edu::new(&device)?,
            pamu,
            device,
            group,
        })
    }

    /// Returns whether the device writes what it reads at `source` to the page at `target`, which is
    /// that of `memory`.
    fn copies(&self, source: u64, target: u64, memory: &Memory) -> Result<bool> {
        memory.fill(0, PAGE as usize, 0);
        self.edu.load(source, PAGE)?;
        self.edu.store(target, PAGE)?;
        Ok(memory.read_u8(0) == PATTERN)
    }
}

/// The first member of the group.
const CONTROLLER: &str = "0001:00:00.0";

/// Returns the members of the group.
fn members() -> Result<Vec<String>> {
    Ok(pci::members(group_number(PAMU_NVME)?)?)
}

/// What the page has that the device reads.
const PATTERN: u8 = 0x6b;

/// Returns a page of [`PATTERN`], and an empty page.
fn pages() -> Result<(Memory, Memory)> {
    let source = Memory::anonymous(PAGE as usize)?;
    source.fill(0, PAGE as usize, PATTERN);
    Ok((source, Memory::anonymous(PAGE as usize)?))
}

/// Returns the line of a LIODN in debugfs.
fn entry(liodn: u32) -> Result<String> {
    let text = fs::read_to_string("/sys/kernel/debug/vfio_iommu_pamu/liodns")?;
    let start = format!("LIODN {liodn}: ");
    let line = text.lines().find(|line| line.starts_with(&start));
    Ok(line.context("the LIODN isn't listed")?.to_owned())
}

fn devices_behind_one_controller_are_one_group() -> Result<()> {
    assert_eq!(members()?, [CONTROLLER, PAMU_EDU, PAMU_NVME]);
    Ok(())
}

/// The console is behind the other controller, so nothing there is in a group.
fn no_group_beside_a_driver() -> Result<()> {
    for entry in fs::read_dir("/sys/bus/pci/devices")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let has_group = entry.path().join("iommu_group").exists();
        assert_eq!(has_group, name.starts_with("0001:"), "{name}");
    }
    Ok(())
}

fn dma_through_windows() -> Result<()> {
    let machine = Machine::new(COUNT)?;
    let (source, target) = pages()?;
    machine.pamu.map(3 * PAGE, &source, MapFlags::Read)?;
    machine.pamu.map(0, &target, MapFlags::ReadWrite)?;
    ensure!(machine.copies(3 * PAGE, 0, &target)?, "window 3 to 0");
    machine.pamu.unmap(0, PAGE)?;
    machine.pamu.map(15 * PAGE, &target, MapFlags::Write)?;
    ensure!(
        machine.copies(3 * PAGE, 15 * PAGE, &target)?,
        "window 3 to 15"
    );
    assert_eq!(machine.pamu.violation(0)?, None);
    Ok(())
}

fn dma_through_the_only_window() -> Result<()> {
    let machine = Machine::new(1)?;
    let (source, target) = pages()?;
    machine.pamu.map(0, &source, MapFlags::Read)?;
    machine.edu.load(0, PAGE)?;
    machine.pamu.unmap(0, PAGE)?;
    machine.pamu.map(0, &target, MapFlags::Write)?;
    machine.edu.store(0, PAGE)?;
    assert_eq!(target.read_u8(0), PATTERN);
    assert_eq!(machine.pamu.violation(0)?, None);
    Ok(())
}

/// Checks that a transfer to `iova` changes nothing in `memory`, and is reported.
#[track_caller]
fn refused(machine: &Machine, iova: u64, memory: &Memory) -> Result<()> {
    memory.fill(0, PAGE as usize, 1);
    machine.edu.store(iova, PAGE)?;
    assert_eq!(memory.read_u8(0), 1);
    let violation = machine.pamu.violation(0)?.context("no violation")?;
    assert_eq!((violation.liodn, violation.iova), (LIODN, iova));
    machine.pamu.revive(LIODN)?;
    Ok(())
}

fn unmapped_window_is_refused() -> Result<()> {
    let machine = Machine::new(COUNT)?;
    let (source, target) = pages()?;
    machine.pamu.map(PAGE, &source, MapFlags::Read)?;
    machine.pamu.map(2 * PAGE, &target, MapFlags::Write)?;
    ensure!(machine.copies(PAGE, 2 * PAGE, &target)?, "before");
    machine.pamu.unmap(2 * PAGE, PAGE)?;
    refused(&machine, 2 * PAGE, &target)?;
    refused(&machine, u64::from(COUNT) * PAGE, &target)?;
    machine.pamu.map(4 * PAGE, &target, MapFlags::Write)?;
    ensure!(machine.copies(PAGE, 4 * PAGE, &target)?, "after");
    Ok(())
}

fn physical_address_is_refused() -> Result<()> {
    let machine = Machine::new(COUNT)?;
    let (source, target) = pages()?;
    machine.pamu.map(PAGE, &source, MapFlags::Read)?;
    machine.pamu.map(2 * PAGE, &target, MapFlags::Write)?;
    let window = machine.pamu.window(2)?;
    ensure!(window.phys >= u64::from(COUNT) * PAGE, "{window:?}");
    machine.edu.load(PAGE, PAGE)?;
    refused(&machine, window.phys, &target)
}

fn permissions_apply() -> Result<()> {
    let machine = Machine::new(COUNT)?;
    let (source, target) = pages()?;
    machine.pamu.map(PAGE, &source, MapFlags::Read)?;
    machine.pamu.map(2 * PAGE, &target, MapFlags::Read)?;
    machine.edu.load(PAGE, PAGE)?;
    refused(&machine, 2 * PAGE, &target)?;
    machine.pamu.map(3 * PAGE, &target, MapFlags::Write)?;
    machine.edu.load(3 * PAGE, PAGE)?;
    let violation = machine.pamu.violation(0)?.context("no violation")?;
    assert_eq!((violation.liodn, violation.iova), (LIODN, 3 * PAGE));
    Ok(())
}

fn part_of_a_window_is_mapped() -> Result<()> {
    let machine = Machine::divided(COUNT, 4 * PAGE)?;
    let (source, target) = pages()?;
    machine.pamu.map(0, &source, MapFlags::Read)?;
    machine.pamu.map(8 * PAGE, &target, MapFlags::Write)?;
    ensure!(machine.copies(0, 8 * PAGE, &target)?, "the mapped parts");
    refused(&machine, 9 * PAGE, &target)?;
    refused(&machine, 11 * PAGE, &target)?;
    // Window 0 is in the primary entry.
    machine.edu.load(PAGE, PAGE)?;
    let violation = machine.pamu.violation(0)?.context("no violation")?;
    assert_eq!(violation.iova, PAGE);
    Ok(())
}

/// Each window leads to its own page, and the part before one that is free gets through.
fn transfer_across_windows() -> Result<()> {
    const HALF: usize = PAGE as usize / 2;
    let machine = Machine::new(COUNT)?;
    let (source, target) = pages()?;
    let other = Memory::anonymous(PAGE as usize)?;
    machine.pamu.map(PAGE, &source, MapFlags::Read)?;
    machine.pamu.map(6 * PAGE, &target, MapFlags::Write)?;
    machine.pamu.map(7 * PAGE, &other, MapFlags::Write)?;
    machine.edu.load(PAGE, PAGE)?;
    machine.edu.store(6 * PAGE + HALF as u64, PAGE)?;
    let all = |memory: &Memory, at, byte| memory.to_vec(at, HALF).iter().all(|&b| b == byte);
    ensure!(all(&target, 0, 0) && all(&target, HALF, PATTERN));
    ensure!(all(&other, 0, PATTERN) && all(&other, HALF, 0));
    other.fill(0, PAGE as usize, 0);
    machine.edu.store(7 * PAGE + HALF as u64, PAGE)?;
    ensure!(all(&other, 0, 0) && all(&other, HALF, PATTERN));
    let violation = machine.pamu.violation(0)?.context("no violation")?;
    assert_eq!(violation.iova, 8 * PAGE);
    Ok(())
}

fn nothing_mapped_is_silent() -> Result<()> {
    let machine = Machine::new(COUNT)?;
    machine.edu.load(0, PAGE)?;
    machine.edu.store(PAGE, PAGE)?;
    assert_eq!(machine.pamu.violation(0)?, None);
    let (source, target) = pages()?;
    machine.pamu.map(0, &source, MapFlags::Read)?;
    machine.pamu.map(PAGE, &target, MapFlags::Write)?;
    ensure!(
        machine.copies(0, PAGE, &target)?,
        "nothing is to be revived"
    );
    Ok(())
}

fn violation_shuts_off_until_revived() -> Result<()> {
    let machine = Machine::new(COUNT)?;
    let (source, target) = pages()?;
    machine.pamu.map(PAGE, &source, MapFlags::Read)?;
    machine.pamu.map(2 * PAGE, &target, MapFlags::Write)?;
    let event = Interrupt::new()?;
    machine.pamu.set_violation_event(Some(&event))?;
    machine.edu.load(PAGE, PAGE)?;
    machine.edu.store(5 * PAGE, PAGE)?;
    assert_eq!(event.wait(LIMIT)?, 1);
    ensure!(entry(LIODN)?.contains(": off"), "{}", entry(LIODN)?);
    ensure!(!machine.copies(PAGE, 2 * PAGE, &target)?, "it is shut off");
    machine.pamu.revive(LIODN)?;
    ensure!(machine.copies(PAGE, 2 * PAGE, &target)?, "it is revived");
    Ok(())
}

/// A LIODN lets nothing pass while userspace owns the device without a mapping, and everything
/// before and after.
fn kernel_gets_the_device_back() -> Result<()> {
    assert_eq!(entry(LIODN)?, OPEN);
    let group = group(PAMU_EDU)?;
    let container = Container::open()?;
    group.set_container(&container)?;
    ensure!(entry(LIODN)?.contains(": off"), "{}", entry(LIODN)?);
    let pamu = Pamu::new(container)?;
    assert_ne!(entry(LIODN).ok().as_deref(), Some(OPEN));
    drop((pamu, group));
    assert_eq!(entry(LIODN)?, OPEN);
    Ok(())
}
