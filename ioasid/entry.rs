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
    life::{
        Life,
        Living, //
    },
    notify::Subject,
    range::INVALID,
    source::Origin, //
};

/// What is known of one id. It stays in its place when the id is reused, for the next one who has it.
pub(crate) struct Entry {
    life: Life,
    /// A word of who allocated it.
    pub(crate) data: Atomic<usize>,
    set: Atomic<u32>,
    origin: Atomic<Origin>,
    spid: Atomic<u32>,
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            life: Life::new(),
            data: Atomic::new(0),
            set: Atomic::new(0),
            origin: Atomic::new(0),
            spid: Atomic::new(INVALID),
        }
    }
}

impl Entry {
    /// Begins the life of the id in a set. Nobody has it.
    #[inline]
    pub(crate) fn begin(&self, set: u32, origin: Origin, data: usize) {
        write_once(&self.data, data);
        write_once(&self.set, set);
        write_once(&self.origin, origin);
        write_once(&self.spid, INVALID);
        self.life.begin();
    }

    /// The id, if somebody has it.
    ///
    /// # Errors
    ///
    /// `ENOENT` if nobody does; `EACCES` if it is not in `set`.
    #[inline]
    pub(crate) fn look(&self, set: Option<u32>) -> Result<Found<'_>> {
        let life = self.life.look().ok_or(ENOENT)?;
        if set.is_some_and(|set| set != self.set()) {
            return Err(EACCES);
        }
        Ok(Found { entry: self, life })
    }

    /// The number of its set.
    #[inline]
    pub(crate) fn set(&self) -> u32 {
        read_once(&self.set)
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
    pub(crate) set: u32,
    pub(crate) origin: Origin,
    pub(crate) spid: Option<u32>,
}

/// An id that somebody has, as it was found.
///
/// Who has no reference may see here what the next one who has the id has written; [`Living::goes_on`]
/// tells.
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
        let data = read_once(&self.data);
        self.life.goes_on().then_some(data).ok_or(ENOENT)
    }

    /// What is to be given back, for who has just dropped the last reference.
    #[inline]
    pub(crate) fn remains(&self) -> Remains {
        Remains {
            set: self.set(),
            origin: self.origin(),
            spid: self.spid(),
        }
    }

    /// What listeners are told about it. The caller has a reference.
    pub(crate) fn subject(&self, id: u32) -> Subject {
        Subject {
            id,
            spid: self.spid(),
            set: self.set(),
            data: read_once(&self.data),
        }
    }
}

#[kunit_tests(ioasid_entry)]
mod tests {
    use super::*;
    use crate::{
        life::Freed,
        source::OWN, //
    };

    #[test]
    fn in_a_set_or_nobodys() -> Result {
        let entry = Entry::default();
        assert_eq!(entry.look(None).err(), Some(ENOENT));
        entry.begin(3, OWN, 0x1234);
        assert_eq!(entry.look(None)?.data(), Ok(0x1234));
        assert_eq!(entry.look(Some(3))?.data(), Ok(0x1234));
        assert_eq!(entry.look(Some(4)).err(), Some(EACCES));
        Ok(())
    }

    #[test]
    fn the_next_one_to_have_it_is_not_seen() -> Result {
        let entry = Entry::default();
        entry.begin(3, OWN, 1);
        entry.set_spid(Some(7));
        let found = entry.look(Some(3))?;
        assert_eq!(found.life.free_and_put(), Ok(Freed::Last));
        assert_eq!(found.remains().spid, Some(7));
        entry.begin(4, OWN, 2);
        // Who looked while the first one had it sees nothing of the second one, and can't change it.
        assert_eq!(found.data(), Err(ENOENT));
        assert_eq!(found.life.get(), Err(ENOENT));
        let found = entry.look(Some(4))?;
        assert_eq!((found.data(), found.spid()), (Ok(2), None));
        assert_eq!(found.life.references(), 1);
        Ok(())
    }
}
