// SPDX-License-Identifier: GPL-2.0

//! Unbinding the driver of a device whose files are open.

use super::{
    Attached,
    is_free,
    open,
    reaches, //
};
use crate::{
    env::{
        EDU,
        Rebind, //
    },
    harness::{
        Failure,
        cases, //
    },
    stall::LIMIT, //
};
use anyhow::{
    Result,
    anyhow, //
};
use std::{
    thread,
    time::Duration, //
};
use vfio_client::{
    Device,
    Errno,
    Interrupt,
    Iommufd,
    Memory,
    PAGE_SIZE,
    edu::Edu,
    pci,
    wait::until, //
};

cases! {
    #[rows("G21", "D27")] unbind_waits_for_bound_file,
    #[rows("G21", "D27")] unbind_waits_for_unbound_file,
    #[rows("G21")] unbind_waits_for_region_mapping,
    #[rows("V1")] file_cannot_be_opened_during_removal,
    #[rows("V1")] file_opened_before_can_be_bound_during_removal,
    unbind_and_bind_repeatedly,
}

/// The index of the interrupt that asks the user to release the device.
const REQ: u32 = 4;

/// An unbind of the driver in another thread.
struct Unbind(thread::JoinHandle<vfio_client::Result<()>>);

impl Unbind {
    /// Starts the unbind, and waits until the file of the device has gone.
    fn start() -> Result<Self> {
        let file = Device::file_of(&pci::sysfs(EDU))?;
        let unbind = Self(thread::spawn(|| pci::unbind(EDU)));
        assert!(until(LIMIT, || anyhow::Ok(!file.exists()))?);
        Ok(unbind)
    }

    /// Checks that it still waits.
    fn waits(&self) {
        thread::sleep(Duration::from_millis(100));
        assert!(!self.0.is_finished(), "the unbind did not wait");
    }

    /// Waits for its end.
    fn finish(self) -> Result<()> {
        self.0.join().map_err(|_| anyhow!("panic"))??;
        Ok(())
    }
}

fn unbind_waits_for_bound_file() -> Result<()> {
    let _rebind = Rebind(&[EDU]);
    let request = Interrupt::new()?;
    let attached = Attached::new()?;
    attached.device.enable_irqs(REQ, &[&request])?;
    let unbind = Unbind::start()?;
    assert_eq!(request.wait(LIMIT)?, 1, "the driver requests the device");
    unbind.waits();
    // The current user can still use the device.
    let edu = Edu::new(&attached.device)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    attached.map(0, &memory)?;
    assert!(reaches(&edu, &memory, 0)?);
    attached.device.detach()?;
    attached.device.attach(attached.ioas)?;
    drop(edu);
    drop(attached.device);
    unbind.finish()?;
    assert_eq!(open(EDU).errno(), Errno::ENOENT);
    attached.iommufd.destroy(attached.ioas)?;
    pci::bind(EDU, "vfio-pci")?;
    is_free(EDU)
}

fn unbind_waits_for_unbound_file() -> Result<()> {
    let _rebind = Rebind(&[EDU]);
    let device = open(EDU)?;
    let unbind = Unbind::start()?;
    unbind.waits();
    assert_eq!(device.info().errno(), Errno::EINVAL);
    drop(device);
    unbind.finish()
}

fn unbind_waits_for_region_mapping() -> Result<()> {
    let _rebind = Rebind(&[EDU]);
    let attached = Attached::new()?;
    let edu = Edu::new(&attached.device)?;
    drop(attached);
    let unbind = Unbind::start()?;
    unbind.waits();
    assert!(edu.is_alive());
    drop(edu);
    unbind.finish()
}

fn file_cannot_be_opened_during_removal() -> Result<()> {
    let _rebind = Rebind(&[EDU]);
    let attached = Attached::new()?;
    let folder = pci::sysfs(EDU);
    let file = Device::file_of(&folder)?;
    let unbind = Unbind::start()?;
    assert!(!file.exists());
    assert_eq!(open(EDU).errno(), Errno::ENOENT);
    drop(attached);
    unbind.finish()
}

fn file_opened_before_can_be_bound_during_removal() -> Result<()> {
    let _rebind = Rebind(&[EDU]);
    let device = open(EDU)?;
    let unbind = Unbind::start()?;
    let iommufd = Iommufd::open()?;
    device.bind(&iommufd)?;
    device.info()?;
    unbind.waits();
    drop(device);
    unbind.finish()
}

fn unbind_and_bind_repeatedly() -> Result<()> {
    let _rebind = Rebind(&[EDU]);
    for _ in 0..5 {
        pci::unbind(EDU)?;
        pci::bind(EDU, "vfio-pci")?;
        let attached = Attached::new()?;
        assert!(Edu::new(&attached.device)?.is_alive());
    }
    Ok(())
}
