// SPDX-License-Identifier: GPL-2.0

//! Migration of device state.

use crate::{
    Bytes, Device,
    error::{
        Error,
        Result, //
    },
    raw, request,
    structures::{
        Feature,
        MigState,
        argsz, //
    },
    uapi::{
        VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
        VFIO_DEVICE_FEATURE_SET, //
    },
};
use std::fs::File;

/// A migration state. The values are those of `enum vfio_device_mig_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationState {
    /// The device is stopped and does nothing by itself.
    Stop = 1,
    /// The device runs and executes commands.
    Running = 2,
    /// The device is stopped and its state can be read.
    StopCopy = 3,
    /// The device is stopped and its state can be written.
    Resuming = 4,
}

impl Device {
    /// Sets the migration state. Returns the data transfer file if the state has one. The file is
    /// valid only during that state.
    pub fn set_migration_state(&self, state: MigrationState) -> Result<Option<File>> {
        let state = MigState {
            device_state: state as u32,
            data_fd: 0,
        };
        let header = Feature {
            argsz: argsz::<Feature>() + argsz::<MigState>(),
            flags: VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
        };
        let mut request = Bytes::of(&header).append(&state);
        let during = Error::during("DEVICE_FEATURE, MIG_DEVICE_STATE");
        raw::bytes(self, request::DEVICE_FEATURE, &mut request).map_err(&during)?;
        let number = request.get::<MigState>(size_of::<Feature>()).data_fd;
        if number < 0 {
            return Ok(None);
        }
        let file = raw::duplicate(number).map_err(&during)?;
        nix::unistd::close(number).map_err(&during)?;
        Ok(Some(file.into()))
    }
}
