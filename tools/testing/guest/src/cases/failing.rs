// SPDX-License-Identifier: GPL-2.0

//! Every allocation of a request fails once, and every copy from and to the program's memory.
//!
//! A request that fails leaves everything as it was, and works when it is sent again. That needs a kernel
//! with fault injection.
//!
//! The first open of a PCI device is not among them: `__iommu_release_dma_ownership()` and the ACPI code for
//! interrupts of 7.3 don't stand it, on either stack. An unmap with a bitmap that fails on the C modules has
//! unmapped some of the mappings.
//!
//! No step of `make test` runs these: the kernel warns in its own code when groups are released and interrupts
//! are freed without memory, which fails a step.

use super::stalled::{
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
};
use crate::{
    env::{
        EDU,
        NVME,
        attached,
        group, //
    },
    fail_nth::{
        Failing,
        Operation,
        each_failure, //
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
use std::path::Path;
use vfio_client::{
    Container,
    Device,
    Errno,
    Group,
    Interrupt,
    Iommu,
    Memory,
    PAGE_SIZE,
    pci, //
};

cases! {
    #[fault_injection]
    map_dma,
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
    #[fault_injection]
    set_container_of_a_second_group,
    #[fault_injection]
    unset_container_of_a_second_group,
    #[fault_injection]
    set_container_maps_what_was_mapped,
    #[fault_injection]
    unset_container_keeps_what_drivers_pinned,
    #[fault_injection]
    unset_container_of_the_last_group,
    #[fault_injection]
    set_irqs_intx,
    #[fault_injection]
    set_irqs_msi,
    #[fault_injection]
    first_open_of_a_device_that_pins,
    #[fault_injection]
    driver_pins,
    #[fault_injection]
    driver_unpins,
    #[fault_injection]
    driver_reads_and_writes,
    #[fault_injection]
    bind,
    #[fault_injection]
    unbind,
}

/// What a request must not change when it fails: pages that are charged and pinned, and how many mappings
/// there may yet be.
type State = (u64, i64, Option<u32>);

fn state(container: &Container) -> Result<State> {
    Ok((locked_kib(), pinned_pages()?, container.info()?.dma_avail()))
}

/// Fails a request that needs memory, with and without copies.
fn everything(operation: &impl Operation) -> Result<()> {
    let failures = each_failure(Failing::Allocations, operation)?;
    ensure!(failures.passed_on != 0, "it needs no memory");
    copies(operation)
}

/// Fails a request that may need no memory.
fn copies(operation: &impl Operation) -> Result<()> {
    let failures = each_failure(Failing::CopiesToo, operation)?;
    ensure!(failures.passed_on != 0, "it copies nothing");
    Ok(())
}

/// Fails a request that does not fail for want of memory.
fn endures(operation: &impl Operation) -> Result<()> {
    let failures = each_failure(Failing::Allocations, operation)?;
    ensure!(failures.passed_on == 0, "it fails");
    Ok(())
}

/// An operation by functions.
struct By<P, R, S, A> {
    before: P,
    request: R,
    state: S,
    after: A,
}

impl<B, T, V, P, R, S, A> Operation for By<P, R, S, A>
where
    T: std::fmt::Debug,
    V: PartialEq + std::fmt::Debug,
    P: Fn() -> Result<B>,
    R: Fn(&B) -> Result<T>,
    S: Fn(&B) -> Result<V>,
    A: Fn(B, T) -> Result<()>,
{
    type Before = B;
    type Answer = T;
    type State = V;

    fn before(&self) -> Result<B> {
        (self.before)()
    }

    fn request(&self, before: &B) -> Result<T> {
        (self.request)(before)
    }

    fn state(&self, before: &B) -> Result<V> {
        (self.state)(before)
    }

    fn after(&self, before: B, answer: T) -> Result<()> {
        (self.after)(before, answer)
    }
}

const EVERYTHING: Dma = Dma { iova: 0, pages: 0 };

/// A container with a group that an IOMMU translates for, and memory.
struct Scene {
    container: Container,
    group: Group,
    memory: Memory,
}

impl Scene {
    fn new() -> Result<Self> {
        let (container, group) = attached(EDU, Iommu::Type1v2)?;
        let memory = Memory::anonymous(32 * PAGE_SIZE)?;
        Ok(Self {
            container,
            group,
            memory,
        })
    }

    fn map(&self, dma: Dma) -> Result<()> {
        map(&self.container, dma, self.memory.addr())?;
        Ok(())
    }

    fn unmap_all(&self) -> Result<u64> {
        Ok(unmap(&self.container, EVERYTHING, ALL)?)
    }

    /// Tries a request to the container. `before` and `after` are what goes around it; in the end nothing
    /// is mapped.
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

fn map_dma() -> Result<()> {
    let scene = Scene::new()?;
    let after = |_| {
        ensure!(scene.unmap_all()? == THERE.pages, "a part was mapped");
        Ok(())
    };
    let request = |container: &Container| Ok(map(container, THERE, scene.memory.addr())?);
    everything(&scene.operation(|| Ok(()), request, after)?)
}

/// Unmaps by `request`, which unmaps two mappings of three or all of them. If it has failed when it told so
/// they are gone when it is sent again.
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
    copies(&scene.operation(before, request, after)?)
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
        // It was done when it failed to tell so.
        Err(Errno::EINVAL) => Ok(THERE.pages),
        other => Ok(other?),
    };
    let after = |pages| {
        ensure!(pages == THERE.pages, "{pages} pages");
        give_address(&scene.container, THERE, scene.memory.addr())?;
        scene.unmap_all().map(drop)
    };
    copies(&scene.operation(|| scene.map(THERE), request, after)?)
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
    copies(&scene.operation(before, request, after)?)
}

/// Whether track is kept of dirty pages.
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
    everything(&operation)
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
    copies(&scene.operation(before, request, after)?)
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
    copies(&scene.operation(|| scene.map(THERE), request, after)?)
}

