// SPDX-License-Identifier: GPL-2.0

//! `VFIO_IOMMU_UNMAP_DMA`.

use core::mem::size_of;

use kernel::{
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

use iommu_group::ranges::Range;

use crate::{
    abi::{
        trace,
        Bitmap,
        UnmapDma, //
    },
    container::Container,
    dirty::UserBitmap,
    pages::DmaPages,
    refusal::{
        because,
        Granted,
        Refusal, //
    },
    request::UnmapRequest,
    space::{
        Alone,
        Held,
        RangeGuard, //
    }, //
};

impl Container {
    /// Handles the ioctl.
    ///
    /// # Errors
    ///
    /// `EFAULT` for a bad argument, `EINVAL` for a short one; else those of [`UnmapRequest`] and
    /// [`unmap`](Self::unmap).
    pub(crate) fn ioctl_unmap(&self, arg: UserPtr) -> Result<isize> {
        let size = size_of::<UnmapDma>();
        let mut user: UnmapDma = UserSlice::new(arg, size).reader().read()?;
        user.size = self
            .unmap_as_asked(&user, arg)
            .inspect_err(|refusal| trace::refused(c"unmap", user.iova, user.size, refusal))?;
        UserSlice::new(arg, size).writer().write(&user)?;
        Ok(0)
    }

    /// Does what the ioctl's argument `user`, read from `arg`, asks for. Returns how many bytes were
    /// unmapped.
    fn unmap_as_asked(&self, user: &UnmapDma, arg: UserPtr) -> Granted<u64> {
        let size = size_of::<UnmapDma>();
        if (user.argsz as usize) < size {
            return Err(Refusal::SHORT);
        }
        let request = UnmapRequest::new(user.flags, user.iova, user.size)?;
        if !request.dirty {
            return self.unmap(&request, None);
        }
        if (user.argsz as usize) < size + size_of::<Bitmap>() {
            return Err(Refusal::SHORT);
        }
        let bitmap = UserBitmap::read(arg.wrapping_byte_add(size), user.size)
            .map_err(because(c"no such bitmap of dirty pages"))?;
        self.unmap(&request, Some(&bitmap))
    }

    /// Unmaps, and returns how many bytes, modulo 2^64.
    ///
    /// The second version of the interface unmaps whole mappings only, and fails if the range has parts
    /// of others. The first one stops at a mapping that begins before the range, and unmaps all of what
    /// begins in it.
    ///
    /// A driver that has pinned pages is asked to give them back with nothing locked, since it may wait for
    /// others that lock addresses. Then everything is looked at anew.
    ///
    /// # Errors
    ///
    /// `EBUSY` if an address is to be invalidated and there are emulated devices, whose drivers
    /// need it, or if such a driver doesn't give pages back; those of [`UnmapRequest::range`]; `EINVAL`
    /// for a part of a mapping, if an address is to be invalidated twice, or if there are no dirty pages of
    /// the size asked for; `EFAULT` for the bitmap. Then nothing is unmapped.
    fn unmap(&self, request: &UnmapRequest, bitmap: Option<&UserBitmap>) -> Granted<u64> {
        let locked = if self.v2 {
            request.span()
        } else {
            // Who knows how far a mapping reaches that begins in the range?
            Range::ALL
        };
        let mut patience = Patience::default();
        loop {
            let mut first = None;
            let (guard, begun) = self.space.lock(locked, |held| {
                self.begin_unmap(held, request, bitmap, &mut first)
            })?;
            match begun {
                Begun::Done { bytes } => return Ok(bytes),
                Begun::Removing { rest, bytes } => {
                    finish_unmap(guard, &mut first, rest, bitmap)?;
                    return Ok(bytes);
                }
                Begun::Pinned(dma) => {
                    drop(guard);
                    if patience.is_exhausted(dma) {
                        self.blame(dma);
                        return Err(Refusal::at(dma, EBUSY, c"a driver keeps pages"));
                    }
                    self.notify(dma);
                }
            }
        }
    }

    /// Checks a request to unmap, whose addresses are locked, and begins with it: `first` gets the pages of
    /// the first mappings that were removed.
    fn begin_unmap(
        &self,
        held: &mut Alone<'_, Self>,
        request: &UnmapRequest,
        bitmap: Option<&UserBitmap>,
        first: &mut Option<DmaPages>,
    ) -> Granted<Begun> {
        let layout = held.layout;
        layout.check_used()?;
        if request.vaddr && !layout.emulated.is_empty() {
            return Err(Refusal::new(EBUSY, c"drivers need the address"));
        }
        let page_size = layout.page_size();
        let range = request.range(page_size)?;
        if bitmap.is_some() && !layout.tracks_dirty {
            return Err(Refusal::new(EINVAL, c"no track is kept of dirty pages"));
        }
        if bitmap.is_some_and(|bitmap| bitmap.page_size != page_size) {
            return Err(Refusal::new(EINVAL, c"dirty pages have another size"));
        }
        let found = Found::look(held, range, self.v2);
        if let Some(cut) = found.cut {
            return Err(cut_mapping(cut));
        }
        if request.vaddr {
            if let Some(invalid) = found.invalid {
                return Err(Refusal::at(invalid, EINVAL, c"its address is invalid"));
            }
            if found.any() {
                held.set_vaddr(range, None);
            }
            return Ok(Begun::Done { bytes: found.bytes });
        }
        if let Some(pinned) = found.pinned {
            return Ok(Begun::Pinned(pinned));
        }
        if !found.any() {
            return Ok(Begun::Done { bytes: 0 });
        }
        let bytes = found.bytes;
        let mut rest = Some(range);
        if bitmap.is_none() {
            rest = held.remove_some(range, first);
        }
        Ok(Begun::Removing { rest, bytes })
    }
}

/// Removes the mappings that begin in `rest`, having told which of their pages are dirty, and drops `pages`,
/// which were removed already.
fn finish_unmap(
    mut guard: RangeGuard<'_, Container>,
    pages: &mut Option<DmaPages>,
    mut rest: Option<Range>,
    bitmap: Option<&UserBitmap>,
) -> Granted {
    if let (Some(bitmap), Some(range)) = (bitmap, rest) {
        bitmap
            .report(&mut guard, range)
            .map_err(because(c"can't write the bitmap of dirty pages"))?;
    }
    loop {
        // Until the IOMMU has forgotten the addresses nobody may map there.
        *pages = None;
        let Some(range) = rest else {
            return Ok(());
        };
        rest = guard.with(|held| held.remove_some(range, pages));
    }
}

/// How far a request to unmap has come when its addresses are locked.
enum Begun {
    /// It is done, about so many bytes.
    Done { bytes: u64 },
    /// A driver has pinned pages of this mapping.
    Pinned(Range),
    /// The mappings of so many bytes are being removed; those that begin in `rest` still have to be.
    Removing { rest: Option<Range>, bytes: u64 },
}

/// The mappings that a request to unmap is about.
#[derive(Default)]
struct Found {
    mappings: usize,
    /// Modulo 2^64.
    bytes: u64,
    /// The first one of which a driver has pinned pages.
    pinned: Option<Range>,
    /// The first one whose address is invalid.
    invalid: Option<Range>,
    /// One that would have to be cut, which the second version doesn't do. None after it was looked at.
    cut: Option<Range>,
}

impl Found {
    fn look(held: &mut Alone<'_, Container>, range: Range, v2: bool) -> Self {
        let mut all = Self::default();
        held.for_each_from(range.start, |found, dma| {
            if found.start > range.last || !v2 && found.start < range.start {
                return false;
            }
            if v2 && !range.contains(found) {
                all.cut = Some(found);
                return false;
            }
            all.mappings += 1;
            all.bytes = all.bytes.wrapping_add(found.last - found.start + 1);
            if all.pinned.is_none() && dma.pages().is_some_and(|pages| pages.pins().is_some()) {
                all.pinned = Some(found);
            }
            if all.invalid.is_none() && dma.vaddr().is_none() {
                all.invalid = Some(found);
            }
            true
        });
        all
    }

    fn any(&self) -> bool {
        self.mappings != 0
    }
}

/// How often drivers are asked to give pages back.
#[derive(Default)]
struct Patience {
    /// The end of the last mapping that was new to them.
    furthest: Option<u64>,
    asked: u32,
}

impl Patience {
    /// How often they are asked about one mapping.
    const MOST: u32 = 10;

    /// Whether they were asked often enough about `dma`, or what lies before it. Counts one more time.
    fn is_exhausted(&mut self, dma: Range) -> bool {
        if self.furthest.is_none_or(|furthest| furthest < dma.last) {
            self.furthest = Some(dma.last);
            self.asked = 0;
        }
        self.asked += 1;
        self.asked > Self::MOST
    }
}

/// Checks that `range` has no part of a mapping, but whole ones.
///
/// # Errors
///
/// `EINVAL`.
pub(crate) fn check_whole(held: &Held<'_, Container>, range: Range) -> Granted {
    held.cut_by(range)
        .map_or(Ok(()), |cut| Err(cut_mapping(cut)))
}

/// A range has a part of the mapping at `cut`.
fn cut_mapping(cut: Range) -> Refusal {
    Refusal::at(cut, EINVAL, c"would cut a mapping")
}

#[kunit_tests(vfio_type1_unmap)]
mod tests {
    use super::*;

    const fn page(nth: u64) -> Range {
        Range {
            start: nth * 0x1000,
            last: nth * 0x1000 + 0xfff,
        }
    }

    #[test]
    fn drivers_are_asked_ten_times_about_each_mapping() {
        let mut patience = Patience::default();
        for nth in 0..20 {
            for _ in 0..Patience::MOST {
                assert!(!patience.is_exhausted(page(nth)));
            }
        }
        assert!(patience.is_exhausted(page(19)));
    }

    #[test]
    fn going_back_does_not_make_them_new() {
        let mut patience = Patience::default();
        let mut times = 0;
        while !patience.is_exhausted(page(times % 2)) {
            times += 1;
            assert!(times < 100);
        }
    }
}
