// SPDX-License-Identifier: GPL-2.0

//! Migration: the state of a device, and the actions of the steps between two states.
//!
//! The core determines the next state on the way to another (`vfio_mig_get_next_state`). Devices of
//! this bus never enter `ERROR`, because a failed step leaves the device unchanged.

#[allow(unsafe_code)]
mod abi;
mod header;
mod transfer;

use kernel::{
    fs::File,
    new_mutex,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    }, //
};
use kernel_ext::migration::MigrationState;

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
    instance::Instance, //
};
use header::Header;
use transfer::Transfer;

pub(crate) use abi::MigrationOps;

/// The migration state of a device.
pub(crate) struct Machine {
    state: MigrationState,
    /// The data that are saved or loaded, in the states that have a [`DataFile`].
    transfer: Option<Arc<Transfer>>,
}

impl Machine {
    /// Creates the lock of a new device, which is running. See `UsedCapacity::new` for why it is
    /// not inlined.
    #[inline(never)]
    pub(crate) fn new() -> impl PinInit<Mutex<Self>> {
        let running = Self {
            state: MigrationState::Running,
            transfer: None,
        };
        new_mutex!(running, "vfio_mdev::Machine")
    }

    /// Ends the transfer, if there is one. Its file becomes unusable.
    fn end_transfer(&mut self) {
        if let Some(transfer) = self.transfer.take() {
            transfer.end();
        }
    }
}

/// The file with the data of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DataFile {
    /// Userspace reads the saved state.
    Saving,
    /// Userspace writes the state to load.
    Resuming,
}

impl DataFile {
    /// Returns the file that a device in this state has.
    fn of(state: MigrationState) -> Option<Self> {
        match state {
            MigrationState::PreCopy | MigrationState::PreCopyP2p | MigrationState::StopCopy => {
                Some(Self::Saving)
            }
            MigrationState::Resuming => Some(Self::Resuming),
            _ => None,
        }
    }
}

impl From<MigrationState> for Activity {
    /// Returns what a device in this state does on its own.
    fn from(state: MigrationState) -> Self {
        match state {
            MigrationState::Running | MigrationState::PreCopy => Self::Running,
            MigrationState::RunningP2p | MigrationState::PreCopyP2p => Self::Quiescent,
            _ => Self::Stopped,
        }
    }
}

/// The actions of a step between two states, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Step {
    /// Create a data file.
    begins: Option<DataFile>,
    /// Change the activity of the device.
    activity: Option<Activity>,
    /// Save the device's state to the file.
    saves: bool,
    /// Load the device's state from the file.
    loads: bool,
    /// Make the file unusable.
    ends: bool,
}

impl Step {
    fn new(from: MigrationState, to: MigrationState) -> Self {
        let (before, after) = (DataFile::of(from), DataFile::of(to));
        Self {
            begins: after.filter(|_| before.is_none()),
            activity: Some(Activity::from(to)).filter(|&activity| activity != Activity::from(from)),
            saves: to == MigrationState::StopCopy,
            loads: from == MigrationState::Resuming,
            ends: before.is_some() && after.is_none(),
        }
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
            let next = self.next_state(machine.state, target)?;
            file = self.step(&migration, &mut machine, next)?;
            machine.state = next;
        }
        Ok(file)
    }

    /// Performs the step to an adjacent state.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, `ENFILE`; `EINVAL` for data that are incomplete or for another kind of device; the
    /// driver's errors. Nothing changes on error.
    fn step(
        &self,
        migration: &Migration<D>,
        machine: &mut Machine,
        next: MigrationState,
    ) -> Result<Option<ARef<File>>> {
        let step = Step::new(machine.state, next);
        let mut file = None;
        let mut transfer = machine.transfer.clone();
        if let Some(kind) = step.begins {
            let (new, its_file) = self.open_transfer(kind, self.header(migration))?;
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
                        (migration.set_activity)(self, machine.state.into());
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
    pub(crate) fn reset_for_next_user(&self) -> Result {
        let mut machine = self.machine().lock();
        // Reset first: commands of the previous user may be waiting for the device to run.
        let result = D::reset(self);
        self.run_again(&mut machine);
        result
    }

    fn run_again(&self, machine: &mut Machine) {
        machine.end_transfer();
        let before = core::mem::replace(&mut machine.state, MigrationState::Running);
        let running = Activity::from(before) == Activity::Running;
        if let Some(migration) = D::MIGRATION.filter(|_| !running) {
            (migration.set_activity)(self, Activity::Running);
        }
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_mdev_migration)]
mod tests {
    use super::{
        MigrationState::*,
        *, //
    };
    use Activity::{
        Quiescent,
        Stopped, //
    };

    #[test]
    fn without_a_file_only_the_activity_changes() {
        for (from, to, activity) in [
            (Running, RunningP2p, Quiescent),
            (RunningP2p, Running, Activity::Running),
            (RunningP2p, Stop, Stopped),
            (Stop, RunningP2p, Quiescent),
            (PreCopy, PreCopyP2p, Quiescent),
            (PreCopyP2p, PreCopy, Activity::Running),
        ] {
            let expected = Step {
                activity: Some(activity),
                ..Step::default()
            };
            assert_eq!(Step::new(from, to), expected);
        }
    }

    #[test]
    fn saving_keeps_its_file() {
        for (from, to) in [
            (Running, PreCopy),
            (RunningP2p, PreCopyP2p),
            (Stop, StopCopy),
        ] {
            let expected = Step {
                begins: Some(DataFile::Saving),
                saves: to == StopCopy,
                ..Step::default()
            };
            assert_eq!(Step::new(from, to), expected);
            let expected = Step {
                ends: true,
                ..Step::default()
            };
            assert_eq!(Step::new(to, from), expected);
        }
        let expected = Step {
            activity: Some(Stopped),
            saves: true,
            ..Step::default()
        };
        assert_eq!(Step::new(PreCopyP2p, StopCopy), expected);
    }

    #[test]
    fn resuming_loads_at_its_end() {
        let expected = Step {
            begins: Some(DataFile::Resuming),
            ..Step::default()
        };
        assert_eq!(Step::new(Stop, Resuming), expected);
        let expected = Step {
            loads: true,
            ends: true,
            ..Step::default()
        };
        assert_eq!(Step::new(Resuming, Stop), expected);
    }
}
