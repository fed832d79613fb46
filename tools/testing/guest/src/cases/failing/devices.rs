// SPDX-License-Identifier: GPL-2.0

//! Opening and closing devices; interrupts.

use super::{
    By,
    VFIO,
    everything,
    mappings::Scene,
    state, //
};
use crate::{
    env::{
        EDU,
        NVME,
        Setup, //
    },
    fail_nth::Below,
    harness::cases, //
};
use anyhow::{
    Result,
    ensure, //
};
use std::fs;
use vfio_client::{
    Bytes, Device, Interrupt, Iommu, RegionInfo, pci, raw, request,
    uapi::{
        VFIO_IRQ_SET_ACTION_UNMASK,
        VFIO_IRQ_SET_DATA_EVENTFD,
        VFIO_PCI_BAR0_REGION_INDEX, //
    },
};

cases! {
    #[requires(fault_injection)] first_open_of_pci_device,
    #[requires(fault_injection)] second_open_of_pci_device,
    #[requires(fault_injection)] region_info_with_capabilities,
    #[requires(fault_injection)] set_irqs_intx,
    #[requires(fault_injection)] set_irqs_msi,
    #[requires(fault_injection)] set_irqs_unmask_by_eventfd,
    #[requires(fault_injection)] ioeventfd,
}

/// When it routes the interrupt of a device, the kernel leaves ACPI locks and reference counts
/// behind.
const ROUTED: Below = VFIO.but_for("acpi_pci_irq_enable");
/// The kernel warns when it removes procfs files of an interrupt that it could not create.
const LISTED: Below = VFIO.but_for("register_irq_proc");

/// Returns the `enable` attribute of the device: whether the device is enabled.
fn enabled() -> Result<String> {
    Ok(fs::read_to_string(pci::sysfs(EDU).join("enable"))?)
}

fn first_open_of_pci_device() -> Result<()> {
    let scene = Scene::new()?;
    let operation = By {
        before: || Ok(()),
        request: |_: &()| Ok(scene.group.device(EDU)?),
        state: |_: &()| Ok((enabled()?, state(&scene.container)?)),
        after: |(), device: Device| {
            ensure!(device.info()?.regions >= 9, "{device:?}");
            ensure!(enabled()?.trim() != "0", "it is turned off");
            drop(device);
            ensure!(enabled()?.trim() == "0", "it stays on");
            Ok(())
        },
    };
    everything(ROUTED, &operation)
}

fn second_open_of_pci_device() -> Result<()> {
    let setup = Setup::new()?;
    let operation = By {
        before: || Ok(()),
        request: |_: &()| Ok(setup.group.device(EDU)?),
        state: |_: &()| Ok((enabled()?, state(&setup.container)?)),
        after: |(), device: Device| {
            drop(device);
            ensure!(enabled()?.trim() != "0", "it is turned off");
            Ok(())
        },
    };
    everything(VFIO, &operation)
}

fn region_info_with_capabilities() -> Result<()> {
    let setup = Setup::with(NVME, Iommu::Type1v2)?;
    let operation = By {
        before: || Ok(()),
        request: |_: &()| Ok(setup.device.region(VFIO_PCI_BAR0_REGION_INDEX)?),
        state: |_: &()| Ok(()),
        after: |(), region: RegionInfo| {
            ensure!(!region.caps.is_empty(), "{region:?}");
            Ok(())
        },
    };
    everything(VFIO, &operation)
}

/// Tests enabling interrupts of an index.
fn set_irqs(index: u32) -> Result<()> {
    let setup = Setup::new()?;
    let device = &setup.device;
    let interrupt = Interrupt::new()?;
    let lines = || -> Result<usize> {
        let text = fs::read_to_string("/proc/interrupts")?;
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
    everything(LISTED, &operation)
}

fn set_irqs_intx() -> Result<()> {
    set_irqs(0)
}

fn set_irqs_msi() -> Result<()> {
    set_irqs(1)
}

/// Requests that INTx is unmasked when `eventfd` is signalled; -1 cancels this.
fn unmask_by(device: &Device, eventfd: i32) -> Result<()> {
    let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK;
    let mut bytes = Bytes::new().u32(24).u32(flags);
    bytes = bytes.u32(0).u32(0).u32(1).append(&eventfd);
    raw::bytes(device, request::DEVICE_SET_IRQS, &mut bytes)?;
    Ok(())
}

fn set_irqs_unmask_by_eventfd() -> Result<()> {
    let setup = Setup::new()?;
    let (interrupt, unmask) = (Interrupt::new()?, Interrupt::new()?);
    setup.device.enable_irqs(0, &[&interrupt])?;
    let operation = By {
        before: || Ok(()),
        request: |_: &()| unmask_by(&setup.device, unmask.number()),
        state: |_: &()| Ok(()),
        after: |(), ()| unmask_by(&setup.device, -1),
    };
    everything(VFIO, &operation)?;
    Ok(setup.device.disable_irqs(0)?)
}

/// Requests that the kernel writes to a register when `eventfd` is signalled; -1 cancels this.
fn write_by(device: &Device, eventfd: i32) -> Result<()> {
    const IOEVENTFD: u32 = request::number(16);
    const FOUR_BYTES: u32 = 1 << 2;
    // A register of edu in BAR 0 that accepts any value.
    let mut bytes = Bytes::new().u32(32).u32(FOUR_BYTES).u64(0x04).u64(0);
    bytes = bytes.append(&eventfd).u32(0);
    raw::bytes(device, IOEVENTFD, &mut bytes)?;
    Ok(())
}

fn ioeventfd() -> Result<()> {
    let setup = Setup::new()?;
    let signal = Interrupt::new()?;
    let operation = By {
        before: || Ok(()),
        request: |_: &()| write_by(&setup.device, signal.number()),
        state: |_: &()| Ok(()),
        after: |(), ()| write_by(&setup.device, -1),
    };
    everything(VFIO, &operation)
}
