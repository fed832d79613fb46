// SPDX-License-Identifier: GPL-2.0

//! A container of type 1, with the real address space, and model pages.

mod dirty;
mod driver;
mod groups;
mod map;
mod pages;
mod unmap;

use std::sync::Arc;

use kernel::{
    prelude::*,
    sync::Mutex, //
};

use kernel_ext::iova::Range;

use crate::machine::Machine;

pub(crate) use self::unmap::Progress;

use self::{
    driver::Driver,
    pages::DmaPages,
    unmap::Ask, //
};

use super::space::{
    Space, //
    SpaceTypes,
};

/// What a thread asks a container for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// `VFIO_IOMMU_MAP_DMA`.
    Map(Range),
    /// The same with `VFIO_DMA_MAP_FLAG_VADDR`.
    ChangeVaddr(Range),
    /// `VFIO_IOMMU_UNMAP_DMA`.
    Unmap(Range),
    /// The same with `VFIO_DMA_UNMAP_FLAG_ALL`.
    UnmapAll,
    /// The same with `VFIO_DMA_UNMAP_FLAG_VADDR`.
    Invalidate(Range),
    /// The same with a bitmap.
    UnmapDirty(Range),
    /// `VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP`.
    Report(Range),
    /// `VFIO_IOMMU_DIRTY_PAGES_FLAG_START`.
    StartTracking,
    /// `VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP`.
    StopTracking,
    /// A group with an IOMMU comes.
    Attach,
    /// Such a group comes, but not all of what is mapped can be pinned.
    AttachInVain,
    /// A group with an IOMMU goes.
    Detach,
    /// A group of emulated devices comes.
    AttachEmulated,
    /// A group of emulated devices goes.
    DetachEmulated,
    /// `vfio_pin_pages()`.
    Pin(Range),
    /// `vfio_unpin_pages()`, if the driver has pinned these pages.
    Unpin(Range),
    /// `vfio_dma_rw()`, to read.
    Read(Range),
    /// `vfio_dma_rw()`, to write.
    Write(Range),
}

/// What a thread learns: a number that depends on the request.
pub(crate) type Answer = Result<u64>;

/// What doesn't change while addresses are locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Layout {
    /// Whether there is a group with an IOMMU.
    pub(crate) translated: bool,
    /// Whether there is a group of emulated devices.
    pub(crate) emulated: bool,
    /// Whether track is kept of dirty pages.
    pub(crate) dirty_page_tracking: bool,
}

/// How a model begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct World {
    /// Its groups.
    pub(crate) layout: Layout,
    /// How many mappings there may be.
    pub(crate) limit: usize,
    /// Whether it has the rules of `VFIO_TYPE1v2_IOMMU`.
    pub(crate) v2: bool,
    /// Whether the driver keeps what it has pinned.
    pub(crate) stubborn: bool,
    /// What is done before the threads start.
    pub(crate) before: &'static [Request],
}

/// A mapping, as it is found in the end: where, with which address in the program's memory, whether
/// the IOMMU translates it, which of its pages are dirty, and which are pinned.
type Seen = (Range, Option<usize>, bool, u64, u64);

/// Everything that can be seen of a container in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    layout: Layout,
    mappings: Vec<Seen>,
}

/// A container.
pub(crate) struct Container {
    v2: bool,
    limit: usize,
    space: Space<Self>,
    /// The open devices. Its mutex is held while the driver is told to give pages back.
    devices: Mutex<Vec<Driver>>,
    driver: Driver,
    machine: Arc<Machine>,
}

impl SpaceTypes for Container {
    type Layout = Layout;
    /// Whether the driver has pinned pages once, so that only these count as dirty.
    type MutexData = bool;
    type Pages = DmaPages;
}

