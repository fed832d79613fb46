// SPDX-License-Identifier: GPL-2.0

//! Updates of entries while PAMUs read them. This module implements all ordering rules of the
//! hardware.
//!
//! A PAMU may fetch an entry at any time, whole or in parts, and keep it in a cache. The caches see
//! writes to memory. There is no command that invalidates a cache or waits for transactions. So an
//! update has these steps:
//!
//! 1. *Shut* the part that changes: an entry by its valid bit, window 0 alone by its access,
//!    because clearing the valid bit would also block the LIODN's other windows. Both are in the
//!    word [`STATE`](word::STATE), so this is one store.
//! 2. *Drain*: wait until every PAMU has seen the store and has finished the transactions that it
//!    began before. After this the memory that the entry led to can be freed. Hardware can't wait;
//!    see [`Pamu::drain`](crate::pamu::Pamu::drain).
//! 3. Store all other words, in any order.
//! 4. Drain again, for a PAMU that began to fetch the entry in the meantime.
//! 5. Store `STATE` last, which opens the entry.
//!
//! So a PAMU sees the old entry, a denial, or the new entry, but never a mixture.

use kernel::{
    prelude::*,
    sync::barrier::{
        self,
        Full, //
    }, //
};

use crate::paace::{
    with_access,
    word,
    Access,
    Words,
    WORDS, //
};

use super::Slot;

/// The valid bit of [`word::STATE`].
const VALID: u32 = 1;

/// An entry that PAMUs read.
pub(crate) trait Entry {
    /// Returns a word of the entry.
    fn load(&self, word: usize) -> u32;

    /// Stores a word of the entry.
    fn store(&self, word: usize, value: u32);

    /// Orders all previous stores before all later ones.
    fn publish(&self);

    /// Waits until all PAMUs have seen the previous stores, and have finished the transactions that
    /// they began before.
    fn drain(&self);
}

/// The part of an entry that is shut for an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shut {
    /// All of the entry: that of a LIODN, or of a window other than the first.
    Entry,
    /// Window 0 in the entry of a LIODN. Its other windows stay in effect.
    FirstWindow,
}

impl Shut {
    /// Returns a [`word::STATE`] with this part shut.
    fn of(self, state: u32) -> u32 {
        match self {
            Self::Entry => state & !VALID,
            Self::FirstWindow => with_access(state, Access::Denied),
        }
    }

    /// Returns whether this part of a [`word::STATE`] is shut.
    pub(crate) fn is(self, state: u32) -> bool {
        // A LIODN that is disabled has its first window shut, too.
        state == self.of(state) || state & VALID == 0
    }
}

/// Returns whether a [`word::STATE`] grants any access, valid or not.
pub(crate) fn has_access(state: u32) -> bool {
    state != with_access(state, Access::Denied)
}

/// Shuts an entry. When this returns, no transaction passes it any more.
pub(crate) fn shut(entry: &impl Entry, shut: Shut) {
    let state = entry.load(word::STATE);
    let closed = shut.of(state);
    if closed != state {
        entry.publish();
        entry.store(word::STATE, closed);
        entry.drain();
    }
}

/// Sets the valid bit of an entry whose other words are complete.
pub(crate) fn open(entry: &impl Entry) {
    let state = entry.load(word::STATE);
    entry.publish();
    entry.store(word::STATE, state | VALID);
    entry.publish();
}

/// Replaces an entry. The old and the new entry differ at most in the part that `what` shuts.
pub(crate) fn replace(entry: &impl Entry, what: Shut, words: &Words) {
    shut(entry, what);
    for word in (0..WORDS).filter(|word| *word != word::STATE) {
        if entry.load(word) != words[word] {
            entry.store(word, words[word]);
        }
    }
    entry.drain();
    entry.store(word::STATE, words[word::STATE]);
    entry.publish();
}

/// Changes a word that doesn't affect where the entry leads. The entry may be in use.
pub(crate) fn patch(entry: &impl Entry, word: usize, value: u32) {
    debug_assert!(word != word::STATE);
    entry.store(word, value);
    entry.publish();
}

/// Erases an entry that no PAMU can reach any more.
pub(super) fn erase(slot: Slot<'_>) {
    for word in 0..WORDS {
        slot.store(word, 0);
    }
    barrier::mb(Full);
}

#[kunit_tests(vfio_pamu_writer)]
mod tests {
    use core::cell::{
        Cell,
        RefCell, //
    };

    use crate::paace::{
        Aperture,
        Attributes,
        Block,
        Ppaace,
        Windows, //
    };

    use super::*;

