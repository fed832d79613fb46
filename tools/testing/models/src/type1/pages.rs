// SPDX-License-Identifier: GPL-2.0

//! The pages of a mapping: no memory, but a note of what was done to them.

use std::sync::Arc;

use kernel_ext::iova::Range;

use crate::machine::Machine;

use super::super::space::Pages;

/// The pages of a mapping, one bit each where there are some.
pub(crate) struct DmaPages {
    /// `None` once another one has taken them in.
    range: Option<Range>,
    translated: bool,
    tracked: Option<Tracked>,
    machine: Arc<Machine>,
}

/// What drivers and the kernel did with the pages.
#[derive(Clone, Copy, Default)]
struct Tracked {
    pinned: u64,
    dirty: u64,
}

/// The bits of the addresses in `range`.
pub(super) fn bits(range: Range) -> u64 {
    (range.start..=range.last).fold(0, |bits, at| bits | (1 << at))
}

impl DmaPages {
    /// Those of a new mapping.
    pub(crate) fn new(range: Range, machine: &Arc<Machine>) -> Self {
        machine.claim(range);
        Self {
            range: Some(range),
            translated: false,
            tracked: None,
            machine: machine.clone(),
        }
    }

    /// Where they are.
    pub(crate) fn range(&self) -> Range {
        self.range.unwrap_or(Range::ALL)
    }

    /// Pins the memory and maps it.
    pub(crate) fn pin_map(&mut self) {
        self.machine.translate(self.range());
        self.translated = true;
    }

    /// Takes the pages out of the IOMMU.
    pub(crate) fn unmap(&mut self) {
        if self.translated {
            self.machine.forget(self.range());
            self.translated = false;
        }
    }

    /// Whether the IOMMU translates them.
    pub(crate) fn is_translated(&self) -> bool {
        self.translated
    }

    /// Makes room to note which pages are written.
    pub(crate) fn reserve_dirty(&mut self) {
        self.tracked.get_or_insert_default();
    }

    /// Whether there is room to note that.
    pub(crate) fn has_room_for_dirty(&self) -> bool {
        self.tracked.is_some()
    }

    /// Which pages were written or are pinned.
    pub(crate) fn dirty(&self) -> u64 {
        self.tracked
            .map_or(0, |tracked| tracked.dirty | tracked.pinned)
    }

    /// Which pages drivers have pinned.
    pub(crate) fn pinned(&self) -> u64 {
        self.tracked.map_or(0, |tracked| tracked.pinned)
    }

    /// Notes that those of `range` were written.
    pub(crate) fn add_dirty(&mut self, range: Range) {
        let own = bits(self.range());
        if let Some(tracked) = &mut self.tracked {
            tracked.dirty |= bits(range) & own;
        }
    }

    /// Forgets which pages were written.
    pub(crate) fn set_clean(&mut self) {
        if let Some(tracked) = &mut self.tracked {
            tracked.dirty = 0;
        }
    }

    /// The same, and gives the room back.
    pub(crate) fn stop_tracking(&mut self) {
        self.set_clean();
        self.tracked.take_if(|tracked| tracked.pinned == 0);
    }

    /// Pins those of `range` for a driver. Returns which were.
    pub(crate) fn pin(&mut self, range: Range) -> u64 {
        let own = bits(self.range()) & bits(range);
        self.machine.read(self.range());
        self.tracked.get_or_insert_default().pinned |= own;
        own
    }

    /// Unpins those of `range`, which count as written then if `track`.
    pub(crate) fn unpin(&mut self, range: Range, track: bool) {
        let own = bits(self.range()) & bits(range);
        self.machine.read(self.range());
        if let Some(tracked) = &mut self.tracked {
            let given_back = tracked.pinned & own;
            tracked.pinned &= !own;
            if track {
                tracked.dirty |= given_back;
            }
        }
    }
}

impl Pages for DmaPages {
    fn start(&self) -> u64 {
        self.range().start
    }

    fn join(&mut self, mut next: Self) -> Result<(), Self> {
        let (own, other) = (self.range(), next.range());
        if next.tracked.is_some()
            || own.last + 1 != other.start
            || self.translated != next.translated
        {
            return Err(next);
        }
        next.range = None;
        self.range = Some(Range {
            start: own.start,
            last: other.last,
        });
        Ok(())
    }
}

impl Drop for DmaPages {
    fn drop(&mut self) {
        if self.range.is_some() {
            self.unmap();
            self.machine.release(self.range());
        }
    }
}
