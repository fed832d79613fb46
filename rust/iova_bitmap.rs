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
    marker::PhantomData, //
};

use kernel::{
    error::to_result,
    ffi::{
        c_int,
        c_ulong, //
    },
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

use crate::{
    bindings,
    compat::EOPNOTSUPP,
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

/// Checks that the user's bitmap can be written.
///
/// # Errors
///
/// `EFAULT`; `EINTR` if the task is being killed.
fn check_writable(request: &Request) -> Result {
    /// Number of bytes that are checked at a time.
    const CHUNK: u64 = 16 << 20;
    let bits = request.length.div_ceil(request.page_size);
    let bytes = bits.div_ceil(64) * 8;
    let mut done = 0;
    while done < bytes {
        let size = CHUNK.min(bytes - done) as usize;
        let address = request.bitmap.wrapping_byte_add(done as usize);
        // SAFETY: The function checks the address.
        if unsafe { bindings::kernel_ext_fault_in_writeable(address.as_const_ptr().cast(), size) }
            != 0
        {
            return Err(if fatal_signal_pending() {
                EINTR
            } else {
                EFAULT
            });
        }
        cond_resched();
        done += size as u64;
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
/// The pointer is to the kernel's bitmap where the kernel has them, otherwise to an [`Own`]. It is
/// valid for `'a`, and nothing else uses it.
pub struct IovaBitmap<'a>(*mut bindings::iova_bitmap, PhantomData<&'a mut Own>);

impl IovaBitmap<'_> {
    /// # Safety
    ///
    /// `bitmap` was passed to the driver's `log_read_and_clear`, which doesn't return during `'a`.
    pub unsafe fn from_raw(bitmap: *mut bindings::iova_bitmap) -> Self {
        if !KERNELS {
            // SAFETY: By this function's contract. On such a kernel only this project's core calls
            // drivers, and it does so from `report`.
            unsafe { (*bitmap.cast::<Own>()).seen = true };
        }
        // INVARIANT: As above.
        Self(bitmap, PhantomData)
    }

    /// Sets the bits of all pages that overlap the `length` bytes starting at `iova`. Pages that
    /// were not requested are ignored.
    ///
    /// # Errors
    ///
    /// `EFAULT` if the user bitmap can't be written; `EINTR` if the process is being killed.
    pub fn set(&mut self, iova: u64, length: u64) -> Result {
        if KERNELS {
            // SAFETY: By the type invariant; the callee checks the range.
            unsafe {
                bindings::kernel_ext_iova_bitmap_set(self.0, iova as c_ulong, length as usize)
            };
            return Ok(());
        }
        // SAFETY: By the type invariant.
        unsafe { &*self.0.cast::<Own>() }.set(iova, length)
    }
}

/// The bitmap of this project.
struct Own {
    request: Request,
    /// Whether a driver recognised it.
    seen: bool,
}

impl Own {
    fn set(&self, iova: u64, length: u64) -> Result {
        let Some((first, last)) = bits(&self.request, iova, length) else {
            return Ok(());
        };
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

/// Returns the first and the last bit for `length` bytes starting at `iova`, limited to the
/// requested range.
fn bits(request: &Request, iova: u64, length: u64) -> Option<(u64, u64)> {
    let first = iova.max(request.iova);
    let last = iova
        .saturating_add(length)
        .min(request.iova + request.length)
        .checked_sub(1)?;
    (length > 0 && first <= last).then(|| {
        let shift = request.page_size.trailing_zeros();
        let bit = |iova: u64| (iova - request.iova) >> shift;
        (bit(first), bit(last))
    })
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

    #[test]
    fn bits_count_from_the_first_address() {
        let asked = request(0x5000, 0x10000, 0x1000);
        assert_eq!(bits(&asked, 0x5000, 1), Some((0, 0)));
        assert_eq!(bits(&asked, 0x5fff, 2), Some((0, 1)));
        assert_eq!(bits(&asked, 0x6000, 0x2000), Some((1, 2)));
        // The first address need not be a multiple of the page size.
        let asked = request(0x5000, 0x10000, 0x4000);
        assert_eq!(bits(&asked, 0x8000, 0x1000), Some((0, 0)));
        assert_eq!(bits(&asked, 0x9000, 0x1000), Some((1, 1)));
    }

    #[test]
    fn what_was_not_asked_for_is_left_out() {
        let asked = request(0x5000, 0x2000, 0x1000);
        assert_eq!(bits(&asked, 0, u64::MAX), Some((0, 1)));
        assert_eq!(bits(&asked, 0x4000, 0x1000), None);
        assert_eq!(bits(&asked, 0x7000, 0x1000), None);
        assert_eq!(bits(&asked, 0x5000, 0), None);
        assert_eq!(bits(&request(0, 0, 0x1000), 0, 0x1000), None);
        let end = request(u64::MAX - 0x1fff, 0x1fff, 0x1000);
        assert_eq!(bits(&end, u64::MAX - 0xfff, 0x1000), Some((1, 1)));
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
