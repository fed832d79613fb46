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
        ALL,
        ASIDE,
        Dma,
        PAGE,
        START,
        STOP,
        THERE,
        VADDR,
        dirty,
        get_bitmap,
        give_address,
        map,
        unmap,
        unmap_with_bitmap, //
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
    harness::cases,
};
use anyhow::{
    Result,
    ensure, //
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
    #[fault_injection]
    t_m14_map_dma,
    #[fault_injection]
    t_m20_page_tables,
    #[fault_injection]
    unmap_dma,
    #[fault_injection]
    unmap_all,
    #[fault_injection_on_our_type1]
    unmap_dma_with_bitmap,
    #[fault_injection]
    invalidate_vaddr,
    #[fault_injection]
    update_vaddr,
    #[fault_injection]
    dirty_start,
    #[fault_injection]
    dirty_stop,
    #[fault_injection]
    dirty_get_bitmap,
    #[fault_injection]
    get_info,
}

pub(super) const EVERYTHING: Dma = Dma { iova: 0, pages: 0 };

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

    pub(super) fn map(&self, dma: Dma) -> Result<()> {
        map(&self.container, dma, self.memory.addr())?;
        Ok(())
    }

    pub(super) fn unmap_all(&self) -> Result<u64> {
        Ok(unmap(&self.container, EVERYTHING, ALL)?)
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
                assert_eq!(state(&self.container)?, empty, "left behind");
                Ok(())
            },
        })
    }
}

fn t_m14_map_dma() -> Result<()> {
    let scene = Scene::new()?;
    let after = |_| {
        ensure!(scene.unmap_all()? == THERE.pages, "a part was mapped");
        Ok(())
    };
    let request = |container: &Container| Ok(map(container, THERE, scene.memory.addr())?);
    everything(VFIO, &scene.operation(|| Ok(()), request, after)?)
}

/// The request returns the errno of the IOMMU driver.
fn t_m20_page_tables() -> Result<()> {
    let operation = By {
        // Page tables may outlive their mappings.
        before: Scene::new,
        request: |scene: &Scene| {
            let answer = map(&scene.container, THERE, scene.memory.addr());
            ensure!(
                matches!(answer, Ok(_) | Err(Errno::ENOMEM)),
                "it fails with {answer:?}"
            );
            Ok(answer?)
        },
        state: |scene: &Scene| state(&scene.container),
        after: |scene: Scene, _| {
            ensure!(scene.unmap_all()? == THERE.pages, "a part was mapped");
            Ok(())
        },
    };
    let below = Below::function("iommu_map");
    let failures = each_failure(Failing::Allocations, below, &operation)?;
    ensure!(failures.passed_on >= 2, "there are no tables");
    Ok(())
}

/// Unmaps two of three mappings, or all, by `request`. If the request failed when it returned its
/// result, the mappings are already gone when it is sent again.
fn unmap_by(scene: &Scene, request: impl Fn(&Container) -> Result<u64>, pages: u64) -> Result<()> {
    let before = || {
        let half = Dma { pages: 4, ..THERE };
        scene.map(half)?;
        let iova = THERE.iova + 4 * PAGE;
        scene.map(Dma { iova, ..half })?;
        scene.map(ASIDE)
    };
    let after = |unmapped: u64| {
        let left = 12 - pages;
        ensure!(unmapped == pages || unmapped == 0, "{unmapped} pages");
        ensure!(scene.unmap_all()? == left, "another mapping was unmapped");
        Ok(())
    };
    copies(VFIO, &scene.operation(before, request, after)?)
}

fn unmap_dma() -> Result<()> {
    unmap_by(
        &Scene::new()?,
        |container| Ok(unmap(container, THERE, 0)?),
        8,
    )
}

fn unmap_all() -> Result<()> {
    unmap_by(
        &Scene::new()?,
        |container| Ok(unmap(container, EVERYTHING, ALL)?),
        12,
    )
}

fn unmap_dma_with_bitmap() -> Result<()> {
    let scene = Scene::new()?;
    dirty(&scene.container, START)?;
    let bits = Memory::anonymous(PAGE_SIZE)?;
    let request = |container: &Container| Ok(unmap_with_bitmap(container, THERE, bits.addr())?);
    unmap_by(&scene, request, 8)
}

fn invalidate_vaddr() -> Result<()> {
    let scene = Scene::new()?;
    let request = |container: &Container| match unmap(container, THERE, VADDR) {
        // The previous request did its work and failed when it returned its result.
        Err(Errno::EINVAL) => Ok(THERE.pages),
        other => Ok(other?),
    };
    let after = |pages| {
        ensure!(pages == THERE.pages, "{pages} pages");
        give_address(&scene.container, THERE, scene.memory.addr())?;
        scene.unmap_all().map(drop)
    };
    copies(VFIO, &scene.operation(|| scene.map(THERE), request, after)?)
}

fn update_vaddr() -> Result<()> {
    let scene = Scene::new()?;
    let before = || {
        scene.map(THERE)?;
        unmap(&scene.container, THERE, VADDR)?;
        Ok(())
    };
    let request = |container: &Container| Ok(give_address(container, THERE, scene.memory.addr())?);
    let after = |_| scene.unmap_all().map(drop);
    copies(VFIO, &scene.operation(before, request, after)?)
}

/// Returns whether dirty page tracking is active.
fn tracks(container: &Container) -> Result<bool> {
    let bits = Memory::anonymous(PAGE_SIZE)?;
    Ok(get_bitmap(container, THERE, bits.addr()).is_ok())
}

fn dirty_start() -> Result<()> {
    let scene = Scene::new()?;
    let operation = By {
        before: || {
            scene.map(THERE)?;
            scene.map(ASIDE)
        },
        request: |_: &()| Ok(dirty(&scene.container, START)?),
        state: |_: &()| Ok((tracks(&scene.container)?, state(&scene.container)?)),
        after: |(), _| {
            ensure!(tracks(&scene.container)?, "it does not keep track");
            dirty(&scene.container, STOP)?;
            ensure!(scene.unmap_all()? == 12, "a mapping is gone");
            Ok(())
        },
    };
    everything(VFIO, &operation)
}

fn dirty_stop() -> Result<()> {
    let scene = Scene::new()?;
    let before = || {
        scene.map(THERE)?;
        dirty(&scene.container, START)?;
        Ok(())
    };
    let request = |container: &Container| Ok(dirty(container, STOP)?);
    let after = |_| {
        ensure!(!tracks(&scene.container)?, "it still keeps track");
        scene.unmap_all().map(drop)
    };
    copies(VFIO, &scene.operation(before, request, after)?)
}

fn dirty_get_bitmap() -> Result<()> {
    let scene = Scene::new()?;
    let bits = Memory::anonymous(PAGE_SIZE)?;
    dirty(&scene.container, START)?;
    let request = |container: &Container| Ok(get_bitmap(container, THERE, bits.addr())?);
    let after = |_| {
        ensure!(bits.read_u8(0) == 0xff, "pages became clean");
        bits.fill(0, PAGE_SIZE, 0);
        scene.unmap_all().map(drop)
    };
    copies(VFIO, &scene.operation(|| scene.map(THERE), request, after)?)
}

fn get_info() -> Result<()> {
    let scene = Scene::new()?;
    let request = |container: &Container| Ok(container.info()?.caps.len());
    let after = |caps| {
        ensure!(caps >= 3, "only {caps} capabilities");
        Ok(())
    };
    everything(VFIO, &scene.operation(|| Ok(()), request, after)?)
}
