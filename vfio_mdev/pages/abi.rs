// SPDX-License-Identifier: GPL-2.0

//! Pinned pages of the memory of a process.
//!
//! A driver may keep [`GuestPages`] for any time. The pages are unpinned at the latest when the
//! process unmaps them or closes the device. From then on accesses fail.

use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    ffi::{
        c_int,
        c_void, //
    },
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};
use kernel_ext::{
    bindings,
    iova::Range,
    vec_slot::VecSlot, //
};

use crate::{
    dma_logging::DmaLogging,
    memory::{
        Sealed,
        Store, //
    }, //
};

/// The functions of `vfio.ko` with which an open device pins pages, see
/// [`requests`](crate::driver::requests).
pub(crate) struct PinCalls {
    pub(crate) pin: unsafe extern "C" fn(
        *mut bindings::vfio_device,
        bindings::dma_addr_t,
        c_int,
        c_int,
        *mut *mut bindings::page,
    ) -> c_int,
    pub(crate) unpin: unsafe extern "C" fn(*mut bindings::vfio_device, bindings::dma_addr_t, c_int),
}

/// The maximum number of pages that one call can pin.
pub const MAX_PAGES: usize = PAGE_SIZE / core::mem::size_of::<usize>();

/// How a device accesses pages of the memory of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestAccess {
    /// The device reads the pages.
    Read,
    /// The device writes the pages.
    Write,
    /// The device reads and writes the pages.
    ReadWrite,
}

impl GuestAccess {
    fn as_raw(self) -> c_int {
        let prot = match self {
            Self::Read => bindings::IOMMU_READ,
            Self::Write => bindings::IOMMU_WRITE,
            Self::ReadWrite => bindings::IOMMU_READ | bindings::IOMMU_WRITE,
        };
        prot as c_int
    }
}

/// All pinned pages of a device, and the log of its writes.
#[pin_data]
pub(crate) struct Pins {
    calls: &'static PinCalls,
    device: *mut bindings::vfio_device,
    /// Held while pages are being pinned, so that an unmap finds them in the list. The unmap
    /// callback takes this lock, too.
    #[pin]
    list: Mutex<KVVec<Arc<PinnedRange>>>,
    /// The log of the device's writes, both to pinned pages and with `dma_write`.
    #[pin]
    pub(crate) log: DmaLogging,
}

// SAFETY: The pointer is only used while the device is open, for calls that any thread may make.
unsafe impl Send for Pins {}
// SAFETY: As above.
unsafe impl Sync for Pins {}

/// Pages that were pinned by one call.
#[pin_data]
struct PinnedRange {
    iovas: Range,
    count: usize,
    access: GuestAccess,
    /// `None` once the pages are unpinned. Held during a copy.
    #[pin]
    pages: Mutex<Option<Pages>>,
}

/// Pinned pages.
///
/// # Invariants
///
/// Each pointer is valid, and its page is pinned for the device.
struct Pages(KVec<*mut bindings::page>);

// SAFETY: Pinned pages do not belong to a thread.
unsafe impl Send for Pages {}

impl Pins {
    /// # Safety
    ///
    /// `device` is valid whenever the device is open.
    pub(crate) unsafe fn new(
        calls: &'static PinCalls,
        device: *mut bindings::vfio_device,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                calls,
                device,
                list <- new_mutex!(KVVec::new(), "vfio_mdev::Pins::list"),
                log <- DmaLogging::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Pins `count` pages at `iova`. Charges what it allocates to the active memory cgroup.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an unaligned address or no pages, `E2BIG` for more than [`MAX_PAGES`],
    /// `EOVERFLOW` past the last address, `EFAULT` if not all pages can be pinned, `ENOMEM`, and
    /// the errors of the IOMMU backend.
    ///
    /// # Safety
    ///
    /// The device is open, and stays open during the call.
    pub(crate) unsafe fn pin(
        self: &Arc<Self>,
        iova: u64,
        count: usize,
        access: GuestAccess,
    ) -> Result<GuestPages> {
        if iova % PAGE_SIZE as u64 != 0 || count == 0 {
            return Err(EINVAL);
        }
        if count > MAX_PAGES {
            return Err(E2BIG);
        }
        let iovas = Range::of_size(iova, count as u64 * PAGE_SIZE as u64)?;
        let mut pages = KVec::from_elem(core::ptr::null_mut(), count, GFP_KERNEL_ACCOUNT)?;
        let pin = Arc::pin_init(
            pin_init!(PinnedRange {
                iovas,
                count,
                access,
                pages <- new_mutex!(None, "vfio_mdev::PinnedRange::pages"),
            }),
            GFP_KERNEL_ACCOUNT,
        )?;
        let mut list = self.list.lock();
        let slot = VecSlot::new(&mut list, GFP_KERNEL_ACCOUNT)?;
        // SAFETY: By this function's contract. `pages` has room for `count` pointers.
        let pinned = unsafe {
            (self.calls.pin)(
                self.device,
                iova,
                count as c_int,
                access.as_raw(),
                pages.as_mut_ptr(),
            )
        };
        if pinned < 0 {
            return Err(Error::from_errno(pinned));
        }
        if (pinned as usize) < count {
            // SAFETY: As above. `pinned` pages were pinned.
            unsafe { (self.calls.unpin)(self.device, iova, pinned) };
            return Err(EFAULT);
        }
        // INVARIANT: All pages were pinned.
        *pin.pages.lock() = Some(Pages(pages));
        slot.fill(pin.clone());
        Ok(GuestPages {
            pins: self.clone(),
            pin,
        })
    }

    /// Unpins all entries that have a page in `iovas`. Waits for copies to finish.
    ///
    /// # Safety
    ///
    /// The device is open.
    pub(crate) unsafe fn revoke(&self, iovas: Range) {
        let mut list = self.list.lock();
        list.retain(|pin| {
            let hit = pin.iovas.overlaps(iovas);
            if hit {
                // SAFETY: By this function's contract.
                unsafe { self.unpin(pin) };
            }
            !hit
        });
        free_if_empty(&mut list);
    }

    /// # Safety
    ///
    /// If the pages are pinned, the device is open.
    unsafe fn unpin(&self, pin: &PinnedRange) {
        let pages = pin.pages.lock().take();
        if pages.is_some() {
            // SAFETY: By this function's contract.
            unsafe { (self.calls.unpin)(self.device, pin.iovas.start, pin.count as c_int) };
        }
    }
}

/// Frees the memory of a list without entries, which is charged to the process that has added them.
fn free_if_empty(list: &mut KVVec<Arc<PinnedRange>>) {
    if list.is_empty() {
        *list = KVVec::new();
    }
}

/// Pages of the memory of a process. They stay pinned until this value is dropped, the process
/// unmaps them or closes the device.
pub struct GuestPages {
    pins: Arc<Pins>,
    pin: Arc<PinnedRange>,
}

impl GuestPages {
    /// Returns the size in bytes.
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.pin.count * PAGE_SIZE
    }

