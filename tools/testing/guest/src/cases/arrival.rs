// SPDX-License-Identifier: GPL-2.0

//! Devices added to a group that is in use.
//!
//! All devices of a group are attached to the same domain, so a new device is attached to the
//! domain of the others. No host driver can bind to it while that is not the default domain.

use crate::{
    env::{
        Setup,
        attached,
        group, //
    },
    harness::{
        Failure,
        cases, //
    },
    plug::{
        BRIDGE,
        FIRST,
        LIMIT,
        SECOND,
        Second,
        present, //
    },
};
use anyhow::{
    Result,
    anyhow,
    ensure, //
};
use std::{fs, io, thread};
use support::PAGE;
use vfio_client::{
    Container,
    Device,
    Errno,
    Interrupt,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    edu::{
        self,
        Edu, //
    },
    pci, //
};

cases! {
    #[rows("G7")] group_not_viable_with_host_driver_on_bridge,
    added_device_joins_group_of_its_bridge,
    host_driver_fails_to_bind_in_owned_group,
    idle_group_not_viable_with_host_driver,
    added_device_uses_existing_mappings,
    device_added_to_group_without_iommu_driver,
    removed_device_leaves_others_working,
}

/// The IOVA at which these cases map their memory.
const IOVA: u64 = 0x123_4000;
/// The index of the interrupt that asks the user to release the device.
const REQ: u32 = 4;

/// A host driver that binds to any `edu` available to it.
struct Foreign;

impl Foreign {
    const NAME: &str = "uio_pci_generic";
    const IDS: &str = "1234 11e8";

    fn new() -> Result<Self> {
        Self::write("new_id", Self::IDS)?;
        Ok(Self)
    }

    fn bind(&self) -> io::Result<()> {
        Self::write("bind", SECOND)
    }

    fn has_second(&self) -> bool {
        pci::driver(SECOND).as_deref() == Some(Self::NAME)
    }

    fn write(name: &str, text: &str) -> io::Result<()> {
        fs::write(format!("/sys/bus/pci/drivers/{}/{name}", Self::NAME), text)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if self.has_second() {
            let _ = pci::unbind(SECOND);
        }
        let _ = Self::write("remove_id", Self::IDS);
    }
}

/// Maps two pages, so that a device can copy one to the other.
fn mapped(container: &Container) -> Result<Memory> {
    let memory = Memory::anonymous(2 * PAGE_SIZE)?;
    container.map(IOVA, &memory, MapFlags::ReadWrite)?;
    Ok(memory)
}

/// Copies the start of one page to the other through the device and compares them.
fn copies(device: &Device, memory: &Memory, seed: u8) -> Result<()> {
    let pattern: Vec<u8> = (0..edu::MEMORY)
        .map(|i| (i % 251) as u8 ^ (i / 251) as u8 ^ seed)
        .collect();
    memory.write(0, &pattern);
    memory.fill(PAGE_SIZE, PAGE_SIZE, 0);
    let edu = Edu::new(device)?;
    edu.load(IOVA, edu::MEMORY as u64)?;
    edu.store(IOVA + PAGE, edu::MEMORY as u64)?;
    ensure!(
        memory.to_vec(PAGE_SIZE, edu::MEMORY) == pattern,
        "wrong data"
    );
    Ok(())
}

fn group_not_viable_with_host_driver_on_bridge() -> Result<()> {
    // Not all kernels have a driver for the bridge.
    pci::bind(BRIDGE, "")?;
    if let Some(driver) = pci::driver(BRIDGE) {
        let group = group(FIRST)?;
        assert_eq!(group.status()?, 0, "{driver}");
        let container = Container::open()?;
        assert_eq!(group.set_container(&container).errno(), Errno::EPERM);
    }
    let _second = Second::place()?;
    assert_eq!(group(FIRST)?.status()?, 1);
    Ok(())
}

fn added_device_joins_group_of_its_bridge() -> Result<()> {
    let mut second = Second::place()?;
    let setup = Setup::with(FIRST, Iommu::Type1v2)?;
    let number = pci::group_of(FIRST)?;
    assert_eq!(pci::members(number)?, [BRIDGE, FIRST]);
    second.plug()?;
    assert_eq!(pci::members(number)?, [BRIDGE, FIRST, SECOND]);
    assert_eq!(pci::group_of(SECOND)?, number);
    assert_eq!(setup.group.status()?, 3);
    assert_eq!(
        setup.group.device(SECOND).errno(),
        Errno::ENODEV,
        "not bound to vfio-pci"
    );
    assert!(Edu::new(&setup.device)?.is_alive());
    Ok(())
}

