// SPDX-License-Identifier: GPL-2.0

//! Devices that leave the machine, orderly or by surprise, while they are in use.

use crate::{
    env::{
        EDU,
        Setup,
        group, //
    },
    harness::{
        Failure,
        cases, //
    },
    plug::{
        HOT,
        LIMIT,
        Port,
        node,
        present,
        wait_absent, //
    },
};
use anyhow::Result;
use std::{
    sync::atomic::{
        AtomicBool,
        Ordering, //
    },
    thread::{
        self,
        Scope, //
    },
    time::Duration, //
};
use support::{
    PAGE,
    helper::Helper,
    kmsg::Log,
    machine::locked_pages, //
};
use vfio_client::{
    Errno,
    Group,
    Interrupt,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    edu::{
        self,
        Edu,
        IDENTITY, //
    },
    pci,
    uapi::VFIO_PCI_MSI_IRQ_INDEX, //
};

cases! {
    removal_request_during_dma,
    surprise_removal_during_dma,
    surprise_removal_with_mapped_region,
    surprise_removal_then_process_is_killed,
    surprise_removal_of_closed_device,
    #[rows("G21")] #[requires(core(Rust))] log_names_holder_of_removed_device,
}

/// The index of the interrupt that asks the user to release the device.
const REQ: u32 = 4;
/// The size of the mapped memory, in pages.
const LOCKED: u64 = 16;

/// A device with all of its features in use.
struct Busy {
    edu: Edu,
    setup: Setup,
    request: Interrupt,
    msi: Interrupt,
    memory: Memory,
}

impl Busy {
    fn new() -> Result<Self> {
        let setup = Setup::with(HOT, Iommu::Type1v2)?;
        let memory = Memory::anonymous(LOCKED as usize * PAGE_SIZE)?;
        setup.container.map(0, &memory, MapFlags::ReadWrite)?;
        let (request, msi) = (Interrupt::new()?, Interrupt::new()?);
        setup.device.enable_irqs(REQ, &[&request])?;
        setup.device.enable_irqs(VFIO_PCI_MSI_IRQ_INDEX, &[&msi])?;
        Ok(Self {
            edu: Edu::new(&setup.device)?,
            setup,
            request,
            msi,
            memory,
        })
    }
}

/// Transfers and register accesses that continue until this is dropped.
struct Traffic<'a>(&'a AtomicBool);

impl<'a> Traffic<'a> {
    fn start<'s>(scope: &'s Scope<'s, '_>, edu: &'s Edu, over: &'a AtomicBool) -> Self
    where
        'a: 's,
    {
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                edu.acknowledge();
                edu.start_store_irq(0, edu::MEMORY as u64);
                // The identity cannot be read when the device is gone. Waiting would then never
                // end.
                if edu.id() == IDENTITY {
                    let _ = edu.wait();
                }
            }
        });
        Self(over)
    }
}

impl Drop for Traffic<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes a device write to memory that is mapped at 0.
fn writes(edu: &Edu, memory: &Memory, byte: u8) -> Result<()> {
    memory.fill(0, PAGE_SIZE, byte);
    edu.load(0, edu::MEMORY as u64)?;
    memory.fill(0, PAGE_SIZE, 0);
    edu.store(0, edu::MEMORY as u64)?;
    let bytes = memory.to_vec(0, edu::MEMORY);
    assert!(
        bytes.iter().all(|found| *found == byte),
        "the memory has other data than the device wrote"
    );
    Ok(())
}

/// Plugs in a new device and checks that it works like the old one.
fn works_again(port: &mut Port) -> Result<()> {
    port.plug()?;
    let busy = Busy::new()?;
    writes(&busy.edu, &busy.memory, 0x3c)?;
    busy.edu.raise(1);
    assert!(busy.msi.wait(LIMIT)? > 0);
    Ok(())
}

fn removal_request_during_dma() -> Result<()> {
    let mut port = Port::with_device()?;
    let number = pci::group_of(HOT)?;
    let busy = Busy::new()?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let _traffic = Traffic::start(scope, &busy.edu, &over);
        port.press_button()?;
        assert!(
            busy.request.wait(LIMIT)? > 0,
            "the driver requests the device"
        );
        busy.msi.take()?;
        assert!(
            busy.msi.wait(LIMIT)? > 0,
            "the device still sends interrupts"
        );
        Ok(())
    })?;
    busy.edu.wait()?;
    assert!(
        !port.is_empty()? && present(HOT),
        "the removal waits for the last close"
    );
    writes(&busy.edu, &busy.memory, 0x5d)?;
    assert_eq!(busy.setup.group.status()?, 3);
    assert_eq!(busy.setup.group.device(HOT).errno(), Errno::ENODEV);
    drop(busy);
    port.wait_empty()?;
    assert!(!present(HOT) && !node(number));
    assert_eq!(locked_pages(), 0);
    works_again(&mut port)
}

