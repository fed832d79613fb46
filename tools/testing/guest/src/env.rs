// SPDX-License-Identifier: GPL-2.0

//! The machine in which the cases run.

use crate::{
    requires::pamu_hardware,
    stall::LIMIT, //
};
use anyhow::{
    Result,
    ensure, //
};
use vfio_client::{
    Errno,
    Group,
    check_page_size,
    pci,
    wait::until, //
};

pub use support::devices::{
    EDU,
    NVME,
    SHARED,
    Setup,
    attached,
    group,
    msi_window, //
};

/// An address at which a process has no memory, nor for some GiB behind it.
#[cfg(target_pointer_width = "64")]
pub const EMPTY: usize = 1 << 36;
/// An address at which a process has no memory, nor for a GiB behind it.
#[cfg(target_pointer_width = "32")]
pub const EMPTY: usize = 1 << 30;

/// An `edu` behind a PAMU that our module drives by its registers.
pub const PAMU_EDU: &str = "0001:00:03.0";
/// A disk in the same group.
pub const PAMU_NVME: &str = "0001:00:04.0";

/// The other member of the group of [`SHARED`]. It is bound to a host driver.
pub const SIBLING: &str = "0000:00:05.1";

/// Binds devices to vfio-pci again when dropped.
pub struct Rebind(pub &'static [&'static str]);

impl Drop for Rebind {
    fn drop(&mut self) {
        for bdf in self.0 {
            if pci::driver(bdf).is_none() {
                let _ = pci::bind(bdf, "vfio-pci");
            }
        }
    }
}

/// Waits until a device of a group can no longer be opened, because it is being removed. Returns
/// whether that is so.
pub fn withdrawn(group: &Group, name: &str) -> Result<bool> {
    Ok(until(LIMIT, || match group.device(name) {
        Ok(_) => Ok(false),
        Err(error) if error.errno() == Errno::ENODEV => Ok(true),
        Err(error) => Err(error),
    })?)
}

/// Checks that this is the expected machine.
pub fn check() -> Result<()> {
    check_page_size()?;
    let devices: &[&str] = if pamu_hardware() {
        &[PAMU_EDU, PAMU_NVME]
    } else {
        &[EDU, NVME, SHARED]
    };
    for &bdf in devices {
        let driver = pci::driver(bdf);
        ensure!(
            driver.as_deref() == Some("vfio-pci"),
            "{bdf} must be bound to vfio-pci, but its driver is {driver:?}"
        );
    }
    Ok(())
}