impl Container {
    /// A container, and what was done before.
    pub(crate) fn new(world: World, machine: Arc<Machine>) -> Arc<Self> {
        let space = Space::new(world.layout, false);
        let driver = Driver::new(world.stubborn);
        let container = Arc::new(Self {
            v2: world.v2,
            limit: world.limit,
            space: space.make(),
            devices: Mutex::new(vec![driver.clone()]),
            driver,
            machine,
        });
        for request in world.before {
            assert!(container.serve(*request).is_ok(), "{request:?} fails");
        }
        container
    }

    /// Does what a thread asks for.
    pub(crate) fn serve(&self, request: Request) -> Answer {
        let mut progress = Progress::default();
        loop {
            if let Some(answer) = self.step(request, &mut progress).transpose() {
                return answer;
            }
        }
    }

    /// Does what a thread asks for up to where others see what was done so far. Returns `None` if
    /// there is more to do.
    pub(crate) fn step(&self, request: Request, progress: &mut Progress) -> Result<Option<u64>> {
        let answer = match request {
            Request::Unmap(range) => return self.unmap(&Ask::of(range), progress),
            Request::UnmapAll => return self.unmap(&Ask::all(), progress),
            Request::Invalidate(range) => return self.unmap(&Ask::vaddr_of(range), progress),
            Request::UnmapDirty(range) => return self.unmap(&Ask::dirty_of(range), progress),
            Request::Map(range) => self.map(range),
            Request::ChangeVaddr(range) => self.change_vaddr(range),
            Request::Report(range) => self.report(range),
            Request::StartTracking => self.start_tracking(),
            Request::StopTracking => self.stop_tracking(),
            Request::Attach => self.attach(false),
            Request::AttachInVain => self.attach(true),
            Request::Detach => self.detach(),
            Request::AttachEmulated => self.attach_emulated(),
            Request::DetachEmulated => self.detach_emulated(),
            Request::Pin(range) => self.driver.pin(self, range),
            Request::Unpin(range) => self.driver.unpin(self, range),
            Request::Read(range) => self.read(range),
            Request::Write(range) => self.write(range),
        };
        answer.map(Some)
    }

    /// Looks at what there is once all threads are done, and whether it fits together.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut mappings = Vec::new();
        let mut look = self.space.look();
        let (layout, counted, requests) = (*look.layout(), look.dmas().len(), look.requests());
        look.for_each_in(Range::ALL, |range, dma| {
            let Some(pages) = dma.pages() else {
                panic!("the pages of {range:?} were not put back");
            };
            assert_eq!(pages.range(), range);
            let vaddr = dma.vaddr().map(|vaddr| vaddr.get());
            let (dirty, pinned) = (pages.dirty(), pages.pinned());
            assert!(
                !layout.dirty_page_tracking || pages.has_room_for_dirty(),
                "no room to note dirty pages of {range:?}"
            );
            mappings.push((range, vaddr, pages.is_translated(), dirty, pinned));
            true
        });
        drop(look);
        assert_eq!(requests, 0, "requests are left in the queue");
        assert_eq!(counted, mappings.len(), "mappings are miscounted");
        let invalid = self.space.lock(Range::ALL, |held| {
            Ok::<_, Error>(held.dmas().invalid() != 0)
        });
        assert_eq!(
            invalid.is_ok_and(|(_guard, invalid)| invalid),
            mappings.iter().any(|(_, vaddr, ..)| vaddr.is_none()),
            "invalid addresses are miscounted"
        );
        let mut expected = vec![(false, false); self.machine.state().len()];
        for (range, _, translated, ..) in &mappings {
            assert_eq!(*translated, layout.translated, "{range:?}");
            for at in range.start..=range.last {
                let state = &mut expected[at as usize];
                assert!(!state.0, "mappings overlap at {at}");
                *state = (true, *translated);
            }
        }
        assert_eq!(self.machine.state(), expected, "something is left mapped");
        Snapshot { layout, mappings }
    }

    /// Takes all groups away, with which everything that is mapped goes.
    pub(crate) fn close(&self) {
        self.detach_all();
        assert_eq!(self.space.look().dmas().len(), 0, "mappings are left");
        let mut state = self.machine.state().into_iter();
        assert!(state.all(|state| state == (false, false)));
    }
}
