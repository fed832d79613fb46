// SPDX-License-Identifier: GPL-2.0

//! A disk behind a PAMU: for a program by windows and MSI-X, and for the kernel's driver.

use super::{
    CONTROLLER,
    LIODN,
    Machine,
    OPEN,
    PAGE,
    entry,
    members, //
};
use crate::{
    env::{
        PAMU_EDU,
        PAMU_NVME,
        Rebind,
        group, //
    },
    harness::{
        Failure,
        cases, //
    },
    modules,
    plug::until,
    stall::LIMIT, //
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use nvme_read::{
    command::Command,
    controller::NAMESPACE,
    prp::Prp, //
};
use std::{
    fs::{
        self,
        File, //
    },
    path::PathBuf,
    sync::atomic::{
        Ordering,
        fence, //
    }, //
};
use vfio_client::{
    Container,
    Device,
    Errno,
    Group,
    Interrupt,
    MapFlags,
    Memory,
    Register,
    edu::Edu,
    pamu::Pamu,
    pci::{
        self,
        Config, //
    },
    uapi::{
        VFIO_PCI_BAR0_REGION_INDEX,
        VFIO_PCI_MSIX_IRQ_INDEX, //
    }, //
};
use zerocopy::IntoBytes;

cases! {
    program_reads_the_disk,
    disk_and_edu_share_the_windows,
    msix_needs_a_window_to_the_bank,
    kernel_reads_the_disk_after_a_program,
    module_is_loaded_again,
    device_that_comes_back_joins_the_program,
}

/// Windows of the memory that a [`Disk`] uses, and of the bank.
const SUBMISSIONS: u64 = 0;
const COMPLETIONS: u64 = 1;
const IO_SUBMISSIONS: u64 = 2;
const IO_COMPLETIONS: u64 = 3;
const DATA: u64 = 4;
const BANK: u64 = 6;
/// The number of windows.
const WINDOWS: u32 = 8;
/// The number of entries of a queue.
const ENTRIES: usize = 4;

/// Registers of the controller.
const CC: Register<u32> = Register::at(0x14);
const CSTS: Register<u32> = Register::at(0x1c);
const AQA: Register<u32> = Register::at(0x24);
const ASQ: Register<u32> = Register::at(0x28);
const ASQ_HIGH: Register<u32> = Register::at(0x2c);
const ACQ: Register<u32> = Register::at(0x30);
const ACQ_HIGH: Register<u32> = Register::at(0x34);
/// CC: enabled, with entries of 64 and 16 bytes.
const ENABLE: u32 = 1 | (6 << 16) | (4 << 20);

/// A queue of commands, and that of their completions.
struct Queue {
    number: usize,
    submissions: Memory,
    completions: Memory,
    interrupt: Interrupt,
    submitted: usize,
}

impl Queue {
    /// Maps the memory of a queue at two windows.
    fn new(pamu: &Pamu, number: usize, windows: [u64; 2]) -> Result<Self> {
        let [submissions, completions] = [0; 2].map(|_| Memory::anonymous(PAGE as usize));
        let (submissions, completions) = (submissions?, completions?);
        pamu.map(windows[0] * PAGE, &submissions, MapFlags::Read)?;
        pamu.map(windows[1] * PAGE, &completions, MapFlags::Write)?;
        Ok(Self {
            number,
            submissions,
            completions,
            interrupt: Interrupt::new()?,
            submitted: 0,
        })
    }

    /// Runs a command, and waits for its interrupt. Returns its status.
    fn run(&mut self, registers: &Memory, command: &Command) -> Result<u16> {
        // The completion of a command is where its submission was, as only one is in flight.
        let at = self.submitted % ENTRIES;
        let round = self.submitted / ENTRIES;
        let id = u16::try_from(self.submitted)?;
        self.submissions
            .write(at * 64, command.with_id(id).as_bytes());
        fence(Ordering::SeqCst);
        self.submitted += 1;
        let next = (self.submitted % ENTRIES) as u32;
        let doorbell =
            |completion: usize| Register::at(0x1000 + (2 * self.number + completion) * 4);
        registers.set(doorbell(0), next);
        assert_eq!(self.interrupt.wait(LIMIT)?, 1);
        fence(Ordering::SeqCst);
        let state = self.completions.get(Register::<u16>::at(at * 16 + 14));
        ensure!((state & 1 == 1) == (round % 2 == 0), "no completion");
        let of = self.completions.get(Register::<u16>::at(at * 16 + 12));
        assert_eq!(of, id);
        registers.set(doorbell(1), next);
        Ok(state >> 1)
    }
}

/// The controller of the disk.
struct Disk {
    registers: Memory,
    io: Queue,
    data: Memory,
    _admin: Queue,
    _device: Device,
}

impl Disk {
    /// Starts the controller in a container that has its group, with a bank at window [`BANK`].
    fn new(pamu: &Pamu, device: Device) -> Result<Self> {
        Config::of(&device)?.enable()?;
        let bar = device.region(VFIO_PCI_BAR0_REGION_INDEX)?;
        let registers = device.map_region(&bar, 0, 2 * PAGE as usize)?;
        registers.set(CC, 0);
        let ready = |wanted| {
            until("the controller", LIMIT, || {
                Ok(registers.get(CSTS) & 1 == wanted)
            })
        };
        ready(0)?;
        let mut admin = Queue::new(pamu, 0, [SUBMISSIONS, COMPLETIONS])?;
        let io = Queue::new(pamu, 1, [IO_SUBMISSIONS, IO_COMPLETIONS])?;
        let data = Memory::anonymous(PAGE as usize)?;
        pamu.map(DATA * PAGE, &data, MapFlags::Write)?;
        let interrupts = [&admin.interrupt, &io.interrupt];
        device.enable_irqs(VFIO_PCI_MSIX_IRQ_INDEX, &interrupts)?;
        let last = ENTRIES as u32 - 1;
        registers.set(AQA, (last << 16) | last);
        for (register, value) in [
            (ASQ, (SUBMISSIONS * PAGE) as u32),
            (ASQ_HIGH, 0),
            (ACQ, (COMPLETIONS * PAGE) as u32),
            (ACQ_HIGH, 0),
            (CC, ENABLE),
        ] {
            registers.set(register, value);
        }
        ready(1)?;
        for command in [
            Command::create_completion_queue(1, ENTRIES, IO_COMPLETIONS * PAGE, 1),
            Command::create_submission_queue(1, ENTRIES, IO_SUBMISSIONS * PAGE),
        ] {
            assert_eq!(admin.run(&registers, &command)?, 0);
        }
        Ok(Self {
            registers,
            io,
            data,
            _admin: admin,
            _device: device,
        })
    }

    /// Reads a page of the disk into the data's window. Returns the status.
    fn read(&mut self, page: u64) -> Result<u16> {
        let prp = Prp::new(DATA * PAGE, PAGE as usize, 0).context("a page")?;
        let command = Command::read(NAMESPACE, page * 8, 8, &prp);
        self.io.run(&self.registers, &command)
    }

    /// Checks that pages of the disk are what `tools/testing/guest/run` has put there.
    fn check(&mut self) -> Result<()> {
        [0, 7, 1, 500, 3, 5]
            .into_iter()
            .try_for_each(|page| self.check_page(page))
    }

    fn check_page(&mut self, page: u64) -> Result<()> {
        assert_eq!(self.read(page)?, 0);
        ensure!(has(&self.data, page), "page {page}");
        Ok(())
    }
}

/// Returns a page of the disk: each eight bytes are their number as a line of text.
fn contents(page: u64) -> Vec<u8> {
    let numbers = page * PAGE / 8..(page + 1) * PAGE / 8;
    numbers
        .flat_map(|number| format!("{number:07}\n").into_bytes())
        .collect()
}

/// Returns whether memory has a page of the disk.
fn has(memory: &Memory, page: u64) -> bool {
    memory.to_vec(0, PAGE as usize) == contents(page)
}

/// Returns the disk in a container with eight windows. The bank of its interrupts is mapped.
fn program() -> Result<(Pamu, Disk)> {
    program_with_group().map(|(pamu, disk, _group)| (pamu, disk))
}

fn program_with_group() -> Result<(Pamu, Disk, Group)> {
    let group = group(PAMU_NVME)?;
    let container = Container::open()?;
    group.set_container(&container)?;
    let pamu = Pamu::new(container)?;
    pamu.set_geometry(0, u64::from(WINDOWS) * PAGE - 1)?;
    pamu.set_windows(WINDOWS)?;
    pamu.map_bank(0, BANK * PAGE, MapFlags::Write)?;
    let disk = Disk::new(&pamu, group.device(PAMU_NVME)?)?;
    Ok((pamu, disk, group))
}

fn program_reads_the_disk() -> Result<()> {
    let (pamu, mut disk) = program()?;
    disk.check()?;
    assert_eq!(pamu.violation(0)?, None);
    Ok(())
}

/// Both are behind one controller, hence one LIODN.
fn disk_and_edu_share_the_windows() -> Result<()> {
    let machine = Machine::new(WINDOWS)?;
    machine.pamu.map_bank(0, BANK * PAGE, MapFlags::Write)?;
    let mut disk = Disk::new(&machine.pamu, machine.group.device(PAMU_NVME)?)?;
    let copy = Memory::anonymous(PAGE as usize)?;
    machine.pamu.unmap(DATA * PAGE, PAGE)?;
    machine
        .pamu
        .map(DATA * PAGE, &disk.data, MapFlags::ReadWrite)?;
    machine.pamu.map(7 * PAGE, &copy, MapFlags::Write)?;
    for page in [9, 1, 500] {
        disk.check_page(page)?;
        machine.edu.load(DATA * PAGE, PAGE)?;
        machine.edu.store(7 * PAGE, PAGE)?;
        ensure!(has(&copy, page), "copy of page {page}");
    }
    // A violation of one shuts off both.
    machine.edu.load(5 * PAGE, PAGE)?;
    let violation = machine.pamu.violation(0)?.context("no violation")?;
    assert_eq!((violation.liodn, violation.iova), (LIODN, 5 * PAGE));
    copy.fill(0, PAGE as usize, 0);
    machine.edu.store(7 * PAGE, PAGE)?;
    assert_eq!(copy.read_u8(0), 0);
    machine.pamu.revive(LIODN)?;
    // What it couldn't read has become zeroes in its buffer.
    machine.edu.load(DATA * PAGE, PAGE)?;
    machine.edu.store(7 * PAGE, PAGE)?;
    ensure!(has(&copy, 500), "copy after the violation");
    disk.check_page(4)
}

fn msix_needs_a_window_to_the_bank() -> Result<()> {
    let machine = Machine::new(WINDOWS)?;
    let device = machine.group.device(PAMU_NVME)?;
    Config::of(&device)?.enable()?;
    let interrupts = [Interrupt::new()?, Interrupt::new()?];
    let interrupts = interrupts.each_ref();
    let enabled = device.enable_irqs(VFIO_PCI_MSIX_IRQ_INDEX, &interrupts);
    assert_eq!(enabled.errno(), Errno::EINVAL);
    machine.pamu.map_bank(0, BANK * PAGE, MapFlags::Write)?;
    device.enable_irqs(VFIO_PCI_MSIX_IRQ_INDEX, &interrupts)?;
    // Each vector uses the bank.
    device.enable_irqs(VFIO_PCI_MSIX_IRQ_INDEX, &interrupts[..1])?;
    assert_eq!(machine.pamu.unmap_bank(BANK * PAGE).errno(), Errno::EBUSY);
    device.disable_irqs(VFIO_PCI_MSIX_IRQ_INDEX)?;
    machine.pamu.unmap_bank(BANK * PAGE)?;
    Ok(())
}

/// Returns the block device of the kernel's driver.
fn block_device() -> Option<PathBuf> {
    let controller = fs::read_dir(pci::sysfs(PAMU_NVME).join("nvme"))
        .ok()?
        .next()?;
    let name = controller.ok()?.file_name().into_string().ok()?;
    let path = PathBuf::from(format!("/dev/{name}n1"));
    File::open(&path).is_ok().then_some(path)
}

/// Checks that the kernel's driver reads the disk, by its own addresses and interrupts.
fn kernel_reads() -> Result<()> {
    pci::unbind(PAMU_NVME)?;
    let _rebind = Unbind;
    pci::bind(PAMU_NVME, "nvme")?;
    let mut path = None;
    until("the disk", LIMIT, || {
        path = block_device();
        Ok(path.is_some())
    })?;
    let read = fs::read(path.context("the disk")?)?;
    for page in [0, 1, 1000] {
        let at = (page * PAGE) as usize;
        ensure!(
            read[at..at + PAGE as usize] == contents(page),
            "page {page}"
        );
    }
    Ok(())
}

/// Gives the disk to `vfio-pci` again when dropped.
struct Unbind;

impl Drop for Unbind {
    fn drop(&mut self) {
        let _ = pci::unbind(PAMU_NVME);
        let _ = pci::bind(PAMU_NVME, "vfio-pci");
    }
}

fn kernel_reads_the_disk_after_a_program() -> Result<()> {
    kernel_reads()?;
    let (pamu, mut disk) = program()?;
    disk.check()?;
    drop((disk, pamu));
    kernel_reads()
}

/// Returns the PCI devices that are in groups.
fn devices_in_groups() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/sys/bus/pci/devices")? {
        let path = entry?.path();
        if path.join("iommu_group").exists() {
            found.push(path);
        }
    }
    Ok(found)
}

