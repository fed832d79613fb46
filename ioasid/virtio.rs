// SPDX-License-Identifier: GPL-2.0

//! PASID requests to a virtio-iommu, as proposed in 2019.
//!
//! There are two requests of 16 bytes, in little-endian byte order. They never became part of the
//! specification. Therefore the numbers of the feature bits and of the requests are our own, above
//! those of the specification. This is experimental.
//!
//! The proposal does not say where the guest's limit, `max_pasid`, is. Both places are supported:
//! the device's configuration, and, with a feature bit of its own, the allocation request.

mod layout;
#[cfg(CONFIG_KUNIT)]
pub(crate) mod model;

use kernel::prelude::*;

use kernel_ext::gfp::Gfp;

use crate::{
    complain::complain,
    range::{
        IdRange,
        DEFAULT_CAPACITY, //
    },
    source::Allocator, //
};

pub use layout::{
    Answer,
    Buffer,
    Request,
    Status,
    T_ALLOC_PASID,
    T_FREE_PASID, //
};

/// Feature bit: PASIDs are allocated by requests. If the device offers it, the driver must use it,
/// and must not use other PASIDs.
pub const F_PASID_ALLOC: u64 = 1 << 16;
/// Feature bit: an allocation request contains the highest acceptable PASID.
pub const F_PASID_MAX: u64 = 1 << 17;

/// The transport between the driver and the device.
pub trait Transport: Send + Sync {
    /// Returns the features that the device offers.
    fn features(&self) -> u64;

    /// Sends the features that the driver uses to the device.
    fn accept(&self, features: u64);

    /// Returns the highest PASID of the device's configuration, or 0 if it has no limit.
    fn max_pasid(&self) -> u32;

    /// Sends a request and waits for the response, which is then in the buffer.
    ///
    /// # Errors
    ///
    /// `EIO` or another error if the queue fails. Then there is no response.
    fn send(&self, buffer: &mut Buffer) -> Result;
}

/// The PASID requests of a virtio-iommu as an allocator.
pub struct VirtioIommu<T: Transport> {
    transport: T,
    /// The highest PASID that the device's configuration allows.
    limit: u32,
    /// Whether allocation requests contain the highest acceptable PASID.
    says_max: bool,
}

impl<T: Transport> VirtioIommu<T> {
    /// Starts to use the requests if the device offers them, because then the driver must use them.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device does not offer them. Then the guest can use PASIDs without the
    /// device.
    pub fn new(transport: T) -> Result<Self> {
        let offered = transport.features();
        if offered & F_PASID_ALLOC == 0 {
            return Err(ENODEV);
        }
        let used = offered & (F_PASID_ALLOC | F_PASID_MAX);
        transport.accept(used);
        let limit = match transport.max_pasid() {
            0 => DEFAULT_CAPACITY - 1,
            max => max.min(DEFAULT_CAPACITY - 1),
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
    /// Allocates a PASID and checks that it is in `range`: the request contains at most the upper
    /// limit.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there is no PASID, or none in the range; `ERANGE` and other errors that the
    /// device returns.
    fn alloc(&self, range: IdRange, _gfp: Gfp) -> Result<u32> {
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
            complain(c"free on the host PASID", id, e);
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
    fn not_offered() -> Result {
        let device = Model::new(Guest::alone(1)?, F_PASID_MAX, 0)?;
        assert_eq!(VirtioIommu::new(device.clone()).err(), Some(ENODEV));
        // The features were not negotiated, so the device does not support the requests.
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
        let first = driver.alloc(IdRange::ALL, Gfp::Kernel)?;
        driver.alloc(IdRange::ALL, Gfp::Kernel)?;
        assert_eq!(driver.alloc(IdRange::ALL, Gfp::Kernel), Err(ENOSPC));
        driver.free(first);
        assert_eq!(driver.alloc(IdRange::ALL, Gfp::Kernel), Ok(first));
        Ok(())
    }

    #[test]
    fn what_the_guest_does_not_own() -> Result {
        let host = host()?;
        let ours = VirtioIommu::new(Model::new(Guest::of(&host, 4)?, ALL, 0)?)?;
        let theirs = Model::new(Guest::of(&host, 4)?, ALL, 0)?;
        let id = VirtioIommu::new(theirs.clone())?.alloc(IdRange::ALL, Gfp::Kernel)?;
        assert_eq!(ours.send(Request::Free(id)), Err(ENOENT));
        assert_eq!(ours.send(Request::Free(id + 1)), Err(ENOENT));
        assert_eq!(ours.send(Request::Free(DEFAULT_CAPACITY)), Err(ERANGE));
        assert!(theirs.guest().has(id));
        Ok(())
    }

    #[test]
    fn limit_in_the_request() -> Result {
        let driver = VirtioIommu::new(device(4)?)?;
        assert_eq!(driver.alloc(IdRange::new(0, 2)?, Gfp::Kernel), Ok(1));
        assert_eq!(driver.alloc(IdRange::new(0, 2)?, Gfp::Kernel), Ok(2));
        assert_eq!(driver.alloc(IdRange::new(0, 2)?, Gfp::Kernel), Err(ENOSPC));
        assert_eq!(driver.alloc(IdRange::new(0, 3)?, Gfp::Kernel), Ok(3));
        Ok(())
    }

    #[test]
    fn limit_in_the_configuration() -> Result {
        let device = Model::new(Guest::alone(8)?, F_PASID_ALLOC, 2)?;
        let driver = VirtioIommu::new(device.clone())?;
        assert_eq!(driver.alloc(IdRange::new(3, 9)?, Gfp::Kernel), Err(ENOSPC));
        assert_eq!(driver.alloc(IdRange::ALL, Gfp::Kernel), Ok(1));
        assert_eq!(driver.alloc(IdRange::ALL, Gfp::Kernel), Ok(2));
        assert_eq!(driver.alloc(IdRange::ALL, Gfp::Kernel), Err(ENOSPC));
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
        let id = one.alloc(IdRange::ALL, Gfp::Kernel)?;
        assert_ne!(other.alloc(IdRange::ALL, Gfp::Kernel)?, id);
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
        assert_eq!(driver.alloc(IdRange::ALL, Gfp::Kernel), Err(EIO));
        assert_eq!(device.guest().used(), 0);
        Ok(())
    }
}
