// SPDX-License-Identifier: GPL-2.0

//! `VFIO_IOMMU_DIRTY_PAGES`, and the dirty bitmap of `VFIO_IOMMU_UNMAP_DMA`.
//!
//! The IOMMU does not report which pages a device has written. Every page that the device can
//! reach therefore counts as dirty, unless the driver of the device pins the pages that it uses
//! one by one. In that case the pinned pages count as dirty, and those that the kernel itself has
//! written.

pub(crate) mod bitmap;

use core::mem::size_of;

use kernel::{
    page::PAGE_SHIFT,
    prelude::*,
    sync::atomic::Relaxed,
    transmute::AsBytes,
    uaccess::UserPtr, //
};

use kernel_ext::{
    bindings::{
        self,
        vfio_iommu_type1_dirty_bitmap,
        vfio_iommu_type1_dirty_bitmap_get, //
    },
    iova::Range,
    mm::{
        cond_resched,
        is_user_range, //
    },
    uapi::{
        self,
        Argument, //
    }, //
};

use crate::{
    container::{
        AttachedGroup,
        Container,
        Layout, //
    },
    pages::DmaPages,
    space::{
        Dma,
        Held,
        RangeGuard, //
    },
    unmap::check_whole, //
};

use self::bitmap::{
    check_size,
    coarse,
    fits_bitmap,
    shifted,
    Window, //
};

/// The dirty bitmap in user memory.
pub(crate) struct UserBitmap {
    /// The number of bytes that each bit stands for.
    pub(crate) page_size: u64,
    /// The iova that the first bit stands for.
    iova: u64,
    data: usize,
}

impl UserBitmap {
    /// Checks the bitmap of an ioctl for `size` bytes at `iova`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the bitmap is not in user memory, its page size is 0, or its size is wrong.
    #[inline]
    pub(crate) fn new(user: &bindings::vfio_bitmap, iova: u64, size: u64) -> Result<Self> {
        let data = user.data as usize;
        if !is_user_range(UserPtr::from_addr(data), user.size as usize) || user.pgsize == 0 {
            return Err(EINVAL);
        }
        check_size(size >> user.pgsize.trailing_zeros(), user.size)?;
        Ok(Self {
            page_size: user.pgsize,
            iova,
            data,
        })
    }

    /// Reads the description of the bitmap at `arg`.
    ///
    /// # Errors
    ///
    /// `EFAULT`; those of [`new`](Self::new).
    pub(crate) fn read(arg: UserPtr, iova: u64, size: u64) -> Result<Self> {
        Self::new(&uapi::read(arg)?, iova, size)
    }

    /// Writes which pages of the mappings in `range` are dirty. `range` is all of the ioctl's
    /// range or a part of it.
    ///
    /// # Errors
    ///
    /// `EFAULT`; the bitmap may be partially written then.
    pub(crate) fn report(&self, guard: &mut RangeGuard<'_, Container>, range: Range) -> Result {
        let mut report = Report::new(self, range);
        guard.with(|held| report.fill(held));
        report.write_all(guard)
    }

    /// Writes the words of `window` to user memory.
    fn write(&self, window: &mut Window) -> Result {
        let (first_word, kept, words) = window.parts();
        let address = UserPtr::from_addr(self.data).wrapping_byte_add(first_word as usize * 8);
        if let Some(first) = words.first_mut().filter(|_| kept != 0) {
            *first |= uapi::read::<u64>(address)? & kept;
        }
        uapi::write_bytes(address, AsBytes::as_bytes(&*words))
    }
}

/// The addresses that the bits of a bitmap stand for.
#[derive(Clone, Copy)]
struct Scale {
    /// The first iova of the first bit.
    base: u64,
    /// The shift of the bytes per bit: each bit stands for `1 << shift` bytes, at least a page.
    shift: u32,
}

