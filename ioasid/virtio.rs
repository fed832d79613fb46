// SPDX-License-Identifier: GPL-2.0

//! PASIDs by requests to a virtio-iommu, as they were proposed in 2019.
//!
//! Two requests of 16 bytes, little-endian. The specification never took them up, so the numbers of
//! the feature bits and of the requests are ours, above those that it has: experimental.
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
//!
//! The proposal left open where the guest's limit, `max_pasid`, goes. Both places are possible: the
//! device's configuration, or, with a feature bit of its own, the allocation request.

#[cfg(CONFIG_KUNIT)]
pub(crate) mod model;

use kernel::prelude::*;

use crate::{
    range::{
        IdRange,
        DEFAULT_CAPACITY, //
    },
    source::Allocator, //
};

/// Feature bit: PASIDs are allocated by requests. A driver which is offered it must use it, and use no
/// other PASIDs.
pub const F_PASID_ALLOC: u64 = 1 << 16;
/// Feature bit: an allocation says which PASID is the highest that will do.
pub const F_PASID_MAX: u64 = 1 << 17;

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
        /// The highest that will do; 0 if any will, and without [`F_PASID_MAX`].
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

/// What there is between the driver and the device.
pub trait Transport: Send + Sync {
    /// The features that the device offers.
    fn features(&self) -> u64;

    /// Tells the device which features the driver uses.
    fn accept(&self, features: u64);

    /// The highest PASID by the device's configuration; 0 if it says nothing.
    fn max_pasid(&self) -> u32;

    /// Sends a request and waits for the answer, which is then in the buffer.
    ///
    /// # Errors
    ///
    /// `EIO` or what else if the queue fails: then there is no answer.
    fn send(&self, buffer: &mut Buffer) -> Result;
}

/// A virtio-iommu's PASID requests as an allocator.
pub struct VirtioIommu<T: Transport> {
    transport: T,
    /// The highest PASID that the device's configuration allows.
    limit: u32,
    /// Whether allocations say how high the PASID may be.
    says_max: bool,
}

impl<T: Transport> VirtioIommu<T> {
    /// Takes the requests into use if the device offers them, for then it must be done.
    ///
    /// # Errors
    ///
    /// `ENODEV` if it doesn't: then PASIDs are the guest's own matter.
    pub fn new(transport: T) -> Result<Self> {
        let offered = transport.features();
        if offered & F_PASID_ALLOC == 0 {
            return Err(ENODEV);
        }
        let used = offered & (F_PASID_ALLOC | F_PASID_MAX);
        transport.accept(used);
        let limit = match transport.max_pasid() {
            0 => DEFAULT_CAPACITY - 1,
            max => max,
        };
        Ok(Self {
            transport,
            limit,
            says_max: used & F_PASID_MAX != 0,
        })
    }

    fn send(&self, request: Request) -> Result<u32> {
        let mut buffer = request.encode();
        self.transport.send(&mut buffer)?;
        let answer = Answer::decode(&buffer);
        answer.status.to_result()?;
        Ok(answer.pasid)
    }
}

impl<T: Transport> Allocator for VirtioIommu<T> {
    /// Allocates a PASID, which the range has to fit: the device knows the upper end at most.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there is none, or none that fits; `ERANGE` and others as the device says.
    fn alloc(&self, range: IdRange) -> Result<u32> {
        if range.first() > self.limit {
            return Err(ENOSPC);
        }
        let max = match self.says_max {
            true => range.last().min(self.limit),
            false => 0,
        };
        let pasid = self.send(Request::Alloc { max })?;
        if !range.contains(pasid) || pasid > self.limit {
            self.free(pasid);
            return Err(ENOSPC);
        }
        Ok(pasid)
    }

    fn free(&self, id: u32) {
        if let Err(e) = self.send(Request::Free(id)) {
            pr_warn!(
                "virtio-iommu: PASID {} could not be freed on the host: {:?}\n",
                id,
                e
            );
        }
    }
}

#[kunit_tests(ioasid_virtio)]
mod tests {
    use super::{
        model::Model,
        *, //
    };
    use crate::host::{
        host,
        Guest, //
    };
    use kernel::sync::Arc;

    const ALL: u64 = F_PASID_ALLOC | F_PASID_MAX;

    fn device(quota: u32) -> Result<Arc<Model>> {
        Model::new(Guest::alone(quota)?, ALL, 0)
    }

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

