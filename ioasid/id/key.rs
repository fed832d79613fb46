// SPDX-License-Identifier: GPL-2.0

//! Keys, which identify ids.

use crate::{
    id::state::{
        Generation,
        Right, //
    },
    set::SetId, //
};

/// Identifies an id.
///
/// A number refers to any id that currently has the number, which can change at any time. The key
/// of a handle refers to one lifetime of a number. After the end of that lifetime, all calls with
/// the key fail with `ENOENT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub(crate) id: u32,
    pub(crate) filter: Filter,
    pub(crate) right: Right,
}

/// Restricts a key to some of the ids that successively have a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    /// Any id.
    Any,
    /// An id in this set.
    Set(SetId),
    /// The id of this lifetime.
    Lifetime(Generation),
}

impl Key {
    /// Creates a key of the id with this number. If `set` is given, the id must be in it.
    #[inline]
    pub fn new(set: Option<SetId>, id: u32) -> Self {
        Self {
            id,
            filter: set.map_or(Filter::Any, Filter::Set),
            right: Right::Anyone,
        }
    }

    /// Creates a key of one lifetime of a number.
    #[inline]
    pub(crate) fn of_lifetime(id: u32, generation: Generation, right: Right) -> Self {
        Self {
            id,
            filter: Filter::Lifetime(generation),
            right,
        }
    }

    /// Returns the key of one lifetime as an integer for C.
    pub(crate) fn to_raw(self) -> Option<u64> {
        match self.filter {
            Filter::Lifetime(generation) => {
                Some(u64::from(generation.to_raw()) << 32 | u64::from(self.id))
            }
            Filter::Any | Filter::Set(_) => None,
        }
    }

    /// Creates the key of one lifetime from an integer.
    pub(crate) fn from_raw(raw: u64, right: Right) -> Self {
        Self::of_lifetime(raw as u32, Generation::from_raw((raw >> 32) as u32), right)
    }

    /// Returns a key of the same id without the owner's right.
    pub(crate) fn anyones(self) -> Self {
        Self {
            right: Right::Anyone,
            ..self
        }
    }

    /// Returns the number.
    #[inline]
    pub fn id(self) -> u32 {
        self.id
    }
}
