// SPDX-License-Identifier: GPL-2.0

//! A fake virtio-iommu with PASID requests.

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
    Buffer,
    Request,
    Response,
    Status,
    Transport,
    F_PASID_ALLOC,
    F_PASID_MAX, //
};
use crate::{
    id::range::DEFAULT_CAPACITY,
    tests::guest::Guest, //
};

/// A virtio-iommu of a guest. All devices of a guest share its PASIDs.
pub(crate) struct FakeVirtioIommu {
    guest: Arc<Guest>,
    offered: u64,
    /// The highest PASID; 0 if the configuration has no limit.
    max_pasid: u32,
    accepted: Atomic<u64>,
    broken: Atomic<bool>,
}

impl FakeVirtioIommu {
    pub(crate) fn new(guest: Arc<Guest>, offered: u64, max_pasid: u32) -> Result<Arc<Self>> {
        let device = Self {
            guest,
            offered,
            max_pasid,
            accepted: Atomic::new(0),
            broken: Atomic::new(false),
        };
        Ok(Arc::new(device, GFP_KERNEL)?)
    }

    pub(crate) fn guest(&self) -> &Guest {
        &self.guest
    }

    /// Whether the driver uses the requests.
    pub(super) fn in_use(&self) -> bool {
        self.accepted.load(Relaxed) & F_PASID_ALLOC != 0
    }

    /// Makes the device stop responding.
    pub(super) fn break_queue(&self) {
        self.broken.store(true, Relaxed);
    }

    fn carry_out(&self, buffer: &Buffer) -> core::result::Result<u32, Status> {
        let accepted = self.accepted.load(Relaxed);
        if accepted & F_PASID_ALLOC == 0 {
            return Err(Status::Unsupp);
        }
        match Request::decode(buffer)? {
            Request::Alloc { max } => self.alloc(max, accepted & F_PASID_MAX != 0),
            Request::Free(pasid) => self.free(pasid),
        }
    }

    fn alloc(&self, max: u32, may_say_max: bool) -> core::result::Result<u32, Status> {
        let max = match max {
            0 => Some(self.max_pasid).filter(|&max| max != 0),
            _ if !may_say_max => return Err(Status::Inval),
            max if max >= DEFAULT_CAPACITY => return Err(Status::Range),
            max => Some(max),
        };
        self.guest.alloc(max).map_err(|_| Status::NoMem)
    }

    fn free(&self, pasid: u32) -> core::result::Result<u32, Status> {
        if pasid >= DEFAULT_CAPACITY {
            return Err(Status::Range);
        }
        self.guest.free(pasid).map_err(|_| Status::NoEnt)?;
        Ok(0)
    }
}

impl Transport for Arc<FakeVirtioIommu> {
    fn features(&self) -> u64 {
        self.offered
    }

    fn accept(&self, features: u64) {
        self.accepted.store(features, Relaxed);
    }

    fn max_pasid(&self) -> u32 {
        self.max_pasid
    }

    fn send(&self, buffer: &mut Buffer) -> Result {
        if self.broken.load(Relaxed) {
            return Err(EIO);
        }
        let response = match self.carry_out(buffer) {
            Ok(pasid) => Response {
                status: Status::Ok,
                pasid,
            },
            Err(status) => Response { status, pasid: 0 },
        };
        response.encode(buffer);
        Ok(())
    }
}
