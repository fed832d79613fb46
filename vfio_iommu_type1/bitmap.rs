// SPDX-License-Identifier: GPL-2.0

//! Which pages of a mapping are dirty, and how they are told.

use kernel::prelude::*;

use iommu_group::ranges::Range;

use kernel_ext::array_vec::ArrayVec;

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
    /// Adds the pages from `first` on, `count` of them, of a mapping of `pages` pages.
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

/// Some words of a program's bitmap, one after another.
///
/// A word that has no bit of a mapping is left alone. In one that has, the bits below those of the first
/// mapping keep what the program has there, and the others which are no mapping's become 0. Only the
/// first word of a window keeps bits; where a later one would have to, the window ends.
pub(crate) struct Window {
    /// The number of the first word.
    first_word: u64,
    /// Those bits of the first word that keep what the program has there.
    kept: u64,
    words: ArrayVec<u64, { Self::MOST }>,
}

impl Window {
    /// The most words.
    const MOST: usize = 64;

    /// A window without words.
    pub(crate) const fn new() -> Self {
        Self {
            first_word: 0,
            kept: 0,
            words: ArrayVec::new(),
        }
    }

    /// Begins a new window.
    pub(crate) fn clear(&mut self) {
        self.words.clear();
    }

    /// Adds a mapping that has the bits `first` to `last`, or those of them that fit. `own` tells the 64
    /// bits from a given one on, a multiple of 64; what it tells of others than the mapping's doesn't
    /// matter. Returns the last bit that was added, or `None` if they need another window.
    pub(crate) fn add(&mut self, first: u64, last: u64, own: impl Fn(u64) -> u64) -> Option<u64> {
        let word = first / WORD;
        let len = self.words.len();
        if len == 0 {
            self.first_word = word;
            self.kept = (1 << (first % WORD)) - 1;
        }
        let place = (word - self.first_word) as usize;
        let is_new = place == len && (first % WORD == 0 || len == 0);
        if place >= len && !is_new || place >= Self::MOST {
            return None;
        }
        let end = (last / WORD - self.first_word).min(Self::MOST as u64 - 1);
        let last = last.min((self.first_word + end) * WORD + (WORD - 1));
        let end = end as usize + 1;
        self.words.grow(end, 0);
        let words = self.words.get_mut(place..end).unwrap_or_default();
        let mut start = word * WORD;
        for word in words {
            let low = u64::MAX << first.saturating_sub(start);
            let high = u64::MAX >> (start | (WORD - 1)).saturating_sub(last);
            *word |= own(start) & low & high;
            start = start.wrapping_add(WORD);
        }
        Some(last)
    }

    /// The number of the first word, its bits that keep what the program has there, and the words.
    pub(crate) fn parts(&mut self) -> (u64, u64, &mut [u64]) {
        (self.first_word, self.kept, &mut self.words)
    }
}

/// The 64 bits from bit `at` on of something that has its first bit at `start`, given its words. Bits
/// before the first one are 0.
pub(crate) fn shifted(at: u64, start: u64, word: impl Fn(u64) -> u64) -> u64 {
    let Some(offset) = at.checked_sub(start) else {
        let below = start - at;
        return if below < WORD { word(0) << below } else { 0 };
    };
    let (nth, shift) = (offset / WORD, offset % WORD);
    if shift == 0 {
        return word(nth);
    }
    word(nth) >> shift | word(nth + 1) << (WORD - shift)
}

/// As [`shifted`], each bit standing for `1 << more` pages of something, given which of these are dirty.
pub(crate) fn coarse(at: u64, start: u64, more: u32, dirty: impl Fn(u64) -> bool) -> u64 {
    (0..WORD)
        .filter(|nth| {
            let first = (at + nth).checked_sub(start).map(|bit| bit << more);
            first.is_some_and(|first| (first..first + (1 << more)).any(&dirty))
        })
        .fold(0, |word, nth| word | 1 << nth)
}

