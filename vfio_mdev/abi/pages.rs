// SPDX-License-Identifier: GPL-2.0

//! Pages of a program's memory, pinned for a device.
//!
//! A driver may keep [`GuestPages`] for as long as it likes. They are unpinned at the latest when the
//! program unmaps them or closes the device; from then on accesses fail.

use iommu_group::ranges::Range;
use kernel::{
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
use kernel_ext::bindings;

use super::{
    store::{
        Sealed,
        Store, //
    },
    vfio::DmaCalls, //
};
use crate::dma_log::DmaLog;

/// The most pages that can be pinned at once.
pub const MAX_PAGES: usize = PAGE_SIZE / core::mem::size_of::<usize>();

/// What a device does with pages of its program's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestAccess {
    /// It reads them.
    Read,
    /// It writes them.
    Write,
    /// It reads and writes them.
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

/// All that is pinned for a device, and the log of what it wrote.
#[pin_data]
pub(super) struct Pins {
    calls: &'static DmaCalls,
    device: *mut bindings::vfio_device,
    /// Held while pages are pinned, so that an unmap finds them here. The callback of an unmap takes
    /// it too.
    #[pin]
    list: Mutex<KVec<Arc<PinnedRange>>>,
    /// What the device writes to the pages, and otherwise to the program's memory.
    #[pin]
    pub(super) log: DmaLog,
}

// SAFETY: The pointer is only used while the device is open, for calls that any task may make.
unsafe impl Send for Pins {}
// SAFETY: As above.
unsafe impl Sync for Pins {}

/// Pages that were pinned at once.
#[pin_data]
struct PinnedRange {
    iovas: Range,
    count: usize,
    access: GuestAccess,
    /// `None` once they are unpinned. Held for the time of a copy.
    #[pin]
    pages: Mutex<Option<Pages>>,
}

/// Pinned pages.
///
/// # Invariants
///
/// Each is valid and pinned for the device.
struct Pages(KVec<*mut bindings::page>);

// SAFETY: Pinned pages belong to no task.
unsafe impl Send for Pages {}

impl Pins {
    /// # Safety
    ///
    /// `device` is valid whenever it is open.
    pub(super) unsafe fn new(
        calls: &'static DmaCalls,
        device: *mut bindings::vfio_device,
    ) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                calls,
                device,
                list <- new_mutex!(KVec::new(), "vfio_mdev::Pins::list"),
                log <- DmaLog::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// Pins `count` pages from `iova` on.
    ///
    /// # Errors
    ///
    /// `EINVAL` for an address that isn't page aligned or no pages, `E2BIG` for more than
    /// [`MAX_PAGES`], `EOVERFLOW` past the last address, `EFAULT` if not all can be pinned, and the
    /// backend's.
    ///
    /// # Safety
    ///
    /// The device is open, and stays so during the call.
    pub(super) unsafe fn pin(
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
        let iovas = Range::of_size(iova, (count * PAGE_SIZE) as u64)?;
        let mut pages = KVec::from_elem(core::ptr::null_mut(), count, GFP_KERNEL)?;
        let pin = Arc::pin_init(
            pin_init!(PinnedRange {
                iovas,
                count,
                access,
                pages <- new_mutex!(None, "vfio_mdev::Pin::pages"),
            }),
            GFP_KERNEL,
        )?;
        let mut list = self.list.lock();
        list.reserve(1, GFP_KERNEL)?;
        // SAFETY: By this function's contract; there is room for `count` pointers.
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
            // SAFETY: As above; so many were pinned.
            unsafe { (self.calls.unpin)(self.device, iova, pinned) };
            return Err(EFAULT);
        }
        // INVARIANT: All were pinned.
        *pin.pages.lock() = Some(Pages(pages));
        list.push(pin.clone(), GFP_KERNEL)?;
        Ok(GuestPages {
            pins: self.clone(),
            pin,
        })
    }

    /// Unpins what has a page among `iovas`. Waits for copies.
    ///
    /// # Safety
    ///
    /// The device is open.
    pub(super) unsafe fn revoke(&self, iovas: Range) {
        let mut list = self.list.lock();
        list.retain(|pin| {
            let hit = pin.iovas.overlaps(iovas);
            if hit {
                // SAFETY: By this function's contract.
                unsafe { self.unpin(pin) };
            }
            !hit
        });
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

/// Pages of a program's memory, which are pinned until this is dropped, the program unmaps them or
/// closes the device.
pub struct GuestPages {
    pins: Arc<Pins>,
    pin: Arc<PinnedRange>,
}

impl GuestPages {
    /// How many bytes there are.
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.pin.count * PAGE_SIZE
    }

    /// The address of the first page in the program's address space for devices.
    pub fn iova(&self) -> u64 {
        self.pin.iovas.start
    }

    /// Copies bytes out.
    ///
    /// # Errors
    ///
    /// `EACCES` if they were pinned to be written only, `EINVAL` beyond the end, `ENODEV` if the pages were unpinned.
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Result {
        // SAFETY: The slice can be written.
        unsafe { self.get(offset, to.as_mut_ptr().cast(), to.len()) }
    }

    /// Copies bytes in.
    ///
    /// # Errors
    ///
    /// `EACCES` if they were pinned to be read only, `EINVAL` beyond the end, `ENODEV` if the pages were
    /// unpinned.
    pub fn write(&self, offset: usize, from: &[u8]) -> Result {
        // SAFETY: The slice can be read.
        unsafe { self.put(offset, from.as_ptr().cast(), from.len()) }
    }

    /// Calls `f` for each piece of the range that is in one page: with the page, the offset in it, and
    /// how far in the range how many bytes are. The pages stay pinned as long as the result lives.
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
        // SAFETY: Closing a device unpins all; so if these pages are pinned, it is open.
        unsafe { self.pins.unpin(&self.pin) };
    }
}

impl Sealed for GuestPages {}

// SAFETY: There is no direct address.
unsafe impl Store for GuestPages {
    fn direct(&self, _offset: usize, _len: usize) -> Option<Result<*mut c_void>> {
        None
    }

    unsafe fn get(&self, offset: usize, to: *mut c_void, len: usize) -> Result {
        if self.pin.access == GuestAccess::Write {
            return Err(EACCES);
        }
        self.pieces(offset, len, |page, within, done, size| {
            // SAFETY: The page is pinned while the lock is held; `to` has room by contract.
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
            // SAFETY: The page is pinned for writing while the lock is held; `from` is as long.
            unsafe {
                bindings::kernel_ext_copy_to_page(page, within, from.wrapping_byte_add(done), size)
            }
        })?;
        // While they are pinned, so that it is the log of this user. At the end there are no bytes, and there may be no address.
        let iova = self.pin.iovas.start.saturating_add(offset as u64);
        self.pins.log.wrote(iova, len);
        Ok(())
    }
}
