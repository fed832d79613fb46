// SPDX-License-Identifier: GPL-2.0

//! The dirty pages of a mapping, and the bitmap that reports them to user space.

use kernel::prelude::*;

use kernel_ext::{
    array_vec::ArrayVec,
    iova::Range, //
};

/// The number of bits in a word.
const WORD: u64 = 64;

/// The pages that were written since user space last read the bitmap.
#[derive(Default)]
pub(crate) enum Dirty {
    /// No page.
    #[default]
    Clean,
    /// All pages.
    All,
    /// The pages whose bits are set.
    Some(KVVec<u64>),
}

impl Dirty {
    /// Adds `count` pages starting at `first`. The mapping has `pages` pages.
    ///
    /// If memory is short, all pages count as dirty.
    pub(crate) fn add(&mut self, first: u64, count: u64, pages: u64) {
        for page in first..first + count {
            self.add_word(page / WORD, 1 << (page % WORD), pages);
        }
    }

    /// Adds those of the pages `64 * nth` to `64 * nth + 63` whose bits are set in `bits`, like
    /// [`add`](Self::add).
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

    /// Returns the bits of the pages `64 * nth` to `64 * nth + 63`.
    pub(crate) fn word(&self, nth: u64) -> u64 {
        match self {
            Self::Clean => 0,
            Self::All => u64::MAX,
            Self::Some(words) => words.get(nth as usize).copied().unwrap_or(0),
        }
    }
}

/// Consecutive words of the user-space bitmap, to be written together.
///
/// A word without a bit of a mapping is not written. In a word with such a bit, the bits below
/// those of the first mapping keep their value in user memory; all other bits that belong to no
/// mapping are cleared. Only the first word of a window can keep bits. The window ends before a
/// later word that would have to.
pub(crate) struct Window {
    /// The index of the first word in the bitmap.
    first_word: u64,
    /// The bits of the first word that keep their value in user memory.
    kept: u64,
    words: ArrayVec<u64, { Self::MOST }>,
}

impl Window {
    /// The maximum number of words.
    const MOST: usize = 64;

    /// Creates a window without words.
    pub(crate) const fn new() -> Self {
        Self {
            first_word: 0,
            kept: 0,
            words: ArrayVec::new(),
        }
    }

    /// Removes all words.
    pub(crate) fn clear(&mut self) {
        self.words.clear();
    }

    /// Adds a mapping with the bits `first` to `last`, or as many of them as fit. `own` returns 64
    /// bits, beginning at its argument, a multiple of 64; bits that do not belong to the mapping
    /// are ignored. Returns the last bit that was added, or `None` if the mapping needs another
    /// window.
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
        // Only the first and the last word have bits that are not the mapping's.
        let mut mask = u64::MAX << (first % WORD);
        let mut start = word * WORD;
        for place in place..=end as usize {
            if place == end as usize {
                mask &= u64::MAX >> (WORD - 1 - last % WORD);
            }
            let bits = own(start) & mask;
            match self.words.get_mut(place) {
                Some(word) => *word |= bits,
                None => self.words.push(bits).ok()?,
            }
            mask = u64::MAX;
            start = start.wrapping_add(WORD);
        }
        Some(last)
    }

    /// Returns the index of the first word, the bits of it that keep their value in user memory,
    /// and the words.
    pub(crate) fn parts(&mut self) -> (u64, u64, &mut [u64]) {
        (self.first_word, self.kept, &mut self.words)
    }
}

/// Returns 64 bits, beginning at bit `at`, of a bitmap whose first bit is at `start` and whose
/// words `word` returns. Bits before the first one are 0.
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

/// Like [`shifted`], but each bit stands for `1 << more` pages, and `dirty` tells whether a page
/// is dirty.
pub(crate) fn coarse(at: u64, start: u64, more: u32, dirty: impl Fn(u64) -> bool) -> u64 {
    (0..WORD)
        .filter(|nth| {
            let first = (at + nth).checked_sub(start).map(|bit| bit << more);
            first.is_some_and(|first| (first..first + (1 << more)).any(&dirty))
        })
        .fold(0, |word, nth| word | 1 << nth)
}

/// Returns whether a bitmap with one bit per `page_size` bytes can cover `range`.
pub(crate) fn fits_bitmap(range: Range, page_size: u64) -> bool {
    (range.last - range.start) >> page_size.trailing_zeros() < MAX_PAGES
}

/// The maximum number of pages in one bitmap.
pub(crate) const MAX_PAGES: u64 = i32::MAX as u64;

/// The maximum size of a bitmap, in bytes.
pub(crate) const MAX_BYTES: u64 = bytes(MAX_PAGES);

/// Returns the size of a bitmap of `pages` pages, in bytes.
const fn bytes(pages: u64) -> u64 {
    pages.div_ceil(WORD) * 8
}

/// Checks that a bitmap of `size` bytes can hold `pages` pages.
///
/// # Errors
///
/// `EINVAL` if it cannot, if there are no pages, or if the size or the number of pages exceeds the
/// maximum.
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

    /// Returns the parts of a window with `mappings`: the index of its first word, the kept bits
    /// and the words.
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
        // The first mapping would leave a gap; the second one would have to keep bits in a later
        // word.
        assert_eq!(window.add(128, 128, |_| 1), None);
        assert_eq!(window.add(65, 65, |_| 1), None);
        assert_eq!(window.add(64, 65, |_| 0b11), Some(65));
        assert_eq!(window.parts().2, &[1, 0b11]);
        // A mapping that exceeds the capacity is added in part.
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
