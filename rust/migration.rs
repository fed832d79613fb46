// SPDX-License-Identifier: GPL-2.0

//! The migration states of a VFIO device.
//!
//! C header: [`include/uapi/linux/vfio.h`](srctree/include/uapi/linux/vfio.h)

use crate::bindings;

/// A migration state of a device: `enum vfio_device_mig_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MigrationState {
    /// The device has failed and must be reset.
    Error = bindings::vfio_device_mig_state_VFIO_DEVICE_STATE_ERROR,
    /// The device is stopped.
    Stop = bindings::vfio_device_mig_state_VFIO_DEVICE_STATE_STOP,
    /// The device runs.
    Running = bindings::vfio_device_mig_state_VFIO_DEVICE_STATE_RUNNING,
    /// The device is stopped, and its state can be read.
    StopCopy = bindings::vfio_device_mig_state_VFIO_DEVICE_STATE_STOP_COPY,
    /// The device is stopped, and its state can be written.
    Resuming = bindings::vfio_device_mig_state_VFIO_DEVICE_STATE_RESUMING,
    /// The device runs, but does not access other devices.
    RunningP2p = bindings::vfio_device_mig_state_VFIO_DEVICE_STATE_RUNNING_P2P,
    /// The device runs, and a part of its state can be read.
    PreCopy = bindings::vfio_device_mig_state_VFIO_DEVICE_STATE_PRE_COPY,
    /// As [`PreCopy`](MigrationState::PreCopy), but the device does not access other devices.
    PreCopyP2p = bindings::vfio_device_mig_state_VFIO_DEVICE_STATE_PRE_COPY_P2P,
}

impl MigrationState {
    const ALL: [Self; 8] = [
        Self::Error,
        Self::Stop,
        Self::Running,
        Self::StopCopy,
        Self::Resuming,
        Self::RunningP2p,
        Self::PreCopy,
        Self::PreCopyP2p,
    ];

    /// Returns the state with a number of `enum vfio_device_mig_state`, if it exists.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&state| state as u32 == number)
    }

    /// Returns the name of the state in debugfs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Stop => "STOP",
            Self::Running => "RUNNING",
            Self::StopCopy => "STOP_COPY",
            Self::Resuming => "RESUMING",
            Self::RunningP2p => "RUNNING_P2P",
            Self::PreCopy => "PRE_COPY",
            Self::PreCopyP2p => "PRE_COPY_P2P",
        }
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(kernel_ext_migration)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_userspace() {
        for number in 0..20 {
            let state = MigrationState::from_number(number);
            assert_eq!(state.is_some(), number < 8);
            assert!(state.is_none_or(|state| state as u32 == number));
        }
    }
}
