// SPDX-License-Identifier: GPL-2.0

//! Mapping requests to a container.

use super::{
    By,
    VFIO,
    copies,
    everything,
    state, //
};
use crate::{
    cases::stalled::{
        ASIDE,
        Ask,
        Range,
        THERE,
        start_tracking,
        stop_tracking, //
    },
    env::{
        EDU,
        attached, //
    },
    fail_nth::{
        Below,
        Failing,
        Operation,
        each_failure, //
    },
    harness::cases, //
};
use anyhow::{
    Result,
    ensure, //
};
use support::{
    PAGE,
    requests::UnmapDma, //
};
use vfio_client::{
    Container,
    Errno,
    Group,
    Iommu,
    Memory,
    PAGE_SIZE, //
};

cases! {
    #[rows("T-M14")] #[requires(fault_injection)] map_dma,
    #[rows("T-M20")] #[requires(fault_injection)] map_dma_page_tables,
    #[requires(fault_injection)] unmap_dma,
    #[requires(fault_injection)] unmap_all,
    #[requires(fault_injection, type1(Rust))] unmap_dma_with_bitmap,
    #[requires(fault_injection)] invalidate_vaddr,
    #[requires(fault_injection)] update_vaddr,
    #[requires(fault_injection)] dirty_start,
    #[requires(fault_injection)] dirty_stop,
    #[requires(fault_injection)] dirty_get_bitmap,
    #[requires(fault_injection)] get_info,
}

/// A container with a group behind an IOMMU, and memory.
pub(super) struct Scene {
    pub(super) container: Container,
    pub(super) group: Group,
    pub(super) memory: Memory,
}

impl Scene {
    pub(super) fn new() -> Result<Self> {
        let (container, group) = attached(EDU, Iommu::Type1v2)?;
        let memory = Memory::anonymous(32 * PAGE_SIZE)?;
        Ok(Self {
            container,
            group,
            memory,
        })
    }

    pub(super) fn map(&self, dma: Range) -> Result<()> {
        dma.map(self.memory.addr()).ask(&self.container)?;
        Ok(())
    }

    pub(super) fn unmap_all(&self) -> Result<u64> {
        Ok(UnmapDma::all().ask(&self.container)?)
    }

    /// Builds an operation from a request to the container. `before` and `after` run around it. In
    /// the end nothing is mapped.
    fn operation<'a, T: std::fmt::Debug>(
        &'a self,
        before: impl Fn() -> Result<()> + 'a,
        request: impl Fn(&Container) -> Result<T> + 'a,
        after: impl Fn(T) -> Result<()> + 'a,
    ) -> Result<impl Operation + 'a> {
        let empty = state(&self.container)?;
        Ok(By {
            before,
            request: move |_: &()| request(&self.container),
            state: |_: &()| state(&self.container),
            after: move |(), answer| {
                after(answer)?;
                assert_eq!(
                    state(&self.container)?,
                    empty,
                    "state after everything was unmapped"
                );
                Ok(())
            },
        })
    }
}

fn map_dma() -> Result<()> {
    let scene = Scene::new()?;
    let after = |_| {
        ensure!(
            scene.unmap_all()? == THERE.pages,
            "expected the whole range to be mapped"
        );
        Ok(())
    };
    let request = |container: &Container| Ok(THERE.map(scene.memory.addr()).ask(container)?);
    everything(VFIO, &scene.operation(|| Ok(()), request, after)?)
}

/// The request returns the errno of the IOMMU driver.
fn map_dma_page_tables() -> Result<()> {
    let operation = By {
        // Page tables may outlive their mappings.
        before: Scene::new,
        request: |scene: &Scene| {
            let answer = THERE.map(scene.memory.addr()).ask(&scene.container);
            ensure!(
                matches!(answer, Ok(_) | Err(Errno::ENOMEM)),
                "expected success or ENOMEM, got {answer:?}"
            );
            Ok(answer?)
        },
        state: |scene: &Scene| state(&scene.container),
        after: |scene: Scene, _| {
            ensure!(
                scene.unmap_all()? == THERE.pages,
                "expected the whole range to be mapped"
            );
            Ok(())
        },
    };
    let below = Below::function("iommu_map");
    let failures = each_failure(Failing::Allocations, below, &operation)?;
    ensure!(
        failures.passed_on >= 2,
        "expected page tables of at least two levels"
    );
    Ok(())
}

