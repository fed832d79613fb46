// SPDX-License-Identifier: GPL-2.0

//! A mediated device that cannot be reset cannot be opened by another user.

use crate::{
    harness::cases,
    pin::{
        FAIL_RESETS,
        Pinning, //
    },
};
use anyhow::{
    Context,
    Result, //
};
use support::kmsg::says;
use vfio_client::Errno;

cases! {
    #[requires(driver(Rust))] reset_ioctl_fails,
    #[requires(driver(Rust))] reset_after_last_close_fails,
}

fn reset_ioctl_fails() -> Result<()> {
    let pinning = Pinning::new()?;
    pinning.pinner.misbehave(FAIL_RESETS).context("misbehave")?;
    for expected in [Err(Errno::EIO), Err(Errno::EIO), Ok(())] {
        let reset = pinning.pinner.device().reset();
        assert_eq!(reset.map_err(|error| error.errno()), expected);
    }
    Ok(())
}

fn reset_after_last_close_fails() -> Result<()> {
    says(&["reset after the last close failed"], || {
        let pinning = Pinning::new()?;
        pinning.pinner.misbehave(FAIL_RESETS).context("misbehave")?;
        drop(pinning);
        let refused = Pinning::new().err().map(|error| {
            let error = error.downcast_ref::<vfio_client::Error>();
            error.map(vfio_client::Error::errno)
        });
        assert_eq!(refused, Some(Some(Errno::EIO)));
        Pinning::new()?.pinner.device().reset()?;
        Ok(())
    })
}
