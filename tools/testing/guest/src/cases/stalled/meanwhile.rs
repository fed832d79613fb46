// SPDX-License-Identifier: GPL-2.0

//! Requests that other threads send while a request has stopped.

use super::{
    place::Place,
    requests::{
        ASIDE,
        Answer,
        Ask,
        END_BORDER,
        FREE,
        INVALIDATED,
        PART,
        Range,
        START_BORDER,
        THERE,
        start_tracking,
        stop_tracking, //
    },
    scene::Scene, //
};
use crate::{
    env::{
        EDU,
        NVME, //
    },
    pin::{
        READ,
        WRITE,
        open_again, //
    },
};
use support::requests::UnmapDma;
use vfio_client::{
    Errno,
    Memory,
    PAGE_SIZE,
    pci, //
};

/// A request that another thread sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meanwhile {
    /// MAP_DMA of the same range.
    MapThere,
    /// MAP_DMA across the range's start.
    MapBefore,
    /// MAP_DMA across the range's end.
    MapBehind,
    /// MAP_DMA elsewhere.
    MapAside,
    /// UNMAP_DMA of the same range.
    UnmapThere,
    /// UNMAP_DMA elsewhere.
    UnmapAside,
    /// UNMAP_DMA of everything.
    UnmapAll,
    /// UNMAP_DMA that invalidates the vaddr of the same range.
    InvalidateThere,
    /// UNMAP_DMA that invalidates a vaddr elsewhere.
    InvalidateAside,
    /// MAP_DMA that updates the vaddr of a mapping there.
    UpdateThere,
    /// MAP_DMA that updates the vaddr of a mapping elsewhere.
    UpdateAside,
    /// DIRTY_PAGES: start tracking.
    Start,
    /// DIRTY_PAGES: stop tracking.
    Stop,
    /// DIRTY_PAGES: a bitmap of the same range.
    BitmapThere,
    /// DIRTY_PAGES: a bitmap of elsewhere.
    BitmapAside,
    /// GET_INFO.
    Info,
    /// SET_CONTAINER of a second group.
    Join,
    /// UNSET_CONTAINER of a second group.
    Leave,
    /// The driver of the second group's device is unbound.
    Unbind,
    /// A device of the group is opened and closed.
    Open,
    /// A driver pins pages in the range of the stopped request.
    PinThere,
    /// A driver pins pages elsewhere.
    PinAside,
    /// A driver unpins pages in the range of the stopped request.
    UnpinThere,
    /// A driver reads memory in the range of the stopped request.
    ReadThere,
    /// A driver reads memory elsewhere.
    ReadAside,
    /// A driver writes memory elsewhere.
    WriteAside,
}

impl Meanwhile {
    /// All requests, with their names in the tables.
    pub const ALL: [(&str, Self); 26] = [
        ("map_there", Self::MapThere),
        ("map_before", Self::MapBefore),
        ("map_behind", Self::MapBehind),
        ("map_aside", Self::MapAside),
        ("unmap_there", Self::UnmapThere),
        ("unmap_aside", Self::UnmapAside),
        ("unmap_all", Self::UnmapAll),
        ("invalidate_there", Self::InvalidateThere),
        ("invalidate_aside", Self::InvalidateAside),
        ("update_there", Self::UpdateThere),
        ("update_aside", Self::UpdateAside),
        ("start", Self::Start),
        ("stop", Self::Stop),
        ("bitmap_there", Self::BitmapThere),
        ("bitmap_aside", Self::BitmapAside),
        ("info", Self::Info),
        ("join", Self::Join),
        ("leave", Self::Leave),
        ("unbind", Self::Unbind),
        ("open", Self::Open),
        ("pin_there", Self::PinThere),
        ("pin_aside", Self::PinAside),
        ("unpin_there", Self::UnpinThere),
        ("read_there", Self::ReadThere),
        ("read_aside", Self::ReadAside),
        ("write_aside", Self::WriteAside),
    ];

    /// Returns whether the second group must be in the container beforehand.
    pub fn needs_second(self) -> bool {
        matches!(self, Self::Leave | Self::Unbind)
    }

    /// Returns whether the request is one of a driver.
    pub fn needs_driver(self) -> bool {
        matches!(
            self,
            Self::PinThere
                | Self::PinAside
                | Self::UnpinThere
                | Self::ReadThere
                | Self::ReadAside
                | Self::WriteAside
        )
    }

    /// Sends the request.
    pub fn send(self, place: Place, scene: &Scene) -> Answer {
        let Scene {
            container, memory, ..
        } = scene;
        let driver = || scene.driver.as_ref().ok_or(Errno::ENODEV);
        match self {
            Self::MapThere => THERE.map(memory.addr()).ask(container),
            Self::MapBefore => START_BORDER.map(memory.addr()).ask(container),
            Self::MapBehind => END_BORDER.map(memory.addr()).ask(container),
            Self::MapAside => FREE.map(memory.addr()).ask(container),
            Self::UnmapThere => THERE.unmap().ask(container),
            Self::UnmapAside => ASIDE.unmap().ask(container),
            Self::UnmapAll => UnmapDma::all().ask(container),
            Self::InvalidateThere => THERE.invalidate_vaddr().ask(container),
            Self::InvalidateAside => ASIDE.invalidate_vaddr().ask(container),
            Self::UpdateThere => {
                let mapped = if place.maps() { THERE } else { PART };
                mapped.update_vaddr(memory.addr()).ask(container)
            }
            Self::UpdateAside => INVALIDATED.update_vaddr(memory.addr()).ask(container),
            Self::Start => start_tracking(container),
            Self::Stop => stop_tracking(container),
            Self::BitmapThere => get_bitmap(scene, THERE),
            Self::BitmapAside => get_bitmap(scene, ASIDE),
            Self::Info => none(container.info()),
            Self::Join => none(scene.second.set_container(container)),
            Self::Leave => none(scene.second.unset_container()),
            Self::Unbind => none(pci::unbind(NVME)),
            Self::Open if scene.driver.is_some() => none(open_again(&scene.first)),
            Self::Open => none(scene.first.device(EDU)),
            // Not the page at which the other request stops.
            Self::PinThere => pinned(driver()?.pin(PART.iova, 1, READ | WRITE)),
            Self::PinAside => pinned(driver()?.pin(ASIDE.iova, 1, READ | WRITE)),
            Self::UnpinThere => driver()?.unpin(PART.iova, 1).map(|_| 0),
            Self::ReadThere => driver()?.read(PART.iova, 8).map(|_| 0),
            Self::ReadAside => driver()?.read(ASIDE.iova, 8).map(|_| 0),
            Self::WriteAside => driver()?.write(ASIDE.iova, &[7; 8]).map(|_| 0),
        }
    }
}

fn none<T>(answer: vfio_client::Result<T>) -> Answer {
    answer.map(|_| 0).map_err(|error| error.errno())
}

fn pinned(answer: Result<(i32, u64), Errno>) -> Answer {
    answer.map(|(count, _)| count as u64)
}

/// Requests a bitmap of a range that is larger than `dma` and has mappings at its start only.
fn get_bitmap(scene: &Scene, dma: Range) -> Answer {
    let bits = Memory::anonymous(PAGE_SIZE).map_err(|error| error.errno())?;
    let more = Range {
        pages: THERE.pages,
        ..dma
    };
    more.get_bitmap(bits.addr()).ask(&scene.container)
}
