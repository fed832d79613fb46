// SPDX-License-Identifier: GPL-2.0

//! The places where requests touch the program's memory.

use super::{
    scene::Scene,
    words::{
        Answer,
        DIRTY_HEADER,
        PAGE,
        READ_WRITE,
        THERE,
        UNMAP_HEADER,
        get_bitmap,
        get_bitmap_bytes,
        info_bytes,
        map,
        map_bytes,
        unmap_bitmap_bytes,
        unmap_bytes,
        unmap_with_bitmap,
        unmapped, //
    },
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
use vfio_client::{
    Bytes,
    Container,
    Errno,
    FaultOn,
    PAGE_SIZE,
    Userfault,
    request, //
};

/// A request, and where it stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// MAP_DMA, before it knows what to do.
    MapArgument,
    /// MAP_DMA, at a page to be pinned.
    MapPages,
    /// UNMAP_DMA, before it knows what to do.
    UnmapArgument,
    /// UNMAP_DMA, when it tells how much was unmapped.
    UnmapAnswer,
    /// UNMAP_DMA, before it knows where the bitmap is.
    UnmapBitmapArgument,
    /// UNMAP_DMA, at the bitmap.
    UnmapBitmap,
    /// DIRTY_PAGES, before it knows what to do.
    DirtyArgument,
    /// DIRTY_PAGES, before it knows of which pages.
    DirtyRange,
    /// DIRTY_PAGES, at the bitmap.
    DirtyBitmap,
    /// GET_INFO, before it knows how much is asked for.
    InfoArgument,
    /// GET_INFO, when it answers.
    InfoAnswer,
    /// SET_CONTAINER, before it knows which one.
    JoinArgument,
    /// GET_DEVICE_FD, before it knows which one.
    OpenArgument,
    /// A driver pins pages, and holds a lock of its own.
    DriverPins,
    /// A driver reads memory.
    DriverReads,
    /// A driver writes memory.
    DriverWrites,
    /// SET_CONTAINER, at a page to be pinned, of what was mapped before.
    JoinPages,
}

/// The page where requests for several pages stop.
const STOP: usize = 1;
/// How many pages drivers use, from the first one on.
const USED: u32 = 4;

impl Place {
    /// Whether the scene is that of a driver which pins pages, without an IOMMU.
    pub fn needs_driver(self) -> bool {
        matches!(
            self,
            Self::DriverPins | Self::DriverReads | Self::DriverWrites | Self::JoinPages
        )
    }

    /// Whether [`THERE`] is what the request maps.
    pub fn maps(self) -> bool {
        matches!(self, Self::MapArgument | Self::MapPages)
    }

    /// Whether the request fails unless track is kept of dirty pages.
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

    /// The bytes of the argument in memory that stops, and where they begin.
    ///
    /// Some stop at the first byte, others where their second part begins.
    fn argument(self, container: &Container, fault: &Userfault) -> Option<(Bytes, usize)> {
        let whole = |bytes| Some((bytes, PAGE_SIZE));
        let split = |bytes, header| Some((bytes, PAGE_SIZE - header));
        // Not armed, where the argument is.
        let bits = fault.addr() + 2 * PAGE;
        match self {
            Self::MapArgument => whole(map_bytes(THERE, fault.addr(), READ_WRITE)),
            Self::UnmapArgument | Self::UnmapAnswer => whole(unmap_bytes(THERE, 0)),
            Self::UnmapBitmapArgument => split(unmap_bitmap_bytes(THERE, bits), UNMAP_HEADER),
            Self::DirtyArgument => whole(get_bitmap_bytes(THERE, bits)),
            Self::DirtyRange => split(get_bitmap_bytes(THERE, bits), DIRTY_HEADER),
            Self::InfoArgument | Self::InfoAnswer => whole(info_bytes()),
            Self::JoinArgument => {
                whole(Bytes::new().raw(&container.as_fd().as_raw_fd().to_ne_bytes()))
            }
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

    /// Lays out the memory where the request stops.
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

    /// Sends the request, unless it is one to a group.
    pub fn send_to(
        self,
        container: &Container,
        driver: Option<&Pinner>,
        fault: &Userfault,
    ) -> Answer {
        let bits = fault.addr() + STOP as u64 * PAGE;
        let nr = match self {
            Self::MapPages => return map(container, THERE, fault.addr()),
            Self::UnmapBitmap => return unmap_with_bitmap(container, THERE, bits),
            Self::DirtyBitmap => return get_bitmap(container, THERE, bits),
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
        Ok(unmapped(&answer))
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
