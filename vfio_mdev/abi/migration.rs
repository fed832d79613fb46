// SPDX-License-Identifier: GPL-2.0

//! Migration: `struct vfio_migration_ops` of devices that implement [`Migrate`](crate::Migrate).

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
    sync::aref::ARef, //
};
use kernel_ext::bindings;

use super::{
    instance::Instance,
    vfio::Calls, //
};
use crate::{
    driver::{
        migrate::{
            Activity,
            Migration, //
        },
        Device,
        Parent,
        Type, //
    },
    migration::{
        transfer::Transfer,
        Header,
        Machine,
        State,
        Step, //
    },
};

/// The callbacks from VFIO.
///
/// VFIO calls all of them with the `struct vfio_device` of an open [`Instance<D>`].
pub(super) struct MigrationOps<D>(PhantomData<D>);

impl<D: Device> MigrationOps<D> {
    pub(super) const TABLE: &'static bindings::vfio_migration_ops = &bindings::vfio_migration_ops {
        migration_set_state: Some(Self::set_state_callback),
        migration_get_state: Some(Self::get_state_callback),
        migration_get_data_size: Some(Self::get_data_size_callback),
    };

    /// The migration capabilities of the devices: all that VFIO defines.
    pub(super) const FLAGS: u32 = bindings::VFIO_MIGRATION_STOP_COPY
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
    /// Changes the state to `target`, through the states in between. Returns the data file if the
    /// last step opened one.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the state does not exist or cannot be reached, and the errors of a
    /// [step](Instance::step). On error the device stays in the last state that it reached.
    fn set_migration_state(&self, target: u32) -> Result<Option<ARef<File>>> {
        let migration = D::MIGRATION.ok_or(ENOTTY)?;
        let mut machine = self.machine().lock();
        let mut file = None;
        while machine.state as u32 != target {
            let mut next = 0;
            // SAFETY: The device supports migration, and `next` is valid for writes.
            to_result(unsafe {
                Calls::<D>::NEXT_STATE(self.as_ptr(), machine.state as u32, target, &raw mut next)
            })?;
            let next = State::from_number(next).ok_or(EINVAL)?;
            file = self.step(&migration, &mut machine, next)?;
            machine.state = next;
        }
        Ok(file)
    }

    /// Performs the transition between two adjacent states.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `ENFILE`; `EINVAL` for data that are incomplete or for another kind of device; the
    /// driver's errors. Nothing changes on error.
    fn step(
        &self,
        migration: &Migration<D>,
        machine: &mut Machine,
        next: State,
    ) -> Result<Option<ARef<File>>> {
        let step = Step::new(machine.state, next);
        let mut file = None;
        let mut transfer = machine.transfer.clone();
        if let Some(session) = step.begins {
            // SAFETY: The transfer ends, and drops the value, before the device is closed.
            let version = unsafe { InfoVersion::new(self.as_ptr()) };
            let (new, its_file) = Transfer::open(session, self.header(migration), version)?;
            (transfer, file) = (Some(new), Some(its_file));
        }
        if let Some(activity) = step.activity {
            (migration.set_activity)(self, activity);
        }
        if let Some(transfer) = transfer.as_ref().filter(|_| step.saves) {
            transfer
                .save(&mut |state| (migration.save)(self, state))
                .inspect_err(|_| {
                    if step.activity.is_some() {
                        (migration.set_activity)(self, machine.state.activity());
                    }
                })?;
        }
        if let Some(transfer) = transfer.as_ref().filter(|_| step.loads) {
            transfer.load(&mut |state| (migration.load)(self, state))?;
        }
        machine.transfer = transfer;
        if step.ends {
            machine.end_transfer();
        }
        Ok(file)
    }

    /// Returns the header that precedes the device's state.
    fn header(&self, migration: &Migration<D>) -> Header {
        Header::new(
            D::Parent::NAME.to_bytes(),
            self.ty().sysfs_name().to_bytes(),
            migration.version,
            (migration.state_size)(self),
        )
    }

    /// Handles `VFIO_DEVICE_RESET`.
    ///
    /// # Errors
    ///
    /// The driver's errors.
    pub(crate) fn reset(&self) -> Result {
        let mut machine = self.machine().lock();
        D::reset(self)?;
        self.run_again(&mut machine);
        Ok(())
    }

    /// Resets a device that is no longer open. Ends its user's migration even if the reset fails.
    ///
    /// # Errors
    ///
    /// The driver's errors.
    pub(super) fn reset_for_next_user(&self) -> Result {
        let mut machine = self.machine().lock();
        // Reset first: commands of the previous user may be waiting for the device to run.
        let result = D::reset(self);
        self.run_again(&mut machine);
        result
    }

    fn run_again(&self, machine: &mut Machine) {
        machine.end_transfer();
        let before = core::mem::replace(&mut machine.state, State::Running);
        if let Some(migration) = D::MIGRATION.filter(|_| before.activity() != Activity::Running) {
            (migration.set_activity)(self, Activity::Running);
        }
    }
}

/// The version of `VFIO_MIG_GET_PRECOPY_INFO` that the device's user has chosen.
///
/// # Invariants
///
/// Points at a byte of the device, which outlives this value.
pub(crate) struct InfoVersion(*const u8);

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
    pub(crate) fn is_second(&self) -> bool {
        // SAFETY: By the type invariant. The core may write the byte concurrently. Then the result
        // is either the old or the new value.
        unsafe { self.0.read_volatile() != 0 }
    }
}
