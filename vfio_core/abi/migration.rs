// SPDX-License-Identifier: GPL-2.0

//! `struct vfio_migration_ops`: how a driver moves its device to another host.

use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    fs::File,
    prelude::*,
    sync::aref::ARef, //
};
use kernel_ext::bindings;

use super::device::Device;

/// The migration side of an open device.
pub(crate) struct Migration<'a>(pub(super) &'a Device);

impl Migration<'_> {
    /// The `VFIO_MIGRATION_*` flags of the device.
    pub(crate) fn flags(&self) -> u32 {
        // SAFETY: Set before the device is registered.
        unsafe { (*self.0.as_ptr()).migration_flags }
    }

    /// From now on the driver tells pre-copy sizes in the second way, until the last close.
    pub(crate) fn use_precopy_info_v2(&self) {
        // SAFETY: A byte that drivers only read; the device is open.
        unsafe { (&raw mut (*self.0.as_ptr()).precopy_info_v2).write_volatile(1) }
    }

    /// # Errors
    ///
    /// `ENOTTY` if the device cannot migrate.
    fn ops(&self) -> Result<&bindings::vfio_migration_ops> {
        // SAFETY: Null, or set before the device is registered to a table that outlives it.
        unsafe { (*self.0.as_ptr()).mig_ops.as_ref() }.ok_or(ENOTTY)
    }

    /// Whether the device can migrate, else `ENOTTY`.
    pub(crate) fn check(&self) -> Result {
        self.ops().map(|_| ())
    }

    /// The state that the device is in.
    pub(crate) fn state(&self) -> Result<u32> {
        let get = self.ops()?.migration_get_state.ok_or(ENOTTY)?;
        let mut state = 0;
        // SAFETY: The device is open.
        to_result(unsafe { get(self.0.as_ptr(), &mut state) })?;
        Ok(state)
    }

    /// Moves the device to `state`; on the way it may open a file for the data.
    pub(crate) fn set_state(&self, state: u32) -> Result<Option<ARef<File>>> {
        let set = self.ops()?.migration_set_state.ok_or(ENOTTY)?;
        // SAFETY: The device is open; drivers check the number.
        let file = from_err_ptr(unsafe { set(self.0.as_ptr(), state) })?;
        // SAFETY: Not null means a file that nobody else knows yet, with a reference for us.
        Ok(core::ptr::NonNull::new(file).map(|file| unsafe { ARef::from_raw(file.cast()) }))
    }

    /// How many bytes stopping and copying would take.
    pub(crate) fn data_size(&self) -> Result<u64> {
        let get = self.ops()?.migration_get_data_size.ok_or(ENOTTY)?;
        let mut size = 0;
        // SAFETY: The device is open.
        to_result(unsafe { get(self.0.as_ptr(), &mut size) })?;
        Ok(size as u64)
    }
}
