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
        d07_checks,
        d10_walk_back_to_running,
        d10_precopy_keeps_its_file,
        d10_bad_states,
        d10_illegal_ways,
        d10_resuming_without_enough_data,
        d10_file_is_useless_afterwards,
        d10_reset_goes_to_running,
        d10_answer_cannot_be_written,
        d10_no_descriptor_left,
        d10_last_close,
        d10_close_in_each_state,
        d10_poll,
        d18_precopy_info_v2,
        d19_precopy_info,
    }

    fn d07_checks() -> Result<()> {
        migration::checks(Open::new(Kind::Single)?.device())
    }

    fn d10_walk_back_to_running() -> Result<()> {
        migration::walk_back_to_running(Open::new(Kind::Isolated)?.device())
    }

    fn d10_precopy_keeps_its_file() -> Result<()> {
        migration::precopy_keeps_its_file(Open::new(Kind::Double)?.device(), Err(Errno::ENOMSG))
    }

    fn d10_bad_states() -> Result<()> {
        migration::bad_states(Open::new(Kind::Single)?.device())
    }

    fn d10_illegal_ways() -> Result<()> {
        migration::illegal_ways(Open::new(Kind::Single)?.device())
    }

    fn d10_resuming_without_enough_data() -> Result<()> {
        migration::not_enough_data(Open::new(Kind::Single)?.device())
    }

    fn d10_file_is_useless_afterwards() -> Result<()> {
        migration::file_is_useless_afterwards(Open::new(Kind::Single)?.device())
    }

    fn d10_reset_goes_to_running() -> Result<()> {
        migration::reset_goes_to_running(Open::new(Kind::Single)?.device())
    }

    fn d10_answer_cannot_be_written() -> Result<()> {
        migration::answer_cannot_be_written(Open::new(Kind::Single)?.device())
    }

    fn d10_no_descriptor_left() -> Result<()> {
        migration::no_descriptor_left(Open::new(Kind::Single)?.device())
    }

    fn d10_last_close() -> Result<()> {
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

    fn d10_close_in_each_state() -> Result<()> {
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

    fn d10_poll() -> Result<()> {
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

    fn d18_precopy_info_v2() -> Result<()> {
        migration::precopy_info_v2(Open::new(Kind::Single)?.device())
    }

    fn d19_precopy_info() -> Result<()> {
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
