// SPDX-License-Identifier: GPL-2.0

//! What is known of one id.

use core::ops::Deref;

use kernel::{
    prelude::*,
    sync::atomic::Atomic, //
};

use kernel_ext::read_once::{
    read_once,
    write_once, //
};

use crate::{
    key::{
        Key,
        Only, //
    },
    life::{
        Generation,
        Life,
        Living,
        Right, //
    },
    range::INVALID,
    set_id::SetId,
    source::Origin, //
};

#[cfg(CONFIG_KUNIT)]
mod tests;

/// What is known of one id. It stays in its place when the number is reused, for the next id.
pub(crate) struct Entry {
    life: Life,
    /// A word of the driver that allocated it.
    pub(crate) data: Atomic<usize>,
    set: Atomic<u64>,
    origin: Atomic<Origin>,
    spid: Atomic<u32>,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            life: Life::new(),
            data: Atomic::new(0),
            set: Atomic::new(SetId::ROOT.to_raw()),
            origin: Atomic::new(0),
            spid: Atomic::new(INVALID),
        }
    }
}

impl Entry {
    /// Begins the life of the id in a set. The number is not in use, and there is one caller at a time.
    #[inline]
    pub(crate) fn begin(
        &self,
        generation: Generation,
        set: SetId,
        origin: Origin,
        data: usize,
        owner: Right,
    ) {
        self.life.begin(generation, owner, || {
            write_once(&self.data, data);
            write_once(&self.set, set.to_raw());
            write_once(&self.origin, origin);
            write_once(&self.spid, INVALID);
        })
    }

    /// The id, if it is what the key means.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the number is not in use, or in another life than the key's; `EACCES` if it is not in
    /// the key's set.
    #[inline]
    pub(crate) fn look(&self, only: Only) -> Result<Found<'_>> {
        let life = self.life.look().ok_or(ENOENT)?;
        match only {
            Only::Set(set) if set != self.set() => Err(EACCES),
            Only::Life(generation) if generation != life.generation() => Err(ENOENT),
            _ => Ok(Found { entry: self, life }),
        }
    }

    /// Its set.
    #[inline]
    pub(crate) fn set(&self) -> SetId {
        SetId::from_raw(read_once(&self.set))
    }

    /// Where it comes from, and goes back to.
    #[inline]
    pub(crate) fn origin(&self) -> Origin {
        read_once(&self.origin)
    }

    /// What its set calls it.
    #[inline]
    pub(crate) fn spid(&self) -> Option<u32> {
        Some(read_once(&self.spid)).filter(|&spid| spid != INVALID)
    }

    /// Changes what its set calls it.
    pub(crate) fn set_spid(&self, spid: Option<u32>) {
        write_once(&self.spid, spid.unwrap_or(INVALID));
    }
}

/// What is to be given back when an id's last reference is gone.
#[derive(Clone, Copy)]
pub(crate) struct Remains {
    pub(crate) set: SetId,
    pub(crate) origin: Origin,
    pub(crate) spid: Option<u32>,
}

/// An id in use, as it was found.
///
/// Without a reference to it, what is read here may be the next id's with the same number;
/// [`Living::goes_on`] tells. Operations on `life` have no effect on that one.
pub(crate) struct Found<'e> {
    entry: &'e Entry,
    pub(crate) life: Living<'e>,
}

impl Deref for Found<'_> {
    type Target = Entry;

    #[inline]
    fn deref(&self) -> &Entry {
        self.entry
    }
}

impl Found<'_> {
    /// Its private data.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the id was freed meanwhile.
    #[inline]
    pub(crate) fn data(&self) -> Result<usize> {
        self.if_same(read_once(&self.data))
    }

    /// What was read of the id.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the id was freed meanwhile, so that it may be the next one's.
    #[inline]
    pub(crate) fn if_same<R>(&self, read: R) -> Result<R> {
        self.life.goes_on().then_some(read).ok_or(ENOENT)
    }

    /// The key of just this life, with the right of the key by which it was found.
    #[inline]
    pub(crate) fn key(&self, by: Key) -> Key {
        Key::of_life(by.id, self.life.generation(), by.right)
    }

    /// What is to be given back, for the caller that has just dropped the last reference.
    #[inline]
    pub(crate) fn remains(&self) -> Remains {
        Remains {
            set: self.set(),
            origin: self.origin(),
            spid: self.spid(),
        }
    }
}
