// SPDX-License-Identifier: GPL-2.0

//! Memory runs out at each allocation in turn while a driver pins pages.

use super::faults::at_every_allocation;
use crate::{
    harness::cases,
    pin::{
        self,
        IOVA,
        Pinning,
        READ,
        WRITE,
        mapped, //
    },
};
use anyhow::Result;
use support::{
    PAGE,
    machine::locked_pages, //
};
use vfio_client::{
    MapFlags,
    Memory,
    PAGE_SIZE, //
};

cases! {
    #[rows("T-X1")] #[requires(fault_injection)] pin_pages,
    #[rows("T-X4")] #[requires(fault_injection)] unpin_pages,
    #[rows("T-X5")] #[requires(fault_injection)] dma_rw,
    #[rows("T-X6")] #[requires(fault_injection)] unmap_pinned_pages,
    #[requires(fault_injection)] open_device,
    #[rows("M4")] #[requires(fault_injection, driver(Rust))] create_mdev,
}

/// The pages that the cases pin. The backend records them in several places.
const FIRST: u64 = IOVA + 14 * PAGE;
const COUNT: u32 = 4;

/// Unpins remaining pages when dropped. Nothing may be charged after that.
struct Pinned<'a>(&'a Pinning);

impl Drop for Pinned<'_> {
    fn drop(&mut self) {
        let unpinned = self.0.pinner.unpin(FIRST, COUNT);
        assert_eq!((unpinned, locked_pages()), (Ok(0), 0));
    }
}

fn pin_some(pinning: &Pinning) -> Result<Pinned<'_>> {
    let pinned = Pinned(pinning);
    pinning.pinner.pin(FIRST, COUNT, READ | WRITE)?;
    Ok(pinned)
}

fn pin_pages() -> Result<()> {
    let (pinning, _memory) = mapped(32)?;
    at_every_allocation(|| pin_some(&pinning))
}

/// Unpinning allocates no memory.
fn unpin_pages() -> Result<()> {
    let (pinning, _memory) = mapped(32)?;
    at_every_allocation(|| {
        let pinned = pin_some(&pinning)?;
        pinning.pinner.unpin(FIRST, COUNT)?;
        anyhow::Ok(pinned)
    })
}

fn dma_rw() -> Result<()> {
    let (pinning, _memory) = mapped(32)?;
    let pinner = &pinning.pinner;
    at_every_allocation(|| {
        pinner.write(IOVA + 100, &[7; 5000])?;
        assert_eq!(pinner.read(IOVA + 99, 3)?, [0, 7, 7]);
        pinner.write(IOVA + 100, &[0; 5000])
    })
}

/// The driver is notified of the unmap and unpins its pages.
fn unmap_pinned_pages() -> Result<()> {
    struct Mapped<'a>(&'a Pinning);
    impl Drop for Mapped<'_> {
        fn drop(&mut self) {
            let unmapped = self.0.container.unmap_all();
            assert!(unmapped.is_ok(), "{unmapped:?}");
            assert_eq!((self.0.pinner.pinned(), locked_pages()), (Ok(0), 0));
        }
    }
    let pinning = Pinning::new()?;
    let memory = Memory::anonymous(32 * PAGE_SIZE)?;
    at_every_allocation(|| {
        let mapped = Mapped(&pinning);
        pinning.container.map(IOVA, &memory, MapFlags::ReadWrite)?;
        pinning.pinner.pin(FIRST, COUNT, READ | WRITE)?;
        pinning.container.unmap(IOVA, 32 * PAGE)?;
        anyhow::Ok(mapped)
    })
}

/// From the first open of the group to pinning pages of user memory.
fn open_device() -> Result<()> {
    let memory = Memory::anonymous(PAGE_SIZE)?;
    at_every_allocation(|| {
        let pinning = Pinning::new()?;
        pinning.container.map(0, &memory, MapFlags::ReadWrite)?;
        pinning.pinner.pin(0, 1, READ)?;
        anyhow::Ok(pinning)
    })
}

fn create_mdev() -> Result<()> {
    at_every_allocation(pin::another)
}
