// SPDX-License-Identifier: GPL-2.0

//! `struct vfio_migration_ops` of devices that implement [`Migrate`](crate::Migrate).

use core::marker::PhantomData;

use kernel::{
    error::{
        from_result,
        to_result, //
    },
    ffi::{
        c_int,
        c_ulong, //
    },
    fs::File,
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    }, //
};
use kernel_ext::{
    bindings,
    migration::MigrationState, //
};

use super::{
    DataFile,
    Header,
    Transfer, //
};
use crate::{
    driver::Device,
    instance::Instance, //
};

/// The callbacks from VFIO.
///
/// VFIO calls all of them with the `struct vfio_device` of an open [`Instance<D>`].
pub(crate) struct MigrationOps<D>(PhantomData<D>);

impl<D: Device> MigrationOps<D> {
    pub(crate) const TABLE: &'static bindings::vfio_migration_ops = &bindings::vfio_migration_ops {
        migration_set_state: Some(Self::set_state_callback),
        migration_get_state: Some(Self::get_state_callback),
        migration_get_data_size: Some(Self::get_data_size_callback),
    };

    /// The migration capabilities of the devices: all that VFIO defines.
    pub(crate) const FLAGS: u32 = bindings::VFIO_MIGRATION_STOP_COPY
        | bindings::VFIO_MIGRATION_P2P
        | bindings::VFIO_MIGRATION_PRE_COPY;

    /// # Safety
    ///
    /// See [`MigrationOps`].
    unsafe extern "C" fn set_state_callback(
        device: *mut bindings::vfio_device,
        state: bindings::vfio_device_mig_state,
    ) -> *mut bindings::file {
        // SAFETY: By this function's contract.
        let this = unsafe { Instance::<D>::from_raw(device) };
        match this.set_migration_state(state) {
            Ok(Some(file)) => ARef::into_raw(file).as_ptr().cast(),
            Ok(None) => core::ptr::null_mut(),
            Err(e) => e.to_ptr(),
        }
    }

    /// # Safety
    ///
    /// See [`MigrationOps`], but the device may only be registered instead of open. `state` is
    /// valid.
    unsafe extern "C" fn get_state_callback(
        device: *mut bindings::vfio_device,
        state: *mut bindings::vfio_device_mig_state,
    ) -> c_int {
        // SAFETY: By this function's contract.
        let (this, state) = unsafe { (Instance::<D>::from_raw(device), &mut *state) };
        *state = this.machine().lock().state as u32;
        0
    }

    /// # Safety
    ///
    /// See [`MigrationOps`]. `size` is valid.
    unsafe extern "C" fn get_data_size_callback(
        device: *mut bindings::vfio_device,
        size: *mut c_ulong,
    ) -> c_int {
        // SAFETY: By this function's contract.
        let (this, size) = unsafe { (Instance::<D>::from_raw(device), &mut *size) };
        from_result(|| {
            let migration = D::MIGRATION.ok_or(ENOTTY)?;
            *size = this.header(&migration).total();
            Ok(0)
        })
    }
}

impl<D: Device> Instance<D> {
    /// Returns the next state on the way from `from` to the state with the number `target`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the state does not exist or cannot be reached.
    pub(super) fn next_state(&self, from: MigrationState, target: u32) -> Result<MigrationState> {
        let mut next = 0;
        // SAFETY: The device supports migration, and `next` is valid for writes.
        to_result(unsafe {
            bindings::vfio_mig_get_next_state(self.as_ptr(), from as u32, target, &raw mut next)
        })?;
        MigrationState::from_number(next).ok_or(EINVAL)
    }

    /// Opens a data file, see [`Transfer::open`].
    pub(super) fn open_transfer(
        &self,
        kind: DataFile,
        header: Header,
    ) -> Result<(Arc<Transfer>, ARef<File>)> {
        // SAFETY: The transfer ends, and drops the value, before the device is closed.
        let version = unsafe { InfoVersion::new(self.as_ptr()) };
        Transfer::open(kind, header, version)
    }
}

/// The version of `VFIO_MIG_GET_PRECOPY_INFO` that the device's user has chosen.
///
/// # Invariants
///
/// Points at a byte of the device, which outlives this value.
pub(super) struct InfoVersion(*const u8);

// SAFETY: Any thread may read the byte.
unsafe impl Send for InfoVersion {}
// SAFETY: As above.
unsafe impl Sync for InfoVersion {}

impl InfoVersion {
    /// # Safety
    ///
    /// The result is dropped before `device` is freed.
    unsafe fn new(device: *mut bindings::vfio_device) -> Self {
        // SAFETY: By this function's contract. INVARIANT: By the same contract the device outlives
        // the result.
        Self(unsafe { &raw const (*device).precopy_info_v2 })
    }

    /// Whether it is version 2, in which `flags` is an output field.
    pub(super) fn is_second(&self) -> bool {
        // SAFETY: By the type invariant. The core may write the byte concurrently. Then the result
        // is either the old or the new value.
        unsafe { self.0.read_volatile() != 0 }
    }
}