/// Loads the module, adds removed devices again, and binds the devices, when dropped. Without the
/// module, the kernel's driver of the disk would wait for the answer to a command.
struct Reload {
    _rebind: Rebind,
}

impl Drop for Reload {
    fn drop(&mut self) {
        let _ = modules::load(&["vfio_iommu_pamu"]);
        let _ = fs::write("/sys/bus/pci/rescan", "1");
    }
}

fn module_is_loaded_again() -> Result<()> {
    const MODULE: &std::ffi::CStr = c"vfio_iommu_pamu";
    assert_eq!(
        modules::unload(MODULE),
        Err(Errno::EAGAIN),
        "groups are there"
    );
    let reload = Reload {
        _rebind: Rebind(&[PAMU_EDU, PAMU_NVME]),
    };
    for device in devices_in_groups()? {
        fs::write(device.join("remove"), "1")?;
    }
    modules::unload(MODULE)?;
    drop(reload);
    assert_eq!(entry(LIODN)?, OPEN);
    kernel_reads()?;
    let (pamu, mut disk) = program()?;
    disk.check()?;
    drop((disk, pamu));
    Ok(())
}

/// A device is removed and found again while a program has the group. It comes into the windows of
/// the program, not into the domain of the kernel.
fn device_that_comes_back_joins_the_program() -> Result<()> {
    let (pamu, mut disk, group) = program_with_group()?;
    let _rebind = Rebind(&[PAMU_EDU]);
    pci::write_attribute(PAMU_EDU, "remove", "1")?;
    assert_eq!(members()?, [CONTROLLER, PAMU_NVME]);
    disk.check_page(2)?;
    fs::write("/sys/bus/pci/rescan", "1")?;
    assert_eq!(members()?, [CONTROLLER, PAMU_EDU, PAMU_NVME]);
    ensure!(entry(LIODN)? != OPEN, "{}", entry(LIODN)?);
    pci::bind(PAMU_EDU, "vfio-pci")?;
    let device = group.device(PAMU_EDU)?;
    let edu = Edu::new(&device)?;
    let copy = Memory::anonymous(PAGE as usize)?;
    pamu.map(7 * PAGE, &copy, MapFlags::ReadWrite)?;
    disk.check_page(11)?;
    edu.load(IO_SUBMISSIONS * PAGE, PAGE)?;
    edu.store(7 * PAGE, PAGE)?;
    // The last command.
    ensure!(copy.to_vec(0, PAGE as usize) == disk.io.submissions.to_vec(0, PAGE as usize));
    assert_eq!(pamu.violation(0)?, None);
    Ok(())
}
