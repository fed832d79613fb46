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

pub(crate) use abi::Mdev;

/// Creates a device of type `ty`. `text` is its UUID, which may be followed by one more byte.
///
/// # Errors
///
/// `EINVAL` for malformed text, `EEXIST` for a UUID in use, `EUSERS` if the parent cannot have
/// another device, `ENODEV` if the parent is being unregistered, `ENOMEM`, and the errors of the
/// driver.
pub(crate) fn create(ty: &Type, text: &[u8]) -> Result {
    if !(Uuid::TEXT_LEN..=Uuid::TEXT_LEN + 1).contains(&text.len()) {
        return Err(EINVAL);
    }
    let uuid = Uuid::parse(&text[..Uuid::TEXT_LEN]).ok_or(EINVAL)?;
    let mdev = Mdev::new(ty, Reservation::new(uuid, ty.parent().key())?)?;
    let _staying = ty.parent().stay().ok_or(ENODEV)?;
    mdev.add()?;
    mdev.bind()
        .and_then(|()| mdev.link())
        .inspect_err(|_| mdev.del())?;
    Mdev::begin(mdev);
    Ok(())
}

/// Removes `mdev` for userspace, and waits until it has no users. `only_once` returns true for a
/// single caller, which removes the device.
///
/// # Errors
///
/// `EAGAIN` if the creation of the device has not finished, `ENODEV` if its parent is being
/// unregistered, which also removes the device.
pub(crate) fn remove(mdev: &Mdev, only_once: impl FnOnce(&Mdev) -> bool) -> Result {
    if !mdev.is_complete() {
        return Err(EAGAIN);
    }
    let _staying = mdev.ty().parent().stay().ok_or(ENODEV)?;
    if only_once(mdev) {
        remove_common(mdev);
    }
    Ok(())
}

/// Removes a complete device. The caller prevents the parent from being unregistered, or has
/// stopped it.
pub(crate) fn remove_common(mdev: &Mdev) {
    mdev.unlink();
    mdev.del();
    drop(mdev.end());
}