impl Scale {
    /// Returns the bit that stands for `iova`.
    fn bit(self, iova: u64) -> u64 {
        (iova - self.base) >> self.shift
    }

    /// Returns the dirty bits of the mapping at `found` in the 64 bits starting at `bit`. Bits that
    /// are not the mapping's may have any value.
    fn word(self, found: Range, dma: &Dma<DmaPages>, all: bool, bit: u64) -> u64 {
        let Some(pages) = dma.pages() else {
            return 0;
        };
        if all && !pages.mapping().is_empty() {
            return u64::MAX;
        }
        if pages.is_clean() {
            return 0;
        }
        let start = self.bit(found.start);
        let more = self.shift - PAGE_SHIFT as u32;
        if more == 0 {
            return shifted(bit, start, |nth| pages.dirty_word(nth));
        }
        let dirty = |page: u64| pages.dirty_word(page / 64) & 1 << (page % 64) != 0;
        coarse(bit, start, more, dirty)
    }
}

/// A report of the dirty pages in a range, while it is written to a bitmap.
struct Report<'a> {
    bitmap: &'a UserBitmap,
    range: Range,
    /// The bits that are not written yet.
    window: Window,
    /// The iova at which to continue.
    next: Option<u64>,
    /// Whether a mapping has dirty pages recorded, which have to be cleared once they are
    /// reported.
    noted: bool,
}

impl<'a> Report<'a> {
    /// The number of mappings to examine before the mutex is released.
    const MAPPINGS: usize = 1024;

    /// Creates a report of `range` to `bitmap` that has not examined any mapping yet.
    fn new(bitmap: &'a UserBitmap, range: Range) -> Self {
        Self {
            bitmap,
            range,
            window: Window::new(),
            next: Some(range.start),
            noted: false,
        }
    }

    /// Adds mappings to the window, as many as fit.
    fn fill(&mut self, held: &mut Held<'_, Container>) {
        let Some(start) = self.next.take() else {
            return;
        };
        let scale = Scale {
            base: self.bitmap.iova,
            shift: self.bitmap.page_size.trailing_zeros(),
        };
        let all = has_non_pinned_group(held.layout);
        let mut left = Self::MAPPINGS;
        held.for_each_from(start, |found, dma| {
            if found.start > self.range.last {
                self.next = None;
                return false;
            }
            if left == 0 {
                self.next = Some(found.start);
                return false;
            }
            left -= 1;
            self.noted |= dma.pages().is_some_and(|pages| !pages.is_clean());
            let from = found.start.max(start);
            let (first, last) = (scale.bit(from), scale.bit(found.last));
            let added = self
                .window
                .add(first, last, |bit| scale.word(found, dma, all, bit));
            self.next = match added {
                Some(end) if end == last => found.last.checked_add(1),
                Some(end) => Some(scale.base + ((end + 1) << scale.shift)),
                None => Some(from),
            };
            added == Some(last)
        });
    }

    /// Writes the window, and examines and writes the rest of the range.
    ///
    /// # Errors
    ///
    /// `EFAULT`; the bitmap may be partially written then.
    fn write_all(&mut self, guard: &mut RangeGuard<'_, Container>) -> Result {
        loop {
            self.bitmap.write(&mut self.window)?;
            if self.next.is_none_or(|start| start > self.range.last) {
                return Ok(());
            }
            self.window.clear();
            guard.with(|held| self.fill(held));
            cond_resched();
        }
    }
}

/// Returns whether a group can write pages that its driver has not pinned.
fn has_non_pinned_group(layout: &Layout) -> bool {
    let is_not_pinned = |group: &AttachedGroup| !group.pinned_page_dirty_scope.load(Relaxed);
    let mut domains = layout.domains.iter();
    domains.any(|domain| domain.groups.iter().any(is_not_pinned))
}

