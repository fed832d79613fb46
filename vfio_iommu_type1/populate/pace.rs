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
pub(super) const MOST: usize = 2048;

/// The pages of the first call: those of one huge page.
const FIRST: usize = 512;

/// The fewest pages, below which a call isn't any quicker.
const LEAST: usize = 32;

/// How long a call may take.
const LONG: Delta = Delta::from_millis(1);

/// A call that took less than this might have been twice as large.
const SHORT: Delta = Delta::from_micros(250);

/// The number of pages for the next call.
pub(super) struct Pace(usize);

impl Pace {
    /// That of the first call.
    pub(super) const fn new() -> Self {
        Self(FIRST)
    }

    /// The number of pages, from [`LEAST`] to [`MOST`].
    pub(super) fn pages(&self) -> usize {
        self.0
    }

    /// Takes note of how long a call took.
    pub(super) fn note(&mut self, took: Delta) {
        if took > LONG {
            self.0 = LEAST.max(self.0 / 2);
        } else if took < SHORT {
            self.0 = MOST.min(self.0 * 2);
        }
    }
}

#[kunit_tests(vfio_type1_pace)]
mod tests {
    use super::*;

    #[test]
    fn calls_stay_within_bounds() {
        let mut pace = Pace::new();
        for (millis, expected) in [(0, MOST), (2, LEAST)] {
            for _ in 0..10 {
                pace.note(Delta::from_millis(millis));
                assert!((LEAST..=MOST).contains(&pace.pages()));
            }
            assert_eq!(pace.pages(), expected);
        }
    }

    #[test]
    fn good_pace_is_kept() {
        let mut pace = Pace::new();
        pace.note(SHORT);
        pace.note(LONG);
        assert_eq!(pace.pages(), FIRST);
    }
}
