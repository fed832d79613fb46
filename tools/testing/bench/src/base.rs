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
    thread::sleep,
    time::{
        Duration,
        Instant, //
    },
};
use vfio_client::PAGE_SIZE;

/// The kernel frees some objects shortly after the last close.
const PATIENCE: Duration = Duration::from_secs(10);

/// The counters, and a device that was seen to do DMA.
pub struct Base {
    device: String,
    iommu_pages: u64,
    pins: u64,
}

impl Base {
    /// Checks that the device does DMA, and reads the counters.
    pub fn take(device: &str) -> Result<Self> {
        check_dma(device).context("DMA before measuring")?;
        Ok(Self {
            device: device.to_owned(),
            iommu_pages: iommu_pages()?,
            pins: pins()?,
        })
    }

    /// Fails if a counter differs from before, or the device does no DMA any more.
    pub fn check(self) -> Result<()> {
        check_dma(&self.device).context("DMA after measuring")?;
        let start = Instant::now();
        loop {
            let now = (iommu_pages()?, pins()?, locked_kib()?);
            let base = (self.iommu_pages, self.pins, 0);
            // An IOMMU driver may free memory that it had kept in reserve.
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

/// Returns the value of a line of /proc/vmstat.
fn vmstat(name: &str) -> Result<u64> {
    // Processors count separately for a while; this adds their counters up.
    let _ = fs::write("/proc/sys/vm/stat_refresh", "1");
    let text = fs::read_to_string("/proc/vmstat").context("/proc/vmstat")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(line.with_context(|| name.to_owned())?.parse()?)
}

/// Returns the number of pages used for IOMMU page tables.
pub fn iommu_pages() -> Result<u64> {
    vmstat("nr_iommu_pages")
}

/// Returns the number of pinned pages of the whole machine.
fn pins() -> Result<u64> {
    Ok(vmstat("nr_foll_pin_acquired")? - vmstat("nr_foll_pin_released")?)
}

/// Returns the locked memory of the process in KiB.
fn locked_kib() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmLck:"));
    let value = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    Ok(value.context("VmLck")?.parse()?)
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