/// Unmaps two of three mappings, or all, by `request`. If the request failed when it returned its
/// result, the mappings are already gone when it is sent again.
fn unmap_by(scene: &Scene, request: impl Fn(&Container) -> Result<u64>, pages: u64) -> Result<()> {
    let before = || {
        let half = Range { pages: 4, ..THERE };
        scene.map(half)?;
        let iova = THERE.iova + 4 * PAGE;
        scene.map(Range { iova, ..half })?;
        scene.map(ASIDE)
    };
    let after = |unmapped: u64| {
        let left = 12 - pages;
        ensure!(
            unmapped == pages || unmapped == 0,
            "expected {pages} pages or none, got {unmapped}"
        );
        ensure!(
            scene.unmap_all()? == left,
            "expected {left} pages to be left"
        );
        Ok(())
    };
    copies(VFIO, &scene.operation(before, request, after)?)
}

fn unmap_dma() -> Result<()> {
    unmap_by(
        &Scene::new()?,
        |container| Ok(THERE.unmap().ask(container)?),
        8,
    )
}

fn unmap_all() -> Result<()> {
    unmap_by(
        &Scene::new()?,
        |container| Ok(UnmapDma::all().ask(container)?),
        12,
    )
}

fn unmap_dma_with_bitmap() -> Result<()> {
    let scene = Scene::new()?;
    start_tracking(&scene.container)?;
    let bits = Memory::anonymous(PAGE_SIZE)?;
    let request =
        |container: &Container| Ok(THERE.unmap_with_bitmap(bits.addr()).ask(container)?);
    unmap_by(&scene, request, 8)
}

fn invalidate_vaddr() -> Result<()> {
    let scene = Scene::new()?;
    let request = |container: &Container| match THERE.invalidate_vaddr().ask(container) {
        // The previous request did its work and failed when it returned its result.
        Err(Errno::EINVAL) => Ok(THERE.pages),
        other => Ok(other?),
    };
    let after = |pages| {
        ensure!(
            pages == THERE.pages,
            "expected {} pages, got {pages}",
            THERE.pages
        );
        THERE
            .update_vaddr(scene.memory.addr())
            .ask(&scene.container)?;
        scene.unmap_all().map(drop)
    };
    copies(VFIO, &scene.operation(|| scene.map(THERE), request, after)?)
}

fn update_vaddr() -> Result<()> {
    let scene = Scene::new()?;
    let before = || {
        scene.map(THERE)?;
        THERE.invalidate_vaddr().ask(&scene.container)?;
        Ok(())
    };
    let request =
        |container: &Container| Ok(THERE.update_vaddr(scene.memory.addr()).ask(container)?);
    let after = |_| scene.unmap_all().map(drop);
    copies(VFIO, &scene.operation(before, request, after)?)
}

/// Returns whether dirty page tracking is active.
fn tracks(container: &Container) -> Result<bool> {
    let bits = Memory::anonymous(PAGE_SIZE)?;
    Ok(THERE.get_bitmap(bits.addr()).ask(container).is_ok())
}

fn dirty_start() -> Result<()> {
    let scene = Scene::new()?;
    let operation = By {
        before: || {
            scene.map(THERE)?;
            scene.map(ASIDE)
        },
        request: |_: &()| Ok(start_tracking(&scene.container)?),
        state: |_: &()| Ok((tracks(&scene.container)?, state(&scene.container)?)),
        after: |(), _| {
            ensure!(tracks(&scene.container)?, "tracking is off after START");
            stop_tracking(&scene.container)?;
            ensure!(scene.unmap_all()? == 12, "expected 12 mapped pages");
            Ok(())
        },
    };
    everything(VFIO, &operation)
}

fn dirty_stop() -> Result<()> {
    let scene = Scene::new()?;
    let before = || {
        scene.map(THERE)?;
        start_tracking(&scene.container)?;
        Ok(())
    };
    let request = |container: &Container| Ok(stop_tracking(container)?);
    let after = |_| {
        ensure!(!tracks(&scene.container)?, "tracking is on after STOP");
        scene.unmap_all().map(drop)
    };
    copies(VFIO, &scene.operation(before, request, after)?)
}

fn dirty_get_bitmap() -> Result<()> {
    let scene = Scene::new()?;
    let bits = Memory::anonymous(PAGE_SIZE)?;
    start_tracking(&scene.container)?;
    let request = |container: &Container| Ok(THERE.get_bitmap(bits.addr()).ask(container)?);
    let after = |_| {
        ensure!(bits.read_u8(0) == 0xff, "expected all pages to stay dirty");
        bits.fill(0, PAGE_SIZE, 0);
        scene.unmap_all().map(drop)
    };
    copies(VFIO, &scene.operation(|| scene.map(THERE), request, after)?)
}

fn get_info() -> Result<()> {
    let scene = Scene::new()?;
    let request = |container: &Container| Ok(container.info()?.caps.len());
    let after = |caps| {
        ensure!(caps >= 3, "expected at least 3 capabilities, got {caps}");
        Ok(())
    };
    everything(VFIO, &scene.operation(|| Ok(()), request, after)?)
}
