// SPDX-License-Identifier: GPL-2.0

//! How entries are changed while PAMUs read them. All rules of the hardware about order are here.
//!
//! A PAMU may fetch an entry at any moment, whole or in parts, and keep it in a cache; the caches see
//! writes to memory. There is no command that invalidates a cache or waits for transactions. So:
//!
//! 1. *Shut* what is to change: an entry by its valid bit, window 0 alone by its access, since without
//!    its valid bit the LIODN's other windows were gone, too. Both are in the word
//!    [`STATE`](word::STATE), hence one store.
//! 2. *Drain*: wait until every PAMU has seen that, and has finished what it began before. After this
//!    the memory that the entry led to can be given away.
//! 3. Store all other words, in any order.
//! 4. Drain again, for whoever began to fetch the entry meanwhile.
//! 5. Store `STATE` last, which opens the entry.
//!
//! What a PAMU sees is thereby the old entry, a denial, or the new entry, and never a mixture.

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
    /// A word of it.
    fn load(&self, word: usize) -> u32;

    /// Changes a word of it.
    fn store(&self, word: usize, value: u32);

    /// Keeps stores after this from being seen before those until now.
    fn publish(&self);

    /// Waits until all PAMUs have seen the stores until now, and have finished what they began before.
    fn drain(&self);
}

/// What has to be shut to change an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shut {
    /// All of it: that of a LIODN, or of a window other than the first.
    Entry,
    /// Window 0 in the entry of a LIODN, which goes on meanwhile.
    FirstWindow,
}

impl Shut {
    /// The shut form of a [`word::STATE`].
    fn of(self, state: u32) -> u32 {
        match self {
            Self::Entry => state & !VALID,
            Self::FirstWindow => with_access(state, Access::Denied),
        }
    }

    /// Whether a [`word::STATE`] is shut in this way.
    pub(crate) fn is(self, state: u32) -> bool {
        // A LIODN that is off as a whole has its first window shut, too.
        state == self.of(state) || state & VALID == 0
    }
}

/// Whether a [`word::STATE`] grants any access, be it valid or not.
pub(crate) fn has_access(state: u32) -> bool {
    state != with_access(state, Access::Denied)
}

/// Shuts an entry. At return nothing goes through it any more.
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

/// Replaces an entry; what differs between old and new is no more than `what` shuts.
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

/// Changes one word that doesn't decide where the entry leads, of an entry that may be in use.
pub(crate) fn patch(entry: &impl Entry, word: usize, value: u32) {
    debug_assert!(word != word::STATE);
    entry.store(word, value);
    entry.publish();
}

/// Erases an entry that no PAMU can find any more.
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
        Primary,
        Windows, //
    };

    use super::*;

    /// An entry in memory with a reader that fetches it word by word, `pace[n]` of them before the
    /// `n`th store. A drain lets it finish; then it begins again.
    struct Watched<'a> {
        words: RefCell<Words>,
        fetched: RefCell<KVec<Words>>,
        current: RefCell<(Words, usize)>,
        pace: &'a [usize],
        stores: Cell<usize>,
        /// Whether draining works.
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

        /// The reader goes on by `count` words.
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

    /// The words that have anything in them; the reader looks at no others.
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
        let entry = Primary {
            valid: true,
            aperture: Some(Aperture::of_size(start, 1 << 40)?),
            windows: Windows::new(256)?,
            first_secondary: first,
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

    /// Whether a fetched entry lets anything through its first window.
    fn is_open(words: &Words) -> bool {
        words[word::STATE] & VALID != 0 && words[word::STATE] & 3 << 3 != 0
    }

    /// How many readers of all that can be between the stores see a mixture that is open.
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
    fn nobody_sees_a_mixture_of_entries() -> Result {
        let (old, new) = (
            entry(0, 0x1_2345_6000, 0)?,
            entry(1 << 40, 0x7_0000_8000, 5)?,
        );
        assert_eq!(mixtures(old, new, Shut::Entry, true)?, 0);
        Ok(())
    }

    #[test]
    fn nobody_sees_a_mixture_of_first_windows() -> Result {
        let (mut old, new) = (entry(0, 0x1_2345_6000, 0)?, entry(0, 0x7_0000_8000, 5)?);
        old[word::FIRST_SECONDARY] = 5;
        assert_eq!(mixtures(old, new, Shut::FirstWindow, true)?, 0);
        Ok(())
    }

    #[test]
    fn without_drains_somebody_would() -> Result {
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
    fn what_is_shut_is_not_drained_again() -> Result {
        let mut words = entry(0, 0x1000, 0)?;
        words[word::STATE] &= !VALID;
        let entry = Watched::new(words, &[], true);
        shut(&entry, Shut::Entry);
        assert_eq!(entry.stores.get(), 0);
        Ok(())
    }
}
