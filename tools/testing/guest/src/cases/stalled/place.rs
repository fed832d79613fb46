// SPDX-License-Identifier: GPL-2.0

//! The places where requests access user memory.

use super::{
    requests::{
        Answer,
        Ask,
        THERE,
        info_bytes, //
    },
    scene::Scene, //
};
use crate::{
    env::EDU,
    pin::{
        Pinner,
        READ,
        WRITE, //
    },
};
use anyhow::Result;
use std::os::fd::{
    AsFd,
    AsRawFd, //
};
use support::{
    PAGE,
    requests::{
        DirtyPages,
        UnmapDma, //
    },
};
use vfio_client::{
    Bytes,
    Container,
    Errno,
    FaultOn,
    PAGE_SIZE,
    Userfault,
    request, //
};

/// A request and the place where it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// MAP_DMA, reading its argument.
    MapArgument,
    /// MAP_DMA, pinning a page.
    MapPages,
    /// UNMAP_DMA, reading its argument.
    UnmapArgument,
    /// UNMAP_DMA, writing the size that was unmapped.
    UnmapAnswer,
    /// UNMAP_DMA, reading the address of the bitmap.
    UnmapBitmapArgument,
    /// UNMAP_DMA, writing the bitmap.
    UnmapBitmap,
    /// DIRTY_PAGES, reading its argument.
    DirtyArgument,
    /// DIRTY_PAGES, reading the range.
    DirtyRange,
    /// DIRTY_PAGES, writing the bitmap.
    DirtyBitmap,
    /// GET_INFO, reading the size of the structure.
    InfoArgument,
    /// GET_INFO, writing the reply.
    InfoAnswer,
    /// SET_CONTAINER, reading the descriptor of the container.
    JoinArgument,
    /// GET_DEVICE_FD, reading the name of the device.
    OpenArgument,
    /// A driver pins pages while it holds its own lock.
    DriverPins,
    /// A driver reads memory.
    DriverReads,
    /// A driver writes memory.
    DriverWrites,
    /// SET_CONTAINER, pinning a page of an earlier mapping.
    JoinPages,
}

/// The page at which requests for several pages stop.
const STOP: usize = 1;
/// The number of pages that drivers use, from the first one on.
const USED: u32 = 4;

impl Place {
    /// Returns whether the scene needs a driver that pins pages, without an IOMMU.
    pub fn needs_driver(self) -> bool {
        matches!(
            self,
            Self::DriverPins | Self::DriverReads | Self::DriverWrites | Self::JoinPages
        )
    }

    /// Returns whether the request maps [`THERE`].
    pub fn maps(self) -> bool {
        matches!(self, Self::MapArgument | Self::MapPages)
    }

    /// Returns whether the request fails unless dirty page tracking is on.
    pub fn needs_tracking(self) -> bool {
        matches!(
            self,
            Self::UnmapBitmapArgument
                | Self::UnmapBitmap
                | Self::DirtyArgument
                | Self::DirtyRange
                | Self::DirtyBitmap
        )
    }

    /// Returns the argument for memory that stops at a fault, and the offset at which the argument
    /// begins.
    ///
    /// Some requests stop at the first byte, others where the second part of the argument begins.
    fn argument(self, container: &Container, fault: &Userfault) -> Option<(Bytes, usize)> {
        let whole = |bytes| Some((bytes, PAGE_SIZE));
        let split = |bytes, first: u32| Some((bytes, PAGE_SIZE - first as usize));
        // This page is not armed if the argument stops.
        let bits = fault.addr() + 2 * PAGE;
        match self {
            Self::MapArgument => whole(THERE.map(fault.addr()).bytes()),
            Self::UnmapArgument | Self::UnmapAnswer => whole(THERE.unmap().bytes()),
            Self::UnmapBitmapArgument => {
                split(THERE.unmap_with_bitmap(bits).bytes(), UnmapDma::SIZE)
            }
            Self::DirtyArgument => whole(THERE.get_bitmap(bits).bytes()),
            Self::DirtyRange => split(THERE.get_bitmap(bits).bytes(), DirtyPages::SIZE),
            Self::InfoArgument | Self::InfoAnswer => whole(info_bytes()),
            Self::JoinArgument => whole(Bytes::of(&container.as_fd().as_raw_fd())),
            Self::OpenArgument => whole(Bytes::new().raw(EDU.as_bytes()).fill(0, 1)),
            Self::MapPages
            | Self::UnmapBitmap
            | Self::DirtyBitmap
            | Self::DriverPins
            | Self::DriverReads
            | Self::DriverWrites
            | Self::JoinPages => None,
        }
    }