fn get_info() -> Result<()> {
    let scene = Scene::new()?;
    let request = |container: &Container| Ok(container.info()?.caps.len());
    let after = |caps| {
        ensure!(caps >= 3, "only {caps} capabilities");
        Ok(())
    };
    everything(&scene.operation(|| Ok(()), request, after)?)
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
    everything(&operation)
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
    endures(&operation)
}

/// The container of a device whose driver pins pages, with a mapping of which it has pinned one.
struct Emulated {
    pinning: Pinning,
    memory: Memory,
}

impl Emulated {
    fn new() -> Result<Self> {
        let pinning = Pinning::new()?;
        let memory = Memory::anonymous(32 * PAGE_SIZE)?;
        Ok(Self { pinning, memory })
    }

    fn container(&self) -> &Container {
        &self.pinning.container
    }

    /// Maps, and pins two pages.
    fn map_and_pin(&self) -> Result<()> {
        map(self.container(), THERE, self.memory.addr())?;
        map(self.container(), ASIDE, self.memory.addr())?;
        self.pinning
            .pinner
            .pin(THERE.iova + PAGE, 2, READ | WRITE)?;
        Ok(())
    }

    /// Unmaps all, of which the driver is told.
    fn unmap_all(&self) -> Result<()> {
        let unmapped = unmap(self.container(), EVERYTHING, ALL)?;
        ensure!(unmapped == 12, "{unmapped} pages were mapped");
        ensure!(self.pinning.pinner.pinned()? == 0, "the driver keeps pages");
        Ok(())
    }

    fn state(&self) -> Result<(i32, State)> {
        Ok((self.pinning.pinner.pinned()?, state(self.container())?))
    }
}

fn set_container_maps_what_was_mapped() -> Result<()> {
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
    everything(&operation)
}

fn unset_container_keeps_what_drivers_pinned() -> Result<()> {
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
            scene.unmap_all()?;
            assert_eq!(scene.state()?, empty, "left behind");
            Ok(())
        },
    };
    endures(&operation)
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
    endures(&operation)
}

/// Enables interrupts of an index.
fn set_irqs(index: u32) -> Result<()> {
    let scene = Scene::new()?;
    let device = scene.group.device(EDU)?;
    let interrupt = Interrupt::new()?;
    let lines = || -> Result<usize> {
        let text = std::fs::read_to_string("/proc/interrupts")?;
        Ok(text.lines().filter(|line| line.contains("vfio")).count())
    };
    let empty = lines()?;
    let operation = By {
        before: || Ok(()),
        request: |_: &()| Ok(device.enable_irqs(index, &[&interrupt])?),
        state: |_: &()| lines(),
        after: |(), ()| {
            ensure!(lines()? == empty + 1, "no interrupt was requested");
            device.disable_irqs(index)?;
            ensure!(lines()? == empty, "the interrupt stays");
            Ok(())
        },
    };
    everything(&operation)
}

fn set_irqs_intx() -> Result<()> {
    set_irqs(0)
}

fn set_irqs_msi() -> Result<()> {
    set_irqs(1)
}

/// From its first open on a driver is told of what is unmapped.
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
    everything(&operation)
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
    everything(&operation)
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
    copies(&operation)
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
    everything(&operation)
}

/// Whether a driver has the device, and its group a node.
fn bound() -> Result<(Option<String>, bool)> {
    let node = format!("/dev/vfio/{}", pci::group_of(EDU)?);
    Ok((pci::driver(EDU), Path::new(&node).exists()))
}

fn bind() -> Result<()> {
    let operation = By {
        before: || Ok(pci::unbind(EDU)?),
        request: |_: &()| {
            pci::bind(EDU, "vfio-pci")?;
            pci::driver(EDU).context("the driver did not take it")
        },
        state: |_: &()| bound(),
        after: |(), _| {
            let bound = bound()?;
            ensure!(bound.0.is_some() && bound.1, "{bound:?}");
            Ok(())
        },
    };
    let failures = each_failure(Failing::Allocations, &operation)?;
    ensure!(failures.passed_on != 0, "it needs no memory");
    Ok(())
}

fn unbind() -> Result<()> {
    let operation = By {
        before: || {
            if pci::driver(EDU).is_none() {
                pci::bind(EDU, "vfio-pci")?;
            }
            Ok(())
        },
        request: |_: &()| Ok(pci::unbind(EDU)?),
        state: |_: &()| bound(),
        after: |(), ()| {
            ensure!(bound()? == (None, false), "it stays");
            Ok(pci::bind(EDU, "vfio-pci")?)
        },
    };
    endures(&operation)
}
