// SPDX-License-Identifier: GPL-2.0

//! What is in the requests and in the answers.
//!
//! ====== ================================ ================================
//! Offset Allocate                         Free
//! ====== ================================ ================================
//! 0      type, 3 bytes reserved           type, 3 bytes reserved
//! 4      reserved, or `max_pasid`         reserved
//! 8      PASID (written by the device)    PASID
//! 12     status, 3 bytes reserved         status, 3 bytes reserved
//!        (written by the device)          (written by the device)
//! ====== ================================ ================================

use kernel::prelude::*;

/// Type of the request that allocates a PASID.
pub const T_ALLOC_PASID: u8 = 0x10;
/// Type of the request that frees a PASID.
pub const T_FREE_PASID: u8 = 0x11;

/// A request, with room for the device's answer.
pub type Buffer = [u8; 16];

/// What a device answers, by the numbers of `VIRTIO_IOMMU_S_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The request was carried out.
    Ok = 0,
    /// The device has trouble with its queue.
    IoErr = 1,
    /// The device knows no such request.
    Unsupp = 2,
    /// The device has trouble inside.
    DevErr = 3,
    /// A field of the request has a value that it can't have.
    Inval = 4,
    /// A number is out of range.
    Range = 5,
    /// There is no such PASID.
    NoEnt = 6,
    /// The device couldn't reach the request's memory.
    Fault = 7,
    /// No PASID is left.
    NoMem = 8,
}

impl Status {
    /// The status with this number; the device has no others.
    pub fn from_number(number: u8) -> Option<Self> {
        const ALL: [Status; 9] = [
            Status::Ok,
            Status::IoErr,
            Status::Unsupp,
            Status::DevErr,
            Status::Inval,
            Status::Range,
            Status::NoEnt,
            Status::Fault,
            Status::NoMem,
        ];
        ALL.get(usize::from(number)).copied()
    }

    /// The error that the status means: what the kernel's driver makes of it, but that to have no
    /// PASID left is `ENOSPC`, as with all allocators.
    pub fn to_result(self) -> Result {
        Err(match self {
            Self::Ok => return Ok(()),
            Self::IoErr | Self::DevErr => EIO,
            Self::Unsupp => ENOSYS,
            Self::Inval => EINVAL,
            Self::Range => ERANGE,
            Self::NoEnt => ENOENT,
            Self::Fault => EFAULT,
            Self::NoMem => ENOSPC,
        })
    }
}

/// A request of the driver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Allocate a PASID.
    Alloc {
        /// The highest that will do; 0 if any will, and without `F_PASID_MAX`.
        max: u32,
    },
    /// Free this PASID.
    Free(u32),
}

impl Request {
    /// The request as the driver sends it.
    pub fn encode(self) -> Buffer {
        let (kind, limit, pasid) = match self {
            Self::Alloc { max } => (T_ALLOC_PASID, max, 0),
            Self::Free(pasid) => (T_FREE_PASID, 0, pasid),
        };
        let mut buffer = [0; 16];
        buffer[0] = kind;
        buffer[4..8].copy_from_slice(&limit.to_le_bytes());
        buffer[8..12].copy_from_slice(&pasid.to_le_bytes());
        buffer
    }

    /// The request that a device received.
    ///
    /// # Errors
    ///
    /// [`Status::Unsupp`] if the type is unknown; [`Status::Inval`] if something reserved is not zero.
    pub fn decode(buffer: &Buffer) -> core::result::Result<Self, Status> {
        let request = match buffer[0] {
            T_ALLOC_PASID => Self::Alloc {
                max: word(buffer, 4),
            },
            T_FREE_PASID if word(buffer, 4) == 0 => Self::Free(word(buffer, 8)),
            T_FREE_PASID => return Err(Status::Inval),
            _ => return Err(Status::Unsupp),
        };
        if buffer[1..4] != [0; 3] {
            return Err(Status::Inval);
        }
        Ok(request)
    }
}

/// The device's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it went.
    pub status: Status,
    /// The PASID that was allocated.
    pub pasid: u32,
}

impl Answer {
    /// Writes the answer into those parts of a request that are the device's.
    pub fn encode(self, buffer: &mut Buffer) {
        if buffer[0] == T_ALLOC_PASID {
            buffer[8..12].copy_from_slice(&self.pasid.to_le_bytes());
        }
        buffer[12..16].copy_from_slice(&[self.status as u8, 0, 0, 0]);
    }

    /// Reads the answer; a status that there is not counts as [`Status::DevErr`].
    pub fn decode(buffer: &Buffer) -> Self {
        Self {
            status: Status::from_number(buffer[12]).unwrap_or(Status::DevErr),
            pasid: word(buffer, 8),
        }
    }
}

/// The little-endian word at an offset.
fn word(buffer: &Buffer, at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&buffer[at..at + 4]);
    u32::from_le_bytes(bytes)
}

#[kunit_tests(ioasid_virtio_layout)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_an_allocation() -> core::result::Result<(), Status> {
        let request = Request::Alloc { max: 0x0a_bcde };
        let mut bytes = [0x10, 0, 0, 0, 0xde, 0xbc, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(request.encode(), bytes);
        assert_eq!(Request::decode(&bytes)?, request);
        let answer = Answer {
            status: Status::Ok,
            pasid: 0x1_2345,
        };
        answer.encode(&mut bytes);
        assert_eq!(bytes[4..8], [0xde, 0xbc, 0x0a, 0]);
        assert_eq!(bytes[8..], [0x45, 0x23, 0x01, 0, 0, 0, 0, 0]);
        assert_eq!(Answer::decode(&bytes), answer);
        Ok(())
    }

    #[test]
    fn bytes_of_a_release() -> core::result::Result<(), Status> {
        let request = Request::Free(0x0a_bcde);
        let mut bytes = [0x11, 0, 0, 0, 0, 0, 0, 0, 0xde, 0xbc, 0x0a, 0, 0, 0, 0, 0];
        assert_eq!(request.encode(), bytes);
        assert_eq!(Request::decode(&bytes)?, request);
        let answer = Answer {
            status: Status::NoEnt,
            pasid: 7,
        };
        answer.encode(&mut bytes);
        assert_eq!(bytes[8..], [0xde, 0xbc, 0x0a, 0, 6, 0, 0, 0]);
        Ok(())
    }

    #[test]
    fn what_a_device_refuses() {
        for at in 1..4 {
            let mut bytes = Request::Alloc { max: 0 }.encode();
            bytes[at] = 1;
            assert_eq!(Request::decode(&bytes), Err(Status::Inval));
        }
        let mut bytes = Request::Free(1).encode();
        bytes[4] = 1;
        assert_eq!(Request::decode(&bytes), Err(Status::Inval));
        for unknown in [0, 1, 5, 0x12, 0xff] {
            bytes[0] = unknown;
            assert_eq!(Request::decode(&bytes), Err(Status::Unsupp));
        }
    }

    #[test]
    fn statuses() {
        let errors = [
            Ok(()),
            Err(EIO),
            Err(ENOSYS),
            Err(EIO),
            Err(EINVAL),
            Err(ERANGE),
            Err(ENOENT),
            Err(EFAULT),
            Err(ENOSPC),
        ];
        for (number, error) in (0..).zip(errors) {
            assert_eq!(
                Status::from_number(number).map(Status::to_result),
                Some(error)
            );
        }
        assert_eq!(Status::from_number(9), None);
        let mut bytes = [0; 16];
        bytes[12] = 9;
        assert_eq!(Answer::decode(&bytes).status, Status::DevErr);
    }
}