fn surprise_removal_during_dma() -> Result<()> {
    let mut port = Port::with_device()?;
    let number = pci::group_of(HOT)?;
    let busy = Busy::new()?;
    let container = &busy.setup.container;
    let other = group(EDU)?;
    other.set_container(container)?;
    let other_device = other.device(EDU)?;
    let other_edu = Edu::new(&other_device)?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| -> Result<()> {
        let _traffic = Traffic::start(scope, &busy.edu, &over);
        assert!(busy.msi.wait(LIMIT)? > 0);
        port.pull()?;
        assert!(
            busy.request.wait(LIMIT)? > 0,
            "the driver requests the device"
        );
        Ok(())
    })?;
    // For the current user the registers are gone, but everything else is still in place.
    assert!(
        present(HOT) && node(number),
        "the removal waits for the last close"
    );
    assert!(!busy.edu.is_alive());
    busy.setup.device.info()?;
    assert_eq!(busy.setup.group.status()?, 3);
    assert_eq!(busy.setup.group.device(HOT).errno(), Errno::ENODEV);
    container.map(0x100_0000, &busy.memory, MapFlags::ReadWrite)?;
    assert_eq!(container.unmap(0x100_0000, LOCKED * PAGE)?, LOCKED * PAGE);
    writes(&other_edu, &busy.memory, 0x6e)?;
    let Busy {
        edu,
        setup: Setup {
            device,
            group: old,
            container,
        },
        memory,
        ..
    } = busy;
    drop((edu, device));
    wait_absent(HOT)?;
    assert!(!node(number));
    assert_eq!(old.status().errno(), Errno::ENODEV);
    // The group of the device has left the container. The other group stays in it with all
    // mappings.
    assert_eq!(locked_pages(), LOCKED);
    writes(&other_edu, &memory, 0x6f)?;
    // A replacement device can join, and has the mappings, too.
    drop(old);
    port.plug()?;
    let new = group(HOT)?;
    new.set_container(&container)?;
    let device = new.device(HOT)?;
    writes(&Edu::new(&device)?, &memory, 0x70)?;
    writes(&other_edu, &memory, 0x71)
}

fn surprise_removal_with_mapped_region() -> Result<()> {
    let mut port = Port::with_device()?;
    let number = pci::group_of(HOT)?;
    let Busy { edu, setup, .. } = Busy::new()?;
    drop(setup);
    port.pull()?;
    thread::sleep(Duration::from_secs(2));
    assert!(present(HOT), "the mapping holds the device");
    assert_eq!(Group::open(number).errno(), Errno::EBUSY);
    assert!(!edu.is_alive());
    drop(edu);
    wait_absent(HOT)?;
    works_again(&mut port)
}

fn surprise_removal_then_process_is_killed() -> Result<()> {
    let mut port = Port::with_device()?;
    let mut helper = Helper::spawn(&["hold", HOT], &[])?;
    assert_eq!(helper.line()?, "ready");
    port.pull()?;
    thread::sleep(Duration::from_secs(2));
    assert!(present(HOT), "the helper holds the device");
    helper.kill()?;
    wait_absent(HOT)?;
    works_again(&mut port)
}

fn surprise_removal_of_closed_device() -> Result<()> {
    let mut port = Port::with_device()?;
    let number = pci::group_of(HOT)?;
    // A group that stays open has no devices.
    let group = group(HOT)?;
    let container = group.attach(Iommu::Type1v2)?;
    port.pull()?;
    wait_absent(HOT)?;
    assert!(!node(number));
    assert_eq!(group.status().errno(), Errno::ENODEV);
    assert_eq!(container.info().errno(), Errno::EINVAL);
    assert_eq!(group.unset_container().errno(), Errno::EINVAL);
    drop((group, container));
    works_again(&mut port)
}

/// When a device is removed, the log names the process that holds it.
fn log_names_holder_of_removed_device() -> Result<()> {
    let mut holder = Helper::spawn(&["hold", EDU], &[])?;
    assert_eq!(holder.line()?, "ready");
    let mut log = Log::follow()?;
    let unbind = thread::spawn(|| pci::unbind(EDU));
    let name = format!("open by exe ({}), for ", holder.id());
    let parts = [
        &format!("vfio-pci {EDU}: cannot be unregistered while it is "),
        name.as_str(),
        "close it in that process",
    ];
    let said = log.wait(&parts, LIMIT);
    holder.proceed()?;
    holder.finish()?;
    unbind.join().map_err(|_| anyhow::anyhow!("panic"))??;
    pci::bind(EDU, "vfio-pci")?;
    said
}
