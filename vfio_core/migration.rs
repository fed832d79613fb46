// SPDX-License-Identifier: GPL-2.0

//! The migration state machine of a device: finds the next state on the path to a target state.
//!
//! Userspace may request any state, but a driver implements only single steps.
//! `include/uapi/linux/vfio.h` describes the steps and their order at
//! `VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE`.

#[allow(unsafe_code)]
mod abi;

use kernel::prelude::*;
use kernel_ext::{
    bindings::{
        VFIO_MIGRATION_P2P as P2P,
        VFIO_MIGRATION_PRE_COPY as PRE_COPY,
        VFIO_MIGRATION_STOP_COPY as STOP_COPY, //
    },
    migration::MigrationState,
    mm::may_warn, //
};

/// Returns whether a device with the migration flags `flags` has this state.
fn is_supported(state: MigrationState, flags: u32) -> bool {
    use MigrationState::*;
    let needed = match state {
        Error => return flags == u32::MAX,
        Stop | Running | StopCopy | Resuming => STOP_COPY,
        RunningP2p => STOP_COPY | P2P,
        PreCopy => STOP_COPY | PRE_COPY,
        PreCopyP2p => STOP_COPY | P2P | PRE_COPY,
    };
    flags & needed == needed
}

/// Returns the next state on the path to `target`, or `None` if there is no path. Skips states that
/// a device with the migration flags `flags` does not have.
fn next(state: MigrationState, target: MigrationState, flags: u32) -> Option<MigrationState> {
    let mut next = step(state, target);
    while next != MigrationState::Error && !is_supported(next, flags) {
        next = step(next, target);
    }
    (next != MigrationState::Error).then_some(next)
}

/// Returns the number of the next state on the path from state `current` to state `target`, for a
/// device with the migration flags `flags`.
///
/// # Errors
///
/// Returns `EINVAL` if there is no path or the device does not have one of the states.
pub(crate) fn next_state(flags: u32, current: u32, target: u32) -> Result<u32> {
    let known = |number| {
        MigrationState::from_number(number)
            .filter(|&s| s == MigrationState::Error || is_supported(s, flags))
    };
    let Some(current) = known(current).filter(|&s| s != MigrationState::Error || flags == u32::MAX)
    else {
        if may_warn() {
            pr_warn!(
                "vfio_mig_get_next_state: the driver passed state {}, which the device does not support\n",
                current
            );
        }
        return Err(EINVAL);
    };
    let target = known(target).ok_or(EINVAL)?;
    let next = self::next(current, target, flags).ok_or(EINVAL)?;
    Ok(next as u32)
}

/// Returns the next state on the path to `target` for a device that has every state.
fn step(state: MigrationState, target: MigrationState) -> MigrationState {
    use MigrationState::*;
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

    fn all() -> impl Iterator<Item = MigrationState> {
        (0..8).filter_map(MigrationState::from_number)
    }

    /// Returns whether a driver with these flags must implement this step, according to the uapi
    /// header.
    fn is_driver_arc(from: MigrationState, to: MigrationState, flags: u32) -> bool {
        use MigrationState::*;
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
    fn each_step_is_a_driver_arc_and_reaches_the_target() {
        for flags in 0..8 {
            for from in all().filter(|&s| is_supported(s, flags)) {
                for target in all().filter(|&s| is_supported(s, flags)) {
                    let mut state = from;
                    let mut steps = 0;
                    while state != target {
                        let Some(step) = next(state, target, flags) else {
                            break;
                        };
                        assert!(is_driver_arc(state, step, flags));
                        state = step;
                        steps += 1;
                        assert!(steps <= 5);
                    }
                    let blocked = from == MigrationState::StopCopy
                        && matches!(target, MigrationState::PreCopy | MigrationState::PreCopyP2p);
                    assert_eq!(blocked, state != target);
                }
            }
        }
    }

    #[test]
    fn next_state_of_the_target_is_the_target() {
        for state in all().filter(|&s| is_supported(s, 7)) {
            assert_eq!(next(state, state, 7), Some(state));
        }
    }

    #[test]
    fn no_path_from_or_to_error() {
        for state in all() {
            assert_eq!(next(MigrationState::Error, state, 7), None);
            assert_eq!(next(state, MigrationState::Error, 7), None);
        }
    }

    #[test]
    fn long_paths_are_those_of_the_uapi_header() {
        use MigrationState::*;
        let ways: [&[MigrationState]; 7] = [
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
                assert_eq!(next(step[0], way[way.len() - 1], 7), Some(step[1]));
            }
        }
    }
}
