// SPDX-License-Identifier: GPL-2.0

//! The end of device files: closing them in any order, passing them on, and killing their process.

use super::{
    Attached,
    bound,
    has,
    is_free,
    open,
    reaches, //
};
use crate::{
    env::{
        EDU,
        NVME,
        group, //
    },
    harness::{
        Failure,
        cases, //
    },
    modules::{
        load,
        references,
        unload, //
    },
    stall::LIMIT, //
};
use anyhow::Result;
use std::{
    any::Any,
    os::fd::{
        AsFd,
        AsRawFd, //
    },
    thread, //
};
use support::{
    helper::Helper,
    machine::pinned_pages, //
};
use vfio_client::{
    Device,
    Errno,
    Iommufd,
    Memory,
    PAGE_SIZE,
    edu::Edu,
    pci,
    wait::until, //
};

cases! {
    #[rows("V10")] close_detaches_and_unbinds,
    #[rows("V10")] iommufd_closed_first,
    #[rows("V10")] #[requires(groups)] close_in_every_order,
    #[rows("V10")] close_in_other_threads,
    #[rows("V10")] duplicates_keep_the_device_bound,
    #[rows("V10")] #[requires(groups)] killed_while_bound,
    child_process_binds,
    #[requires(groups)] child_process_uses_bound_device,
    #[rows("K6")] #[requires(iommufd_module)] open_files_hold_modules,
    #[rows("K6")] #[requires(iommufd_module)] modules_in_use_cannot_be_unloaded,
}

fn close_detaches_and_unbinds() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let ioas = iommufd.ioas()?;
    for _ in 0..3 {
        let device = open(EDU)?;
        let id = device.bind(&iommufd)?;
        device.attach(ioas)?;
        drop(device);
        assert!(!has(&iommufd, id)?);
        is_free(EDU)?;
    }
    iommufd.destroy(ioas)?;
    Ok(())
}

fn iommufd_closed_first() -> Result<()> {
    let Attached {
        device,
        iommufd,
        ioas,
    } = Attached::new()?;
    let edu = Edu::new(&device)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    iommufd.map(ioas, 0, &memory, vfio_client::MapFlags::ReadWrite)?;
    drop(iommufd);
    assert!(reaches(&edu, &memory, 0)?, "the device holds the iommufd");
    device.detach()?;
    assert!(!reaches(&edu, &memory, 0)?);
    device.attach(ioas)?;
    assert!(reaches(&edu, &memory, 0)?);
    Ok(())
}

type Slot = Option<Box<dyn Any + Send>>;

/// Returns two devices that are attached to an iommufd, and the iommufd.
fn everything() -> Result<(Memory, [Slot; 3])> {
    let first = Attached::new()?;
    let second = open(NVME)?;
    second.bind(&first.iommufd)?;
    second.attach(first.ioas)?;
    let memory = Memory::anonymous(64 * PAGE_SIZE)?;
    first.map(0, &memory)?;
    let slots: [Slot; 3] = [
        Some(Box::new(first.iommufd)),
        Some(Box::new(first.device)),
        Some(Box::new(second)),
    ];
    Ok((memory, slots))
}

const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

fn close_in_every_order() -> Result<()> {
    let before = pinned_pages()?;
    for order in ORDERS {
        let (_memory, mut slots) = everything()?;
        for (step, i) in order.into_iter().enumerate() {
            slots[i] = None;
            for (slot, bdf) in [(1, EDU), (2, NVME)] {
                let open = group(bdf).is_ok();
                assert_eq!(open, slots[slot].is_none(), "order {order:?}, step {step}");
            }
            let attached = slots[1].is_some() || slots[2].is_some();
            let pinned = pinned_pages()? - before;
            let expected = if attached { 64 } else { 0 };
            assert_eq!(pinned, expected, "order {order:?}, step {step}");
        }
    }
    Ok(())
}

fn close_in_other_threads() -> Result<()> {
    for _ in 0..10 {
        let (_memory, slots) = everything()?;
        let threads = slots.map(|slot| thread::spawn(move || drop(slot)));
        for thread in threads {
            assert!(thread.join().is_ok());
        }
        is_free(EDU)?;
        is_free(NVME)?;
    }
    Ok(())
}

fn duplicates_keep_the_device_bound() -> Result<()> {
    let (device, iommufd) = bound(EDU)?;
    let copy = device.try_clone()?;
    assert_eq!(copy.bind(&iommufd).errno(), Errno::EINVAL, "the same file");
    drop(device);
    copy.info()?;
    copy.attach(iommufd.ioas()?)?;
    drop(copy);
    is_free(EDU)
}

