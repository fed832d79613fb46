// SPDX-License-Identifier: GPL-2.0

//! The registry of the addresses that the kernel and devices may write.
//!
//! Some requests contain an address inside of their structure: MAP_DMA gives devices access to
//! memory, and GET_BITMAP names a buffer. A safe function may only pass addresses of
//! [`super::Memory`], or addresses at which nothing can ever be mapped. This module keeps track of
//! them.

use std::{
    collections::BTreeMap,
    sync::Mutex, //
};

/// Live memory objects: first address and length.
static LIVE: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

/// Nothing is ever mapped below this address (`vm.mmap_min_addr`).
const LOW_END: u64 = 0x1_0000;
/// This process never maps anything at or above this address: the top of the four-level user
/// address space.
const HIGH_START: u64 = 0x7fff_ffff_f000;

fn live() -> std::sync::MutexGuard<'static, BTreeMap<usize, usize>> {
    LIVE.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Registers a memory object.
pub(super) fn insert(start: usize, len: usize) {
    live().insert(start, len);
}

/// Unregisters a memory object.
pub(super) fn remove(start: usize) {
    live().remove(&start);
}

/// Returns whether a request may let the kernel write `len` bytes at `start`.
pub(super) fn may_write(start: u64, len: u64) -> bool {
    let end = start.saturating_add(len);
    if len == 0 || end <= LOW_END || start >= HIGH_START {
        return true;
    }
    live()
        .iter()
        .any(|(&s, &l)| s as u64 <= start && end <= s as u64 + l as u64)
}
