// SPDX-License-Identifier: GPL-2.0

//! MSIs of PCI devices that userspace drives.
//!
//! The kernel's driver of the banks composes messages for devices that reach all of the system's
//! registers. A device in a container reaches a doorbell only by the window that userspace mapped
//! the bank at. So this module puts itself before that driver in the callbacks of the PCI
//! controllers: while the MSIs of such a device are set up, and before the device may send one, it
//! replaces their address. The device uses the bank until its MSIs are torn down.

#[allow(unsafe_code)]
mod abi;

pub(crate) use abi::{
    init_lock,
    Interposed, //
};

use kernel::{
    device::Device,
    prelude::*, //
};

use super::MsiBankUse;

/// A message signalled interrupt of a device that was set up.
trait Message {
    /// Returns the address that the device writes to.
    fn address(&self) -> u64;

    /// Changes the address.
    ///
    /// # Errors
    ///
    /// `ERANGE` if the device can only have 32-bit addresses.
    fn set_address(&self, address: u64) -> Result;
}

/// Leads a message of a device through the window to its bank. Returns the use of the bank, or `None`
/// if the kernel drives the device.
///
/// # Errors
///
/// Those of [`MsiBankUse::of_message`] and [`Message::set_address`].
fn lead(dev: &Device, message: &impl Message) -> Result<Option<MsiBankUse>> {
    let Some(bank) = MsiBankUse::of_message(dev, message.address())? else {
        return Ok(None);
    };
    message.set_address(bank.address())?;
    Ok(Some(bank))
}
