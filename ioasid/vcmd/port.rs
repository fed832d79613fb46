// SPDX-License-Identifier: GPL-2.0

//! The state of the registers: one running command, and pending work of slow commands.

use kernel::{
    prelude::*,
    time::{
        delay::udelay,
        Delta, //
    }, //
};

use super::{
    Command,
    Registers,
    Response,
    FAST_POLLS,
    VCMD,
    VCRSP, //
};
use crate::{
    id::range::DEFAULT_CAPACITY,
    warn_failed, //
};

/// Returns the response to the last command, if it has ended.
pub(super) fn response<R: Registers>(registers: &R) -> Option<Response> {
    Response::decode(registers.read(VCRSP))
}

/// The result of starting an allocation.
pub(super) enum Started {
    /// The command has ended.
    Done(Response),
    /// The command is still running, and the port is reserved for its caller.
    Running,
}

/// The state of the command registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CommandState {
    /// No command is running.
    Idle,
    /// An allocation is running, and its caller is waiting for it.
    Allocating,
    /// A command is running, and no caller is waiting for it.
    Abandoned(Command),
}

/// The state of an IOMMU's registers.
pub(super) struct Port {
    state: CommandState,
    to_free: IdSet,
}

impl Port {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            state: CommandState::Idle,
            to_free: IdSet::new()?,
        })
    }

    /// Starts an allocation. Frees a pending PASID first, so that it is available.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the port is not idle; the error of a register write.
    pub(super) fn start_alloc<R: Registers>(&mut self, registers: &R) -> Result<Started> {
        self.free_one(registers)?;
        Ok(match self.run(registers, Command::Alloc)? {
            Some(response) => Started::Done(response),
            None => {
                self.state = CommandState::Allocating;
                Started::Running
            }
        })
    }

    /// Ends an allocation that was not fast. Without a response, its caller no longer waits.
    pub(super) fn end_alloc(&mut self, response: Option<Response>) {
        self.state = match response {
            Some(_) => CommandState::Idle,
            None => CommandState::Abandoned(Command::Alloc),
        };
    }

    /// Frees a PASID, immediately or later.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such PASID or it does not belong to the guest; `ENODEV` if the host
    /// fails the command.
    pub(super) fn free<R: Registers>(&mut self, registers: &R, id: u32) -> Result {
        match self
            .finish_running(registers)
            .and_then(|()| self.release(registers, id))
        {
            Err(e) if e == EBUSY => self.to_free.insert(id),
            result => result,
        }
    }

    /// Finishes a pending command and frees one of the pending PASIDs. Returns false if there was
    /// none.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the port is not idle.
    pub(super) fn free_one<R: Registers>(&mut self, registers: &R) -> Result<bool> {
        self.finish_running(registers)?;
        let Some(id) = self.to_free.take() else {
            return Ok(false);
        };
        if let Err(e) = self.release(registers, id) {
            warn_failed(fmt!("free PASID {id} on the host"), e);
        }
        Ok(true)
    }

    /// Whether a command or PASIDs are pending.
    pub(super) fn has_pending(&self) -> bool {
        matches!(self.state, CommandState::Abandoned(_)) || self.to_free.count != 0
    }

    /// Returns the number of pending PASIDs and commands.
    pub(super) fn pending(&self) -> u32 {
        let allocated = matches!(self.state, CommandState::Abandoned(_));
        self.to_free.count + u32::from(allocated)
    }

    /// Finishes a pending command.
    fn finish_running<R: Registers>(&mut self, registers: &R) -> Result {
        let command = match self.state {
            CommandState::Idle => return Ok(()),
            CommandState::Allocating => return Err(EBUSY),
            CommandState::Abandoned(command) => command,
        };
        let response = response(registers).ok_or(EBUSY)?;
        self.state = CommandState::Idle;
        match command {
            Command::Alloc if response.status.alloc_result().is_ok() => {
                self.to_free.insert(response.pasid)
            }
            Command::Alloc => Ok(()),
            Command::Free(id) => {
                if let Err(e) = response.status.free_result() {
                    warn_failed(fmt!("free PASID {id} on the host"), e);
                }
                Ok(())
            }
        }
    }

    /// Frees a PASID. The port is idle.
    fn release<R: Registers>(&mut self, registers: &R, id: u32) -> Result {
        let command = Command::Free(id);
        match self.run(registers, command)? {
            Some(response) => response.status.free_result(),
            None => {
                self.state = CommandState::Abandoned(command);
                Ok(())
            }
        }
    }

    /// Runs a command. Returns the response if it ends within the fast polls.
    fn run<R: Registers>(&mut self, registers: &R, command: Command) -> Result<Option<Response>> {
        if self.state != CommandState::Idle {
            return Err(EBUSY);
        }
        registers.write(VCMD, command.encode())?;
        for _ in 0..FAST_POLLS {
            if let Some(response) = response(registers) {
                return Ok(Some(response));
            }
            udelay(Delta::from_micros(1));
        }
        Ok(None)
    }
}

/// A set of PASIDs that allocates no memory when it grows.
struct IdSet {
    bits: KVVec<u64>,
    count: u32,
    /// All words before this one are 0.
    first: usize,
}

impl IdSet {
    fn new() -> Result<Self> {
        let words = DEFAULT_CAPACITY.div_ceil(u64::BITS) as usize;
        Ok(Self {
            bits: KVVec::from_elem(0, words, GFP_KERNEL)?,
            count: 0,
            first: words,
        })
    }

    /// # Errors
    ///
    /// `EINVAL` if there is no such PASID.
    fn insert(&mut self, id: u32) -> Result {
        let at = (id / u64::BITS) as usize;
        let word = self.bits.get_mut(at).ok_or(EINVAL)?;
        let bit = 1 << (id % u64::BITS);
        if *word & bit == 0 {
            *word |= bit;
            self.count += 1;
            self.first = self.first.min(at);
        }
        Ok(())
    }

    /// Removes and returns the lowest PASID.
    fn take(&mut self) -> Option<u32> {
        if self.count == 0 {
            return None;
        }
        let ahead = self.bits.get_mut(self.first..)?;
        let (skipped, word) = ahead.iter_mut().enumerate().find(|(_, word)| **word != 0)?;
        let bit = word.trailing_zeros();
        *word &= *word - 1;
        self.first += skipped;
        self.count -= 1;
        Some(self.first as u32 * u64::BITS + bit)
    }
}

#[kunit_tests(ioasid_vcmd_port)]
mod tests {
    use super::*;

    #[test]
    fn pending_pasids_are_taken_lowest_first() -> Result {
        let mut ids = IdSet::new()?;
        assert_eq!(ids.take(), None);
        for id in [70, 3, DEFAULT_CAPACITY - 1, 70] {
            assert_eq!(ids.insert(id), Ok(()));
        }
        assert_eq!(ids.insert(DEFAULT_CAPACITY), Err(EINVAL));
        assert_eq!((ids.count, ids.take()), (3, Some(3)));
        assert_eq!(ids.take(), Some(70));
        assert_eq!(ids.insert(5), Ok(()));
        assert_eq!(ids.take(), Some(5));
        assert_eq!(ids.take(), Some(DEFAULT_CAPACITY - 1));
        assert_eq!((ids.count, ids.take()), (0, None));
        Ok(())
    }
}
