// SPDX-License-Identifier: GPL-2.0

//! What is known of one id.

use kernel::sync::atomic::{
    Atomic,
    Relaxed, //
};

use crate::{
    life::Life,
    notify::Subject,
    range::INVALID,
    source::Origin, //
};

/// What is known of one id. Readers see it until a grace period after it has left the space.
pub(crate) struct Entry {
    pub(crate) life: Life,
    /// The number of its set.
    pub(crate) set: u32,
    /// Where it comes from, and goes back to.
    pub(crate) origin: Origin,
    /// What its set calls it, or [`INVALID`].
    pub(crate) spid: Atomic<u32>,
    /// A word of who allocated it.
    pub(crate) data: Atomic<usize>,
}

impl Entry {
    pub(crate) fn new(set: u32, origin: Origin, data: usize) -> Self {
        Self {
            life: Life::new(),
            set,
            origin,
            spid: Atomic::new(INVALID),
            data: Atomic::new(data),
        }
    }

    /// What its set calls it.
    pub(crate) fn spid(&self) -> Option<u32> {
        Some(self.spid.load(Relaxed)).filter(|&spid| spid != INVALID)
    }

    /// What listeners are told about it.
    pub(crate) fn subject(&self, id: u32) -> Subject {
        Subject {
            id,
            spid: self.spid(),
            set: self.set,
            data: self.data.load(Relaxed),
        }
    }
}
