// SPDX-License-Identifier: GPL-2.0

//! Memory runs out at each allocation in turn, from opening a container to using a device.
//!
//! A step in which an allocation fails must leave everything unchanged, so that the same step
//! succeeds when it is tried again. The cases need a kernel with fault injection.

use crate::{
    env::{
        EDU,
        group, //
    },
    harness::cases, //
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    fs::{
        self,
        File, //
    },
    os::unix::fs::FileExt, //
};
use vfio_client::{
    Container,
    Device,
    Group,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    uapi::VFIO_PCI_BAR0_REGION_INDEX, //
};

cases! {
    #[requires(fault_injection)] open_container,
    #[requires(fault_injection)] open_group,
    #[requires(fault_injection)] set_container,
    #[requires(fault_injection)] set_iommu,
    #[rows("T-M14")] #[requires(fault_injection)] map_dma,
    #[requires(fault_injection)] get_device_fd,
    #[requires(fault_injection)] region_info,
}

/// More allocations than any step makes.
pub const MOST: usize = 2000;

/// Makes the n-th allocation of this task fail on request.
pub struct Injector(File);

impl Injector {
    /// Enables failures for all kinds of allocation.
    pub fn new() -> Result<Self> {
        for (knob, value) in [
            ("failslab/ignore-gfp-wait", "N"),
            ("fail_page_alloc/ignore-gfp-wait", "N"),
            ("fail_page_alloc/ignore-gfp-highmem", "N"),
            ("fail_page_alloc/min-order", "0"),
            ("failslab/verbose", "0"),
            ("fail_page_alloc/verbose", "0"),
            ("fail_usercopy/verbose", "0"),
        ] {
            let path = format!("/sys/kernel/debug/{knob}");
            fs::write(&path, value).context(path)?;
        }
        let file = File::options()
            .read(true)
            .write(true)
            .open("/proc/thread-self/fail-nth")
            .context("fail-nth")?;
        Ok(Self(file))
    }

    /// Runs `step` with a failure at its n-th allocation. Also returns whether the failure was
    /// injected.
    pub fn run<T>(&self, nth: usize, step: impl FnOnce() -> T) -> Result<(T, bool)> {
        let text = nth.to_string();
        self.0.write_at(text.as_bytes(), 0)?;
        let outcome = step();
        let mut left = [0; 16];
        // Copies to user memory count, too. If this read fails, the step made fewer than n
        // allocations.
        let injected = self.0.read_at(&mut left, 0).is_ok() && left[0] == b'0';
        // Copies from user memory count as well. Then the second attempt succeeds.
        self.0
            .write_at(b"0", 0)
            .or_else(|_| self.0.write_at(b"0", 0))?;
        Ok((outcome, injected))
    }
}

/// Runs `step` with a failure at each allocation in turn, each time followed by a run without a
/// failure.
pub(super) fn at_every_allocation<T, E>(step: impl Fn() -> Result<T, E>) -> Result<()>
where
    E: Into<anyhow::Error>,
{
    unchanged_by_failures(1..MOST, step, || Ok(()))
}

/// As [`at_every_allocation`], but only for the given allocations. `check` verifies that a failed
/// step has changed nothing.
pub(super) fn unchanged_by_failures<T, E>(
    allocations: impl IntoIterator<Item = usize>,
    step: impl Fn() -> Result<T, E>,
    check: impl Fn() -> Result<()>,
) -> Result<()>
where
    E: Into<anyhow::Error>,
{
    let injector = Injector::new()?;
    let step = || step().map_err(Into::into);
    let mut failures = 0;
    for nth in allocations {
        let (outcome, injected) = injector.run(nth, step)?;
        if !injected {
            outcome?;
            eprintln!("fewer than {nth} allocations, {failures} refusals");
            ensure!(failures != 0, "no failure made the step fail");
            return Ok(());
        }
        let failed = || format!("after a failure of allocation {nth}");
        if outcome.is_err() {
            failures += 1;
            check().with_context(failed)?;
        }
        drop(outcome);
        step().with_context(failed)?;
    }
    ensure!(false, "no end of allocations");
    Ok(())
}

/// A group in a container with an address space.
struct Ready {
    group: Group,
    container: Container,
}

fn ready() -> Result<Ready> {
    let (container, group) = crate::env::attached(EDU, Iommu::Type1v2)?;
    Ok(Ready { group, container })
}

fn device(ready: &Ready) -> Result<Device> {
    Ok(ready.group.device(EDU)?)
}

fn open_container() -> Result<()> {
    at_every_allocation(Container::open)
}

fn open_group() -> Result<()> {
    let number = vfio_client::pci::group_of(EDU)?;
    at_every_allocation(|| Group::open(number))
}

/// Removes the group from its container when dropped.
struct Member<'a>(&'a Group);

impl Drop for Member<'_> {
    fn drop(&mut self) {
        let _ = self.0.unset_container();
    }
}

fn set_container() -> Result<()> {
    let (container, group) = (Container::open()?, group(EDU)?);
    at_every_allocation(|| group.set_container(&container).map(|()| Member(&group)))
}

fn set_iommu() -> Result<()> {
    let (container, group) = (Container::open()?, group(EDU)?);
    at_every_allocation(|| {
        let member = group.set_container(&container).map(|()| Member(&group))?;
        container.set_iommu(Iommu::Type1v2).map(|()| member)
    })
}

fn map_dma() -> Result<()> {
    struct Mapped<'a>(&'a Container);
    impl Drop for Mapped<'_> {
        fn drop(&mut self) {
            let _ = self.0.unmap_all();
        }
    }
    let ready = ready()?;
    let memory = Memory::anonymous(64 * PAGE_SIZE)?;
    at_every_allocation(|| {
        let mapped = ready.container.map(0x10_0000, &memory, MapFlags::ReadWrite);
        mapped.map(|()| Mapped(&ready.container))
    })
}

/// Opens a second file of an open device. The first open also runs the device driver, which is not
/// tested here.
fn get_device_fd() -> Result<()> {
    let ready = ready()?;
    let _first = device(&ready)?;
    at_every_allocation(|| ready.group.device(EDU))
}

fn region_info() -> Result<()> {
    let ready = ready()?;
    let device = device(&ready)?;
    at_every_allocation(|| device.region(VFIO_PCI_BAR0_REGION_INDEX))
}
