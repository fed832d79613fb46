// SPDX-License-Identifier: GPL-2.0

//! How many pages are pinned by one call.
//!
//! Memory that isn't there yet is made meanwhile, which takes a thousand times as long as pinning, with
//! the lock of the process's memory held for reading. Whoever needs that lock for writing waits, be it
//! to charge a small map; hence a call that took long is followed by shorter ones.

use kernel::{
    prelude::*,
    time::Delta, //
};

/// The most pages that one call pins.
const MOST: usize = 2048;

/// The pages of the first call: those of one huge page.
const FIRST: usize = 512;

/// Of how many pages on it pays to make room for [`MOST`] of them.
const MANY: usize = 8192;

/// The fewest pages, below which a call isn't any quicker.
const LEAST: usize = 32;

/// How long a call may take.
const LONG: Delta = Delta::from_millis(1);

/// A call that took less than this might have been twice as large.
const SHORT: Delta = Delta::from_micros(250);

/// How fast to go.
pub(super) struct Pace {
    /// The number of pages for the next call.
    pages: usize,
    most: usize,
}

impl Pace {
    /// For so many pages in all.
    pub(super) fn new(all: usize) -> Self {
        Self {
            pages: FIRST,
            most: if all < MANY { FIRST } else { MOST },
        }
    }

    /// The most pages that a call may pin.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// How many pages the next call may pin, at least [`LEAST`].
    pub(super) fn pages(&self) -> usize {
        self.pages
    }

    /// Takes note of how long a call took.
    pub(super) fn note(&mut self, took: Delta) {
        if took > LONG {
            self.pages = LEAST.max(self.pages / 2);
        } else if took < SHORT {
            self.pages = self.most.min(self.pages * 2);
        }
    }
}

#[kunit_tests(vfio_type1_pace)]
mod tests {
    use super::*;

    #[test]
    fn calls_stay_within_bounds() {
        for (all, most) in [(MANY - 1, FIRST), (MANY, MOST)] {
            let mut pace = Pace::new(all);
            assert_eq!(pace.most(), most);
            for (millis, expected) in [(0, most), (2, LEAST)] {
                for _ in 0..10 {
                    pace.note(Delta::from_millis(millis));
                    assert!((LEAST..=most).contains(&pace.pages()));
                }
                assert_eq!(pace.pages(), expected);
            }
        }
    }

    #[test]
    fn good_pace_is_kept() {
        let mut pace = Pace::new(MANY);
        pace.note(SHORT);
        pace.note(LONG);
        assert_eq!(pace.pages(), FIRST);
    }
}
