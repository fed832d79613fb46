// SPDX-License-Identifier: GPL-2.0

//! What must be the same after measuring as before, and that DMA goes where it should.

use crate::request::Attached;
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    fs,
    thread::sleep,
    time::{
        Duration,
        Instant, //
    },
};
use vfio_client::{
    MapFlags,
    Memory,
    PAGE_SIZE,
    pci::Config,
    uapi::VFIO_PCI_BAR0_REGION_INDEX, //
};

/// The kernel frees some things a moment after the last close.
const PATIENCE: Duration = Duration::from_secs(10);

/// Counters, and a device that was seen to do DMA.
pub struct Base {
    device: String,
    iommu_pages: u64,
    pins: u64,
}

impl Base {
    /// Lets the device do DMA, and reads the counters.
    pub fn take(device: &str) -> Result<Self> {
        check_dma(device).context("DMA before measuring")?;
        Ok(Self {
            device: device.to_owned(),
            iommu_pages: iommu_pages()?,
            pins: pins()?,
        })
    }

    /// Fails if a counter isn't as before, or the device does no DMA any more.
    pub fn check(self) -> Result<()> {
        check_dma(&self.device).context("DMA after measuring")?;
        let start = Instant::now();
        loop {
            let now = (iommu_pages()?, pins()?, locked_kib()?);
            let base = (self.iommu_pages, self.pins, 0);
            // An IOMMU driver may give back what it had kept for later.
            if now.0 <= base.0 && now.1 == base.1 && now.2 == base.2 {
                return Ok(());
            }
            ensure!(
                start.elapsed() < PATIENCE,
                "pages of page tables, pinned pages, locked KiB: were {base:?}, are {now:?}"
            );
            sleep(Duration::from_millis(50));
        }
    }
}

/// The value of a line of /proc/vmstat.
fn vmstat(name: &str) -> Result<u64> {
    // Each processor counts on its own for a while; this adds up.
    let _ = fs::write("/proc/sys/vm/stat_refresh", "1");
    let text = fs::read_to_string("/proc/vmstat").context("/proc/vmstat")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| name.to_owned())?.parse()?)
}

/// How many pages hold page tables of IOMMUs.
pub fn iommu_pages() -> Result<u64> {
    vmstat("nr_iommu_pages")
}

/// How many pages are pinned in the whole machine.
fn pins() -> Result<u64> {
    Ok(vmstat("nr_foll_pin_acquired")? - vmstat("nr_foll_pin_released")?)
}

/// How many KiB the process has locked.
fn locked_kib() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmLck:"));
    let value = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    Ok(value.context("VmLck")?.parse()?)
}

/// How many bytes all objects of the kernel's small allocations have.
pub fn slab_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/slabinfo").context("/proc/slabinfo")?;
    text.lines()
        .skip(2)
        .map(|line| {
            let mut words = line.split_ascii_whitespace().skip(1);
            let mut number = || -> Result<u64> { Ok(words.next().context("slabinfo")?.parse()?) };
            let (active, _, size) = (number()?, number()?, number()?);
            Ok(active * size)
        })
        .sum()
}

/// Registers of QEMU's `edu` device, see `docs/specs/edu.rst` there.
const SOURCE: usize = 0x80;
const TARGET: usize = 0x88;
const COUNT: usize = 0x90;
const COMMAND: usize = 0x98;
/// Commands: start, to memory.
const START: u64 = 1;
const TO_MEMORY: u64 = 2;
/// Where the buffer is in the engine's own address space.
const BUFFER: u64 = 0x4_0000;

/// Has the device copy a page of memory to another one.
fn check_dma(name: &str) -> Result<()> {
    const IOVA: u64 = 0x10_0000;
    let attached = Attached::new(name)?;
    let device = attached.group.device(name)?;
    Config::of(&device)?.enable()?;
    let bar = device.region(VFIO_PCI_BAR0_REGION_INDEX)?;
    let registers = device.map_region(&bar, 0, PAGE_SIZE)?;
    let memory = Memory::anonymous(2 * PAGE_SIZE)?;
    for at in (0..PAGE_SIZE).step_by(8) {
        memory.write_u64(at, fastrand::u64(1..));
    }
    attached.container.map(IOVA, &memory, MapFlags::ReadWrite)?;
    let copy = |source, target, command| -> Result<()> {
        registers.write_u64(SOURCE, source);
        registers.write_u64(TARGET, target);
        registers.write_u64(COUNT, PAGE_SIZE as u64);
        registers.write_u64(COMMAND, command);
        let start = Instant::now();
        while registers.read_u64(COMMAND) & START != 0 {
            ensure!(start.elapsed() < PATIENCE, "DMA never ends");
            sleep(Duration::from_millis(5));
        }
        Ok(())
    };
    copy(IOVA, BUFFER, START)?;
    copy(BUFFER, IOVA + PAGE_SIZE as u64, START | TO_MEMORY)?;
    for at in (0..PAGE_SIZE).step_by(8) {
        let (from, to) = (memory.read_u64(at), memory.read_u64(PAGE_SIZE + at));
        ensure!(from == to, "at {at:#x}: {from:#x} became {to:#x}");
    }
    Ok(())
}
