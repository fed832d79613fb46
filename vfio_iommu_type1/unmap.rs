// SPDX-License-Identifier: GPL-2.0

//! `VFIO_IOMMU_UNMAP_DMA`.

use core::mem::size_of;

use kernel::{
    prelude::*,
    uaccess::UserPtr, //
};

use kernel_ext::{
    bindings::{
        vfio_bitmap,
        vfio_iommu_type1_dma_unmap, //
    },
    iova::Range,
    mm::fatal_signal_pending,
    uapi::Argument, //
};

use crate::{
    container::Container,
    dirty::UserBitmap,
    error::{
        RequestError,
        RequestResult, //
    },
    pages::DmaPages,
    request::UnmapRequest,
    space::{
        Held,
        HeldMut,
        Killed,
        RangeGuard, //
    }, //
};

/// The number of times that drivers are asked to unpin pages.
const MAX_RETRIES: u32 = 10;

impl Container {
    /// Handles the ioctl.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the argument cannot be read, or cannot be written after the range was unmapped;
    /// `EINVAL` if `argsz` is too small; those of [`UnmapRequest`] and [`unmap`](Self::unmap).
    pub(crate) fn ioctl_unmap(&self, arg: UserPtr) -> Result<isize> {
        let mut user = vfio_iommu_type1_dma_unmap::blank();
        user.read_in_place(arg)?;
        user.size = self
            .unmap_user(&user, arg)
            .inspect_err(|e| e.trace(c"unmap", user.iova, user.size))?;
        user.write(arg)?;
        Ok(0)
    }

    /// Executes the request that the ioctl's argument `user`, read from `arg`, describes. Returns
    /// the number of bytes that were unmapped.
    fn unmap_user(&self, user: &vfio_iommu_type1_dma_unmap, arg: UserPtr) -> RequestResult<u64> {
        let size = vfio_iommu_type1_dma_unmap::MIN_SIZE;
        user.check_argsz(size)
            .map_err(|_| RequestError::SHORT_ARGSZ)?;
        let request = UnmapRequest::new(user.flags, user.iova, user.size)?;
        if !request.dirty {
            return self.unmap(&request, None);
        }
        user.check_argsz(size + size_of::<vfio_bitmap>())
            .map_err(|_| RequestError::SHORT_ARGSZ)?;
        let bitmap = UserBitmap::read(arg.wrapping_byte_add(size), user.iova, user.size)
            .map_err(|e| RequestError::new(e, c"invalid dirty bitmap: address, size or pgsize"))?;
        self.unmap(&request, Some(&bitmap))
    }

    /// Unmaps a range. Returns the number of bytes that were unmapped, modulo 2^64.
    ///
    /// Version 2 of the interface unmaps whole mappings only, and fails if the range contains a
    /// part of a mapping. Version 1 unmaps every mapping that begins in the range, as a whole; it
    /// unmaps nothing if a mapping begins before the range and reaches into it.
    ///
    /// Drivers that have pinned pages are asked to unpin them. The driver of an active device may
    /// have pages pinned at all times, now of one mapping, now of another. In that case the
    /// mappings are unmapped one by one, each as soon as none of its own pages is pinned.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the request invalidates vaddrs and the container has emulated devices, whose
    /// drivers need them, or if such a driver does not unpin its pages; those of
    /// [`UnmapRequest::range`]; `EINVAL` if the range contains a part of a mapping, if a vaddr is
    /// already invalid, or if a bitmap is requested and dirty tracking is disabled or the bitmap's
    /// page size is not the smallest one; `EFAULT` if the bitmap cannot be written.
    ///
    /// On failure nothing is unmapped, unless the mappings are unmapped one by one: then those
    /// before the failing one are unmapped. The failing one may have been added in the meantime.
    fn unmap(&self, request: &UnmapRequest, bitmap: Option<&UserBitmap>) -> RequestResult<u64> {
        match self.unmap_at_once(request, bitmap)? {
            Ok(bytes) => Ok(bytes),
            Err(pinned) if pinned == request.span() => Err(self.pinned_error(pinned)),
            Err(_) => self.unmap_each(request, bitmap),
        }
    }

    /// Unmaps the whole request at once, or nothing. Returns a mapping that still has pinned pages
    /// after the drivers were asked [`MAX_RETRIES`] times.
    ///
    /// # Errors
    ///
    /// Those of [`unmap`](Self::unmap).
    fn unmap_at_once(
        &self,
        request: &UnmapRequest,
        bitmap: Option<&UserBitmap>,
    ) -> RequestResult<Result<u64, Range>> {
        match self.try_unmap(request, bitmap)? {
            Ok(bytes) => Ok(Ok(bytes)),
            Err(pinned) => self.retry_unmap(request, bitmap, pinned),
        }
    }

