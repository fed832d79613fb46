// SPDX-License-Identifier: GPL-2.0

//! The registry of the addresses that the kernel and devices may write.
//!
//! Some requests contain an address inside of their structure: MAP_DMA gives devices access to
//! memory, and GET_BITMAP names a buffer. A safe function may only pass addresses of
//! [`super::Memory`], or addresses at which nothing can ever be mapped. This module keeps track of
//! them.
//!
//! It also counts for each object how often it is lent: to a request that is being executed, or to
//! a mapping for devices. The driver of a mediated device pins the pages of a mapping when it needs
//! them, so the kernel looks up the addresses of a mapping until it is unmapped. The addresses of an
//! object that is dropped meanwhile must not be used for something else.

#[cfg(feature = "testing")]
use std::ops::Range;
use std::{
    collections::BTreeMap,
    sync::Mutex, //
};

/// A live memory object.
struct Live {
    len: usize,
    lent: usize,
}

/// Live memory objects, by their first address.
static LIVE: Mutex<BTreeMap<usize, Live>> = Mutex::new(BTreeMap::new());

/// Nothing is ever mapped below this address (`vm.mmap_min_addr`).
const LOW_END: u64 = 0x1_0000;

/// Addresses at which this process never maps anything, by the first and the last one.
const NOWHERE: [(u64, u64); 2] = if cfg!(target_arch = "aarch64") {
    // The kernel places programs at two thirds of the 48 bits, and everything else above.
    [
        (0x7fff_ffff_f000, 0x8fff_ffff_ffff),
        (0x1_0000_0000_0000, u64::MAX),
    ]
} else if cfg!(target_pointer_width = "32") {
    // The last page, also for a kernel that ignores the upper half of an address.
    [
        (0xffff_f000, 0xffff_ffff),
        (0xffff_ffff_ffff_f000, u64::MAX),
    ]
} else {
    // The end of the user addresses with four levels of page tables.
    [(0x7fff_ffff_f000, u64::MAX), (u64::MAX, u64::MAX)]
};

fn live() -> std::sync::MutexGuard<'static, BTreeMap<usize, Live>> {
    LIVE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Registers a memory object.
pub(super) fn insert(start: usize, len: usize) {
    live().insert(start, Live { len, lent: 0 });
}

/// Unregisters a memory object. Returns whether it is lent.
pub(super) fn remove(start: usize) -> bool {
    live().remove(&start).is_some_and(|entry| entry.lent > 0)
}

/// Reserved addresses of objects that were lent when they were dropped: first address and end.
#[cfg(feature = "testing")]
static KEPT: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

/// Notes that addresses stay reserved.
#[cfg(feature = "testing")]
pub(super) fn keep(range: Range<usize>) {
    let mut kept = KEPT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    kept.insert(range.start, range.end);
}

/// Takes the parts of a range that are reserved, in ascending order.
#[cfg(feature = "testing")]
pub(super) fn take_kept(range: &Range<usize>) -> Vec<Range<usize>> {
    let mut kept = KEPT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let parts: Vec<_> = kept
        .range(..range.end)
        .filter(|(_, end)| **end > range.start)
        .map(|(start, end)| *start..*end)
        .collect();
    for part in &parts {
        kept.remove(&part.start);
        if part.start < range.start {
            kept.insert(part.start, range.start);
        }
        if part.end > range.end {
            kept.insert(range.end, part.end);
        }
    }
    let inside = |part: Range<usize>| part.start.max(range.start)..part.end.min(range.end);
    parts.into_iter().map(inside).collect()
}

/// Memory that a request may use. Dropping this object returns the memory.
#[derive(Debug)]
pub(super) struct Lent(Option<usize>);

impl Lent {
    /// Leaves the memory lent, to a mapping.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(start) = self.0 {
            give_back(start);
        }
    }
}

/// Returns an object that is lent to a mapping which is gone.
pub(super) fn give_back(start: usize) {
    if let Some(entry) = live().get_mut(&start) {
        entry.lent = entry.lent.saturating_sub(1);
    }
}

/// Lends `len` bytes at `start` to a request, or returns `None` if they are not in one object and
/// something else could be there.
pub(super) fn lend(start: u64, len: u64) -> Option<Lent> {
    let end = start.saturating_add(len);
    let nowhere = |&(first, last): &(u64, u64)| first <= start && end.saturating_sub(1) <= last;
    if len == 0 || end <= LOW_END || NOWHERE.iter().any(nowhere) {
        return Some(Lent(None));
    }
    let mut live = live();
    let (&first, entry) = live
        .range_mut(..=usize::try_from(start).ok()?)
        .next_back()?;
    let entry_end = (first as u64).saturating_add(entry.len as u64);
    (end <= entry_end).then(|| {
        entry.lent = entry.lent.saturating_add(1);
        Lent(Some(first))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // No address of the test process.
    const START: usize = 0x2_0000;

    #[test]
    fn only_whole_objects_and_nowhere_are_lent() {
        insert(START, 0x1000);
        let start = START as u64;
        assert!(lend(start, 0x1000).is_some());
        assert!(lend(start + 8, 8).is_some());
        assert!(lend(start, 0x1001).is_none());
        assert!(lend(start - 1, 2).is_none());
        assert!(lend(start + 0x1000, 1).is_none());
        assert!(lend(0, 0x1_0000).is_some());
        assert!(lend(0, u64::MAX).is_none());
        assert!(lend(u64::MAX, u64::MAX).is_some());
        assert!(lend(0x7fff_ffff_e000, 0x1000).is_none());
        assert!(!remove(START));
        assert!(lend(start, 8).is_none());
    }

    #[cfg(feature = "testing")]
    #[test]
    fn kept_addresses_are_taken_once() {
        let at = |start: usize, end: usize| 0x5000_0000 + start..0x5000_0000 + end;
        keep(at(0, 10));
        keep(at(20, 30));
        assert_eq!(take_kept(&at(5, 25)), [at(5, 10), at(20, 25)]);
        assert_eq!(take_kept(&at(5, 25)), []);
        assert_eq!(take_kept(&at(0, 100)), [at(0, 5), at(25, 30)]);
    }

    #[test]
    fn mappings_keep_objects_lent() {
        let start = START + 0x1_0000;
        insert(start, 0x1000);
        lend(start as u64, 1).unwrap().keep();
        lend(start as u64, 2).unwrap().keep();
        drop(lend(start as u64, 3));
        give_back(start);
        assert!(remove(start));
        insert(start, 0x1000);
        lend(start as u64, 1).unwrap().keep();
        give_back(start);
        give_back(start);
        assert!(!remove(start));
    }
}
