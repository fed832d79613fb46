// SPDX-License-Identifier: GPL-2.0

//! Requests of drivers on user memory.

use super::{
    By,
    State,
    VFIO,
    copies,
    everything,
    mappings::EVERYTHING,
    state, //
};
use crate::{
    cases::stalled::{
        ALL,
        ASIDE,
        PAGE,
        START,
        STOP,
        THERE,
        dirty,
        get_bitmap,
        map,
        unmap, //
    },
    harness::cases,
    leak::{
        locked_kib,
        pinned_pages, //
    },
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
use vfio_client::{
    Container,
    Device,
    Memory,
    PAGE_SIZE, //
};

cases! {
    #[fault_injection]
    first_open_of_a_device_that_pins,
    #[fault_injection]
    driver_pins,
    #[fault_injection]
    driver_unpins,
    #[fault_injection]
    driver_reads_and_writes,
    #[fault_injection]
    driver_writes_what_is_tracked,
    #[fault_injection]
    driver_pins_what_is_tracked,
    #[fault_injection]
    dirty_start_with_pinned_pages,
    #[fault_injection]
    unmap_of_what_a_driver_pinned,
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
        map(self.container(), THERE, self.memory.addr())?;
        map(self.container(), ASIDE, self.memory.addr())?;
        self.pinning
            .pinner
            .pin(THERE.iova + PAGE, 2, READ | WRITE)?;
        Ok(())
    }

    /// Unmaps everything. The driver is notified.
    pub(super) fn unmap_all(&self) -> Result<()> {
        let unmapped = unmap(self.container(), EVERYTHING, ALL)?;
        ensure!(unmapped == 12, "{unmapped} pages were mapped");
        ensure!(self.pinning.pinner.pinned()? == 0, "the driver keeps pages");
        Ok(())
    }

    pub(super) fn state(&self) -> Result<(i32, State)> {
        Ok((self.pinning.pinner.pinned()?, state(self.container())?))
    }
}

/// The driver is notified of unmaps from its first open on.
fn first_open_of_a_device_that_pins() -> Result<()> {
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
            map(&container, THERE, memory.addr())?;
            pinner
                .pin(THERE.iova, 2, READ)
                .context("a driver that nobody knows")?;
            let unmapped = unmap(&container, THERE, 0).context("a driver that is not told")?;
            ensure!(
                unmapped == THERE.pages && pinner.pinned()? == 0,
                "{unmapped}"
            );
            Ok(())
        },
    };
    everything(VFIO, &operation)
}

fn driver_pins() -> Result<()> {
    let scene = Emulated::new()?;
    let operation = By {
        before: || scene.map_and_pin(),
        // Some of them are pinned already.
        request: |_: &()| Ok(scene.pinning.pinner.pin(THERE.iova, 8, READ | WRITE)?),
        state: |_: &()| Ok((locked_kib(), pinned_pages()?)),
        after: |(), (pinned, _)| {
            ensure!((pinned, locked_kib()) == (8, 32), "{pinned} pages");
            scene.unmap_all()
        },
    };
    everything(VFIO, &operation)
}

fn driver_unpins() -> Result<()> {
    let scene = Emulated::new()?;
    let operation = By {
        before: || scene.map_and_pin(),
        request: |_: &()| Ok(scene.pinning.pinner.unpin(THERE.iova, 8)?),
        state: |_: &()| Ok((locked_kib(), pinned_pages()?)),
        after: |(), _| {
            ensure!(locked_kib() == 0, "pages stay charged");
            scene.unmap_all()
        },
    };
    copies(VFIO, &operation)
}

fn driver_reads_and_writes() -> Result<()> {
    let scene = Emulated::new()?;
    map(scene.container(), THERE, scene.memory.addr())?;
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
    everything(VFIO, &operation)
}

/// Returns the dirty pages of a mapping. The lowest bit stands for the first page.
fn dirty_pages(container: &Container) -> Result<u8> {
    let bits = Memory::anonymous(PAGE_SIZE)?;
    get_bitmap(container, THERE, bits.addr())?;
    Ok(bits.read_u8(0))
}

/// Starts dirty page tracking. No page is dirty, unless a driver has pinned some.
fn tracked(scene: &Emulated) -> Result<()> {
    map(scene.container(), THERE, scene.memory.addr())?;
    dirty(scene.container(), START)?;
    dirty_pages(scene.container())?;
    ensure!(dirty_pages(scene.container())? == 0, "pages are dirty");
    Ok(())
}

/// Checks which pages are dirty and restores the initial state.
fn tracked_no_more(scene: &Emulated, expected: u8) -> Result<()> {
    let found = dirty_pages(scene.container())?;
    ensure!(found == expected, "{found:#x} are dirty, not {expected:#x}");
    dirty(scene.container(), STOP)?;
    unmap(scene.container(), THERE, 0)?;
    ensure!(locked_kib() == 0, "pages stay charged");
    Ok(())
}

/// No dirty page is lost because an allocation fails.
fn driver_writes_what_is_tracked() -> Result<()> {
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

fn driver_pins_what_is_tracked() -> Result<()> {
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
            map(scene.container(), THERE, scene.memory.addr())?;
            pinner.pin(THERE.iova + PAGE, 2, READ | WRITE)?;
            Ok(())
        },
        request: |_: &()| Ok(dirty(scene.container(), START)?),
        state: |_: &()| scene.state(),
        after: |(), _| tracked_no_more(&scene, 0b110),
    };
    copies(VFIO, &operation)
}

/// The driver is notified and unpins the pages. If the request failed when it returned its result,
/// the mappings are already gone when it is sent again.
fn unmap_of_what_a_driver_pinned() -> Result<()> {
    let scene = Emulated::new()?;
    let operation = By {
        before: || scene.map_and_pin(),
        request: |_: &()| Ok(unmap(scene.container(), EVERYTHING, ALL)?),
        state: |_: &()| scene.state(),
        after: |(), unmapped| {
            ensure!(unmapped == 12 || unmapped == 0, "{unmapped} pages");
            ensure!(
                scene.pinning.pinner.pinned()? == 0,
                "the driver keeps pages"
            );
            ensure!(locked_kib() == 0, "pages stay charged");
            Ok(())
        },
    };
    copies(VFIO, &operation)
}
