// SPDX-License-Identifier: GPL-2.0

//! Mediated devices: their creation and removal.
//!
//! During both, `unreg_sem` keeps the parent registered. Userspace requests to create and remove
//! devices hold it for reading. The unregistration of the parent holds it for writing and removes
//! the remaining devices.

#[allow(unsafe_code)]
mod abi;

use kernel::prelude::*;

use crate::{
    bus::Reservation,
    parent::Type,
    uuid::Uuid, //
};

use abi::{
    NewMdev,
    Remover, //
};

pub(crate) use abi::Mdev;

/// Creates a device of type `ty`. `text` is its UUID, which may be followed by one more byte.
///
/// # Errors
///
/// `EINVAL` for malformed text, `EEXIST` for a UUID in use, `EUSERS` if the parent cannot have
/// another device, `ENODEV` if the parent is being registered or unregistered, `ENOMEM`, and the
/// errors of the driver.
pub(crate) fn create(ty: &Type, text: &[u8]) -> Result {
    if !(Uuid::TEXT_LEN..=Uuid::TEXT_LEN + 1).contains(&text.len()) {
        return Err(EINVAL);
    }
    let uuid = Uuid::parse(&text[..Uuid::TEXT_LEN]).ok_or(EINVAL)?;
    let mdev = NewMdev::new(ty, Reservation::new(uuid, ty.parent().key())?)?;
    let staying = ty.parent().stay().ok_or(ENODEV)?;
    let mdev = mdev.add(&staying)?;
    mdev.bind()?;
    mdev.link()?.keep();
    Ok(())
}

/// Removes a device for userspace, unless another thread does, and waits until it has no users.
///
/// # Errors
///
/// `EAGAIN` if the creation of the device has not finished, `ENODEV` if its parent is being
/// unregistered, which also removes the device.
fn remove(mdev: Remover<'_>) -> Result {
    if !mdev.is_complete() {
        return Err(EAGAIN);
    }
    let staying = mdev.parent().stay().ok_or(ENODEV)?;
    drop(mdev.take(&staying));
    Ok(())
}
