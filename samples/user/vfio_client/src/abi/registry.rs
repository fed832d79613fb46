// SPDX-License-Identifier: GPL-2.0

//! Which parts of the address space the kernel and devices may write.
//!
//! Some requests carry an address inside of their structure: MAP_DMA gives memory to devices,
//! GET_BITMAP names a buffer. A safe function may only pass on addresses of [`super::Memory`], or
//! addresses at which nothing can ever be mapped. This module knows which those are.

use std::{
    collections::BTreeMap,
    sync::Mutex, //
};

/// Live memory objects: first address and length.
static LIVE: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

/// Nothing is ever mapped below this address (`vm.mmap_min_addr`).
const LOW_END: u64 = 0x1_0000;
/// Nothing of ours is ever mapped from here on: the top of the four-level user address space.
const HIGH_START: u64 = 0x7fff_ffff_f000;

fn live() -> std::sync::MutexGuard<'static, BTreeMap<usize, usize>> {
    LIVE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Notes a new memory object.
pub(super) fn insert(start: usize, len: usize) {
    live().insert(start, len);
}

/// Forgets a memory object.
pub(super) fn remove(start: usize) {
    live().remove(&start);
}

/// Tells whether the kernel may be told to write `len` bytes at `start`.
pub(super) fn may_write(start: u64, len: u64) -> bool {
    let end = start.saturating_add(len);
    if len == 0 || end <= LOW_END || start >= HIGH_START {
        return true;
    }
    live()
        .iter()
        .any(|(&s, &l)| s as u64 <= start && end <= s as u64 + l as u64)
}