impl Container {
    /// Handles `VFIO_IOMMU_DIRTY_PAGES`.
    ///
    /// # Errors
    ///
    /// `EACCES` in version 1 of the interface; `EFAULT` if the argument cannot be read; `EINVAL`
    /// if `argsz` is too small, or if not exactly one known flag is set; those of the request.
    pub(crate) fn ioctl_dirty(&self, arg: UserPtr) -> Result<isize> {
        if !self.v2 {
            return Err(EACCES);
        }
        let mut user = vfio_iommu_type1_dirty_bitmap::blank();
        user.read_in_place(arg)?;
        user.check_argsz(vfio_iommu_type1_dirty_bitmap::MIN_SIZE)?;
        match user.flags {
            bindings::VFIO_IOMMU_DIRTY_PAGES_FLAG_START => self.start_tracking()?,
            bindings::VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP => self.stop_tracking()?,
            bindings::VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP => {
                let size = vfio_iommu_type1_dirty_bitmap::MIN_SIZE;
                user.check_argsz(size + size_of::<vfio_iommu_type1_dirty_bitmap_get>())?;
                let get: vfio_iommu_type1_dirty_bitmap_get =
                    uapi::read(arg.wrapping_byte_add(size))?;
                let range = Range::of_size(get.iova, get.size)?;
                let bitmap = UserBitmap::new(&get.bitmap, get.iova, get.size)?;
                self.report(range, get.size, &bitmap)?;
            }
            _ => return Err(EINVAL),
        }
        Ok(0)
    }

    /// Enables dirty tracking, unless it is enabled.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the last group is detached, or if a mapping is too large for a bitmap;
    /// `ENOMEM`.
    fn start_tracking(&self) -> Result {
        let mut whole = self.space.lock_all_killable(|held| {
            held.layout.check_used()?;
            let page_size = held.layout.page_size();
            let mut fits = true;
            if !held.layout.dirty_page_tracking {
                held.for_each_from(0, |range, _| {
                    fits = fits_bitmap(range, page_size);
                    fits
                });
            }
            fits.then_some(()).ok_or(EINVAL)
        })?;
        if whole.layout(|layout| layout.dirty_page_tracking) {
            return Ok(());
        }
        let reserved = whole.try_update(Range::ALL, |_, _, pages| pages.reserve_dirty());
        if reserved.is_err() {
            whole.update(Range::ALL, |_, _, pages| pages.stop_tracking());
            return reserved;
        }
        whole.layout(|layout| layout.dirty_page_tracking = true);
        Ok(())
    }

    /// Discards the recorded dirty pages and disables dirty tracking.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the last group is detached.
    fn stop_tracking(&self) -> Result {
        let mut whole = self
            .space
            .lock_all_killable(|held| held.layout.check_used())?;
        whole.layout(|layout| layout.dirty_page_tracking = false);
        whole.update(Range::ALL, |_, _, pages| pages.stop_tracking());
        Ok(())
    }

    /// Writes which pages in `range` are dirty, and clears the record.
    ///
    /// # Errors
    ///
    /// `EINVAL` if an address or the size is not aligned, the bitmap's page size is not the
    /// smallest one, dirty tracking is disabled, or the range contains a part of a mapping;
    /// `EFAULT` if the bitmap cannot be written. On failure the record is not cleared.
    fn report(&self, range: Range, size: u64, bitmap: &UserBitmap) -> Result {
        let mut report = Report::new(bitmap, range);
        let (mut guard, ()) = self.space.lock(range, |held| {
            held.layout.check_used()?;
            let page_size = held.layout.page_size();
            let aligned = (range.start | size) & (page_size - 1) == 0;
            if bitmap.page_size != page_size || !aligned || !held.layout.dirty_page_tracking {
                return Err(EINVAL);
            }
            check_whole(held, range)?;
            report.fill(held);
            Ok(())
        })?;
        report.write_all(&mut guard)?;
        if !report.noted {
            return Ok(());
        }
        guard.update(range, |_, _, pages| pages.set_clean());
        Ok(())
    }
}