    #[test]
    fn not_offered() -> Result {
        let device = Model::new(Guest::alone(1)?, F_PASID_MAX, 0)?;
        assert_eq!(VirtioIommu::new(device.clone()).err(), Some(ENODEV));
        // Nothing was negotiated, so the device doesn't know the requests.
        let mut buffer = Request::Alloc { max: 0 }.encode();
        device.send(&mut buffer)?;
        assert_eq!(Answer::decode(&buffer).status, Status::Unsupp);
        Ok(())
    }

    #[test]
    fn offered_so_used() -> Result {
        let device = device(1)?;
        assert!(!device.in_use());
        let _driver = VirtioIommu::new(device.clone())?;
        assert!(device.in_use());
        Ok(())
    }

    #[test]
    fn until_the_host_has_none() -> Result {
        let device = device(2)?;
        let driver = VirtioIommu::new(device.clone())?;
        let first = driver.alloc(IdRange::ALL)?;
        driver.alloc(IdRange::ALL)?;
        assert_eq!(driver.alloc(IdRange::ALL), Err(ENOSPC));
        driver.free(first);
        assert_eq!(driver.alloc(IdRange::ALL), Ok(first));
        Ok(())
    }

    #[test]
    fn what_the_guest_does_not_own() -> Result {
        let host = host()?;
        let ours = VirtioIommu::new(Model::new(Guest::of(&host, 4)?, ALL, 0)?)?;
        let theirs = Model::new(Guest::of(&host, 4)?, ALL, 0)?;
        let id = VirtioIommu::new(theirs.clone())?.alloc(IdRange::ALL)?;
        assert_eq!(ours.send(Request::Free(id)), Err(ENOENT));
        assert_eq!(ours.send(Request::Free(id + 1)), Err(ENOENT));
        assert_eq!(ours.send(Request::Free(DEFAULT_CAPACITY)), Err(ERANGE));
        assert!(theirs.guest().has(id));
        Ok(())
    }

    #[test]
    fn limit_in_the_request() -> Result {
        let driver = VirtioIommu::new(device(4)?)?;
        assert_eq!(driver.alloc(IdRange::new(0, 2)?), Ok(1));
        assert_eq!(driver.alloc(IdRange::new(0, 2)?), Ok(2));
        assert_eq!(driver.alloc(IdRange::new(0, 2)?), Err(ENOSPC));
        assert_eq!(driver.alloc(IdRange::new(0, 3)?), Ok(3));
        Ok(())
    }

    #[test]
    fn limit_in_the_configuration() -> Result {
        let device = Model::new(Guest::alone(8)?, F_PASID_ALLOC, 2)?;
        let driver = VirtioIommu::new(device.clone())?;
        assert_eq!(driver.alloc(IdRange::new(3, 9)?), Err(ENOSPC));
        assert_eq!(driver.alloc(IdRange::ALL), Ok(1));
        assert_eq!(driver.alloc(IdRange::ALL), Ok(2));
        assert_eq!(driver.alloc(IdRange::ALL), Err(ENOSPC));
        assert_eq!(device.guest().used(), 2);
        Ok(())
    }

    #[test]
    fn reserved_without_the_feature() -> Result {
        let device = Model::new(Guest::alone(8)?, F_PASID_ALLOC, 0)?;
        let driver = VirtioIommu::new(device)?;
        assert_eq!(driver.send(Request::Alloc { max: 5 }), Err(EINVAL));
        assert!(driver.send(Request::Alloc { max: 0 }).is_ok());
        Ok(())
    }

    #[test]
    fn one_queue_allocates_and_another_frees() -> Result {
        let guest = Guest::alone(8)?;
        let one = VirtioIommu::new(Model::new(guest.clone(), ALL, 0)?)?;
        let other = VirtioIommu::new(Model::new(guest.clone(), ALL, 0)?)?;
        let id = one.alloc(IdRange::ALL)?;
        assert_ne!(other.alloc(IdRange::ALL)?, id);
        assert_eq!(other.send(Request::Free(id)).map(|_| ()), Ok(()));
        assert_eq!(one.send(Request::Free(id)), Err(ENOENT));
        assert_eq!(guest.used(), 1);
        Ok(())
    }

    #[test]
    fn a_queue_that_fails() -> Result {
        let device = device(1)?;
        let driver = VirtioIommu::new(device.clone())?;
        device.break_queue();
        assert_eq!(driver.alloc(IdRange::ALL), Err(EIO));
        assert_eq!(device.guest().used(), 0);
        Ok(())
    }
}
