// SPDX-License-Identifier: GPL-2.0

//! The data of one id.

use core::ops::Deref;

use kernel::{
    prelude::*,
    sync::atomic::Atomic, //
};

use crate::{
    allocator::Origin,
    id::{
        key::{
            Filter,
            Key, //
        },
        range::INVALID,
        state::{
            Generation,
            Lifetime,
            Right,
            StateWord, //
        }, //
    },
    read_once::{
        read_once,
        write_once, //
    },
    set::SetId, //
};

#[cfg(CONFIG_KUNIT)]
#[path = "entry/tests.rs"]
mod tests;

/// The data of one id. When the number is reused, the entry is reused for the next id.
pub(crate) struct Entry {
    state: StateWord,
    /// Private data of the driver that allocated the id.
    pub(crate) data: Atomic<usize>,
    set: Atomic<u64>,
    origin: Atomic<Origin>,
    spid: Atomic<u32>,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            state: StateWord::new(),
            data: Atomic::new(0),
            set: Atomic::new(SetId::ROOT.to_raw()),
            origin: Atomic::new(0),
            spid: Atomic::new(INVALID),
        }
    }
}

impl Entry {
    /// Starts the lifetime of an id in a set. The number is not in use, and callers are serialised.
    #[inline]
    pub(crate) fn begin(
        &self,
        generation: Generation,
        set: SetId,
        origin: Origin,
        data: usize,
        owner: Right,
    ) {
        self.state.begin(generation, owner, || {
            write_once(&self.data, data);
            write_once(&self.set, set.to_raw());
            write_once(&self.origin, origin);
            write_once(&self.spid, INVALID);
        })
    }

    /// Returns the id if it matches the key.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the number is not in use, or in another lifetime than the key's; `EACCES` if the
    /// id is not in the key's set.
    #[inline]
    pub(crate) fn lookup(&self, filter: Filter) -> Result<Found<'_>> {
        let lifetime = self.state.lookup().ok_or(ENOENT)?;
        match filter {
            Filter::Set(set) if set != self.set() => Err(EACCES),
            Filter::Lifetime(generation) if generation != lifetime.generation() => Err(ENOENT),
            _ => Ok(Found {
                entry: self,
                lifetime,
            }),
        }
    }

    /// Returns the id's set.
    #[inline]
    pub(crate) fn set(&self) -> SetId {
        SetId::from_raw(read_once(&self.set))
    }

    /// Returns the source that the id came from, and to which it is returned.
    #[inline]
    pub(crate) fn origin(&self) -> Origin {
        read_once(&self.origin)
    }

    /// Returns the number that the id's set uses for it.
    #[inline]
    pub(crate) fn spid(&self) -> Option<u32> {
        Some(read_once(&self.spid)).filter(|&spid| spid != INVALID)
    }

    /// Changes the number that the id's set uses for it.
    pub(crate) fn set_spid(&self, spid: Option<u32>) {
        write_once(&self.spid, spid.unwrap_or(INVALID));
    }
}

/// The resources that must be released when the last reference to an id is dropped.
#[derive(Clone, Copy)]
pub(crate) struct IdResources {
    pub(crate) set: SetId,
    pub(crate) origin: Origin,
    pub(crate) spid: Option<u32>,
}

/// An id that was in use when it was looked up.
///
/// Without a reference, data that are read here may belong to the next id with the same number,
/// which [`Lifetime::is_current`] detects. Operations on `lifetime` never affect the next id.
pub(crate) struct Found<'e> {
    entry: &'e Entry,
    pub(crate) lifetime: Lifetime<'e>,
}

impl Deref for Found<'_> {
    type Target = Entry;

    #[inline]
    fn deref(&self) -> &Entry {
        self.entry
    }
}

impl Found<'_> {
    /// Returns the private data.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the id has been freed and released meanwhile.
    #[inline]
    pub(crate) fn data(&self) -> Result<usize> {
        self.if_same(read_once(&self.data))
    }

    /// Returns `read`, the data that were read from the id.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the id has been freed and released meanwhile, so that the data may belong to the
    /// next id.
    #[inline]
    pub(crate) fn if_same<R>(&self, read: R) -> Result<R> {
        self.lifetime.is_current().then_some(read).ok_or(ENOENT)
    }

    /// Returns the key of exactly this lifetime, with the right of the key `by` that was used to
    /// find the id.
    #[inline]
    pub(crate) fn key(&self, by: Key) -> Key {
        Key::of_lifetime(by.id, self.lifetime.generation(), by.right)
    }

    /// Returns the resources to release, for the caller that has just dropped the last reference.
    #[inline]
    pub(crate) fn resources(&self) -> IdResources {
        IdResources {
            set: self.set(),
            origin: self.origin(),
            spid: self.spid(),
        }
    }
}
