// SPDX-License-Identifier: GPL-2.0

//! A fake VT-d with a virtual command interface.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    }, //
};

use super::{
    layout::IN_PROGRESS,
    Command,
    Registers,
    Response,
    Status,
    VCCAP,
    VCCAP_PAS,
    VCMD,
    VCRSP, //
};
use crate::tests::guest::Guest;

/// A VT-d with a virtual command interface, as a guest sees it.
pub(crate) struct FakeVtd {
    guest: Arc<Guest>,
    capable: Atomic<bool>,
    response: Atomic<u64>,
    /// The number of polls until a command ends.
    polls: Atomic<u32>,
    /// The number of polls until the current command ends.
    left: Atomic<u32>,
    /// The status with which all commands fail, or zero.
    failure: Atomic<u32>,
    /// The number of polls so far.
    reads: Atomic<u32>,
}

impl FakeVtd {
    pub(crate) fn new(guest: Arc<Guest>) -> Result<Arc<Self>> {
        let vtd = Self {
            guest,
            capable: Atomic::new(true),
            response: Atomic::new(0),
            polls: Atomic::new(1),
            left: Atomic::new(0),
            failure: Atomic::new(0),
            reads: Atomic::new(0),
        };
        Ok(Arc::new(vtd, GFP_KERNEL)?)
    }

    pub(crate) fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Sets whether PASIDs can be allocated.
    pub(super) fn set_capable(&self, capable: bool) {
        self.capable.store(capable, Relaxed);
    }

    /// Sets the number of polls until later commands end.
    pub(super) fn set_polls(&self, polls: u32) {
        self.polls.store(polls, Relaxed);
    }

    /// Returns the number of polls so far.
    pub(super) fn reads(&self) -> u32 {
        self.reads.load(Relaxed)
    }

    /// Ends the current command.
    pub(super) fn finish(&self) {
        self.left.store(0, Relaxed);
    }

    /// Sets whether commands fail, and the status.
    pub(super) fn set_failure(&self, status: Option<u8>) {
        self.failure.store(status.unwrap_or(0).into(), Relaxed);
    }

    fn run(&self, command: Option<Command>) -> Response {
        let failed = |status| Response { status, pasid: 0 };
        match (command, self.failure.load(Relaxed) as u8) {
            (_, number @ 1..) => failed(Status::Other(number)),
            (None, _) => failed(Status::Other(1)),
            (Some(Command::Alloc), _) => match self.guest.alloc(None) {
                Ok(pasid) => Response {
                    status: Status::Success,
                    pasid,
                },
                Err(_) => failed(Status::NoPasid),
            },
            (Some(Command::Free(pasid)), _) => match self.guest.free(pasid) {
                Ok(()) => failed(Status::Success),
                Err(_) => failed(Status::NoPasid),
            },
        }
    }
}

impl Registers for Arc<FakeVtd> {
    fn read(&self, offset: usize) -> u64 {
        match offset {
            VCCAP if self.capable.load(Relaxed) => VCCAP_PAS,
            VCRSP => {
                self.reads.add(1, Relaxed);
                let left = self.left.load(Relaxed);
                if left == 0 {
                    return self.response.load(Relaxed);
                }
                // Fails only if the command was ended concurrently.
                match self.left.cmpxchg(left, left - 1, Relaxed) {
                    Ok(_) | Err(_) => IN_PROGRESS,
                }
            }
            _ => 0,
        }
    }

    fn write(&self, offset: usize, value: u64) -> Result {
        if offset == VCMD {
            let response = self.run(Command::decode(value));
            self.response.store(response.encode(), Relaxed);
            self.left.store(self.polls.load(Relaxed), Relaxed);
        }
        Ok(())
    }
}