    /// Asks the drivers to unpin pages, first those of the mapping at `pinned`, and unmaps the whole
    /// request, until this succeeds or [`MAX_RETRIES`] is reached. Returns a mapping that still has
    /// pinned pages then.
    ///
    /// Drivers are asked with no address locked, because they may wait for threads that lock
    /// addresses. After that, all checks are repeated.
    ///
    /// # Errors
    ///
    /// Those of [`unmap`](Self::unmap).
    #[cold]
    #[inline(never)]
    fn retry_unmap(
        &self,
        request: &UnmapRequest,
        bitmap: Option<&UserBitmap>,
        mut pinned: Range,
    ) -> RequestResult<Result<u64, Range>> {
        for _ in 0..MAX_RETRIES {
            self.notify_pinned(pinned, request.span())?;
            match self.try_unmap(request, bitmap)? {
                Ok(bytes) => return Ok(Ok(bytes)),
                Err(dma) => pinned = dma,
            }
        }
        Ok(Err(pinned))
    }

    /// Unmaps the whole request, unless a driver has pinned pages: then unmaps nothing, and returns
    /// a mapping with such pages.
    ///
    /// # Errors
    ///
    /// Those of [`unmap`](Self::unmap).
    fn try_unmap(
        &self,
        request: &UnmapRequest,
        bitmap: Option<&UserBitmap>,
    ) -> RequestResult<Result<u64, Range>> {
        let locked = if self.v2 {
            request.span()
        } else {
            // The end of a mapping that begins in the range is not known before the range is
            // locked.
            Range::ALL
        };
        let mut pages = None;
        let (guard, state) = self.space.lock(locked, |held| {
            self.begin_unmap(held, request, bitmap, &mut pages)
        })?;
        match state {
            UnmapState::Complete { bytes } => Ok(Ok(bytes)),
            UnmapState::Removing { rest: None, bytes } => {
                // The range stays locked until the IOMMU has unmapped the pages.
                drop(pages);
                Ok(Ok(bytes))
            }
            UnmapState::Removing {
                rest: Some(rest),
                bytes,
            } => {
                finish_unmap(guard, pages, rest, bitmap)?;
                Ok(Ok(bytes))
            }
            UnmapState::Pinned(dma) => Ok(Err(dma)),
        }
    }

    /// Unmaps the mappings one by one.
    ///
    /// # Errors
    ///
    /// Those of [`unmap`](Self::unmap).
    fn unmap_each(
        &self,
        request: &UnmapRequest,
        bitmap: Option<&UserBitmap>,
    ) -> RequestResult<u64> {
        let span = request.span();
        let mut bytes = 0_u64;
        let mut rest = Some(span);
        while let Some(dma) = rest.and_then(|rest| self.space.look().dmas().first_in(rest)) {
            check_killed()?;
            // The mapping was added in the meantime. Drivers pin pages in version 2 only, and that
            // has checked before that the range cuts no mapping.
            if !span.contains(dma) {
                return Err(bisected_mapping(dma));
            }
            let unmapped = match self.unmap_at_once(&request.of(dma), bitmap) {
                // Another mapping has replaced this one, whose range cuts that one.
                Err(e) if e.is_bisected() => continue,
                unmapped => unmapped?,
            };
            bytes = bytes.wrapping_add(unmapped.map_err(|pinned| self.pinned_error(pinned))?);
            rest = rest_after(dma, span);
        }
        Ok(bytes)
    }

    /// Asks drivers to unpin the pages of `first`, and of the mappings in `span` that follow it.
    ///
    /// # Errors
    ///
    /// [`Killed`]. The walk may be long, because other tasks may pin pages ahead of it.
    fn notify_pinned(&self, first: Range, span: Range) -> Result<(), Killed> {
        let mut next = Some(first);
        while let Some(dma) = next {
            check_killed()?;
            self.notify_dma_unmap(dma);
            next = rest_after(dma, span).and_then(|rest| self.first_pinned(rest, span));
        }
        Ok(())
    }

    /// Returns the range of the first mapping in `rest`, a part of `span`, that is contained in
    /// `span` and has pinned pages. Mappings whose pages are taken out of the tree are skipped.
    fn first_pinned(&self, rest: Range, span: Range) -> Option<Range> {
        let mut first = None;
        self.space.look().for_each_in(rest, |found, dma| {
            let pins = dma.pages().and_then(DmaPages::pins);
            if span.contains(found) && pins.is_some() {
                first = Some(found);
            }
            first.is_none()
        });
        first
    }

    /// Returns the error for a driver that keeps pages of `dma` pinned, and logs which drivers are
    /// possible.
    fn pinned_error(&self, dma: Range) -> RequestError {
        self.warn_pinned(dma);
        RequestError::new(EBUSY, c"a driver did not unpin its pages").at(dma)
    }

