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