fn killed_while_bound() -> Result<()> {
    let mut helper = Helper::spawn(&["iommufd", "hold"], &[])?;
    assert_eq!(helper.line()?, "ready");
    assert!(group(EDU).is_err(), "the helper holds the device");
    let device = open(EDU)?;
    let bind = device.bind(&Iommufd::open()?);
    assert_eq!(bind.errno(), Errno::EINVAL);
    helper.kill()?;
    assert!(until(LIMIT, || anyhow::Ok(group(EDU).is_ok()))?);
    is_free(EDU)
}

fn child_process_binds() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let device = open(EDU)?;
    let numbers = [device.as_fd(), iommufd.as_fd()].map(|fd| fd.as_raw_fd().to_string());
    let words = ["iommufd", "bind", &numbers[0], &numbers[1]];
    let mut helper = Helper::spawn(&words, &[&device, &iommufd])?;
    assert_eq!(helper.line()?, "bound");
    // The file is bound in this process, too, and stays so when the helper ends.
    device.info()?;
    let ioas = iommufd.ioas()?;
    device.attach(ioas)?;
    helper.finish()?;
    device.info()?;
    let edu = Edu::new(&device)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    iommufd.map(ioas, 0, &memory, vfio_client::MapFlags::ReadWrite)?;
    assert!(reaches(&edu, &memory, 0)?);
    Ok(())
}

fn child_process_uses_bound_device() -> Result<()> {
    let (device, iommufd) = bound(EDU)?;
    let number = device.as_fd().as_raw_fd().to_string();
    let words = ["iommufd", "use", &number];
    let mut helper = Helper::spawn(&words, &[&device])?;
    assert_eq!(helper.line()?, "alive");
    drop((device, iommufd));
    assert!(group(EDU).is_err(), "the helper holds the device");
    helper.proceed()?;
    assert_eq!(helper.line()?, "alive");
    helper.finish()?;
    is_free(EDU)
}

fn open_files_hold_modules() -> Result<()> {
    let modules = ["vfio", "iommufd", "vfio_pci"];
    let count = || -> Result<Vec<_>> { modules.iter().map(|name| references(name)).collect() };
    let before = count()?;
    let device = open(EDU)?;
    let opened = count()?;
    assert!(opened[0] > before[0], "the file holds vfio");
    assert_eq!(opened[2], before[2], "the file does not hold the driver");
    let iommufd = Iommufd::open()?;
    assert_eq!(references("iommufd")?, before[1] + 1);
    device.bind(&iommufd)?;
    assert_eq!(references("vfio_pci")?, before[2] + 1);
    device.attach(iommufd.ioas()?)?;
    assert_eq!(references("vfio_pci")?, before[2] + 1);
    drop((device, iommufd));
    assert_eq!(count()?, before);
    Ok(())
}

fn modules_in_use_cannot_be_unloaded() -> Result<()> {
    let (device, iommufd) = bound(EDU)?;
    for module in [c"vfio_pci", c"vfio_pci_core", c"vfio", c"iommufd"] {
        assert_eq!(unload(module), Err(Errno::EAGAIN), "{module:?}");
    }
    drop(iommufd);
    assert_eq!(unload(c"vfio_pci"), Err(Errno::EAGAIN), "still bound");
    drop(device);
    unload(c"vfio_pci")?;
    assert_eq!(open(EDU).errno(), Errno::ENOENT);
    reload_driver()?;
    is_free(EDU)
}

/// Loads the driver of the machine's PCI devices, and binds them again.
pub fn reload_driver() -> Result<()> {
    load(&["vfio_pci"])?;
    crate::stress::bind(crate::stress::DEVICES)?;
    for bdf in [super::token::WHOLE, "0000:01:00.0", "0000:01:00.1"] {
        if pci::driver(bdf).is_none() {
            pci::bind(bdf, "vfio-pci")?;
        }
    }
    Ok(())
}

pub mod helper {
    use super::*;
    use crate::helper::{
        pause,
        say, //
    };
    use support::helper::inherited;

    /// Keeps the device attached, with a mapping.
    pub fn hold() -> Result<()> {
        let attached = Attached::new()?;
        let memory = Memory::anonymous(16 * PAGE_SIZE)?;
        attached.map(0x10_0000, &memory)?;
        say("ready");
        pause();
        Ok(())
    }

    /// Binds a device file of the case to an iommufd of the case.
    pub fn bind(device: &str, iommufd: &str) -> Result<()> {
        let device = Device::from_fd(inherited(device)?);
        device.bind(&Iommufd::from_fd(inherited(iommufd)?))?;
        say("bound");
        pause();
        Ok(())
    }

    /// Uses a bound device of the case.
    pub fn use_bound(device: &str) -> Result<()> {
        let device = Device::from_fd(inherited(device)?);
        for _ in 0..2 {
            let alive = Edu::new(&device)?.is_alive();
            say(if alive { "alive" } else { "dead" });
            pause();
        }
        Ok(())
    }
}
