// SPDX-License-Identifier: GPL-2.0

//! Requests of drivers on user memory.

use super::{
    By,
    State,
    VFIO,
    copies,
    everything,
    state, //
};
use crate::{
    cases::stalled::{
        ASIDE,
        Ask,
        THERE,
        start_tracking,
        stop_tracking, //
    },
    harness::cases,
    pin::{
        self,
        Pinner,
        Pinning,
        READ,
        WRITE, //
    },
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use support::{
    PAGE,
    machine::{
        locked_kib,
        pinned_pages, //
    },
    requests::UnmapDma, //
};
use vfio_client::{
    Container,
    Device,
    Memory,
    PAGE_SIZE, //
};

cases! {
    #[requires(fault_injection)] first_open_of_pinning_device,
    #[requires(fault_injection)] pin_pages,
    #[requires(fault_injection)] unpin_pages,
    #[requires(fault_injection)] dma_rw,
    #[requires(fault_injection)] dma_rw_of_tracked_pages,
    #[requires(fault_injection)] pin_tracked_pages,
    #[requires(fault_injection)] dirty_start_with_pinned_pages,
    #[requires(fault_injection)] unmap_pinned_pages,
}

/// The container of a device whose driver pins pages, with a mapping in which one page is pinned.
pub(super) struct Emulated {
    pinning: Pinning,
    memory: Memory,
}

impl Emulated {
    pub(super) fn new() -> Result<Self> {
        let pinning = Pinning::new()?;
        let memory = Memory::anonymous(32 * PAGE_SIZE)?;
        Ok(Self { pinning, memory })
    }

    pub(super) fn container(&self) -> &Container {
        &self.pinning.container
    }

    /// Maps a range and pins two pages of it.
    pub(super) fn map_and_pin(&self) -> Result<()> {
        THERE.map(self.memory.addr()).ask(self.container())?;
        ASIDE.map(self.memory.addr()).ask(self.container())?;
        self.pinning
            .pinner
            .pin(THERE.iova + PAGE, 2, READ | WRITE)?;
        Ok(())
    }

    /// Unmaps everything. The driver is notified.
    pub(super) fn unmap_all(&self) -> Result<()> {
        let unmapped = UnmapDma::all().ask(self.container())?;
        ensure!(unmapped == 12, "expected 12 mapped pages, got {unmapped}");
        ensure!(
            self.pinning.pinner.pinned()? == 0,
            "the driver still has pinned pages"
        );
        Ok(())
    }

    pub(super) fn state(&self) -> Result<(i32, State)> {
        Ok((self.pinning.pinner.pinned()?, state(self.container())?))
    }
}

/// The driver is notified of unmaps from its first open on.
fn first_open_of_pinning_device() -> Result<()> {
    let Pinning {
        pinner,
        group,
        container,
    } = Pinning::new()?;
    drop(pinner);
    let memory = Memory::anonymous(32 * PAGE_SIZE)?;
    let operation = By {
        before: || Ok(()),
        request: |_: &()| Ok(pin::open_again(&group)?),
        state: |_: &()| state(&container),
        after: |(), device: Device| {
            let pinner = Pinner::from(device);
            THERE.map(memory.addr()).ask(&container)?;
            pinner
                .pin(THERE.iova, 2, READ)
                .context("the container does not know the driver")?;
            let unmapped = THERE
                .unmap()
                .ask(&container)
                .context("the driver was not notified")?;
            ensure!(
                unmapped == THERE.pages && pinner.pinned()? == 0,
                "{unmapped}"
            );
            Ok(())
        },
    };
    everything(VFIO, &operation)
}

fn pin_pages() -> Result<()> {
    let scene = Emulated::new()?;
    let operation = By {
        before: || scene.map_and_pin(),
        // Some of them are pinned already.
        request: |_: &()| Ok(scene.pinning.pinner.pin(THERE.iova, 8, READ | WRITE)?),
        state: |_: &()| Ok((locked_kib(), pinned_pages()?)),
        after: |(), (pinned, _)| {
            ensure!(
                (pinned, locked_kib()) == (8, 32),
                "expected 8 pinned pages, got {pinned}"
            );
            scene.unmap_all()
        },
    };
    everything(VFIO, &operation)
}

fn unpin_pages() -> Result<()> {
    let scene = Emulated::new()?;
    let operation = By {
        before: || scene.map_and_pin(),
        request: |_: &()| Ok(scene.pinning.pinner.unpin(THERE.iova, 8)?),
        state: |_: &()| Ok((locked_kib(), pinned_pages()?)),
        after: |(), _| {
            ensure!(locked_kib() == 0, "pages are still charged");
            scene.unmap_all()
        },
    };
    copies(VFIO, &operation)
}

/// Whether the allocation of the driver's own buffer counts depends on the compiler: the call of
/// the driver's function can be a jump, which leaves no frame of the core on the stack.
fn dma_rw() -> Result<()> {
    let scene = Emulated::new()?;
    THERE.map(scene.memory.addr()).ask(scene.container())?;
    let pinner = &scene.pinning.pinner;
    let operation = By {
        before: || Ok(()),
        request: |_: &()| {
            pinner.write(THERE.iova + 100, &[7; 5000])?;
            Ok(pinner.read(THERE.iova + 99, 3)?)
        },
        state: |_: &()| Ok((locked_kib(), pinned_pages()?)),
        after: |(), bytes| {
            ensure!(bytes == [0, 7, 7], "{bytes:?}");
            scene.memory.fill(0, 2 * PAGE_SIZE, 0);
            Ok(())
        },
    };
    copies(VFIO, &operation)
}

/// Returns the dirty pages of a mapping. The lowest bit stands for the first page.
fn dirty_pages(container: &Container) -> Result<u8> {
    let bits = Memory::anonymous(PAGE_SIZE)?;
    THERE.get_bitmap(bits.addr()).ask(container)?;
    Ok(bits.read_u8(0))
}

/// Starts dirty page tracking. No page is dirty, unless a driver has pinned some.
fn tracked(scene: &Emulated) -> Result<()> {
    THERE.map(scene.memory.addr()).ask(scene.container())?;
    start_tracking(scene.container())?;
    dirty_pages(scene.container())?;
    ensure!(
        dirty_pages(scene.container())? == 0,
        "expected no dirty pages"
    );
    Ok(())
}

/// Checks which pages are dirty and restores the initial state.
fn tracked_no_more(scene: &Emulated, expected: u8) -> Result<()> {
    let found = dirty_pages(scene.container())?;
    ensure!(
        found == expected,
        "expected the dirty pages {expected:#x}, got {found:#x}"
    );
    stop_tracking(scene.container())?;
    THERE.unmap().ask(scene.container())?;
    ensure!(locked_kib() == 0, "pages are still charged");
    Ok(())
}

/// No dirty page is lost because an allocation fails.
fn dma_rw_of_tracked_pages() -> Result<()> {
    let scene = Emulated::new()?;
    let pinner = &scene.pinning.pinner;
    let operation = By {
        before: || tracked(&scene),
        request: |_: &()| Ok(pinner.write(THERE.iova + PAGE + 100, &[7; 5000])?),
        state: |_: &()| scene.state(),
        after: |(), _| tracked_no_more(&scene, 0b110),
    };
    copies(VFIO, &operation)
}

fn pin_tracked_pages() -> Result<()> {
    let scene = Emulated::new()?;
    let pinner = &scene.pinning.pinner;
    let operation = By {
        before: || tracked(&scene),
        request: |_: &()| Ok(pinner.pin(THERE.iova + PAGE, 2, READ | WRITE)?),
        state: |_: &()| scene.state(),
        after: |(), _| {
            pinner.unpin(THERE.iova + PAGE, 2)?;
            tracked_no_more(&scene, 0b110)
        },
    };
    everything(VFIO, &operation)
}

/// Pages that a driver may write are dirty from the start.
fn dirty_start_with_pinned_pages() -> Result<()> {
    let scene = Emulated::new()?;
    let pinner = &scene.pinning.pinner;
    let operation = By {
        before: || {
            THERE.map(scene.memory.addr()).ask(scene.container())?;
            pinner.pin(THERE.iova + PAGE, 2, READ | WRITE)?;
            Ok(())
        },
        request: |_: &()| Ok(start_tracking(scene.container())?),
        state: |_: &()| scene.state(),
        after: |(), _| tracked_no_more(&scene, 0b110),
    };
    copies(VFIO, &operation)
}

/// The driver is notified and unpins the pages. If the request failed when it returned its result,
/// the mappings are already gone when it is sent again.
fn unmap_pinned_pages() -> Result<()> {
    let scene = Emulated::new()?;
    let operation = By {
        before: || scene.map_and_pin(),
        request: |_: &()| Ok(UnmapDma::all().ask(scene.container())?),
        state: |_: &()| scene.state(),
        after: |(), unmapped| {
            ensure!(
                unmapped == 12 || unmapped == 0,
                "expected 12 pages or none, got {unmapped}"
            );
            ensure!(
                scene.pinning.pinner.pinned()? == 0,
                "the driver still has pinned pages"
            );
            ensure!(locked_kib() == 0, "pages are still charged");
            Ok(())
        },
    };
    copies(VFIO, &operation)
}
