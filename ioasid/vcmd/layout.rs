// SPDX-License-Identifier: GPL-2.0

//! The layout of the registers.

use kernel::prelude::*;

use crate::id::range::DEFAULT_CAPACITY;

/// Offset of the command register.
pub(super) const VCMD: usize = 0xe00;
/// Offset of the response register.
pub(super) const VCRSP: usize = 0xe10;
/// Offset of the capability register.
pub(super) const VCCAP: usize = 0xe30;

/// In `VCCAP`: PASIDs can be allocated and freed.
pub(super) const VCCAP_PAS: u64 = 1 << 0;
/// In `VCRSP`: the command is still running.
pub(super) const IN_PROGRESS: u64 = 1 << 0;

/// A command for `VCMD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Allocate a PASID.
    Alloc,
    /// Free this PASID.
    Free(u32),
}

impl Command {
    /// Returns the register value: the command number in the low byte, the operand starting at bit
    /// 16.
    pub fn encode(self) -> u64 {
        match self {
            Self::Alloc => 1,
            Self::Free(pasid) => 2 | u64::from(pasid) << 16,
        }
    }

    /// Returns the command of a register value, or `None` if it is invalid.
    pub fn decode(value: u64) -> Option<Self> {
        match (value & 0xff, value >> 16) {
            (1, _) => Some(Self::Alloc),
            (2, operand) if operand < DEFAULT_CAPACITY.into() => Some(Self::Free(operand as u32)),
            _ => None,
        }
    }
}

/// The status of a command, in bits 7 to 1 of `VCRSP`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The command succeeded.
    Success,
    /// Allocation: no PASID is left. Free: the PASID does not belong to the guest.
    NoPasid,
    /// Any other status, by its number.
    Other(u8),
}

/// The number of [`Status::NoPasid`], for both commands.
const NO_PASID: u8 = 16;

impl Status {
    fn number(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::NoPasid => NO_PASID,
            Self::Other(number) => number,
        }
    }

    /// Converts the status of an allocation to an error.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if no PASID is left, otherwise `ENODEV`.
    pub(super) fn alloc_result(self) -> Result {
        match self {
            Self::Success => Ok(()),
            Self::NoPasid => Err(ENOSPC),
            Self::Other(_) => Err(ENODEV),
        }
    }

    /// Converts the status of a free command to an error.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the PASID does not belong to the guest, otherwise `ENODEV`.
    pub(super) fn free_result(self) -> Result {
        match self {
            Self::Success => Ok(()),
            Self::NoPasid => Err(EINVAL),
            Self::Other(_) => Err(ENODEV),
        }
    }
}

/// The content of `VCRSP` after the end of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status of the command.
    pub status: Status,
    /// The allocated PASID.
    pub pasid: u32,
}

impl Response {
    /// Returns the response as a register value.
    pub fn encode(self) -> u64 {
        u64::from(self.status.number()) << 1 | u64::from(self.pasid) << 16
    }

    /// Returns the response of a register value, or `None` while the command is running.
    pub fn decode(value: u64) -> Option<Self> {
        if value & IN_PROGRESS != 0 {
            return None;
        }
        let status = match (value as u8) >> 1 {
            0 => Status::Success,
            NO_PASID => Status::NoPasid,
            number => Status::Other(number),
        };
        let pasid = (value >> 16) as u32 & (DEFAULT_CAPACITY - 1);
        Some(Self { status, pasid })
    }
}

#[kunit_tests(ioasid_vcmd_layout)]
mod tests {
    use super::*;

    #[test]
    fn registers_have_the_specified_layout() {
        assert_eq!(Command::Alloc.encode(), 0x1);
        assert_eq!(Command::Free(0xabcde).encode(), 0xa_bcde_0002);
        let response = Response {
            status: Status::Success,
            pasid: 0xabcde,
        };
        assert_eq!(response.encode(), 0xa_bcde_0000);
        assert_eq!(Response::decode(0xa_bcde_0000), Some(response));
        assert_eq!(Response::decode(0xa_bcde_0001), None);
        assert_eq!(
            Response::decode(16 << 1).map(|r| r.status),
            Some(Status::NoPasid)
        );
        assert_eq!(
            Response::decode(0xfe).map(|r| r.status),
            Some(Status::Other(0x7f))
        );
    }

    #[test]
    fn commands_decode_to_what_was_encoded() {
        for command in [
            Command::Alloc,
            Command::Free(0),
            Command::Free(DEFAULT_CAPACITY - 1),
        ] {
            assert_eq!(Command::decode(command.encode()), Some(command));
        }
        for bad in [0, 3, 0xff, Command::Free(DEFAULT_CAPACITY).encode()] {
            assert_eq!(Command::decode(bad), None);
        }
    }

    #[test]
    fn statuses_become_errnos() {
        assert_eq!(Status::Success.alloc_result(), Ok(()));
        assert_eq!(Status::NoPasid.alloc_result(), Err(ENOSPC));
        assert_eq!(Status::Other(3).alloc_result(), Err(ENODEV));
        assert_eq!(Status::Success.free_result(), Ok(()));
        assert_eq!(Status::NoPasid.free_result(), Err(EINVAL));
        assert_eq!(Status::Other(3).free_result(), Err(ENODEV));
    }
}
