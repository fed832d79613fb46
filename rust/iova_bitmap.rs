// SPDX-License-Identifier: GPL-2.0

//! User bitmaps in which devices report the memory that they have written.
//!
//! The kernel has `struct iova_bitmap` only if it was built with dirty tracking of some IOMMU
//! driver; Debian's kernel doesn't have it. Without it, its header provides functions that do
//! nothing, so no C driver can report anything, and the kernel's `vfio.ko` returns `EOPNOTSUPP`. On
//! such a kernel this project's core passes its own bitmap to drivers. A Rust driver takes it by
//! [`IovaBitmap::from_raw`]. A C driver returns it unseen, and the result is `EOPNOTSUPP` as with
//! the kernel's core.
//!
//! C header: [`include/linux/iova_bitmap.h`](srctree/include/linux/iova_bitmap.h)

use core::{
    ffi::c_void,
    marker::PhantomData,
    ptr, //
};

use kernel::{
    error::to_result,
    ffi::{
        c_int,
        c_ulong, //
    },
    page::PAGE_SIZE,
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

use crate::{
    bindings,
    compat::EOPNOTSUPP,
    iova::Range,
    mm::{
        cond_resched,
        fatal_signal_pending, //
    }, //
};

/// Whether the kernel has `struct iova_bitmap`, which every core then passes to drivers.
pub const KERNELS: bool = cfg!(CONFIG_IOMMUFD_DRIVER);

/// A request for a dirty bitmap.
///
/// # Invariants
///
/// `iova + length` is at most `u64::MAX`, and `page_size` is a power of two.
#[derive(Clone, Copy)]
pub struct Request {
    iova: u64,
    length: u64,
    page_size: u64,
    bitmap: UserPtr,
}

impl Request {
    /// Creates a request for the `length` bytes from `iova` on. Each bit of the user's `bitmap`
    /// stands for `page_size` bytes.
    ///
    /// # Errors
    ///
    /// `EINVAL` unless `page_size` is a power of two of at least 4 KiB; `EOVERFLOW` if the range
    /// exceeds the last address.
    pub fn new(iova: u64, length: u64, page_size: u64, bitmap: UserPtr) -> Result<Self> {
        if page_size < 4096 || !page_size.is_power_of_two() {
            return Err(EINVAL);
        }
        let end = iova.checked_add(length).ok_or(EOVERFLOW)?;
        // The kernel's bitmaps have addresses of that size.
        c_ulong::try_from(end).map_err(|_| EOVERFLOW)?;
        // INVARIANT: By the checks above.
        Ok(Self {
            iova,
            length,
            page_size,
            bitmap,
        })
    }

    /// Returns the first address.
    pub fn iova(&self) -> u64 {
        self.iova
    }

    /// Returns the number of bytes.
    pub fn length(&self) -> u64 {
        self.length
    }
}

/// Answers a request. `fill` passes a bitmap to the driver.
///
/// # Errors
///
/// `EOPNOTSUPP` if the driver can't report on this kernel; otherwise the errors of the driver.
pub fn report(
    request: &Request,
    fill: &mut dyn FnMut(*mut bindings::iova_bitmap) -> Result,
) -> Result {
    if KERNELS {
        return report_in_kernels(request, fill);
    }
    let mut own = Own {
        request: *request,
        seen: false,
    };
    let filled = fill((&raw mut own).cast());
    if !own.seen {
        return Err(EOPNOTSUPP);
    }
    filled
}

/// Checks that the user's bitmap can be pinned for writing, which is how the kernel's bitmap
/// accesses it.
///
/// # Errors
///
/// `EFAULT`; `EINTR` if the task is being killed.
fn check_writable(request: &Request) -> Result {
    /// Number of pages that are pinned at a time.
    const BATCH: usize = 16;
    let Ok(asked) = Range::of_size(request.iova, request.length) else {
        return Ok(());
    };
    let (_, last) = bits(request, asked);
    let address = request.bitmap.as_const_ptr().addr() as u64;
    // The bitmap consists of words of 64 bits.
    let last = address.checked_add(last / 64 * 8 + 7).ok_or(EFAULT)?;
    let page = |address: u64| address / PAGE_SIZE as u64;
    let mut next = page(address);
    while next <= page(last) {
        let mut pages = [ptr::null_mut(); BATCH];
        let count = (page(last) - next + 1).min(BATCH as u64);
        let start = c_ulong::try_from(next * PAGE_SIZE as u64).map_err(|_| EFAULT)?;
        // SAFETY: The function checks the addresses. `pages` has room for `count` pages.
        let pinned = unsafe {
            bindings::pin_user_pages_fast(
                start,
                count as c_int,
                bindings::FOLL_WRITE,
                pages.as_mut_ptr(),
            )
        };
        let Some(pinned) = u64::try_from(pinned).ok().filter(|&pinned| pinned > 0) else {
            return Err(if fatal_signal_pending() {
                EINTR
            } else {
                EFAULT
            });
        };
        // SAFETY: The call above pinned these pages.
        unsafe { bindings::unpin_user_pages(pages.as_mut_ptr(), pinned as c_ulong) };
        cond_resched();
        next += pinned;
    }
    Ok(())
}

/// The argument that the kernel's bitmap passes to [`fill_callback`].
type Fill<'a> = &'a mut dyn FnMut(*mut bindings::iova_bitmap) -> Result;

fn report_in_kernels(request: &Request, mut fill: Fill<'_>) -> Result {
    // The kernel's bitmap drops what it cannot write, and returns no error.
    check_writable(request)?;
    // SAFETY: The callee checks the address of the bitmap. It calls `fill_callback` with `fill`
    // before it returns.
    to_result(unsafe {
        bindings::kernel_ext_iova_bitmap_report(
            request.iova as c_ulong,
            request.length as usize,
            request.page_size as c_ulong,
            request.bitmap.as_mut_ptr().cast(),
            (&raw mut fill).cast(),
            Some(fill_callback),
        )
    })
}

/// # Safety
///
/// Called only through [`report_in_kernels`], with the [`Fill`] that it passed.
unsafe extern "C" fn fill_callback(
    bitmap: *mut bindings::iova_bitmap,
    _iova: c_ulong,
    _length: usize,
    fill: *mut c_void,
) -> c_int {
    // SAFETY: By this function's contract.
    let fill = unsafe { &mut *fill.cast::<Fill<'_>>() };
    fill(bitmap).map_or_else(|e| e.to_errno(), |()| 0)
}

/// A user bitmap that a driver fills.
///
/// # Invariants
///
/// `raw` points to the kernel's bitmap where the kernel has them, otherwise to an [`Own`]. It is
/// valid for `'a`, and nothing else uses it. `asked` is the memory for which the bitmap has bits.
pub struct IovaBitmap<'a> {
    raw: *mut bindings::iova_bitmap,
    asked: Option<Range>,
    lent: PhantomData<&'a mut Own>,
}

impl IovaBitmap<'_> {
    /// # Safety
    ///
    /// `bitmap`, `iova` and `length` were passed to the driver's `log_read_and_clear`, which doesn't
    /// return during `'a`.
    pub unsafe fn from_raw(bitmap: *mut bindings::iova_bitmap, iova: u64, length: u64) -> Self {
        if !KERNELS {
            // SAFETY: By this function's contract. On such a kernel only this project's core calls
            // drivers, and it does so from `report`.
            unsafe { (*bitmap.cast::<Own>()).seen = true };
        }
        // INVARIANT: By this function's contract, and as above.
        Self {
            raw: bitmap,
            asked: Range::of_size(iova, length).ok(),
            lent: PhantomData,
        }
    }

    /// Returns the memory that was asked for, `None` if it is empty.
    pub fn asked(&self) -> Option<Range> {
        self.asked
    }

    /// Sets the bits of all pages that overlap the `length` bytes starting at `iova`. Pages that
    /// were not asked for are ignored.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the user bitmap can't be written; `EINTR` if the process is being killed. The
    /// kernel's bitmap returns neither.
    pub fn set(&mut self, iova: u64, length: u64) -> Result {
        let Some(written) = overlap(self.asked, iova, length) else {
            return Ok(());
        };
        if KERNELS {
            let length = written.last - written.start + 1;
            // SAFETY: By the type invariant. The bitmap has bits for all of `written`.
            unsafe {
                bindings::kernel_ext_iova_bitmap_set(
                    self.raw,
                    written.start as c_ulong,
                    length as usize,
                )
            };
            return Ok(());
        }
        // SAFETY: By the type invariant.
        unsafe { &*self.raw.cast::<Own>() }.set(written)
    }
}

