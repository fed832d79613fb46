// SPDX-License-Identifier: GPL-2.0

//! Access of drivers to the memory that userspace mapped in an iommufd.

use core::{
    marker::PhantomData,
    ptr::NonNull, //
};

use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    ffi::{
        c_uint,
        c_ulong,
        c_void, //
    },
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::Mutex, //
};

use super::Context;
use crate::bindings;

/// What a driver does when userspace unmaps memory.
pub trait Unmap: 'static {
    /// The C structure of a device.
    type Device;

    /// Called when `size` bytes at `iova` are about to be unmapped. When it returns, the driver has
    /// unpinned its pages in this range.
    ///
    /// # Safety
    ///
    /// `device` is the argument of [`Access::new`], whose contract keeps it valid.
    unsafe fn unmap(device: NonNull<Self::Device>, iova: u64, size: u64);
}

/// The access of a driver to the memory that is mapped in an address space of an iommufd. Dropping
/// it destroys it.
///
/// # Invariants
///
/// `raw` is the object of this access. It exists until [`destroy`](Access::destroy) was called.
#[pin_data(PinnedDrop)]
pub struct Access<T: Unmap> {
    id: u32,
    raw: NonNull<bindings::iommufd_access>,
    #[pin]
    state: Mutex<State>,
    driver: PhantomData<fn(T)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Detached,
    Attached,
    Destroyed,
}

// SAFETY: The object is not tied to a thread.
unsafe impl<T: Unmap> Send for Access<T> {}
// SAFETY: IOMMUFD locks what its functions change.
unsafe impl<T: Unmap> Sync for Access<T> {}

/// The bit field `needs_pin_pages`, set.
const NEEDS_PIN_PAGES: u8 = if cfg!(target_endian = "big") { 0x80 } else { 1 };

