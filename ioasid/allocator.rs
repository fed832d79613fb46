// SPDX-License-Identifier: GPL-2.0

//! Custom allocators, which replace the default allocator.
//!
//! In a guest, the host allocates PASIDs through the guest's IOMMUs. There may be several IOMMUs of
//! several kinds, and they may be added and removed. Therefore there is a list:
//!
//! * Allocators of the same *kind* share ids: an id from one of them can be returned through any
//!   other.
//! * The kind that was registered first is *active*: new ids come from it, through its member that
//!   was registered first. When its last member is removed, the next kind becomes active.
//! * Ids of a kind without members are *orphans*: they stay allocated here until they are freed,
//!   but no allocator is notified then.
//! * Without a custom allocator, ids come from the default allocator.

#[allow(unsafe_code)]
pub(crate) mod abi;
mod registration;

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
    }, //
};

pub use registration::Registration;

use crate::{
    gfp::Gfp,
    id::range::IdRange,
    read_once::read_once,
    srcu_list::SrcuList, //
};

/// A custom allocator of ids.
///
/// Called without locks, by several threads concurrently, in the context of the caller that
/// allocates or frees an id.
pub trait Allocator: Send + Sync {
    /// Returns an unused id in `range`. Must not sleep if `gfp` is [`Gfp::Atomic`].
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there is no such id; any other error if the device fails.
    fn alloc(&self, range: IdRange, gfp: Gfp) -> Result<u32>;

    /// Takes back an id, which is no longer in the space. Must not sleep.
    fn free(&self, id: u32);
}

/// Identifies the allocators that share their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All allocators of a Rust type.
    Type(TypeId),
    /// All allocators with these two C functions, given by their addresses.
    Functions(usize, usize),
}

/// Where an id came from: the number of a kind of allocators, or 0 for the default allocator.
pub(crate) type Origin = u32;

/// The default allocator.
pub(crate) const DEFAULT_ALLOCATOR: Origin = 0;

/// One registered allocator.
#[derive(Clone)]
pub(crate) struct AllocatorEntry {
    /// The number of its kind. Kinds that are registered later have higher numbers.
    pub(crate) origin: Origin,
    kind: Kind,
    /// Identifies the allocator.
    key: usize,
    allocator: Arc<dyn Allocator>,
    /// The number of ids that are allocated from its kind.
    outstanding: Arc<Atomic<i32>>,
}

impl AllocatorEntry {
    /// Returns the number of ids that are allocated from its kind.
    pub(crate) fn outstanding(&self) -> i32 {
        self.outstanding.load(Relaxed)
    }
}

/// The effect of an allocator's removal from the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Removal {
    /// Whether it was the last of its kind.
    pub(crate) last_of_kind: bool,
    /// The kind that becomes active, if the active one changes.
    pub(crate) handed_to: Option<Origin>,
}

/// All registered allocators, ordered by kind and then by registration.
pub(crate) type AllocatorList = SrcuList<AllocatorEntry>;

/// Returns the position of a new allocator in the list, and the last allocator of its kind that is
/// already in it.
///
/// # Errors
///
/// `EEXIST` if the allocator is already in the list, with this kind or another one.
fn position_for(
    list: &[AllocatorEntry],
    kind: Kind,
    key: usize,
) -> Result<(usize, Option<&AllocatorEntry>)> {
    if list.iter().any(|entry| entry.key == key) {
        return Err(EEXIST);
    }
    Ok(match list.iter().rposition(|entry| entry.kind == kind) {
        Some(last) => (last + 1, list.get(last)),
        None => (list.len(), None),
    })
}

/// Returns the effect that the removal of the allocator with this key will have.
///
/// # Errors
///
/// `ENOENT` if the allocator is not in the list.
fn removal(list: &[AllocatorEntry], key: usize) -> Result<Removal> {
    let leaving = list.iter().find(|entry| entry.key == key).ok_or(ENOENT)?;
    let rest = || list.iter().filter(|entry| entry.key != key);
    let last_of_kind = !rest().any(|entry| entry.origin == leaving.origin);
    let was_active = list
        .first()
        .is_some_and(|entry| entry.origin == leaving.origin);
    Ok(Removal {
        last_of_kind,
        handed_to: (last_of_kind && was_active).then(|| {
            rest()
                .next()
                .map_or(DEFAULT_ALLOCATOR, |entry| entry.origin)
        }),
    })
}

/// Returns the allocator through which an id of `origin` is returned, or `None` if the id is an
/// orphan.
fn allocator_of(list: &[AllocatorEntry], origin: Origin) -> Option<&AllocatorEntry> {
    list.iter().find(|entry| entry.origin == origin)
}

/// Whether ids come from the default allocator, and the number of ids that were allocated from it.
///
/// The default allocator must be empty when a custom allocator takes over, because that allocator
/// does not know its ids.
pub(crate) struct DefaultAllocator(Atomic<u32>);

/// Set while a custom allocator is registered.
const CUSTOM: u32 = 1 << 31;

impl DefaultAllocator {
    /// The initial state: ids come from the default allocator, and none is allocated.
    pub(crate) const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// Counts an id that is about to be allocated. Returns false if ids do not come from the own
    /// space.
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

    /// Stops counting an id that is gone.
    #[inline]
    pub(crate) fn leave(&self) {
        self.0.fetch_sub(1, Full);
    }

    /// Starts taking ids from a custom allocator.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if ids are allocated or are being allocated.
    pub(crate) fn hand_over(&self) -> Result {
        self.0
            .cmpxchg(0, CUSTOM, Full)
            .map(|_| ())
            .map_err(|_| EAGAIN)
    }

    /// Resumes taking ids from the default allocator.
    pub(crate) fn take_back(&self) {
        self.0.store(0, Release);
    }

    /// Returns the number of ids that are allocated from the default allocator.
    pub(crate) fn outstanding(&self) -> u32 {
        read_once(&self.0) & !CUSTOM
    }
}