/// Returns the part of the `length` bytes starting at `iova` that is in `asked`.
fn overlap(asked: Option<Range>, iova: u64, length: u64) -> Option<Range> {
    let asked = asked?;
    let common = Range {
        start: iova.max(asked.start),
        last: iova.saturating_add(length.checked_sub(1)?).min(asked.last),
    };
    (common.start <= common.last).then_some(common)
}

/// The bitmap of this project.
struct Own {
    request: Request,
    /// Whether a driver recognised it.
    seen: bool,
}

impl Own {
    /// Sets the bits for `written`, which was asked for.
    fn set(&self, written: Range) -> Result {
        let (first, last) = bits(&self.request, written);
        for word in first / 64..=last / 64 {
            if fatal_signal_pending() {
                return Err(EINTR);
            }
            let address = self.request.bitmap.wrapping_byte_add(8 * word as usize);
            let (mut reader, mut writer) = UserSlice::new(address, 8).reader_writer();
            let value = reader.read::<u64>()? | mask(word, first, last);
            writer.write(&value)?;
            cond_resched();
        }
        Ok(())
    }
}

/// Returns the first and the last bit for `written`, which was asked for.
fn bits(request: &Request, written: Range) -> (u64, u64) {
    let bit = |iova: u64| (iova - request.iova) >> request.page_size.trailing_zeros();
    (bit(written.start), bit(written.last))
}

