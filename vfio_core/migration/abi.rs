// SPDX-License-Identifier: GPL-2.0

//! `struct vfio_migration_ops`: the callbacks by which a driver migrates its device to another
//! host.

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

use crate::device::{
    set::OpenRef,
    Device, //
};

/// The migration interface of a device.
pub(crate) struct Migration<'a>(&'a Device);

impl Device {
    /// Returns the migration interface of the device.
    pub(crate) fn migration(&self) -> Migration<'_> {
        Migration(self)
    }
}

impl Migration<'_> {
    /// Returns the `VFIO_MIGRATION_*` flags of the device.
    pub(crate) fn flags(&self) -> u32 {
        // SAFETY: The field was set before the device was registered.
        unsafe { (*self.0.as_ptr()).migration_flags }
    }

    /// # Errors
    ///
    /// Returns `ENOTTY` if the device cannot migrate.
    fn ops(&self) -> Result<&bindings::vfio_migration_ops> {
        // SAFETY: The pointer is null, or it was set before the device's registration and points to
        // a table that outlives the device.
        unsafe { (*self.0.as_ptr()).mig_ops.as_ref() }.ok_or(ENOTTY)
    }

    /// Returns `Ok` if the device can migrate, else `ENOTTY`.
    pub(crate) fn check(&self) -> Result {
        self.ops().map(|_| ())
    }

    /// Returns the current state of the device.
    pub(crate) fn state(&self) -> Result<u32> {
        let get = self.ops()?.migration_get_state.ok_or(ENOTTY)?;
        let mut state = 0;
        // SAFETY: The device is open, or it is registered and its file in debugfs is read. Drivers
        // allow both.
        to_result(unsafe { get(self.0.as_ptr(), &mut state) })?;
        Ok(state)
    }
}

impl OpenRef {
    /// Makes the driver report pre-copy sizes in the v2 format until the last close.
    pub(crate) fn use_precopy_info_v2(&self) {
        // SAFETY: The field is a byte that drivers only read, and the device is open.
        unsafe { (&raw mut (*self.as_ptr()).precopy_info_v2).write_volatile(1) }
    }

    /// Moves the device to `state`. The driver may return a file for the migration data.
    pub(crate) fn set_migration_state(&self, state: u32) -> Result<Option<ARef<File>>> {
        let set = self.migration().ops()?.migration_set_state.ok_or(ENOTTY)?;
        // SAFETY: The device is open, and drivers check the number.
        let file = from_err_ptr(unsafe { set(self.as_ptr(), state) })?;
        // SAFETY: A non-null result is a file that userspace does not have yet, with a reference
        // that passes to the caller.
        Ok(core::ptr::NonNull::new(file).map(|file| unsafe { ARef::from_raw(file.cast()) }))
    }

    /// Returns the number of bytes that the stop-copy phase would transfer.
    pub(crate) fn migration_data_size(&self) -> Result<u64> {
        let get = self
            .migration()
            .ops()?
            .migration_get_data_size
            .ok_or(ENOTTY)?;
        let mut size = 0;
        // SAFETY: The device is open.
        to_result(unsafe { get(self.as_ptr(), &mut size) })?;
        Ok(size as u64)
    }
}
