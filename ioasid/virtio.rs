// SPDX-License-Identifier: GPL-2.0

//! PASID requests to a virtio-iommu, as proposed in 2019.
//!
//! There are two requests of 16 bytes, in little-endian byte order. They never became part of the
//! specification. Therefore the numbers of the feature bits and of the requests are our own, above
//! those of the specification. This is experimental.
//!
//! The proposal does not say where the guest's limit, `max_pasid`, is. Both places are supported:
//! the device's configuration, and, with a feature bit of its own, the allocation request.

#[cfg(CONFIG_KUNIT)]
pub(crate) mod fake;
mod layout;

use kernel::prelude::*;

use crate::{
    allocator::Allocator,
    gfp::Gfp,
    id::range::{
        IdRange,
        DEFAULT_CAPACITY, //
    },
    warn_failed, //
};

pub use layout::{
    Buffer,
    Request,
    Response,
    Status, //
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

    /// Sends a request and waits for the response, which is then in the buffer. Must not sleep: ids
    /// are allocated and freed in atomic context too, so it polls the queue.
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
    sends_max: bool,
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
            sends_max: used & F_PASID_MAX != 0,
        })
    }

    fn send(&self, request: Request) -> Result<u32> {
        let mut buffer = request.encode();
        self.transport.send(&mut buffer)?;
        let response = Response::decode(&buffer);
        response.status.to_result()?;
        Ok(response.pasid)
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
        let max = match self.sends_max {
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
            warn_failed(fmt!("free PASID {id} on the host"), e);
        }
    }
}

#[kunit_tests(ioasid_virtio)]
mod tests {
    use super::{
        fake::FakeVirtioIommu,
        *, //
    };
    use crate::tests::{
        guest::Guest,
        space, //
    };
    use kernel::sync::Arc;

    const ALL: u64 = F_PASID_ALLOC | F_PASID_MAX;

    fn device(quota: u32) -> Result<Arc<FakeVirtioIommu>> {
        FakeVirtioIommu::new(Guest::alone(quota)?, ALL, 0)
    }

    #[test]
    fn a_device_without_the_feature_is_refused() -> Result {
        let device = FakeVirtioIommu::new(Guest::alone(1)?, F_PASID_MAX, 0)?;
        assert_eq!(VirtioIommu::new(device.clone()).err(), Some(ENODEV));
        // The features were not negotiated, so the device does not support the requests.
        let mut buffer = Request::Alloc { max: 0 }.encode();
        device.send(&mut buffer)?;
        assert_eq!(Response::decode(&buffer).status, Status::Unsupp);
        Ok(())
    }

    #[test]
    fn an_offered_feature_is_used() -> Result {
        let device = device(1)?;
        assert!(!device.in_use());
        let _driver = VirtioIommu::new(device.clone())?;
        assert!(device.in_use());
        Ok(())
    }

    #[test]
    fn alloc_fails_when_the_host_has_no_pasid() -> Result {
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
    fn freeing_a_pasid_that_is_not_the_guests_is_refused() -> Result {
        let host = space(DEFAULT_CAPACITY)?;
        let ours = VirtioIommu::new(FakeVirtioIommu::new(Guest::of(&host, 4)?, ALL, 0)?)?;
        let theirs = FakeVirtioIommu::new(Guest::of(&host, 4)?, ALL, 0)?;
        let id = VirtioIommu::new(theirs.clone())?.alloc(IdRange::ALL, Gfp::Kernel)?;
        assert_eq!(ours.send(Request::Free(id)), Err(ENOENT));
        assert_eq!(ours.send(Request::Free(id + 1)), Err(ENOENT));
        assert_eq!(ours.send(Request::Free(DEFAULT_CAPACITY)), Err(ERANGE));
        assert!(theirs.guest().has(id));
        Ok(())
    }

    #[test]
    fn the_limit_of_a_request_applies() -> Result {
        let driver = VirtioIommu::new(device(4)?)?;
        assert_eq!(driver.alloc(IdRange::new(0, 2)?, Gfp::Kernel), Ok(1));
        assert_eq!(driver.alloc(IdRange::new(0, 2)?, Gfp::Kernel), Ok(2));
        assert_eq!(driver.alloc(IdRange::new(0, 2)?, Gfp::Kernel), Err(ENOSPC));
        assert_eq!(driver.alloc(IdRange::new(0, 3)?, Gfp::Kernel), Ok(3));
        Ok(())
    }

    #[test]
    fn the_limit_of_the_configuration_applies() -> Result {
        let device = FakeVirtioIommu::new(Guest::alone(8)?, F_PASID_ALLOC, 2)?;
        let driver = VirtioIommu::new(device.clone())?;
        assert_eq!(driver.alloc(IdRange::new(3, 9)?, Gfp::Kernel), Err(ENOSPC));
        assert_eq!(driver.alloc(IdRange::ALL, Gfp::Kernel), Ok(1));
        assert_eq!(driver.alloc(IdRange::ALL, Gfp::Kernel), Ok(2));
        assert_eq!(driver.alloc(IdRange::ALL, Gfp::Kernel), Err(ENOSPC));
        assert_eq!(device.guest().used(), 2);
        Ok(())
    }

    #[test]
    fn the_limit_of_a_request_is_reserved_without_its_feature() -> Result {
        let device = FakeVirtioIommu::new(Guest::alone(8)?, F_PASID_ALLOC, 0)?;
        let driver = VirtioIommu::new(device)?;
        assert_eq!(driver.send(Request::Alloc { max: 5 }), Err(EINVAL));
        assert!(driver.send(Request::Alloc { max: 0 }).is_ok());
        Ok(())
    }

    #[test]
    fn one_queue_allocates_and_another_frees() -> Result {
        let guest = Guest::alone(8)?;
        let one = VirtioIommu::new(FakeVirtioIommu::new(guest.clone(), ALL, 0)?)?;
        let other = VirtioIommu::new(FakeVirtioIommu::new(guest.clone(), ALL, 0)?)?;
        let id = one.alloc(IdRange::ALL, Gfp::Kernel)?;
        assert_ne!(other.alloc(IdRange::ALL, Gfp::Kernel)?, id);
        assert_eq!(other.send(Request::Free(id)).map(|_| ()), Ok(()));
        assert_eq!(one.send(Request::Free(id)), Err(ENOENT));
        assert_eq!(guest.used(), 1);
        Ok(())
    }

    #[test]
    fn a_failed_queue_returns_eio() -> Result {
        let device = device(1)?;
        let driver = VirtioIommu::new(device.clone())?;
        device.break_queue();
        assert_eq!(driver.alloc(IdRange::ALL, Gfp::Kernel), Err(EIO));
        assert_eq!(device.guest().used(), 0);
        Ok(())
    }
}
