// SPDX-License-Identifier: GPL-2.0

//! Moving a device's state to another device.

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

/// Feature: the state of migration; and to set it.
const SET_STATE: u32 = 2 | (1 << 17);

/// A state to go to; the numbers are those of `enum vfio_device_mig_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationState {
    /// The device does nothing by itself.
    Stop = 1,
    /// It does what it is told.
    Running = 2,
    /// Stopped; its state can be read.
    StopCopy = 3,
    /// Stopped; it gets a state.
    Resuming = 4,
}

impl Device {
    /// Goes to a state. Returns the file by which data go, if the state has one: it ends with the state.
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
