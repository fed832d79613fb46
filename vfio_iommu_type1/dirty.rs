// SPDX-License-Identifier: GPL-2.0

//! `VFIO_IOMMU_DIRTY_PAGES`, and bitmaps for `VFIO_IOMMU_UNMAP_DMA`.
//!
//! An IOMMU doesn't tell which pages devices have written. So every page that such a device can reach
//! counts as dirty, unless the driver of the device pins the pages that it uses one by one; then
//! these count, and those that the kernel wrote itself.

use core::mem::size_of;

use kernel::{
    page::PAGE_SHIFT,
    prelude::*,
    transmute::AsBytes,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

use iommu_group::ranges::Range;

use kernel_ext::{
    bindings,
    mm::is_user_range, //
};

use crate::{
    abi::{
        Bitmap,
        DirtyGet, //
    },
    bitmap::{
        check_size,
        Dirty,
        Layout,
        MAX_PAGES, //
    },
    container::{
        Container,
        State, //
    },
    maps::Body,
    unmap::check_whole, //
};

/// Size of the flags and the size before them, in the ioctl's argument.
const MIN_SIZE: usize = 8;

/// How many words are copied at a time.
const CHUNK: usize = 512;

/// The program's bitmap.
pub(crate) struct UserBitmap {
    /// The size of the pages that the bits stand for.
    pub(crate) page_size: u64,
    data: usize,
}

impl UserBitmap {
    /// Checks the bitmap of an ioctl that is about `size` bytes of device addresses.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the bitmap can't be user memory, or hasn't the right size.
    pub(crate) fn new(user: &Bitmap, size: u64) -> Result<Self> {
        let data = user.0.data as usize;
        if !is_user_range(UserPtr::from_addr(data), user.0.size as usize) || user.0.pgsize == 0 {
            return Err(EINVAL);
        }
        check_size(size >> user.0.pgsize.trailing_zeros(), user.0.size)?;
        Ok(Self {
            page_size: user.0.pgsize,
            data,
        })
    }

    /// Reads the bitmap's description at `arg`.
    ///
    /// # Errors
    ///
    /// `EFAULT`; else those of [`new`](Self::new).
    pub(crate) fn read(arg: UserPtr, size: u64) -> Result<Self> {
        let user = UserSlice::new(arg, size_of::<Bitmap>()).reader().read()?;
        Self::new(&user, size)
    }

    /// Where word `nth` is.
    fn word_at(&self, nth: u64, count: usize) -> UserSlice {
        let address = UserPtr::from_addr(self.data).wrapping_byte_add(nth as usize * 8);
        UserSlice::new(address, count * 8)
    }

    /// Writes the bits of the map of `range`, the bitmap beginning with address `base`.
    ///
    /// # Errors
    ///
    /// `EFAULT`, `ENOMEM`.
    pub(crate) fn put(&self, base: u64, range: Range, body: &Body, all: bool) -> Result {
        let pages = ((range.last - range.start) >> PAGE_SHIFT) + 1;
        let layout = Layout::new((range.start - base) >> PAGE_SHIFT, pages);
        let old = if layout.is_shared() {
            self.word_at(layout.first_word, 1).reader().read::<u64>()?
        } else {
            0
        };
        let everything = Dirty::All;
        let known = body.dirty();
        let dirty = if all && !body.mapping.is_empty() {
            &everything
        } else {
            known
        };
        let mut words = KVec::with_capacity(CHUNK.min(layout.words as usize), GFP_KERNEL)?;
        let mut done = 0;
        while done < layout.words {
            words.clear();
            let count = (layout.words - done).min(CHUNK as u64);
            for nth in done..done + count {
                let own = |nth| dirty.word(nth) | body.pins().map_or(0, |pins| pins.word(nth));
                words.push(layout.word(nth, old, own), GFP_KERNEL)?;
            }
            self.word_at(layout.first_word + done, words.len())
                .writer()
                .write_slice(AsBytes::as_bytes(words.as_slice()))?;
            done += count;
        }
        Ok(())
    }
}

impl State {
    /// Whether some group can write pages without its driver telling which.
    pub(crate) fn writes_anywhere(&self) -> bool {
        let groups = || self.domains.iter().flat_map(|domain| domain.groups.iter());
        groups().any(|group| !group.pins)
    }
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
            bindings::VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP => self.stop_tracking(),
            bindings::VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP => {
                if (argsz as usize) - MIN_SIZE < size_of::<DirtyGet>() {
                    return Err(EINVAL);
                }
                let arg = arg.wrapping_byte_add(MIN_SIZE);
                let DirtyGet(get) = UserSlice::new(arg, size_of::<DirtyGet>()).reader().read()?;
                let range = Range::of_size(get.iova, get.size)?;
                let bitmap = UserBitmap::new(&Bitmap(get.bitmap), get.size)?;
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
    /// `EINVAL` if a map is larger than any bitmap.
    fn start_tracking(&self) -> Result {
        let mut state = self.lock();
        self.wait_settled(&mut state);
        let mut fits = true;
        state.maps.for_each_in(Range::ALL, |range, _| {
            fits = fits_bitmap(range);
            fits
        });
        if !fits {
            return Err(EINVAL);
        }
        state.tracks_dirty = true;
        Ok(())
    }

    /// Forgets which pages are dirty, and keeps no track any more.
    fn stop_tracking(&self) {
        let exclusive = self.exclusive();
        exclusive.lock().tracks_dirty = false;
        // The closure doesn't fail.
        let _ = exclusive.for_each_body(|_, _, body| {
            body.set_dirty(Dirty::Clean);
            Ok(())
        });
    }

    /// Writes which pages in `range` are dirty, and begins anew.
    ///
    /// # Errors
    ///
    /// `EINVAL` if something isn't aligned, if it isn't about the smallest pages, if no track is kept,
    /// or if the range has parts of maps; `EFAULT`, `ENOMEM`.
    fn report(&self, range: Range, size: u64, bitmap: &UserBitmap) -> Result {
        let mut left = range;
        let mut first = true;
        loop {
            let mut state = self.lock();
            self.wait_idle(&mut state, left);
            if first {
                let page_size = state.page_size();
                let aligned = (range.start | size) & (page_size - 1) == 0;
                if bitmap.page_size != page_size || !aligned || !state.tracks_dirty {
                    return Err(EINVAL);
                }
                check_whole(&state, range)?;
                first = false;
            }
            let mut found = None;
            state.maps.for_each_in_mut(left, |range, map| {
                found = self.claim(range, map);
                false
            });
            let Some((claim, mut body)) = found else {
                return Ok(());
            };
            state.busy += 1;
            let all = state.writes_anywhere();
            drop(state);
            let last = claim.range().last;
            let put = bitmap.put(range.start, claim.range(), &body, all);
            if put.is_ok() {
                body.set_dirty(Dirty::Clean);
            }
            claim.publish(body);
            put?;
            if last >= range.last {
                return Ok(());
            }
            left.start = last + 1;
        }
    }
}

/// Whether the pages of a map fit a bitmap.
pub(crate) fn fits_bitmap(range: Range) -> bool {
    (range.last - range.start) >> PAGE_SHIFT < MAX_PAGES
}
