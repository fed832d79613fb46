// SPDX-License-Identifier: GPL-2.0

//! Migration of device state.

use crate::{
    Device,
    Error,
    Result,
    abi,
    structures::MigState, //
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
            data_fd: -1,
        };
        abi::migration_fd(self, state)
            .map(|fd| fd.map(File::from))
            .map_err(Error::during("DEVICE_FEATURE, MIG_DEVICE_STATE"))
    }
}
