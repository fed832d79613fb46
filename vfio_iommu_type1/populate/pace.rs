// SPDX-License-Identifier: GPL-2.0

//! The number of pages to pin with one call.
//!
//! Pinning allocates memory that is not present yet, which takes a thousand times as long as the
//! pinning itself, and holds the process's mmap lock for reading meanwhile. A thread that needs
//! that lock for writing has to wait, even if it only charges a small mapping. A call that takes
//! long is therefore followed by smaller ones.

use kernel::{
    prelude::*,
    time::Delta, //
};

/// The maximum number of pages per call.
const MOST: usize = 2048;

/// The number of pages of the first call: one huge page.
const FIRST: usize = 512;

/// The minimum request size, in pages, that justifies a batch of [`MOST`] pages.
const MANY: usize = 8192;

/// The minimum number of pages per call. Fewer pages do not make a call faster.
const LEAST: usize = 32;

/// The maximum duration of a call. After a longer one, the number of pages is halved.
const LONG: Delta = Delta::from_millis(1);

/// After a call that takes less than this, the number of pages is doubled.
const SHORT: Delta = Delta::from_micros(250);

/// The batch size, adapted to the duration of previous calls.
pub(super) struct Pace {
    /// The number of pages of the next call.
    pages: usize,
    most: usize,
}

impl Pace {
    /// Creates the state for a request of `all` pages.
    pub(super) fn new(all: usize) -> Self {
        Self {
            pages: FIRST,
            most: if all < MANY { FIRST } else { MOST },
        }
    }

    /// Returns the maximum number of pages per call.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// Returns the maximum number of pages of the next call, at least [`LEAST`].
    pub(super) fn pages(&self) -> usize {
        self.pages
    }

    /// Adapts the number of pages to the duration of a call.
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