/// Returns the mask of the bits of word number `word` that are in `first..=last`. At least one of
/// them is.
fn mask(word: u64, first: u64, last: u64) -> u64 {
    let low = first.saturating_sub(64 * word);
    let high = (last - 64 * word).min(63);
    u64::MAX << low & u64::MAX >> (63 - high)
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(kernel_ext_iova_bitmap)]
mod tests {
    use super::*;

    fn request(iova: u64, length: u64, page_size: u64) -> Request {
        Request {
            iova,
            length,
            page_size,
            bitmap: UserPtr::from_addr(0),
        }
    }

    fn bits_of(asked: &Request, iova: u64, length: u64) -> Option<(u64, u64)> {
        let range = Range::of_size(asked.iova, asked.length).ok();
        overlap(range, iova, length).map(|written| bits(asked, written))
    }

    #[test]
    fn bits_count_from_the_first_address() {
        let asked = request(0x5000, 0x10000, 0x1000);
        assert_eq!(bits_of(&asked, 0x5000, 1), Some((0, 0)));
        assert_eq!(bits_of(&asked, 0x5fff, 2), Some((0, 1)));
        assert_eq!(bits_of(&asked, 0x6000, 0x2000), Some((1, 2)));
        // The first address need not be a multiple of the page size.
        let asked = request(0x5000, 0x10000, 0x4000);
        assert_eq!(bits_of(&asked, 0x8000, 0x1000), Some((0, 0)));
        assert_eq!(bits_of(&asked, 0x9000, 0x1000), Some((1, 1)));
    }

    #[test]
    fn what_was_not_asked_for_is_left_out() {
        let asked = request(0x5000, 0x2000, 0x1000);
        assert_eq!(bits_of(&asked, 0, u64::MAX), Some((0, 1)));
        assert_eq!(bits_of(&asked, 0x4fff, 2), Some((0, 0)));
        assert_eq!(bits_of(&asked, 0x6fff, 2), Some((1, 1)));
        assert_eq!(bits_of(&asked, 0x4000, 0x1000), None);
        assert_eq!(bits_of(&asked, 0x7000, 0x1000), None);
        assert_eq!(bits_of(&asked, 0x5000, 0), None);
        assert_eq!(bits_of(&request(0, 0, 0x1000), 0, 0x1000), None);
        let end = request(u64::MAX - 0x1fff, 0x1fff, 0x1000);
        assert_eq!(bits_of(&end, u64::MAX - 0xfff, 0x1000), Some((1, 1)));
    }

    #[test]
    fn words_share_out_the_bits() {
        for first in 0..200 {
            for last in first..200 {
                let mut count = 0;
                for word in first / 64..=last / 64 {
                    let mask = mask(word, first, last);
                    count += u64::from(mask.count_ones());
                    assert!(64 * word + u64::from(mask.trailing_zeros()) >= first);
                    assert!(64 * word + 63 - u64::from(mask.leading_zeros()) <= last);
                }
                assert_eq!(count, last - first + 1);
            }
        }
    }
}
