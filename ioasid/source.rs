// SPDX-License-Identifier: GPL-2.0

//! Custom allocators: where ids come from if somebody else than this module decides.
//!
//! In a guest it is the host that hands out PASIDs, through the guest's IOMMUs. There may be several
//! IOMMUs, of several kinds, and they may come and go. So there is a list:
//!
//! * Allocators of one *kind* share ids: what came from one can be given back through any other.
//! * The kind that was registered first is *active*: new ids come from it, through the member of it
//!   that was registered first. When its last member goes, the next kind becomes active.
//! * Ids whose kind is gone are *orphans*: they stay allocated here until they are freed, but nobody
//!   is told then.
//! * Without a custom allocator, ids come from the module's own space.

use core::any::TypeId;

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed,
            Release, //
        },
        Arc, //
    },
};

use kernel_ext::{
    gfp::Gfp,
    read_once::read_once, //
};

use crate::{
    range::IdRange,
    roster::Roster, //
};

/// A custom allocator of ids.
///
/// Called without a lock, by several threads at once, and in the context of the caller that allocates or
/// frees.
pub trait Allocator: Send + Sync {
    /// Returns an id of `range` that is not in use. It must not sleep if `gfp` is [`Gfp::Atomic`].
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there is none; anything else if the device fails.
    fn alloc(&self, range: IdRange, gfp: Gfp) -> Result<u32>;

    /// Takes back an id, which is not known here any more. It must not sleep.
    fn free(&self, id: u32);
}

/// What allocators that share their ids have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A type in Rust.
    Type(TypeId),
    /// Two functions in C, by their addresses.
    Functions(usize, usize),
}

/// Numbers of the kinds that were ever registered; 0 is the module's own space.
pub(crate) type Origin = u32;

/// The module's own space.
pub(crate) const OWN: Origin = 0;

/// One registered allocator.
#[derive(Clone)]
pub(crate) struct Source {
    /// The number of its kind, which grows with each kind that is registered.
    pub(crate) origin: Origin,
    pub(crate) kind: Kind,
    /// Tells allocators apart.
    pub(crate) key: usize,
    pub(crate) allocator: Arc<dyn Allocator>,
    /// How many ids of its kind there are.
    pub(crate) outstanding: Arc<Atomic<i32>>,
}

impl Source {
    /// How many ids of its kind there are.
    pub(crate) fn outstanding(&self) -> i32 {
        self.outstanding.load(Relaxed)
    }
}

/// What became of the list when an allocator left it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Departure {
    /// Whether it was the last of its kind.
    pub(crate) last_of_kind: bool,
    /// What is active now instead, if that has changed.
    pub(crate) handed_to: Option<Origin>,
}

/// All registered allocators: in the order of their kinds, then in that of their registration.
pub(crate) type Sources = Roster<Source>;

/// Where a new allocator belongs in the list, and what its kind has already.
///
/// # Errors
///
/// `EEXIST` if it is in the list, as the first of its kind or not.
pub(crate) fn place(list: &[Source], kind: Kind, key: usize) -> Result<(usize, Option<&Source>)> {
    if list.iter().any(|s| s.key == key) {
        return Err(EEXIST);
    }
    Ok(match list.iter().rposition(|s| s.kind == kind) {
        Some(last) => (last + 1, list.get(last)),
        None => (list.len(), None),
    })
}

/// What will become of the list when the allocator with this key leaves it.
///
/// # Errors
///
/// `ENOENT` if it is not in the list.
pub(crate) fn departure(list: &[Source], key: usize) -> Result<Departure> {
    let going = list.iter().find(|s| s.key == key).ok_or(ENOENT)?;
    let rest = || list.iter().filter(|s| s.key != key);
    let last_of_kind = !rest().any(|s| s.origin == going.origin);
    let was_active = list.first().is_some_and(|s| s.origin == going.origin);
    Ok(Departure {
        last_of_kind,
        handed_to: (last_of_kind && was_active).then(|| rest().next().map_or(OWN, |s| s.origin)),
    })
}

/// Through whom an id of `origin` is given back; `None` if it is an orphan.
pub(crate) fn of_origin(list: &[Source], origin: Origin) -> Option<&Source> {
    list.iter().find(|s| s.origin == origin)
}

/// Whether ids come from the module's own space, and how many of those there are.
///
/// The own space must be empty when a custom allocator takes over: its ids mean nothing to that one.
pub(crate) struct Own(Atomic<u32>);

/// Set while a custom allocator is registered.
const CUSTOM: u32 = 1 << 31;

impl Own {
    /// Ids come from here, and none did.
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Counts an id that is about to be allocated; false if that is not done here.
    #[inline]
    pub(crate) fn enter(&self) -> bool {
        let mut old = read_once(&self.0);
        while old & CUSTOM == 0 {
            match self.0.cmpxchg(old, old + 1, Full) {
                Ok(_) => return true,
                Err(now) => old = now,
            }
        }
        false
    }

    /// An id is gone that was counted.
    #[inline]
    pub(crate) fn leave(&self) {
        self.0.fetch_sub(1, Full);
    }

    /// Ids come from a custom allocator from now on.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there are ids, or some are being allocated.
    pub(crate) fn hand_over(&self) -> Result {
        self.0
            .cmpxchg(0, CUSTOM, Full)
            .map(|_| ())
            .map_err(|_| EAGAIN)
    }

    /// Ids come from here again.
    pub(crate) fn take_back(&self) {
        self.0.store(0, Release);
    }

    /// How many ids there are.
    pub(crate) fn outstanding(&self) -> u32 {
        read_once(&self.0) & !CUSTOM
    }
}
