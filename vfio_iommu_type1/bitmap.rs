// SPDX-License-Identifier: GPL-2.0

//! Which pages of a map are dirty.

use kernel::prelude::*;

/// Bits in a word.
const WORD: u64 = 64;

/// The pages written since the program asked last.
#[derive(Default)]
pub(crate) enum Dirty {
    /// None.
    #[default]
    Clean,
    /// All.
    All,
    /// Those whose bits are set.
    Some(KVVec<u64>),
}

impl Dirty {
    /// Adds the pages from `first` on, `count` of them, of a map of `pages` pages.
    ///
    /// Without memory for that, all pages count as dirty.
    pub(crate) fn add(&mut self, first: u64, count: u64, pages: u64) {
        for page in first..first + count {
            self.add_word(page / WORD, 1 << (page % WORD), pages);
        }
    }

    /// Adds those of the pages `64 * nth` to `64 * nth + 63` whose bits are set in `bits`, as
    /// [`add`](Self::add) does.
    pub(crate) fn add_word(&mut self, nth: u64, bits: u64, pages: u64) {
        if matches!(self, Self::Clean) && bits != 0 {
            let words = pages.div_ceil(WORD) as usize;
            *self = KVVec::from_elem(0, words, GFP_KERNEL_ACCOUNT).map_or(Self::All, Self::Some);
        }
        if let Self::Some(words) = self {
            if let Some(word) = words.get_mut(nth as usize) {
                *word |= bits;
            }
        }
    }

    /// The bits of pages `64 * nth` to `64 * nth + 63`.
    pub(crate) fn word(&self, nth: u64) -> u64 {
        match self {
            Self::Clean => 0,
            Self::All => u64::MAX,
            Self::Some(words) => words.get(nth as usize).copied().unwrap_or(0),
        }
    }
}

/// How the bits of one map lie in the program's bitmap.
///
/// The program's bitmap begins with some page, and each map in it with a later one. Where that isn't
/// the first one of a word, the word is shared with what lies below, and keeps the bits of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The first word in the program's bitmap.
    pub(crate) first_word: u64,
    /// How many words there are.
    pub(crate) words: u64,
    /// The first bit in the first word.
    shift: u64,
    /// How many pages there are.
    pages: u64,
}

impl Layout {
    /// The layout of a map that has `pages` pages and begins `offset` pages after the bitmap.
    pub(crate) fn new(offset: u64, pages: u64) -> Self {
        let shift = offset % WORD;
        Self {
            first_word: offset / WORD,
            words: (pages + shift).div_ceil(WORD),
            shift,
            pages,
        }
    }

    /// Whether the first word has bits of what lies below.
    pub(crate) fn is_shared(&self) -> bool {
        self.shift != 0
    }

    /// Word `nth`, counted from the first one, given the words of the map's own bits, and what the
    /// program has in its first word.
    pub(crate) fn word(&self, nth: u64, old: u64, own: impl Fn(u64) -> u64) -> u64 {
        let own = |nth: u64| {
            let left = self.pages.saturating_sub(nth * WORD);
            if left >= WORD {
                own(nth)
            } else {
                own(nth) & ((1 << left) - 1)
            }
        };
        if self.shift == 0 {
            return own(nth);
        }
        let low = if nth == 0 {
            old
        } else {
            own(nth - 1) >> (WORD - self.shift)
        };
        own(nth) << self.shift | low
    }
}

/// The largest number of pages in one bitmap.
pub(crate) const MAX_PAGES: u64 = i32::MAX as u64;

/// The largest size of a bitmap in bytes.
pub(crate) const MAX_BYTES: u64 = bytes(MAX_PAGES);

/// The size of a bitmap of `pages` pages, in bytes.
const fn bytes(pages: u64) -> u64 {
    pages.div_ceil(WORD) * 8
}

/// Checks that a bitmap of `size` bytes can take `pages` pages.
///
/// # Errors
///
/// `EINVAL` if it can't, or there are no pages, or it is larger than any can be.
pub(crate) fn check_size(pages: u64, size: u64) -> Result {
    if pages == 0 || size == 0 || size > MAX_BYTES || pages > MAX_PAGES + 1 || size < bytes(pages) {
        return Err(EINVAL);
    }
    Ok(())
}

#[kunit_tests(vfio_type1_bitmap)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_added() {
        let mut dirty = Dirty::default();
        assert_eq!(dirty.word(0), 0);
        dirty.add(3, 2, 70);
        dirty.add(64, 1, 70);
        assert_eq!((dirty.word(0), dirty.word(1)), (0b11000, 1));
        assert_eq!(Dirty::All.word(7), u64::MAX);
    }

    #[test]
    fn layouts() {
        for (offset, pages, first_word, words, shared) in [
            (0, 1, 0, 1, false),
            (0, 64, 0, 1, false),
            (0, 65, 0, 2, false),
            (64, 64, 1, 1, false),
            (63, 1, 0, 1, true),
            (63, 2, 0, 2, true),
            (130, 128, 2, 3, true),
        ] {
            let layout = Layout::new(offset, pages);
            assert_eq!((layout.first_word, layout.words), (first_word, words));
            assert_eq!(layout.is_shared(), shared);
        }
    }

    #[test]
    fn all_pages_of_an_aligned_map() {
        let layout = Layout::new(64, 65);
        let word = |nth| layout.word(nth, 0xff, |nth| Dirty::All.word(nth));
        assert_eq!((word(0), word(1)), (u64::MAX, 1));
    }

    #[test]
    fn shifted_bits_keep_what_lies_below() {
        let layout = Layout::new(4, 64);
        let own = |nth| {
            [0x8000_0000_0000_0001, 0]
                .get(nth as usize)
                .copied()
                .unwrap_or(0)
        };
        assert_eq!(layout.word(0, 0x500f, own), 0x501f);
        assert_eq!(layout.word(1, 0x500f, own), 0x8);
    }

    #[test]
    fn sizes() {
        for (pages, size, good) in [
            (1, 8, true),
            (64, 8, true),
            (65, 8, false),
            (65, 16, true),
            (0, 8, false),
            (1, 0, false),
            (1, 4, false),
            (1, MAX_BYTES, true),
            (1, MAX_BYTES + 8, false),
            (u64::MAX, MAX_BYTES, false),
        ] {
            assert_eq!(check_size(pages, size).is_ok(), good);
        }
        assert_eq!(MAX_BYTES, 256 << 20);
    }
}
