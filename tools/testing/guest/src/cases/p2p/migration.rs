// SPDX-License-Identifier: GPL-2.0

//! Migration: the state of an accelerator is transferred to another one, and nothing else is.

mod data;
mod quiet;

use super::open;
use crate::{
    harness::{
        Failure,
        cases, //
    },
    migration::{
        self,
        PRE_COPY,
        PRE_COPY_P2P,
        RESUMING,
        RUNNING,
        RUNNING_P2P,
        STOP,
        STOP_COPY,
        go_plainly,
        go_with_file,
        save,
        state, //
    },
};
use anyhow::Result;
use libtest_mimic::Trial;
use nix::poll::{
    PollFd,
    PollFlags,
    PollTimeout,
    poll, //
};
use std::{
    fs::File,
    io::Read,
    os::fd::AsFd, //
};
use vfio_client::{
    Container,
    Device,
    Errno,
    Group, //
};
use vgpu_copy::{
    Kind,
    Mdev,
    Vgpu, //
};

/// The size of the header, which can be read before the device is stopped.
const HEADER: usize = 64;

mod protocol {
    use super::*;

    cases! {
        #[rows("D7")] feature_flags_and_sizes,
        #[rows("D10")] all_states_return_to_running,
        #[rows("D10")] precopy_to_stop_copy_keeps_data_file,
        #[rows("D10")] invalid_states,
        #[rows("D10")] invalid_transitions,
        #[rows("D10")] resuming_with_too_little_data,
        #[rows("D10")] data_file_is_dead_after_transition,
        #[rows("D10")] reset_returns_to_running,
        #[rows("D10")] unwritable_answer_changes_nothing,
        #[rows("D10")] no_free_descriptor_for_data_file,
        #[rows("D10")] last_close_ends_data_file,
        #[rows("D10")] close_in_each_state,
        #[rows("D10")] poll_data_file,
        #[rows("D18")] enable_precopy_info_v2,
        #[rows("D19")] get_precopy_info,
    }

    fn feature_flags_and_sizes() -> Result<()> {
        migration::checks(Open::new(Kind::Single)?.device())
    }

    fn all_states_return_to_running() -> Result<()> {
        migration::walk_back_to_running(Open::new(Kind::Isolated)?.device())
    }

    fn precopy_to_stop_copy_keeps_data_file() -> Result<()> {
        migration::precopy_keeps_its_file(Open::new(Kind::Double)?.device(), Err(Errno::ENOMSG))
    }

    fn invalid_states() -> Result<()> {
        migration::bad_states(Open::new(Kind::Single)?.device())
    }

    fn invalid_transitions() -> Result<()> {
        migration::illegal_ways(Open::new(Kind::Single)?.device())
    }

    fn resuming_with_too_little_data() -> Result<()> {
        migration::not_enough_data(Open::new(Kind::Single)?.device())
    }

    fn data_file_is_dead_after_transition() -> Result<()> {
        migration::file_is_useless_afterwards(Open::new(Kind::Single)?.device())
    }

    fn reset_returns_to_running() -> Result<()> {
        migration::reset_goes_to_running(Open::new(Kind::Single)?.device())
    }

    fn unwritable_answer_changes_nothing() -> Result<()> {
        migration::answer_cannot_be_written(Open::new(Kind::Single)?.device())
    }

    fn no_free_descriptor_for_data_file() -> Result<()> {
        migration::no_descriptor_left(Open::new(Kind::Single)?.device())
    }

    fn last_close_ends_data_file() -> Result<()> {
        let open = Open::new(Kind::Single)?;
        let second = open.group.device(open.mdev.uuid())?;
        let mut file = go_with_file(open.device(), STOP_COPY)?;
        drop(open.vgpu);
        assert_eq!(file.read(&mut [0; 8])?, 8, "there is another descriptor");
        drop(second);
        assert_eq!(file.read(&mut [0; 8]).errno(), Errno::ENODEV);
        let again = open.group.device(open.mdev.uuid())?;
        assert_eq!(state(&again)?, RUNNING);
        assert_eq!(file.read(&mut [0; 8]).errno(), Errno::ENODEV);
        Ok(())
    }

    fn close_in_each_state() -> Result<()> {
        let mdev = Mdev::with_new_uuid(Kind::Single)?;
        for there in [STOP, RUNNING_P2P] {
            let (vgpu, _group, _container) = open(&mdev)?;
            assert_eq!(state(vgpu.device())?, RUNNING);
            go_plainly(vgpu.device(), there);
        }
        let mut files = Vec::new();
        for there in [STOP_COPY, RESUMING, PRE_COPY, PRE_COPY_P2P] {
            let (vgpu, _group, _container) = open(&mdev)?;
            assert_eq!(state(vgpu.device())?, RUNNING);
            files.push(go_with_file(vgpu.device(), there)?);
        }
        // The files do not hold the device.
        drop(mdev);
        Ok(())
    }

    fn poll_data_file() -> Result<()> {
        let open = Open::new(Kind::Single)?;
        let mut file = go_with_file(open.device(), PRE_COPY)?;
        let (some, none) = (PollFlags::POLLIN, PollFlags::empty());
        assert_eq!(ready(&file)?, some);
        file.read_exact(&mut [0; HEADER])?;
        assert_eq!(ready(&file)?, none);
        std::thread::scope(|scope| -> Result<()> {
            let waiter = scope.spawn(|| wait(&file, 10_000));
            go_plainly(open.device(), STOP_COPY);
            assert_eq!(waiter.join().expect("the thread has panicked")?, some);
            Ok(())
        })?;
        file.read_to_end(&mut Vec::new())?;
        assert_eq!(ready(&file)?, some, "the end");
        go_plainly(open.device(), RUNNING);
        assert_eq!(ready(&file)?, some, "the end of all");
        Ok(())
    }

    fn enable_precopy_info_v2() -> Result<()> {
        migration::precopy_info_v2(Open::new(Kind::Single)?.device())
    }

    fn get_precopy_info() -> Result<()> {
        migration::precopy_info(Open::new(Kind::Single)?.device(), HEADER as u64)
    }
}

/// Returns all cases.
pub fn cases() -> Vec<Trial> {
    [protocol::cases(), data::cases(), quiet::cases()]
        .into_iter()
        .flatten()
        .collect()
}

/// An open device. The fields are in the order in which they must be dropped.
struct Open {
    vgpu: Vgpu,
    group: Group,
    container: Container,
    mdev: Mdev,
}

impl Open {
    fn new(kind: Kind) -> Result<Self> {
        let mdev = Mdev::with_new_uuid(kind)?;
        let (vgpu, group, container) = open(&mdev)?;
        Ok(Self {
            vgpu,
            group,
            container,
            mdev,
        })
    }

    fn device(&self) -> &Device {
        self.vgpu.device()
    }
}

/// Returns the current poll events of a file.
fn ready(file: &File) -> Result<PollFlags> {
    wait(file, 0)
}

/// Waits up to `milliseconds` for a file to be ready. Returns its poll events.
fn wait(file: &File, milliseconds: u16) -> Result<PollFlags> {
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::from(milliseconds))?;
    Ok(fds[0].revents().unwrap_or(PollFlags::empty()))
}
