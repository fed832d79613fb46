// SPDX-License-Identifier: GPL-2.0

//! How ids are named.

use crate::{
    life::{
        Generation,
        Right, //
    },
    set_id::SetId, //
};

/// The name of an id.
///
/// A number names any id that has it at that moment, which may be another one at the next. The key of a
/// handle names one life of a number: with that, everything fails with `ENOENT` after its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub(crate) id: u32,
    pub(crate) only: Only,
    pub(crate) right: Right,
}

/// Which of the ids that have a number one after the other are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Only {
    /// All.
    Any,
    /// Those of a set.
    Set(SetId),
    /// The one in this life.
    Life(Generation),
}

impl Key {
    /// The id with this number; if a set is given, it has to be in that.
    #[inline]
    pub fn new(set: Option<SetId>, id: u32) -> Self {
        Self {
            id,
            only: set.map_or(Only::Any, Only::Set),
            right: Right::Anyone,
        }
    }

    /// One life of a number.
    #[inline]
    pub(crate) fn of_life(id: u32, generation: Generation, right: Right) -> Self {
        Self {
            id,
            only: Only::Life(generation),
            right,
        }
    }

    /// The key of one life, as a word that C can keep.
    pub(crate) fn to_raw(self) -> Option<u64> {
        match self.only {
            Only::Life(generation) => {
                Some(u64::from(generation.to_raw()) << 32 | u64::from(self.id))
            }
            Only::Any | Only::Set(_) => None,
        }
    }

    /// The key of one life that is in a word.
    pub(crate) fn from_raw(raw: u64, right: Right) -> Self {
        Self::of_life(raw as u32, Generation::from_raw((raw >> 32) as u32), right)
    }

    /// The same id, without the right of its owner.
    pub(crate) fn anyones(self) -> Self {
        Self {
            right: Right::Anyone,
            ..self
        }
    }

    /// The number.
    #[inline]
    pub fn id(self) -> u32 {
        self.id
    }
}