/// Whether the pages of a mapping fit a bitmap, of which a bit stands for `page_size` bytes.
pub(crate) fn fits_bitmap(range: Range, page_size: u64) -> bool {
    (range.last - range.start) >> page_size.trailing_zeros() < MAX_PAGES
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

    /// What a window comes to: its first word, the bits which are kept, and the words.
    fn of(mappings: &[(u64, u64)], own: u64) -> Result<(u64, u64, KVec<u64>)> {
        let mut window = Window::new();
        for &(first, last) in mappings {
            assert_eq!(window.add(first, last, |_| own), Some(last));
        }
        let (first, kept, words) = window.parts();
        let mut copy = KVec::new();
        copy.extend_from_slice(words, GFP_KERNEL)?;
        Ok((first, kept, copy))
    }

    #[test]
    fn bits_of_mappings_only() -> Result {
        for (mappings, first, kept, words) in [
            (&[(0, 0)][..], 0, 0, &[1][..]),
            (&[(64, 127)], 1, 0, &[u64::MAX]),
            (&[(3, 4), (6, 6)], 0, 0b111, &[0b101_1000]),
            (&[(130, 191), (192, 192)], 2, 0b11, &[!0b11, 1]),
            (&[(63, 128)], 0, u64::MAX >> 1, &[1 << 63, u64::MAX, 1]),
        ] {
            let found = of(mappings, u64::MAX)?;
            assert_eq!((found.0, found.1), (first, kept));
            assert_eq!(&found.2[..], words);
        }
        Ok(())
    }

    #[test]
    fn windows_end() -> Result {
        let mut window = Window::new();
        assert_eq!(window.add(0, 0, |_| 1), Some(0));
        // A word in between, and one that has to keep bits.
        assert_eq!(window.add(128, 128, |_| 1), None);
        assert_eq!(window.add(65, 65, |_| 1), None);
        assert_eq!(window.add(64, 65, |_| 0b11), Some(65));
        assert_eq!(window.parts().2, &[1, 0b11]);
        // No more words than there is room for.
        let most = Window::MOST as u64 * 64;
        assert_eq!(window.add(128, 2 * most, |_| 0), Some(most - 1));
        assert_eq!(window.add(most, most, |_| 1), None);
        window.clear();
        assert_eq!(window.add(most, most, |_| 1), Some(most));
        assert_eq!(window.parts(), (most / 64, 0, &mut [1][..]));
        Ok(())
    }

    #[test]
    fn bits_are_shifted() {
        let own = |nth: u64| {
            [0x8000_0000_0000_0001, 2]
                .get(nth as usize)
                .copied()
                .unwrap_or(0)
        };
        for (at, start, expected) in [
            (0, 0, 0x8000_0000_0000_0001),
            (64, 0, 2),
            (0, 4, 0x10),
            (64, 4, 0x28),
            (0, 64, 0),
            (128, 64, 2),
        ] {
            assert_eq!(shifted(at, start, own), expected);
        }
    }

    #[test]
    fn bits_of_larger_pages() {
        let dirty = |page: u64| [0, 17, 33, 34].contains(&page);
        assert_eq!(coarse(0, 0, 4, dirty), 0b111);
        assert_eq!(coarse(0, 5, 4, dirty), 0b111 << 5);
        assert_eq!(coarse(64, 62, 4, dirty), 1);
        assert_eq!(coarse(0, 0, 0, dirty), 1 | 1 << 17 | 1 << 33 | 1 << 34);
    }

    #[test]
    fn larger_pages_make_more_fit() {
        let most = MAX_PAGES << 12;
        for (size, page_size, fits) in [
            (most, 0x1000, true),
            (most + 0x1000, 0x1000, false),
            (most + 0x1000, 0x10000, true),
            (most << 4, 0x10000, true),
            ((most << 4) + 0x10000, 0x10000, false),
        ] {
            let last = size - 1;
            assert_eq!(fits_bitmap(Range { start: 0, last }, page_size), fits);
        }
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