    /// Checks an unmap request, whose range the caller has locked, and begins to execute it. Stores
    /// in `pages` those that are removed from the tree and have to be unmapped.
    fn begin_unmap(
        &self,
        held: &mut HeldMut<'_, Self>,
        request: &UnmapRequest,
        bitmap: Option<&UserBitmap>,
        pages: &mut Option<DmaPages>,
    ) -> RequestResult<UnmapState> {
        let layout = held.layout;
        layout.check_used()?;
        if request.vaddr && !layout.emulated.is_empty() {
            let reason = c"the container has emulated devices, which need the vaddr";
            return Err(RequestError::new(EBUSY, reason));
        }
        let page_size = layout.page_size();
        let range = request.range(page_size)?;
        if bitmap.is_some() && !layout.dirty_page_tracking {
            let reason = c"dirty page tracking is disabled; start it first";
            return Err(RequestError::new(EINVAL, reason));
        }
        if bitmap.is_some_and(|bitmap| bitmap.page_size != page_size) {
            let reason = c"pgsize of the bitmap is not the smallest IOMMU page size";
            return Err(RequestError::new(EINVAL, reason));
        }
        if bitmap.is_none() && !request.vaddr {
            // Most requests cover exactly one mapping, and no driver has pinned its pages.
            *pages = held.remove_one(range, |pages| pages.pins().is_none());
            if pages.is_some() {
                let bytes = range.last - range.start + 1;
                return Ok(UnmapState::Removing { rest: None, bytes });
            }
        }
        let found = Covered::find(held, range, self.v2);
        if let Some(cut) = found.cut {
            return Err(bisected_mapping(cut));
        }
        if request.vaddr {
            if let Some(invalid) = found.invalid {
                let reason = c"the vaddr of the mapping is already invalid";
                return Err(RequestError::new(EINVAL, reason).at(invalid));
            }
            if found.any() {
                held.set_vaddr(range, None);
            }
            return Ok(UnmapState::Complete { bytes: found.bytes });
        }
        if let Some(pinned) = found.pinned {
            return Ok(UnmapState::Pinned(pinned));
        }
        if !found.any() {
            return Ok(UnmapState::Complete { bytes: 0 });
        }
        let bytes = found.bytes;
        let mut rest = Some(range);
        if bitmap.is_none() {
            (*pages, rest) = held.remove_some(range);
        }
        Ok(UnmapState::Removing { rest, bytes })
    }
}

/// Ends a request that may take long when its task is being killed.
fn check_killed() -> Result<(), Killed> {
    if fatal_signal_pending() {
        return Err(Killed);
    }
    Ok(())
}

/// Unmaps `pages`, which are already removed from the tree, and removes and unmaps the mappings
/// that begin in `rest`. If there is a `bitmap`, first reports the dirty pages of `rest`.
fn finish_unmap(
    mut guard: RangeGuard<'_, Container>,
    mut pages: Option<DmaPages>,
    rest: Range,
    bitmap: Option<&UserBitmap>,
) -> RequestResult {
    if let Some(bitmap) = bitmap {
        bitmap
            .report(&mut guard, rest)
            .map_err(|e| RequestError::new(e, c"the dirty bitmap cannot be written"))?;
    }
    let mut rest = Some(rest);
    loop {
        // The range stays locked until the IOMMU has unmapped the pages.
        drop(pages);
        let Some(range) = rest else {
            return Ok(());
        };
        (pages, rest) = guard.with(|held| held.remove_some(range));
    }
}

/// The state of an unmap request after [`begin_unmap`](Container::begin_unmap).
enum UnmapState {
    /// The request is complete; the mappings have `bytes` bytes.
    Complete { bytes: u64 },
    /// A driver has pinned pages of the mapping at this range.
    Pinned(Range),
    /// Mappings of `bytes` bytes are being removed. Those that begin in `rest` have to be removed
    /// from the tree.
    Removing { rest: Option<Range>, bytes: u64 },
}

/// The mappings that an unmap request covers.
#[derive(Default)]
struct Covered {
    mappings: usize,
    /// The total size, modulo 2^64.
    bytes: u64,
    /// The first mapping of which a driver has pinned pages.
    pinned: Option<Range>,
    /// The first mapping whose vaddr is invalid.
    invalid: Option<Range>,
    /// A mapping that the range cuts, which version 2 does not allow. No mapping after it is
    /// examined.
    cut: Option<Range>,
}

impl Covered {
    fn find(held: &mut HeldMut<'_, Container>, range: Range, v2: bool) -> Self {
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

/// Returns the part of `span` that follows the mapping at `dma`.
fn rest_after(dma: Range, span: Range) -> Option<Range> {
    let start = dma.last.checked_add(1)?;
    (start <= span.last).then_some(Range { start, ..span })
}

/// Checks that `range` contains no part of a mapping, only whole ones.
///
/// # Errors
///
/// `EINVAL`.
pub(crate) fn check_whole(held: &Held<'_, Container>, range: Range) -> RequestResult {
    held.bisected_by(range)
        .map_or(Ok(()), |cut| Err(bisected_mapping(cut)))
}

/// Returns the error for a range that cuts the mapping at `cut`.
fn bisected_mapping(cut: Range) -> RequestError {
    RequestError::BISECTED.at(cut)
}