impl<T: Unmap> Access<T> {
    const OPS: &'static bindings::iommufd_access_ops = &bindings::iommufd_access_ops {
        _bitfield_align_1: [],
        _bitfield_1: bindings::__BindgenBitfieldUnit::new([NEEDS_PIN_PAGES]),
        unmap: Some(unmap_callback::<T>),
    };

    /// Creates an access of the driver of `device` to `context`, which is not attached yet.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Safety
    ///
    /// `device` may be passed to [`Unmap::unmap`] until [`destroy`](Self::destroy) returns, in any
    /// thread. If a call of `unmap` takes more than a minute, IOMMUFD gives up waiting for it in
    /// `destroy`, and logs a warning; `device` must then stay valid until that call returns.
    pub unsafe fn new(context: &Context, device: NonNull<T::Device>) -> Result<Pin<KBox<Self>>> {
        let mut id = 0;
        KBox::try_pin_init(
            try_pin_init!(Self {
                state <- new_mutex!(State::Detached, "iommufd::Access::state"),
                raw: {
                    // SAFETY: All pointers are valid. This function's contract keeps `device`.
                    let raw = unsafe {
                        bindings::iommufd_access_create(
                            context.as_ptr(),
                            Self::OPS,
                            device.as_ptr().cast(),
                            &mut id,
                        )
                    };
                    // INVARIANT: The object was just created, and nothing below fails.
                    NonNull::new(from_err_ptr(raw)?).ok_or(EINVAL)?
                },
                id: id,
                driver: PhantomData,
            }? Error),
            GFP_KERNEL,
        )
    }

    /// Returns the id of the object.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Attaches the access to the address space `ioas`, in place of the one that it is attached to.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such address space; `ENOMEM`; `EINVAL` after
    /// [`destroy`](Self::destroy). On error nothing changes.
    pub fn attach(&self, ioas: u32) -> Result {
        let mut state = self.state.lock();
        let raw = self.raw.as_ptr();
        to_result(match *state {
            // SAFETY: By the type invariant.
            State::Attached => unsafe { bindings::iommufd_access_replace(raw, ioas) },
            // SAFETY: By the type invariant.
            State::Detached => unsafe { bindings::iommufd_access_attach(raw, ioas) },
            State::Destroyed => return Err(EINVAL),
        })?;
        *state = State::Attached;
        Ok(())
    }

    /// Detaches the access, if it is attached.
    pub fn detach(&self) {
        let mut state = self.state.lock();
        if *state == State::Attached {
            // SAFETY: By the type invariant.
            unsafe { bindings::iommufd_access_detach(self.raw.as_ptr()) };
            *state = State::Detached;
        }
    }

    /// Detaches the access and destroys its object. Calls [`Unmap::unmap`] for all memory, and
    /// waits for calls that other threads make; the driver may unpin its pages in these calls. See
    /// [`new`](Self::new) for calls that take more than a minute.
    pub fn destroy(&self) {
        let mut state = self.state.lock();
        if *state != State::Destroyed {
            // SAFETY: By the type invariant. This is the only call.
            unsafe { bindings::iommufd_access_destroy(self.raw.as_ptr()) };
            *state = State::Destroyed;
        }
    }

    /// Pins `count` pages from the one at `iova` on, and stores them in `pages`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `count` is zero or too large; `ENOENT` if the range is not mapped, or the access
    /// is not attached; `EPERM` if it is mapped without the permission to write, and `write` is
    /// set; `EFAULT` if it has no memory; `ENOMEM`.
    ///
    /// # Safety
    ///
    /// `pages` has room for `count` pointers. No call of [`destroy`](Self::destroy) returns before
    /// this does.
    pub unsafe fn pin_pages(
        &self,
        iova: u64,
        count: usize,
        pages: *mut *mut bindings::page,
        write: bool,
    ) -> Result {
        let (start, size) = page_range(iova, count)?;
        let flags = if write {
            bindings::IOMMUFD_ACCESS_RW_WRITE
        } else {
            bindings::IOMMUFD_ACCESS_RW_READ
        };
        // SAFETY: By the type invariant and this function's contract.
        to_result(unsafe {
            bindings::iommufd_access_pin_pages(self.raw.as_ptr(), start, size, pages, flags)
        })
    }

    /// Unpins `count` pages from the one at `iova` on.
    ///
    /// # Errors
    ///
    /// `EINVAL` if `count` is zero or too large.
    ///
    /// # Safety
    ///
    /// The caller pinned this range by one call, and does not use the pages any more. No call of
    /// [`destroy`](Self::destroy) returns before this does.
    pub unsafe fn unpin_pages(&self, iova: u64, count: usize) -> Result {
        let (start, size) = page_range(iova, count)?;
        // SAFETY: By the type invariant and this function's contract.
        unsafe { bindings::iommufd_access_unpin_pages(self.raw.as_ptr(), start, size) };
        Ok(())
    }

    /// Copies `size` bytes between `data` and the memory that is mapped at `iova`. Kernel threads
    /// use the address space of the process that mapped it.
    ///
    /// # Errors
    ///
    /// `ENOENT` if the range is not mapped, or the access is not attached; `EPERM` if it is mapped
    /// without the permission to write, and `write` is set; `EINVAL`; `EFAULT`; `ENOMEM`.
    ///
    /// # Safety
    ///
    /// `data` is a kernel buffer of `size` bytes. It is read if `write` is true, and written
    /// otherwise. No call of [`destroy`](Self::destroy) returns before this does.
    pub unsafe fn copy(&self, iova: u64, data: *mut c_void, size: usize, write: bool) -> Result {
        let mut flags: c_uint = bindings::IOMMUFD_ACCESS_RW_READ;
        if current!().mm().is_none() {
            flags |= bindings::IOMMUFD_ACCESS_RW_KTHREAD;
        }
        if write {
            flags |= bindings::IOMMUFD_ACCESS_RW_WRITE;
        }
        let iova = c_ulong::try_from(iova).map_err(|_| EINVAL)?;
        // SAFETY: By the type invariant and this function's contract.
        to_result(unsafe {
            bindings::iommufd_access_rw(self.raw.as_ptr(), iova, data, size, flags)
        })
    }
}

/// Returns the first byte and the size of `count` pages from the one at `iova` on.
fn page_range(iova: u64, count: usize) -> Result<(c_ulong, c_ulong)> {
    let iova = c_ulong::try_from(iova).map_err(|_| EINVAL)?;
    let size = count.checked_mul(PAGE_SIZE).ok_or(EINVAL)?;
    if size == 0 {
        return Err(EINVAL);
    }
    Ok((iova & !(PAGE_SIZE - 1), size))
}

/// # Safety
///
/// Only IOMMUFD calls this function, with the device of an [`Access<T>`].
unsafe extern "C" fn unmap_callback<T: Unmap>(data: *mut c_void, iova: c_ulong, size: c_ulong) {
    if let Some(device) = NonNull::new(data.cast()) {
        // SAFETY: By this function's contract.
        unsafe { T::unmap(device, iova as u64, size as u64) }
    }
}

#[pinned_drop]
impl<T: Unmap> PinnedDrop for Access<T> {
    fn drop(self: Pin<&mut Self>) {
        self.destroy();
    }
}
