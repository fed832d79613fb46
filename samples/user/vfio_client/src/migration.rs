// SPDX-License-Identifier: GPL-2.0

//! Migration of device state.

use crate::{
    Bytes,
    Device,
    error::{
        Error,
        Result, //
    },
    raw,
    request, //
};
use std::fs::File;

/// The DEVICE_FEATURE flags that set the migration state.
const SET_STATE: u32 = 2 | (1 << 17);

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
        let mut request = Bytes::new().u32(16).u32(SET_STATE).u32(state as u32).u32(0);
        let during = Error::during("DEVICE_FEATURE, MIG_DEVICE_STATE");
        raw::bytes(self, request::DEVICE_FEATURE, &mut request).map_err(&during)?;
        let number = request.get_u32(12) as i32;
        if number < 0 {
            return Ok(None);
        }
        let file = raw::duplicate(number).map_err(&during)?;
        nix::unistd::close(number).map_err(&during)?;
        Ok(Some(file.into()))
    }
}