fn host_driver_fails_to_bind_in_owned_group() -> Result<()> {
    let mut second = Second::place()?;
    let foreign = Foreign::new()?;
    let setup = Setup::with(FIRST, Iommu::Type1v2)?;
    let memory = mapped(&setup.container)?;
    second.plug()?;
    assert_eq!(pci::driver(SECOND), None, "the kernel tried by itself");
    assert_eq!(foreign.bind().errno(), Errno::EBUSY);
    assert_eq!(pci::driver(SECOND), None);
    assert_eq!(setup.group.status()?, 3);
    copies(&setup.device, &memory, 1)?;
    let Setup {
        device,
        group: held,
        container,
    } = setup;
    drop((held, container));
    assert_eq!(foreign.bind().errno(), Errno::EBUSY, "device still open");
    drop(device);
    foreign.bind()?;
    assert!(foreign.has_second(), "nobody has the group any more");
    assert_eq!(group(FIRST)?.status()?, 0);
    Ok(())
}

fn idle_group_not_viable_with_host_driver() -> Result<()> {
    let mut second = Second::place()?;
    let foreign = Foreign::new()?;
    let group = group(FIRST)?;
    assert_eq!(group.status()?, 1);
    second.plug()?;
    assert!(foreign.has_second(), "the kernel gave it away by itself");
    assert_eq!(group.status()?, 0);
    let container = Container::open()?;
    assert_eq!(group.set_container(&container).errno(), Errno::EPERM);
    pci::unbind(SECOND)?;
    assert_eq!(group.status()?, 1);
    group.set_container(&container)?;
    assert_eq!(foreign.bind().errno(), Errno::EBUSY);
    Ok(())
}

fn added_device_uses_existing_mappings() -> Result<()> {
    let mut second = Second::place()?;
    let setup = Setup::with(FIRST, Iommu::Type1v2)?;
    let memory = mapped(&setup.container)?;
    copies(&setup.device, &memory, 2)?;
    second.plug()?;
    pci::bind(SECOND, "vfio-pci")?;
    let device = setup.group.device(SECOND)?;
    copies(&device, &memory, 3)?;
    copies(&setup.device, &memory, 4)?;
    // From here on the two devices behave like any two devices of a group.
    assert_eq!(setup.container.unmap(IOVA, 2 * PAGE)?, 2 * PAGE);
    let edu = Edu::new(&device)?;
    memory.fill(0, PAGE_SIZE, 0x77);
    edu.store(IOVA, edu::MEMORY as u64)?;
    let bytes = memory.to_vec(0, PAGE_SIZE);
    assert!(bytes.iter().all(|byte| *byte == 0x77), "nothing is mapped");
    let memory = mapped(&setup.container)?;
    copies(&device, &memory, 5)?;
    copies(&setup.device, &memory, 6)
}

fn device_added_to_group_without_iommu_driver() -> Result<()> {
    let mut second = Second::place()?;
    let group = group(FIRST)?;
    let container = Container::open()?;
    group.set_container(&container)?;
    // The group has an owner but no address space yet.
    second.plug()?;
    pci::bind(SECOND, "vfio-pci")?;
    assert_eq!(group.device(SECOND).errno(), Errno::EINVAL, "no backend");
    container.set_iommu(Iommu::Type1v2)?;
    let memory = mapped(&container)?;
    copies(&group.device(SECOND)?, &memory, 7)?;
    copies(&group.device(FIRST)?, &memory, 8)
}

fn removed_device_leaves_others_working() -> Result<()> {
    let mut second = Second::place()?;
    second.plug()?;
    pci::bind(SECOND, "vfio-pci")?;
    let (container, group) = attached(SECOND, Iommu::Type1v2)?;
    let memory = mapped(&container)?;
    let first = group.device(FIRST)?;
    let device = group.device(SECOND)?;
    let request = Interrupt::new()?;
    device.enable_irqs(REQ, &[&request])?;
    copies(&device, &memory, 9)?;
    let removal = thread::spawn(|| pci::write_attribute(SECOND, "remove", "1"));
    assert!(request.wait(LIMIT)? > 0, "asked to let go");
    assert!(!removal.is_finished());
    copies(&device, &memory, 10)?;
    drop(device);
    removal.join().map_err(|_| anyhow!("panic"))??;
    assert!(!present(SECOND));
    assert_eq!(group.device(SECOND).errno(), Errno::ENODEV);
    assert_eq!(group.status()?, 3, "the group stays");
    assert!(Edu::new(&first)?.is_alive());
    // When the device is removed, the kernel's VT-d driver also drops the context entry of the
    // bridge. DMA of all devices behind the bridge uses that entry, so the remaining devices must
    // be attached again.
    drop(first);
    group.unset_container()?;
    group.set_container(&container)?;
    container.set_iommu(Iommu::Type1v2)?;
    container.map(IOVA, &memory, MapFlags::ReadWrite)?;
    copies(&group.device(FIRST)?, &memory, 11)
}