    /// Returns the I/O virtual address of the first page.
    pub fn iova(&self) -> u64 {
        self.pin.iovas.start
    }

    /// Reads bytes from the pages.
    ///
    /// # Errors
    ///
    /// `EACCES` for pages that were pinned for writing only, `EINVAL` beyond the end, `ENODEV` if
    /// the pages have been unpinned.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result {
        // SAFETY: The slice can be written.
        unsafe { self.get(offset, to.as_mut_ptr().cast(), to.len()) }
    }

    /// Writes bytes to the pages.
    ///
    /// # Errors
    ///
    /// `EACCES` for pages that were pinned for reading only, `EINVAL` beyond the end, `ENODEV` if
    /// the pages have been unpinned.
    pub fn write(&self, offset: usize, from: &[u8]) -> Result {
        // SAFETY: The slice can be read.
        unsafe { self.put(offset, from.as_ptr().cast(), from.len()) }
    }

    /// Calls `f` for each part of the range that lies in one page. The arguments are the page, the
    /// offset in the page, the offset in the range and the number of bytes. The pages stay pinned
    /// as long as the result exists.
    fn pieces(
        &self,
        offset: usize,
        len: usize,
        mut f: impl FnMut(*mut bindings::page, usize, usize, usize),
    ) -> Result<impl Sized + '_> {
        if offset > self.len() || len > self.len() - offset {
            return Err(EINVAL);
        }
        let guard = self.pin.pages.lock();
        let pages = guard.as_ref().ok_or(ENODEV)?;
        let mut done = 0;
        while done < len {
            let (index, within) = ((offset + done) / PAGE_SIZE, (offset + done) % PAGE_SIZE);
            let size = (PAGE_SIZE - within).min(len - done);
            f(pages.0[index], within, done, size);
            done += size;
        }
        Ok(guard)
    }
}

impl Drop for GuestPages {
    fn drop(&mut self) {
        let mut list = self.pins.list.lock();
        list.retain(|pin| !Arc::ptr_eq(pin, &self.pin));
        free_if_empty(&mut list);
        // SAFETY: Closing the device unpins all pages. So if these pages are pinned, the device is
        // open.
        unsafe { self.pins.unpin(&self.pin) };
    }
}

impl Sealed for GuestPages {}

// SAFETY: `direct` never returns an address.
unsafe impl Store for GuestPages {
    fn direct(&self, _offset: usize, _len: usize) -> Option<Result<*mut c_void>> {
        None
    }

    unsafe fn get(&self, offset: usize, to: *mut c_void, len: usize) -> Result {
        if self.pin.access == GuestAccess::Write {
            return Err(EACCES);
        }
        self.pieces(offset, len, |page, within, done, size| {
            // SAFETY: The page stays pinned while the lock is held. `to` has room by the function's
            // contract.
            unsafe {
                bindings::kernel_ext_copy_from_page(to.wrapping_byte_add(done), page, within, size)
            }
        })
        .map(drop)
    }

    unsafe fn put(&self, offset: usize, from: *const c_void, len: usize) -> Result {
        if self.pin.access == GuestAccess::Read {
            return Err(EACCES);
        }
        let _pinned = self.pieces(offset, len, |page, within, done, size| {
            // SAFETY: The page stays pinned for writing while the lock is held. `from` has enough
            // bytes by the function's contract.
            unsafe {
                bindings::kernel_ext_copy_to_page(page, within, from.wrapping_byte_add(done), size)
            }
        })?;
        // Log the write while the pages are pinned, so that it goes to the log of this user. If
        // `offset` is the end of the pages, `len` is 0 and the address may not exist.
        let iova = self.pin.iovas.start.saturating_add(offset as u64);
        self.pins.log.wrote(iova, len);
        Ok(())
    }
}
