// SPDX-License-Identifier: GPL-2.0

//! Checks that the counters are the same before and after the measurements, and that DMA works.

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
    time::Duration, //
};
use support::machine::{
    locked_kib_of,
    pinned_pages,
    vmstat, //
};
use vfio_client::{
    PAGE_SIZE,
    wait::until, //
};

/// The kernel frees some objects shortly after the last close.
const PATIENCE: Duration = Duration::from_secs(10);

/// The counters, and a device that was seen to do DMA.
pub struct Base {
    device: String,
    iommu_pages: u64,
    pins: i64,
}

impl Base {
    /// Checks that the device does DMA, and reads the counters.
    pub fn take(device: &str) -> Result<Self> {
        check_dma(device).context("DMA before measuring")?;
        Ok(Self {
            device: device.to_owned(),
            iommu_pages: iommu_pages()?,
            pins: pinned_pages()?,
        })
    }

    /// Fails if a counter differs from before, or the device does no DMA any more.
    pub fn check(self) -> Result<()> {
        check_dma(&self.device).context("DMA after measuring")?;
        let base = (self.iommu_pages, self.pins, 0);
        let mut now = base;
        let settled = until(PATIENCE, || -> Result<bool> {
            now = (iommu_pages()?, pinned_pages()?, locked_kib_of("self")?);
            // An IOMMU driver may free memory that it had kept in reserve.
            Ok(now.0 <= base.0 && now.1 == base.1 && now.2 == base.2)
        })?;
        ensure!(
            settled,
            "pages of page tables, pinned pages, locked KiB: were {base:?}, are {now:?}"
        );
        Ok(())
    }
}

/// Returns the number of pages used for IOMMU page tables.
pub fn iommu_pages() -> Result<u64> {
    vmstat("nr_iommu_pages")
}

/// Makes the device copy from and to a page.
fn check_dma(device: &str) -> Result<()> {
    let memory = Filled::new(Kind::Pages, PAGE_SIZE)?;
    edu::check(device, &memory, PAGE_SIZE as u64)
}

/// Returns the total size of all active slab objects in bytes.
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

/// Returns how many bytes of memory the kernel uses for its own objects, without page tables of
/// IOMMUs: slab objects, allocations that are too large for a slab, and those by `vmalloc()`.
pub fn kernel_bytes() -> Result<u64> {
    let slabs = slab_pages()?;
    let pages = vmstat("nr_slab_reclaimable")? + vmstat("nr_slab_unreclaimable")?;
    let large = pages.saturating_sub(slabs) * PAGE_SIZE as u64;
    Ok(slab_bytes()? + large + meminfo("VmallocUsed")?)
}

/// Returns the number of pages of all slabs.
fn slab_pages() -> Result<u64> {
    let text = fs::read_to_string("/proc/slabinfo").context("/proc/slabinfo")?;
    text.lines()
        .skip(2)
        .map(|line| {
            let (_, data) = line.split_once(": slabdata").context("slabinfo")?;
            let slabs: u64 = word(data, 1)?;
            let pages: u64 = word(line, 5)?;
            Ok(slabs * pages)
        })
        .sum()
}

/// Returns a number of a line.
fn word(line: &str, nth: usize) -> Result<u64> {
    let word = line.split_ascii_whitespace().nth(nth);
    Ok(word.context("slabinfo")?.parse()?)
}

/// Returns a line of /proc/meminfo in bytes.
pub fn meminfo(name: &str) -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let kibibytes: u64 = text
        .lines()
        .find_map(|line| {
            let size = line.strip_prefix(name)?.strip_prefix(':')?;
            size.strip_suffix(" kB")
        })
        .with_context(|| name.to_owned())?
        .trim()
        .parse()?;
    Ok(kibibytes * 1024)
}
