// SPDX-License-Identifier: GPL-2.0

//! How devices come and go.
//!
//! All of it happens while the parent is kept registered by its `unreg_sem`: creation and removal by
//! userspace hold it for reading, the parent's unregistration holds it for writing and takes down
//! what is left.

use kernel::prelude::*;

use crate::{
    abi::{
        device::Mdev,
        types::Type, //
    },
    registry::Claim,
    uuid::Uuid, //
};

/// Makes a device of type `ty`; `text` is its UUID, which one more byte may follow.
///
/// # Errors
///
/// `EINVAL` for other text, `EEXIST` for a UUID that is taken, `EUSERS` if the parent can't have
/// another device, `ENODEV` if it is on its way out, `ENOMEM`, and what its driver says.
pub(crate) fn create(ty: &Type, text: &[u8]) -> Result {
    if !(Uuid::TEXT_LEN..=Uuid::TEXT_LEN + 1).contains(&text.len()) {
        return Err(EINVAL);
    }
    let uuid = Uuid::parse(&text[..Uuid::TEXT_LEN]).ok_or(EINVAL)?;
    let mdev = Mdev::new(ty, Claim::take(uuid, ty.parent().key())?)?;
    let _staying = ty.parent().stay().ok_or(ENODEV)?;
    mdev.add()?;
    mdev.bind()
        .and_then(|()| mdev.link())
        .inspect_err(|_| mdev.del())?;
    Mdev::begin(mdev);
    Ok(())
}

/// Removes `mdev` for userspace, waiting for its users. `only_once` says whether nobody else does.
///
/// # Errors
///
/// `EAGAIN` if the device isn't complete yet, `ENODEV` if its parent is on its way out and takes the
/// device along.
pub(crate) fn remove(mdev: &Mdev, only_once: impl FnOnce(&Mdev) -> bool) -> Result {
    if !mdev.is_complete() {
        return Err(EAGAIN);
    }
    let _staying = mdev.ty().parent().stay().ok_or(ENODEV)?;
    if only_once(mdev) {
        take_down(mdev);
    }
    Ok(())
}

/// Takes a complete device away. The parent is kept from being unregistered, or is stopped.
pub(crate) fn take_down(mdev: &Mdev) {
    mdev.unlink();
    mdev.del();
    drop(mdev.end());
}
