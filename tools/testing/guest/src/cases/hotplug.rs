// SPDX-License-Identifier: GPL-2.0

//! Devices that are unbound while they are in use.

use crate::{
    env::{
        EDU,
        Rebind,
        Setup,
        attached,
        group,
        withdrawn, //
    },
    harness::{
        Failure,
        cases, //
    },
    stall::LIMIT, //
};
use anyhow::Result;
use nix::{
    fcntl::OFlag,
    sys::stat::Mode, //
};
use std::{
    fs::File,
    os::fd::AsRawFd,
    path::Path,
    thread,
    time::Duration, //
};
use support::{
    helper::Helper,
    kmsg::Log,
    machine::locked_pages, //
};
use vfio_client::{
    Container,
    Errno,
    Group,
    Interrupt,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    edu::Edu,
    pci, //
};

cases! {
    #[rows("G21", "D27")] unbind_waits_for_close,
    #[rows("G21")] unbind_waits_after_a_signal,
    #[rows("G21")] unbind_waits_for_region_mapping,
    #[rows("G22")] open_group_without_devices,
    #[rows("G22")] group_without_devices_leaves_container,
    #[rows("G4")] open_of_removed_node_fails,
    #[rows("S1")] node_is_added_and_removed,
    bind_repeatedly,
}

/// The index of the interrupt that asks the user to release the device.
const REQ: u32 = 4;

fn unbind_waits_for_close() -> Result<()> {
    let _rebind = Rebind(&[EDU]);
    let request = Interrupt::new()?;
    let setup = Setup::new()?;
    setup.device.enable_irqs(REQ, &[&request])?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    setup.container.map(0, &memory, MapFlags::ReadWrite)?;
    let unbind = thread::spawn(|| pci::unbind(EDU));
    assert_eq!(request.wait(LIMIT)?, 1, "the driver requests the device");
    thread::sleep(Duration::from_millis(100));
    assert!(!unbind.is_finished());
    // The current user can still use the device; it cannot be opened again.
    assert!(Edu::new(&setup.device)?.is_alive());
    setup
        .container
        .map(0x10_0000, &memory, MapFlags::ReadWrite)?;
    assert_eq!(setup.group.status()?, 3);
    let again = setup.group.device(EDU);
    assert_eq!(
        again.errno(),
        Errno::ENODEV,
        "no second open during the removal"
    );
    drop(setup.device);
    let answer = unbind.join().map_err(|_| anyhow::anyhow!("panic"))?;
    answer?;
    assert_eq!(locked_pages(), 0, "the group left its container");
    Ok(())
}

fn unbind_waits_after_a_signal() -> Result<()> {
    let _rebind = Rebind(&[EDU]);
    // Dropped after the device, because it waits for the device.
    let mut unbind;
    let setup = Setup::new()?;
    let mut log = Log::follow()?;
    unbind = Helper::spawn(&["unbind", EDU], &[])?;
    assert_eq!(unbind.line()?, "ready");
    assert!(
        withdrawn(&setup.group, EDU)?,
        "the unbind did not start in time"
    );
    unbind.kill_later()?;
    let task = format!("({}) blocked until device is released", unbind.id());
    let parts = [
        &format!("vfio-pci {EDU}: Device is currently in use, task"),
        task.as_str(),
    ];
    log.wait(&parts, LIMIT)?;
    // Even killing it does not take the device away.
    thread::sleep(Duration::from_millis(100));
    assert!(Edu::new(&setup.device)?.is_alive());
    drop(setup);
    assert!(unbind.finish().is_err(), "the helper was killed");
    assert_eq!(pci::driver(EDU), None);
    Ok(())
}

fn unbind_waits_for_region_mapping() -> Result<()> {
    let _rebind = Rebind(&[EDU]);
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    drop(setup);
    let unbind = thread::spawn(|| pci::unbind(EDU));
    thread::sleep(Duration::from_millis(100));
    assert!(!unbind.is_finished());
    assert!(edu.is_alive());
    drop(edu);
    unbind.join().map_err(|_| anyhow::anyhow!("panic"))??;
    Ok(())
}

fn open_group_without_devices() -> Result<()> {
    let _rebind = Rebind(&[EDU]);
    let number = pci::group_of(EDU)?;
    let group = group(EDU)?;
    let container = Container::open()?;
    pci::unbind(EDU)?;
    assert!(!Path::new(&format!("/dev/vfio/{number}")).exists());
    assert_eq!(group.status().errno(), Errno::ENODEV);
    assert_eq!(group.set_container(&container).errno(), Errno::ENODEV);
    assert_eq!(group.set_container_fd(-1).errno(), Errno::EBADF);
    assert_eq!(group.unset_container().errno(), Errno::EINVAL);
    assert_eq!(group.device(EDU).errno(), Errno::ENODEV);
    // The device returns while the old group is still open: it gets a new group with a new node.
    pci::bind(EDU, "vfio-pci")?;
    let new = Group::open(number)?;
    assert_eq!(new.status()?, 1);
    assert_eq!(group.status().errno(), Errno::ENODEV);
    Ok(())
}

fn group_without_devices_leaves_container() -> Result<()> {
    let _rebind = Rebind(&[EDU]);
    let (container, group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    pci::unbind(EDU)?;
    assert_eq!(locked_pages(), 0);
    assert_eq!(container.info().errno(), Errno::EINVAL);
    assert_eq!(group.status().errno(), Errno::ENODEV);
    assert_eq!(group.unset_container().errno(), Errno::EINVAL);
    Ok(())
}

fn open_of_removed_node_fails() -> Result<()> {
    let _rebind = Rebind(&[EDU]);
    let node = format!("/dev/vfio/{}", pci::group_of(EDU)?);
    let path = nix::fcntl::open(
        node.as_str(),
        OFlag::O_PATH | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let node = format!("/proc/self/fd/{}", path.as_raw_fd());
    // The object behind the node stays while the file is open.
    let group = Group::from_fd(File::open(&node)?.into());
    pci::unbind(EDU)?;
    assert_eq!(File::open(&node).errno(), Errno::ENODEV);
    drop(group);
    assert!(File::open(&node).is_err());
    Ok(())
}

fn node_is_added_and_removed() -> Result<()> {
    let _rebind = Rebind(&[EDU]);
    let number = pci::group_of(EDU)?;
    let node = format!("/dev/vfio/{number}");
    let class = format!("/sys/class/vfio/{number}");
    let device = pci::sysfs(EDU).join("vfio-dev");
    let there = || [Path::new(&node), Path::new(&class), &device].map(Path::exists);
    assert_eq!(there(), [true; 3]);
    pci::unbind(EDU)?;
    assert_eq!(there(), [false; 3]);
    pci::bind(EDU, "vfio-pci")?;
    assert_eq!(there(), [true; 3]);
    Ok(())
}

fn bind_repeatedly() -> Result<()> {
    let _rebind = Rebind(&[EDU]);
    for _ in 0..5 {
        pci::unbind(EDU)?;
        pci::bind(EDU, "vfio-pci")?;
        let setup = Setup::new()?;
        assert!(Edu::new(&setup.device)?.is_alive());
    }
    Ok(())
}
