// SPDX-License-Identifier: GPL-2.0

//! DIRTY_PAGES.

use super::{
    Container,
    Dma,
    Outcome,
    State,
    map::MOST_TRACKED, //
};
use crate::{
    defects::Rules,
    op::{
        Bitmap,
        PAGE,
        dirty, //
    },
};
use vfio_client::Errno;

/// The maximum number of bitmap words of a mapping in the model.
const MOST_WORDS: u64 = 1024;

/// The maximum size of a bitmap in bytes.
const MOST_BYTES: u64 = MOST_TRACKED.div_ceil(64) * 8;

impl Bitmap {
    /// Checks the bitmap for a range of `size` bytes.
    pub(super) fn check(&self, size: u64) -> Result<(), Errno> {
        let pages = size >> self.pgsize.trailing_zeros().min(63);
        let needed = pages.div_ceil(64) * 8;
        if pages == 0 || self.size == 0 || self.size > MOST_BYTES || self.size < needed {
            return Err(Errno::EINVAL);
        }
        Ok(())
    }
}

impl Dma {
    /// Starts tracking. Pinned pages are dirty from the start.
    pub(super) fn start_tracking(&mut self) {
        // C has one extra word for the bits that it shifts. No test has bitmaps large enough for
        // larger mappings.
        self.dirty = vec![0; self.pages().div_ceil(64).min(MOST_WORDS) as usize + 1];
        self.mark_pinned();
    }

    fn mark_pinned(&mut self) {
        for index in 0..self.pins.len() {
            self.mark(self.pins[index]);
        }
    }

    /// Marks a page dirty.
    pub(super) fn mark(&mut self, page: u64) {
        if let Some(word) = self.dirty.get_mut((page / 64) as usize) {
            *word |= 1 << (page % 64);
        }
    }

    /// Marks all pages dirty.
    pub(super) fn mark_all(&mut self) {
        for page in 0..self.pages().min(MOST_WORDS * 64) {
            self.mark(page);
        }
    }

    /// Clears the dirty pages after a report. Pinned pages stay dirty.
    fn clear(&mut self) {
        for page in 0..self.pages().min(MOST_WORDS * 64) {
            self.dirty[(page / 64) as usize] &= !(1 << (page % 64));
        }
        self.mark_pinned();
    }

    /// Adds the mapping's dirty pages to the words of a bitmap that begins at `base`.
    ///
    /// In the first word, the bits below those of the mapping are kept. Other bits without a
    /// mapping become 0.
    pub(super) fn report(
        &mut self,
        base: u64,
        words: &mut [u64],
        full: bool,
        rules: Rules,
    ) -> Result<(), Errno> {
        if full && self.device.is_some() {
            self.mark_all();
        }
        let first = (self.iova - base) / PAGE;
        let (place, shift) = ((first / 64) as usize, (first % 64) as u32);
        let count = (self.pages() + u64::from(shift)).div_ceil(64) as usize;
        let mut own = self.dirty.clone();
        shift_up(own.get_mut(..count).ok_or(Errno::EFAULT)?, shift);
        if rules == Rules::C {
            // C shifts its own words and never shifts them back.
            self.dirty.copy_from_slice(&own);
        }
        let before = *words.get(place).ok_or(Errno::EFAULT)?;
        match rules {
            Rules::Strict => own[0] |= before & !(u64::MAX << shift),
            Rules::C if shift != 0 => {
                own[0] |= before;
                self.dirty[0] = own[0];
            }
            Rules::C => (),
        }
        let words = words.get_mut(place..place + count).ok_or(Errno::EFAULT)?;
        words.copy_from_slice(&own[..count]);
        Ok(())
    }
}

/// Shifts words up by fewer than 64 bits.
fn shift_up(words: &mut [u64], shift: u32) {
    for index in (0..words.len()).rev().filter(|_| shift != 0) {
        let below = index.checked_sub(1).map_or(0, |i| words[i] >> (64 - shift));
        words[index] = (words[index] << shift) | below;
    }
}

impl Container {
    pub(super) fn track(&self, state: &mut State, flags: u32) -> Outcome {
        let Some(type1) = state.type1.as_mut() else {
            return Outcome::error(Errno::EINVAL);
        };
        if !type1.v2 {
            return Outcome::error(Errno::EACCES);
        }
        match flags {
            dirty::START if type1.tracks => (),
            dirty::START => {
                if type1.dmas.iter().any(|dma| dma.pages() > MOST_TRACKED) {
                    return Outcome::error(Errno::EINVAL);
                }
                type1.tracks = true;
                type1.dmas.iter_mut().for_each(Dma::start_tracking);
            }
            dirty::STOP => {
                type1.tracks = false;
                type1.dmas.iter_mut().for_each(|dma| dma.dirty.clear());
            }
            _ => return Outcome::error(Errno::EINVAL),
        }
        Outcome::ok()
    }

    pub(super) fn get_bitmap(
        &self,
        state: &mut State,
        iova: u64,
        size: u64,
        bitmap: Bitmap,
    ) -> Outcome {
        match self.try_get_bitmap(state, iova, size, bitmap) {
            Ok(words) => Outcome::Is(Ok(words)),
            Err(errno) => Outcome::error(errno),
        }
    }

    fn try_get_bitmap(
        &self,
        state: &mut State,
        iova: u64,
        size: u64,
        bitmap: Bitmap,
    ) -> Result<Vec<u64>, Errno> {
        let full = state.physical() > 0;
        let type1 = state.type1.as_mut().ok_or(Errno::EINVAL)?;
        if !type1.v2 {
            return Err(Errno::EACCES);
        }
        if size == 0 {
            return Err(Errno::EINVAL);
        }
        let last = iova.checked_add(size - 1).ok_or(Errno::EOVERFLOW)?;
        bitmap.check(size)?;
        let is_aligned = bitmap.pgsize == PAGE && (iova | size) % PAGE == 0;
        if !is_aligned || !type1.tracks || type1.is_cut(iova, last) {
            return Err(Errno::EINVAL);
        }
        let mut words = bitmap.words();
        let found = type1.within(iova, last);
        let before = type1.dmas[found.clone()].to_vec();
        for dma in &mut type1.dmas[found.clone()] {
            if let Err(errno) = dma.report(iova, &mut words, full, self.rules) {
                // Only C clears the pages that it has reported before the failure.
                if self.rules == Rules::Strict {
                    type1.dmas.splice(found, before);
                }
                return Err(errno);
            }
            dma.clear();
        }
        Ok(words)
    }
}
