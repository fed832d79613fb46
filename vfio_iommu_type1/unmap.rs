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

/// How often drivers are asked to give pages back.
const ASKED: u32 = 10;

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
        let bitmap = UserBitmap::read(arg.wrapping_byte_add(size), user.iova, user.size)
            .map_err(because(c"no such bitmap of dirty pages"))?;
        self.unmap(&request, Some(&bitmap))
    }

    /// Unmaps, and returns how many bytes, modulo 2^64.
    ///
    /// The second version of the interface unmaps whole mappings only, and fails if the range has parts
    /// of others. The first one stops at a mapping that begins before the range, and unmaps all of what
    /// begins in it.
    ///
    /// Drivers that have pinned pages are asked to give them back. Those of devices at work may always have
    /// some pages pinned, of one mapping or another: then each mapping is unmapped by itself, as soon as
    /// none of its own pages is pinned.
    ///
    /// # Errors
    ///
    /// `EBUSY` if an address is to be invalidated and there are emulated devices, whose drivers
    /// need it, or if such a driver doesn't give pages back; those of [`UnmapRequest::range`]; `EINVAL`
    /// for a part of a mapping, if an address is to be invalidated twice, or if there are no dirty pages of
    /// the size asked for; `EFAULT` for the bitmap. Then nothing is unmapped, unless each mapping was by
    /// itself: then those before the one that fails are. That one may have come meanwhile.
    fn unmap(&self, request: &UnmapRequest, bitmap: Option<&UserBitmap>) -> Granted<u64> {
        let pinned = match self.unmap_at_once(request, bitmap)? {
            Ok(bytes) => return Ok(bytes),
            Err(pinned) => pinned,
        };
        if pinned == request.span() {
            return Err(self.kept(pinned));
        }
        self.unmap_each(request, bitmap)
    }

    /// Unmaps everything that is asked for, or nothing.
    ///
    /// Drivers are asked with nothing locked, since they may wait for others that lock addresses. Then
    /// everything is looked at anew.
    ///
    /// # Errors
    ///
    /// Those of [`unmap`](Self::unmap), or a mapping of which pages are pinned though drivers were asked
    /// time and again.
    fn unmap_at_once(
        &self,
        request: &UnmapRequest,
        bitmap: Option<&UserBitmap>,
    ) -> Granted<Result<u64, Range>> {
        let locked = if self.v2 {
            request.span()
        } else {
            // Who knows how far a mapping reaches that begins in the range?
            Range::ALL
        };
        let mut asked = 0;
        loop {
            let (guard, begun) = self
                .space
                .lock(locked, |held| self.begin_unmap(held, request, bitmap))?;
            match begun {
                Begun::Done { bytes } => return Ok(Ok(bytes)),
                Begun::Removing { first, rest, bytes } => {
                    finish_unmap(guard, first, rest, bitmap)?;
                    return Ok(Ok(bytes));
                }
                Begun::Pinned(dma) => {
                    drop(guard);
                    if asked == ASKED {
                        return Ok(Err(dma));
                    }
                    asked += 1;
                    self.ask(dma, request.span());
                }
            }
        }
    }

    /// Unmaps one mapping after the other.
    ///
    /// # Errors
    ///
    /// Those of [`unmap`](Self::unmap).
    fn unmap_each(&self, request: &UnmapRequest, bitmap: Option<&UserBitmap>) -> Granted<u64> {
        let span = request.span();
        let mut bytes = 0_u64;
        let mut rest = Some(span);
        while let Some(range) = rest {
            let Some(dma) = self.first_where(range, |_, _| true) else {
                break;
            };
            // It came meanwhile: the second version, the only one in which drivers pin, found none at first.
            if !span.contains(dma) {
                return Err(cut_mapping(dma));
            }
            let unmapped = self.unmap_at_once(&request.of(dma), bitmap)?;
            bytes = bytes.wrapping_add(unmapped.map_err(|pinned| self.kept(pinned))?);
            rest = behind(dma, span);
        }
        Ok(bytes)
    }

    /// Asks drivers to give back what they have pinned of `first`, and of the mappings behind it in `span`.
    fn ask(&self, first: Range, span: Range) {
        let mut next = Some(first);
        while let Some(dma) = next {
            self.notify(dma);
            next = behind(dma, span).and_then(|rest| {
                self.first_where(rest, |found, pages| {
                    span.contains(found) && pages.is_some_and(|pages| pages.pins().is_some())
                })
            });
        }
    }

    /// The first mapping in `range` of which `f` is true, now. Its pages may be away.
    fn first_where(
        &self,
        range: Range,
        f: impl Fn(Range, Option<&DmaPages>) -> bool,
    ) -> Option<Range> {
        let mut first = None;
        self.space.look().for_each_in(range, |found, dma| {
            if f(found, dma.pages()) {
                first = Some(found);
            }
            first.is_none()
        });
        first
    }

    /// A driver keeps pages of `dma`: tells in the log who it may be.
    fn kept(&self, dma: Range) -> Refusal {
        self.blame(dma);
        Refusal::at(dma, EBUSY, c"a driver keeps pages")
    }

    /// Checks a request to unmap, whose addresses are locked, and begins with it.
    fn begin_unmap(
        &self,
        held: &mut Alone<'_, Self>,
        request: &UnmapRequest,
        bitmap: Option<&UserBitmap>,
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
        let (first, rest) = match bitmap {
            None => held.remove_some(range),
            Some(_) => (None, Some(range)),
        };
        Ok(Begun::Removing { first, rest, bytes })
    }
}

/// Removes the mappings that begin in `rest`, having told which of their pages are dirty, and unmaps
/// `pages`, which were removed already.
fn finish_unmap(
    mut guard: RangeGuard<'_, Container>,
    mut pages: Option<DmaPages>,
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
        drop(pages);
        let Some(range) = rest else {
            return Ok(());
        };
        (pages, rest) = guard.with(|held| held.remove_some(range));
    }
}

/// How far a request to unmap has come when its addresses are locked.
enum Begun {
    /// It is done, about so many bytes.
    Done { bytes: u64 },
    /// A driver has pinned pages of this mapping.
    Pinned(Range),
    /// The mappings of so many bytes are being removed: the pages of the first ones have to be unmapped,
    /// and those that begin in `rest` have to be removed.
    Removing {
        first: Option<DmaPages>,
        rest: Option<Range>,
        bytes: u64,
    },
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

/// The part of `span` behind the mapping at `dma`.
fn behind(dma: Range, span: Range) -> Option<Range> {
    let start = dma.last.checked_add(1)?;
    (start <= span.last).then_some(Range { start, ..span })
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
