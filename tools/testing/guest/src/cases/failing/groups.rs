// SPDX-License-Identifier: GPL-2.0

//! Adding groups to a container and removing them.

use super::{
    By,
    VFIO,
    drivers::Emulated,
    endures,
    everything,
    mappings::Scene,
    state, //
};
use crate::{
    cases::stalled::THERE,
    env::{
        EDU,
        NVME,
        group, //
    },
    fail_nth::Below,
    harness::cases, //
};
use anyhow::{
    Result,
    ensure, //
};
use std::cell::RefCell;
use support::machine::{
    locked_kib,
    pinned_pages, //
};
use vfio_client::{
    Container,
    Iommu, //
};

cases! {
    #[requires(fault_injection)] set_iommu,
    #[requires(fault_injection)] set_container_of_a_second_group,
    #[requires(fault_injection)] unset_container_of_a_second_group,
    #[requires(fault_injection)] set_container_maps_existing_mappings,
    #[requires(fault_injection)] unset_container_keeps_pinned_pages,
    #[requires(fault_injection)] unset_container_of_the_last_group,
    #[requires(fault_injection)] close_of_all_files,
}

/// The kernel warns when it cannot return a group to the host's domain.
const KEPT: Below = VFIO.but_for("iommu_group_release_dma_owner");

fn set_iommu() -> Result<()> {
    let (container, group) = (Container::open()?, group(EDU)?);
    let operation = By {
        before: || Ok(group.set_container(&container)?),
        request: |_: &()| Ok(container.set_iommu(Iommu::Type1v2)?),
        state: |_: &()| Ok((group.status()?, container.info().is_ok())),
        after: |(), ()| {
            ensure!(container.info()?.caps.len() >= 3, "it has no backend");
            Ok(group.unset_container()?)
        },
    };
    everything(KEPT, &operation)
}

fn set_container_of_a_second_group() -> Result<()> {
    let scene = Scene::new()?;
    let second = group(NVME)?;
    let operation = By {
        before: || scene.map(THERE),
        request: |_: &()| Ok(second.set_container(&scene.container)?),
        state: |_: &()| Ok((second.status()?, state(&scene.container)?)),
        after: |(), ()| {
            second.unset_container()?;
            ensure!(scene.unmap_all()? == THERE.pages, "a mapping is gone");
            Ok(())
        },
    };
    everything(VFIO, &operation)
}

fn unset_container_of_a_second_group() -> Result<()> {
    let scene = Scene::new()?;
    let second = group(NVME)?;
    let empty = state(&scene.container)?;
    let operation = By {
        before: || {
            second.set_container(&scene.container)?;
            scene.map(THERE)
        },
        request: |_: &()| Ok(second.unset_container()?),
        state: |_: &()| Ok((second.status()?, state(&scene.container)?)),
        after: |(), ()| {
            ensure!(second.status()? == 1, "it stays in the container");
            ensure!(scene.unmap_all()? == THERE.pages, "a mapping is gone");
            assert_eq!(state(&scene.container)?, empty, "left behind");
            Ok(())
        },
    };
    endures(KEPT, &operation)
}

fn unset_container_of_the_last_group() -> Result<()> {
    let pinned = pinned_pages()?;
    let operation = By {
        before: || {
            let scene = Scene::new()?;
            scene.map(THERE)?;
            Ok(scene)
        },
        request: |scene: &Scene| Ok(scene.group.unset_container()?),
        state: |scene: &Scene| Ok((scene.group.status()?, state(&scene.container)?)),
        after: |scene: Scene, ()| {
            ensure!(scene.group.status()? == 1, "it stays in the container");
            assert_eq!((locked_kib(), pinned_pages()?), (0, pinned), "left behind");
            Ok(())
        },
    };
    endures(KEPT, &operation)
}

fn set_container_maps_existing_mappings() -> Result<()> {
    let scene = Emulated::new()?;
    let empty = scene.state()?;
    let edu = group(EDU)?;
    let operation = By {
        before: || scene.map_and_pin(),
        request: |_: &()| Ok(edu.set_container(scene.container())?),
        state: |_: &()| Ok((edu.status()?, scene.state()?)),
        after: |(), ()| {
            ensure!(locked_kib() == 48, "pages are not charged");
            edu.unset_container()?;
            ensure!(locked_kib() == 8, "only what the driver has pinned");
            scene.unmap_all()?;
            assert_eq!(scene.state()?, empty, "left behind");
            Ok(())
        },
    };
    everything(VFIO, &operation)
}

fn unset_container_keeps_pinned_pages() -> Result<()> {
    let scene = Emulated::new()?;
    let empty = scene.state()?;
    let edu = group(EDU)?;
    let operation = By {
        before: || {
            edu.set_container(scene.container())?;
            scene.map_and_pin()
        },
        request: |_: &()| Ok(edu.unset_container()?),
        state: |_: &()| Ok((edu.status()?, scene.state()?)),
        after: |(), ()| {
            ensure!(edu.status()? == 1, "it stays in the container");
            ensure!(locked_kib() == 8, "{} KiB are charged", locked_kib());
            // Nothing of the IOMMU's domain is left, so all pages are charged again.
            edu.set_container(scene.container())?;
            ensure!(locked_kib() == 48, "{} KiB are charged", locked_kib());
            edu.unset_container()?;
            scene.unmap_all()?;
            assert_eq!(scene.state()?, empty, "left behind");
            Ok(())
        },
    };
    endures(KEPT, &operation)
}

/// Closing all files releases the container with its mappings and its group.
fn close_of_all_files() -> Result<()> {
    let pinned = pinned_pages()?;
    let operation = By {
        before: || {
            let scene = Scene::new()?;
            scene.map(THERE)?;
            Ok(RefCell::new(Some(scene)))
        },
        request: |scene: &RefCell<Option<Scene>>| {
            scene.take();
            Ok(())
        },
        state: |_: &RefCell<Option<Scene>>| Ok(()),
        after: |_, ()| {
            assert_eq!((locked_kib(), pinned_pages()?), (0, pinned), "left behind");
            ensure!(group(EDU)?.status()? == 1, "it is not free");
            Ok(())
        },
    };
    endures(KEPT, &operation)
}
