// SPDX-License-Identifier: GPL-2.0

//! The layout of requests and responses.
//!
//! | Offset | Allocate                                   | Free                                       |
//! |--------|--------------------------------------------|--------------------------------------------|
//! | 0      | type, 3 bytes reserved                     | type, 3 bytes reserved                     |
//! | 4      | reserved, or `max_pasid`                   | reserved                                   |
//! | 8      | PASID (device-writable)                    | PASID                                      |
//! | 12     | status, 3 bytes reserved (device-writable) | status, 3 bytes reserved (device-writable) |

use kernel::prelude::*;

/// Type of the request that allocates a PASID.
const T_ALLOC_PASID: u8 = 0x10;
/// Type of the request that frees a PASID.
const T_FREE_PASID: u8 = 0x11;

/// A request, with room for the device's response.
pub type Buffer = [u8; 16];

/// The status of a response, with the numbers of `VIRTIO_IOMMU_S_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The request succeeded.
    Ok = 0,
    /// The queue failed.
    IoErr = 1,
    /// The device does not support the request.
    Unsupp = 2,
    /// An internal error of the device.
    DevErr = 3,
    /// A field of the request has an invalid value.
    Inval = 4,
    /// A number is out of range.
    Range = 5,
    /// The PASID does not exist.
    NoEnt = 6,
    /// The device could not access the request's memory.
    Fault = 7,
    /// No PASID is left.
    NoMem = 8,
}

impl Status {
    /// Returns the status with this number, if it is defined.
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

    /// Converts the status to an error as the kernel's driver does, except that a lack of PASIDs is
    /// `ENOSPC`, as with all allocators.
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

/// A request of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Allocate a PASID.
    Alloc {
        /// The highest acceptable PASID; 0 for any, and always 0 without `F_PASID_MAX`.
        max: u32,
    },
    /// Free this PASID.
    Free(u32),
}

impl Request {
    /// Returns the bytes that the driver sends.
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

    /// Decodes the bytes that the device receives.
    ///
    /// # Errors
    ///
    /// [`Status::Unsupp`] for an unknown type; [`Status::Inval`] if a reserved field is not zero.
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

/// The device's response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status.
    pub status: Status,
    /// The allocated PASID.
    pub pasid: u32,
}

impl Response {
    /// Writes the response to the device-writable fields of a request.
    pub fn encode(self, buffer: &mut Buffer) {
        if buffer[0] == T_ALLOC_PASID {
            buffer[8..12].copy_from_slice(&self.pasid.to_le_bytes());
        }
        buffer[12..16].copy_from_slice(&[self.status as u8, 0, 0, 0]);
    }

    /// Decodes the response. An undefined status counts as [`Status::DevErr`].
    pub fn decode(buffer: &Buffer) -> Self {
        Self {
            status: Status::from_number(buffer[12]).unwrap_or(Status::DevErr),
            pasid: word(buffer, 8),
        }
    }
}

/// Returns the little-endian 32-bit word at offset `at`.
fn word(buffer: &Buffer, at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&buffer[at..at + 4]);
    u32::from_le_bytes(bytes)
}

#[kunit_tests(ioasid_virtio_layout)]
mod tests {
    use super::*;

    #[test]
    fn alloc_requests_have_the_proposed_layout() -> core::result::Result<(), Status> {
        let request = Request::Alloc { max: 0x0a_bcde };
        let mut bytes = [0x10, 0, 0, 0, 0xde, 0xbc, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(request.encode(), bytes);
        assert_eq!(Request::decode(&bytes)?, request);
        let response = Response {
            status: Status::Ok,
            pasid: 0x1_2345,
        };
        response.encode(&mut bytes);
        assert_eq!(bytes[4..8], [0xde, 0xbc, 0x0a, 0]);
        assert_eq!(bytes[8..], [0x45, 0x23, 0x01, 0, 0, 0, 0, 0]);
        assert_eq!(Response::decode(&bytes), response);
        Ok(())
    }

    #[test]
    fn free_requests_have_the_proposed_layout() -> core::result::Result<(), Status> {
        let request = Request::Free(0x0a_bcde);
        let mut bytes = [0x11, 0, 0, 0, 0, 0, 0, 0, 0xde, 0xbc, 0x0a, 0, 0, 0, 0, 0];
        assert_eq!(request.encode(), bytes);
        assert_eq!(Request::decode(&bytes)?, request);
        let response = Response {
            status: Status::NoEnt,
            pasid: 7,
        };
        response.encode(&mut bytes);
        assert_eq!(bytes[8..], [0xde, 0xbc, 0x0a, 0, 6, 0, 0, 0]);
        Ok(())
    }

    #[test]
    fn malformed_requests_are_refused() {
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
    fn statuses_become_errnos() {
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
        assert_eq!(Response::decode(&bytes).status, Status::DevErr);
    }
}
