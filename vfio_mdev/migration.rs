// SPDX-License-Identifier: GPL-2.0

//! The migration states, and the actions of the transitions between them.
//!
//! The core determines the next state on the way to another (`vfio_mig_get_next_state`). The states
//! are those of `enum vfio_device_mig_state`. Devices of this bus never enter `ERROR`, because a
//! failed transition leaves the device unchanged.

mod header;
pub(crate) mod transfer;

use kernel::sync::Arc;

use crate::driver::migrate::Activity;
use transfer::Transfer;

pub(crate) use header::Header;

/// The migration state of a device.
pub(crate) struct Machine {
    pub(crate) state: State,
    /// The data that are saved or loaded, in the states that have a [`Session`].
    pub(crate) transfer: Option<Arc<Transfer>>,
}

impl Machine {
    /// The state of a running device.
    pub(crate) const fn new() -> Self {
        Self {
            state: State::Running,
            transfer: None,
        }
    }

    /// Ends the transfer, if there is one. Its file becomes unusable.
    pub(crate) fn end_transfer(&mut self) {
        if let Some(transfer) = self.transfer.take() {
            transfer.end();
        }
    }
}

/// A migration state. The numbers are those of `<linux/vfio.h>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum State {
    Stop = 1,
    Running = 2,
    StopCopy = 3,
    Resuming = 4,
    RunningP2p = 5,
    PreCopy = 6,
    PreCopyP2p = 7,
}

/// The direction of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    /// To userspace.
    Saving,
    /// From userspace.
    Resuming,
}

impl State {
    /// Returns the state with a number, if it exists.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            1 => Self::Stop,
            2 => Self::Running,
            3 => Self::StopCopy,
            4 => Self::Resuming,
            5 => Self::RunningP2p,
            6 => Self::PreCopy,
            7 => Self::PreCopyP2p,
            _ => return None,
        })
    }

    /// Returns what a device in this state does on its own.
    pub(crate) fn activity(self) -> Activity {
        match self {
            Self::Running | Self::PreCopy => Activity::Running,
            Self::RunningP2p | Self::PreCopyP2p => Activity::Quiescent,
            Self::Stop | Self::StopCopy | Self::Resuming => Activity::Stopped,
        }
    }

    fn session(self) -> Option<Session> {
        match self {
            Self::PreCopy | Self::PreCopyP2p | Self::StopCopy => Some(Session::Saving),
            Self::Resuming => Some(Session::Resuming),
            Self::Stop | Self::Running | Self::RunningP2p => None,
        }
    }
}

/// The actions of a transition between two states, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    /// Create a data file.
    pub(crate) begins: Option<Session>,
    /// Change the activity of the device.
    pub(crate) activity: Option<Activity>,
    /// Save the device's state to the file.
    pub(crate) saves: bool,
    /// Load the device's state from the file.
    pub(crate) loads: bool,
    /// Make the file unusable.
    pub(crate) ends: bool,
}

impl Step {
    pub(crate) fn new(from: State, to: State) -> Self {
        let (before, after) = (from.session(), to.session());
        Self {
            begins: after.filter(|_| before.is_none()),
            activity: Some(to.activity()).filter(|activity| *activity != from.activity()),
            saves: to == State::StopCopy,
            loads: from == State::Resuming,
            ends: before.is_some() && after.is_none(),
        }
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_mdev_migration)]
mod tests {
    use super::{
        State::*,
        *, //
    };
    use Activity::{
        Quiescent,
        Stopped, //
    };

    #[test]
    fn numbers_are_those_of_userspace() {
        for number in 0..20 {
            let state = State::from_number(number);
            assert_eq!(state.is_some(), (1..8).contains(&number));
            assert!(state.is_none_or(|state| state as u32 == number));
        }
    }

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
                begins: Some(Session::Saving),
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
            begins: Some(Session::Resuming),
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