    /// An entry in memory with a reader that fetches it word by word: `pace[n]` words before the
    /// `n`th store. A drain lets it finish, and then it starts again.
    struct Watched<'a> {
        words: RefCell<Words>,
        fetched: RefCell<KVec<Words>>,
        current: RefCell<(Words, usize)>,
        pace: &'a [usize],
        stores: Cell<usize>,
        /// Whether drains take effect.
        drains: bool,
    }

    impl<'a> Watched<'a> {
        fn new(words: Words, pace: &'a [usize], drains: bool) -> Self {
            Self {
                words: RefCell::new(words),
                fetched: RefCell::new(KVec::new()),
                current: RefCell::new(([0; WORDS], 0)),
                pace,
                stores: Cell::new(0),
                drains,
            }
        }

        /// Lets the reader fetch `count` more words.
        fn fetch(&self, count: usize) {
            for _ in 0..count {
                let mut current = self.current.borrow_mut();
                let at = current.1;
                current.0[at] = self.words.borrow()[at];
                current.1 += 1;
                if current.1 == USED {
                    let noted = self.fetched.borrow_mut().push(current.0, GFP_KERNEL);
                    assert_eq!(noted, Ok(()));
                    *current = ([0; WORDS], 0);
                }
            }
        }

        fn finish(&self) {
            let done = self.current.borrow().1;
            if done != 0 {
                self.fetch(USED - done);
            }
        }
    }

    /// The number of words that are used. The reader fetches no others.
    const USED: usize = 8;

    impl Entry for Watched<'_> {
        fn load(&self, word: usize) -> u32 {
            self.words.borrow()[word]
        }

        fn store(&self, word: usize, value: u32) {
            let nth = self.stores.get();
            self.fetch(self.pace.get(nth).copied().unwrap_or(0));
            self.stores.set(nth + 1);
            self.words.borrow_mut()[word] = value;
        }

        fn publish(&self) {}

        fn drain(&self) {
            if self.drains {
                self.finish();
            }
        }
    }

    fn entry(start: u64, phys: u64, first: u32) -> Result<Words, Error> {
        let entry = Ppaace {
            valid: true,
            aperture: Some(Aperture::of_size(start, 1 << 40)?),
            windows: Windows::new(256)?,
            first_spaace: first,
            block: Block {
                access: Access::All,
                phys,
                size: 1 << (12 + first % 4),
                translated: true,
            },
            attributes: Attributes::default(),
        };
        Ok(entry.encode()?)
    }

    /// Returns whether a fetched entry grants access to its first window.
    fn is_open(words: &Words) -> bool {
        words[word::STATE] & VALID != 0 && words[word::STATE] & 3 << 3 != 0
    }

    /// Returns how many of all possible readers see an open mixture between the stores.
    fn mixtures(old: Words, new: Words, what: Shut, drains: bool) -> Result<usize> {
        let mut mixtures = 0;
        // Each pace is a number in base 4 with one digit for each of the first stores.
        for pace in 0..4usize.pow(6) {
            let pace: [usize; 6] =
                core::array::from_fn(|nth| [0, 1, 4, USED][pace >> (2 * nth) & 3]);
            let entry = Watched::new(old, &pace, drains);
            replace(&entry, what, &new);
            entry.finish();
            assert_eq!(*entry.words.borrow(), new);
            mixtures += entry
                .fetched
                .borrow()
                .iter()
                .filter(|seen| is_open(seen) && **seen != old && **seen != new)
                .count();
        }
        Ok(mixtures)
    }

    #[test]
    fn reader_sees_no_mixture_of_entries() -> Result {
        let (old, new) = (
            entry(0, 0x1_2345_6000, 0)?,
            entry(1 << 40, 0x7_0000_8000, 5)?,
        );
        assert_eq!(mixtures(old, new, Shut::Entry, true)?, 0);
        Ok(())
    }

    #[test]
    fn reader_sees_no_mixture_of_first_windows() -> Result {
        let (mut old, new) = (entry(0, 0x1_2345_6000, 0)?, entry(0, 0x7_0000_8000, 5)?);
        old[word::FIRST_SPAACE] = 5;
        assert_eq!(mixtures(old, new, Shut::FirstWindow, true)?, 0);
        Ok(())
    }

    #[test]
    fn reader_sees_mixtures_without_drains() -> Result {
        let (old, new) = (
            entry(0, 0x1_2345_6000, 0)?,
            entry(1 << 40, 0x7_0000_8000, 5)?,
        );
        assert!(mixtures(old, new, Shut::Entry, false)? > 0);
        Ok(())
    }

    #[test]
    fn first_window_shuts_alone() -> Result {
        let words = entry(0, 0x1000, 0)?;
        let entry = Watched::new(words, &[], true);
        assert!(!Shut::FirstWindow.is(words[word::STATE]));
        shut(&entry, Shut::FirstWindow);
        let state = entry.load(word::STATE);
        assert!(Shut::FirstWindow.is(state) && !Shut::Entry.is(state));
        shut(&entry, Shut::Entry);
        assert!(Shut::Entry.is(entry.load(word::STATE)));
        open(&entry);
        assert_eq!(entry.load(word::STATE), state);
        Ok(())
    }

    #[test]
    fn shutting_again_does_not_drain() -> Result {
        let mut words = entry(0, 0x1000, 0)?;
        words[word::STATE] &= !VALID;
        let entry = Watched::new(words, &[], true);
        shut(&entry, Shut::Entry);
        assert_eq!(entry.stores.get(), 0);
        Ok(())
    }
}