    /// Prepares the memory at which the request stops.
    pub fn arm(self, container: &Container, fault: &mut Userfault) -> Result<()> {
        if let Some((bytes, offset)) = self.argument(container, fault) {
            fault.write(offset, bytes.as_ref());
        }
        let on = match self {
            Self::UnmapAnswer | Self::InfoAnswer => FaultOn::Write,
            _ => FaultOn::Access,
        };
        Ok(fault.arm(STOP..STOP + 1, on)?)
    }

    /// Sends the request.
    pub fn send(self, scene: &Scene) -> Answer {
        let (container, fault) = (&scene.container, &scene.fault);
        match self {
            Self::JoinArgument => {
                let (_, offset) = self.argument(container, fault).ok_or(Errno::EINVAL)?;
                fault.request(&scene.second, request::GROUP_SET_CONTAINER, offset)?;
                Ok(0)
            }
            Self::OpenArgument => {
                let (_, offset) = self.argument(container, fault).ok_or(Errno::EINVAL)?;
                let fd = fault.request(&scene.first, request::GROUP_GET_DEVICE_FD, offset)?;
                nix::unistd::close(fd)?;
                Ok(0)
            }
            Self::JoinPages => scene
                .second
                .set_container(container)
                .map(|()| 0)
                .map_err(|error| error.errno()),
            _ => self.send_to(container, scene.driver.as_ref(), fault),
        }
    }

    /// Sends the request, unless it is a group request.
    pub fn send_to(
        self,
        container: &Container,
        driver: Option<&Pinner>,
        fault: &Userfault,
    ) -> Answer {
        let bits = fault.addr() + STOP as u64 * PAGE;
        let nr = match self {
            Self::MapPages => return THERE.map(fault.addr()).ask(container),
            Self::UnmapBitmap => return THERE.unmap_with_bitmap(bits).ask(container),
            Self::DirtyBitmap => return THERE.get_bitmap(bits).ask(container),
            Self::MapArgument => request::IOMMU_MAP_DMA,
            Self::UnmapArgument | Self::UnmapAnswer | Self::UnmapBitmapArgument => {
                request::IOMMU_UNMAP_DMA
            }
            Self::DirtyArgument | Self::DirtyRange => request::IOMMU_DIRTY_PAGES,
            Self::InfoArgument | Self::InfoAnswer => request::IOMMU_GET_INFO,
            Self::JoinArgument | Self::OpenArgument | Self::JoinPages => {
                unreachable!("a request to a group")
            }
            Self::DriverPins | Self::DriverReads | Self::DriverWrites => {
                return self.use_driver(driver.ok_or(Errno::ENODEV)?);
            }
        };
        let (bytes, offset) = self.argument(container, fault).ok_or(Errno::EINVAL)?;
        fault.request(container, nr, offset)?;
        if nr != request::IOMMU_UNMAP_DMA {
            return Ok(0);
        }
        let answer = Bytes::new().raw(&fault.to_vec(offset, bytes.len()));
        Ok(UnmapDma::unmapped(&answer) / PAGE)
    }

    fn use_driver(self, driver: &Pinner) -> Answer {
        let len = USED as usize * PAGE_SIZE;
        match self {
            Self::DriverPins => driver
                .pin(THERE.iova, USED, READ | WRITE)
                .map(|(pinned, _)| pinned as u64),
            Self::DriverReads => driver.read(THERE.iova, len).map(|_| 0),
            _ => driver.write(THERE.iova, &vec![7; len]).map(|_| 0),
        }
    }
}
