// SPDX-License-Identifier: GPL-2.0

//! `VFIO_IOMMU_DIRTY_PAGES`, and bitmaps for `VFIO_IOMMU_UNMAP_DMA`.
//!
//! An IOMMU doesn't tell which pages devices have written. So every page that such a device can reach
//! counts as dirty, unless the driver of the device pins the pages that it uses one by one; then
//! these count, and those that the kernel wrote itself.

use core::mem::{
    size_of,
    size_of_val, //
};

use kernel::{
    page::PAGE_SHIFT,
    prelude::*,
    sync::atomic::Relaxed,
    transmute::AsBytes,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

use iommu_group::ranges::Range;

use kernel_ext::{
    bindings,
    mm::{
        cond_resched,
        is_user_range, //
    }, //
};

use crate::{
    abi::{
        Bitmap,
        DirtyGet, //
    },
    bitmap::{
        check_size,
        coarse,
        fits_bitmap,
        shifted,
        Window, //
    },
    container::{
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

/// Size of the flags and the size before them, in the ioctl's argument.
const MIN_SIZE: usize = 8;

/// The program's bitmap.
pub(crate) struct UserBitmap {
    /// The size of the pages that the bits stand for.
    pub(crate) page_size: u64,
    /// The address that the first bit stands for.
    iova: u64,
    data: usize,
}

impl UserBitmap {
    /// Checks the bitmap of an ioctl that is about `size` bytes of device addresses from `iova` on.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the bitmap can't be user memory, or hasn't the right size.
    pub(crate) fn new(user: &Bitmap, iova: u64, size: u64) -> Result<Self> {
        let data = user.0.data as usize;
        if !is_user_range(UserPtr::from_addr(data), user.0.size as usize) || user.0.pgsize == 0 {
            return Err(EINVAL);
        }
        check_size(size >> user.0.pgsize.trailing_zeros(), user.0.size)?;
        Ok(Self {
            page_size: user.0.pgsize,
            iova,
            data,
        })
    }

    /// Reads the bitmap's description at `arg`.
    ///
    /// # Errors
    ///
    /// `EFAULT`; else those of [`new`](Self::new).
    pub(crate) fn read(arg: UserPtr, iova: u64, size: u64) -> Result<Self> {
        let user = UserSlice::new(arg, size_of::<Bitmap>()).reader().read()?;
        Self::new(&user, iova, size)
    }

    /// Writes which pages of the mappings in `range`, all or a part of what the ioctl is about, are dirty.
    ///
    /// # Errors
    ///
    /// `EFAULT`; some may be written then.
    pub(crate) fn report(&self, guard: &mut RangeGuard<'_, Container>, range: Range) -> Result {
        let mut report = Report::new(self, range);
        guard.with(|held| report.fill(held));
        report.write_all(guard)
    }

    /// Writes the words of `window`.
    fn write(&self, window: &mut Window) -> Result {
        let (first_word, kept, words) = window.parts();
        let address = UserPtr::from_addr(self.data).wrapping_byte_add(first_word as usize * 8);
        if let Some(first) = words.first_mut().filter(|_| kept != 0) {
            *first |= UserSlice::new(address, 8).reader().read::<u64>()? & kept;
        }
        UserSlice::new(address, size_of_val(words))
            .writer()
            .write_slice(AsBytes::as_bytes(&*words))
    }
}

/// Which addresses the bits of a bitmap stand for.
#[derive(Clone, Copy)]
struct Scale {
    /// The first address of the first bit.
    base: u64,
    /// Each bit stands for `1 << shift` bytes, a page or more.
    shift: u32,
}

impl Scale {
    /// The bit that stands for address `iova`.
    fn bit(self, iova: u64) -> u64 {
        (iova - self.base) >> self.shift
    }

    /// Which of the 64 bits from `bit` on are dirty, as far as they are those of the mapping at `found`.
    fn word(self, found: Range, dma: &Dma<DmaPages>, all: bool, bit: u64) -> u64 {
        let Some(pages) = dma.pages() else {
            return 0;
        };
        if all && !pages.mapping.is_empty() {
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

/// Which pages in a range are dirty, while that is written to a bitmap.
struct Report<'a> {
    bitmap: &'a UserBitmap,
    range: Range,
    /// The bits that aren't written yet.
    window: Window,
    /// The address to go on from.
    next: Option<u64>,
    /// Whether something is noted of a page, which is to be forgotten once it is written.
    noted: bool,
}

impl<'a> Report<'a> {
    /// How many mappings are looked at before others may have the mutex.
    const MAPPINGS: usize = 1024;

    /// A report of `range` to `bitmap`, of which nothing was looked at yet.
    fn new(bitmap: &'a UserBitmap, range: Range) -> Self {
        Self {
            bitmap,
            range,
            window: Window::new(),
            next: Some(range.start),
            noted: false,
        }
    }

    /// Adds mappings to the window, as far as they fit.
    fn fill(&mut self, held: &mut Held<'_, Container>) {
        let Some(start) = self.next.take() else {
            return;
        };
        let scale = Scale {
            base: self.bitmap.iova,
            shift: self.bitmap.page_size.trailing_zeros(),
        };
        let all = writes_anywhere(held.layout);
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

    /// Writes what is in the window, and what is still to be looked at.
    ///
    /// # Errors
    ///
    /// `EFAULT`; some may be written then.
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

/// Whether some group can write pages without its driver telling which.
fn writes_anywhere(layout: &Layout) -> bool {
    let mut groups = layout
        .domains
        .iter()
        .flat_map(|domain| domain.groups.iter());
    groups.any(|group| !group.pins.load(Relaxed))
}

impl Container {
    /// Handles `VFIO_IOMMU_DIRTY_PAGES`.
    ///
    /// # Errors
    ///
    /// `EACCES` in the first version of the interface; `EFAULT` for a bad argument; `EINVAL` for a
    /// short one, for unknown flags or more than one; those of the request.
    pub(crate) fn ioctl_dirty(&self, arg: UserPtr) -> Result<isize> {
        if !self.v2 {
            return Err(EACCES);
        }
        let [argsz, flags]: [u32; MIN_SIZE / 4] = UserSlice::new(arg, MIN_SIZE).reader().read()?;
        if (argsz as usize) < MIN_SIZE {
            return Err(EINVAL);
        }
        match flags {
            bindings::VFIO_IOMMU_DIRTY_PAGES_FLAG_START => self.start_tracking()?,
            bindings::VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP => self.stop_tracking()?,
            bindings::VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP => {
                if (argsz as usize) - MIN_SIZE < size_of::<DirtyGet>() {
                    return Err(EINVAL);
                }
                let arg = arg.wrapping_byte_add(MIN_SIZE);
                let DirtyGet(get) = UserSlice::new(arg, size_of::<DirtyGet>()).reader().read()?;
                let range = Range::of_size(get.iova, get.size)?;
                let bitmap = UserBitmap::new(&Bitmap(get.bitmap), get.iova, get.size)?;
                self.report(range, get.size, &bitmap)?;
            }
            _ => return Err(EINVAL),
        }
        Ok(0)
    }

    /// Begins to keep track of dirty pages, unless that was done.
    ///
    /// # Errors
    ///
    /// `EINVAL` if a mapping is larger than any bitmap, `ENOMEM`.
    fn start_tracking(&self) -> Result {
        let mut whole = self.space.try_lock_all(|held| {
            held.layout.check_used()?;
            let page_size = held.layout.page_size();
            let mut fits = true;
            if !held.layout.tracks_dirty {
                held.for_each_from(0, |range, _| {
                    fits = fits_bitmap(range, page_size);
                    fits
                });
            }
            fits.then_some(()).ok_or(EINVAL)
        })?;
        if whole.layout(|layout| layout.tracks_dirty) {
            return Ok(());
        }
        let reserved = whole.try_update(Range::ALL, |_, _, pages| pages.reserve_dirty());
        if reserved.is_err() {
            whole.update(Range::ALL, |_, _, pages| pages.stop_tracking());
            return reserved;
        }
        whole.layout(|layout| layout.tracks_dirty = true);
        Ok(())
    }

    /// Forgets which pages are dirty, and keeps no track any more.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the last group has left.
    fn stop_tracking(&self) -> Result {
        let mut whole = self.space.try_lock_all(|held| held.layout.check_used())?;
        whole.layout(|layout| layout.tracks_dirty = false);
        whole.update(Range::ALL, |_, _, pages| pages.stop_tracking());
        Ok(())
    }

    /// Writes which pages in `range` are dirty, and begins anew.
    ///
    /// # Errors
    ///
    /// `EINVAL` if something isn't aligned, if it isn't about the smallest pages, if no track is kept,
    /// or if the range has parts of mappings; `EFAULT`. Then no page counts as clean that
    /// didn't before.
    fn report(&self, range: Range, size: u64, bitmap: &UserBitmap) -> Result {
        let mut report = Report::new(bitmap, range);
        let (mut guard, ()) = self.space.lock(range, |held| {
            held.layout.check_used()?;
            let page_size = held.layout.page_size();
            let aligned = (range.start | size) & (page_size - 1) == 0;
            if bitmap.page_size != page_size || !aligned || !held.layout.tracks_dirty {
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
        guard.finish(|held| {
            held.for_each_from(range.start, |_, dma| {
                if let Some(pages) = dma.pages_mut() {
                    pages.set_clean();
                }
                true
            });
        });
        Ok(())
    }
}
