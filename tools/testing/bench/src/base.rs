// SPDX-License-Identifier: GPL-2.0

//! What must be the same after measuring as before, and that DMA goes where it should.

use crate::{
    edu,
    memory::{
        Filled,
        Kind, //
    },
};
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
use vfio_client::PAGE_SIZE;

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

/// Has the device copy to and from a page.
fn check_dma(device: &str) -> Result<()> {
    let memory = Filled::new(Kind::Pages, PAGE_SIZE)?;
    edu::check(device, &memory, PAGE_SIZE as u64)
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
