// SPDX-License-Identifier: GPL-2.0

//! The migration state machine of a device: finds the next state on the path to a target state.
//!
//! Userspace may request any state, but a driver implements only single steps.
//! `include/uapi/linux/vfio.h` describes the steps and their order at
//! `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`.

#[allow(unsafe_code)]
mod abi;

use kernel::prelude::*;
use kernel_ext::mm::may_warn;

pub(crate) use kernel_ext::migration::MigrationState as State;

/// The device can be stopped and its state copied: `VFIO_MIGRATION_STOP_COPY`.
const STOP_COPY: u32 = 1 << 0;
/// The device has the peer-to-peer quiescent states: `VFIO_MIGRATION_P2P`.
const P2P: u32 = 1 << 1;
/// The device can copy its state while it runs: `VFIO_MIGRATION_PRE_COPY`.
const PRE_COPY: u32 = 1 << 2;

/// The steps between migration states, for a device with the migration flags `flags`.
pub(crate) trait Steps: Sized {
    /// Returns whether the device has this state.
    fn supported(self, flags: u32) -> bool;

    /// Returns the next state on the path to `target`, or `None` if there is no path. Skips states
    /// that the device does not have.
    fn next(self, target: Self, flags: u32) -> Option<Self>;
}

impl Steps for State {
    fn supported(self, flags: u32) -> bool {
        let needed = match self {
            Self::Error => return flags == u32::MAX,
            Self::Stop | Self::Running | Self::StopCopy | Self::Resuming => STOP_COPY,
            Self::RunningP2p => STOP_COPY | P2P,
            Self::PreCopy => STOP_COPY | PRE_COPY,
            Self::PreCopyP2p => STOP_COPY | P2P | PRE_COPY,
        };
        flags & needed == needed
    }

    fn next(self, target: Self, flags: u32) -> Option<Self> {
        let mut next = step(self, target);
        while next != Self::Error && !next.supported(flags) {
            next = step(next, target);
        }
        (next != Self::Error).then_some(next)
    }
}

/// Returns the number of the next state on the path from state `current` to state `target`, for a
/// device with the migration flags `flags`.
///
/// # Errors
///
/// Returns `EINVAL` if there is no path or the device does not have one of the states.
pub(crate) fn next_state(flags: u32, current: u32, target: u32) -> Result<u32> {
    let known =
        |number| State::from_number(number).filter(|&s| s == State::Error || s.supported(flags));
    let Some(current) = known(current).filter(|&s| s != State::Error || flags == u32::MAX) else {
        if may_warn() {
            pr_warn!(
                "vfio_mig_get_next_state: the driver passed state {}, which the device does not support\n",
                current
            );
        }
        return Err(EINVAL);
    };
    let target = known(target).ok_or(EINVAL)?;
    let next = current.next(target, flags).ok_or(EINVAL)?;
    Ok(next as u32)
}

/// Returns the next state on the path to `target` for a device that has every state.
fn step(state: State, target: State) -> State {
    use State::*;
    if target == Error || state == target {
        return target;
    }
    match (state, target) {
        (Stop, Running | PreCopy | PreCopyP2p) => RunningP2p,
        (Stop, _) => target,
        (Running, PreCopy) => PreCopy,
        (Running, _) => RunningP2p,
        (PreCopy, PreCopyP2p | StopCopy) => PreCopyP2p,
        (PreCopy, _) => Running,
        (PreCopyP2p, PreCopy | StopCopy) => target,
        (PreCopyP2p, _) => RunningP2p,
        (StopCopy, PreCopy | PreCopyP2p) => Error,
        (StopCopy, _) | (Resuming, _) => Stop,
        (RunningP2p, Running | PreCopyP2p) => target,
        (RunningP2p, PreCopy) => Running,
        (RunningP2p, _) => Stop,
        (Error, _) => Error,
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_core_migration)]
mod tests {
    use super::*;

    fn all() -> impl Iterator<Item = State> {
        (0..8).filter_map(State::from_number)
    }

    /// Returns whether a driver with these flags must implement this step, according to the uapi
    /// header.
    fn is_driver_arc(from: State, to: State, flags: u32) -> bool {
        use State::*;
        let (p2p, pre_copy) = (flags & P2P != 0, flags & PRE_COPY != 0);
        match (from, to) {
            (Resuming, Stop) | (Stop, Resuming) | (Stop, StopCopy) | (StopCopy, Stop) => true,
            (Running, Stop) | (Stop, Running) => !p2p,
            (Running, RunningP2p) | (RunningP2p, Running) => p2p,
            (RunningP2p, Stop) | (Stop, RunningP2p) => p2p,
            (Running, PreCopy) | (PreCopy, Running) => pre_copy,
            (PreCopy, StopCopy) => pre_copy && !p2p,
            (PreCopy, PreCopyP2p) | (PreCopyP2p, PreCopy) => pre_copy && p2p,
            (PreCopyP2p, RunningP2p) | (RunningP2p, PreCopyP2p) => pre_copy && p2p,
            (PreCopyP2p, StopCopy) => pre_copy && p2p,
            _ => false,
        }
    }

    #[test]
    fn d11_every_step_is_a_driver_arc_and_arrives() {
        for flags in 0..8 {
            for from in all().filter(|s| s.supported(flags)) {
                for target in all().filter(|s| s.supported(flags)) {
                    let mut state = from;
                    let mut steps = 0;
                    while state != target {
                        let Some(next) = state.next(target, flags) else {
                            break;
                        };
                        assert!(is_driver_arc(state, next, flags));
                        state = next;
                        steps += 1;
                        assert!(steps <= 5);
                    }
                    let blocked = from == State::StopCopy
                        && matches!(target, State::PreCopy | State::PreCopyP2p);
                    assert_eq!(blocked, state != target);
                }
            }
        }
    }

    #[test]
    fn d11_staying_is_a_step_to_itself() {
        for state in all().filter(|s| s.supported(7)) {
            assert_eq!(state.next(state, 7), Some(state));
        }
    }

    #[test]
    fn d11_error_is_absorbing() {
        for state in all() {
            assert_eq!(State::Error.next(state, 7), None);
            assert_eq!(state.next(State::Error, 7), None);
        }
    }

    #[test]
    fn d11_long_ways_go_as_documented() {
        use State::*;
        let ways: [&[State]; 7] = [
            &[PreCopy, Running, RunningP2p, Stop, Resuming],
            &[PreCopy, PreCopyP2p, StopCopy],
            &[PreCopyP2p, RunningP2p, Running],
            &[Resuming, Stop, RunningP2p, Running, PreCopy],
            &[Running, RunningP2p, Stop, StopCopy],
            &[Running, RunningP2p, PreCopyP2p],
            &[StopCopy, Stop, RunningP2p, Running],
        ];
        for way in ways {
            for step in way.windows(2) {
                assert_eq!(step[0].next(way[way.len() - 1], 7), Some(step[1]));
            }
        }
    }
}
