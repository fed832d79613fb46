// SPDX-License-Identifier: GPL-2.0

//! A driver's device together with its `struct vfio_device`.
//!
//! Only generic code calls the functions of `vfio.ko`, see [`requests`].

use core::{
    mem::MaybeUninit,
    ops::Deref,
    ptr::NonNull,
    sync::atomic::{
        AtomicBool,
        Ordering, //
    }, //
};

use kernel::{
    device::Device as BusDevice,
    error::{
        from_err_ptr,
        to_result, //
    },
    prelude::*,
    sync::{
        aref::{
            ARef,
            AlwaysRefCounted, //
        },
        Arc, //
    },
    types::Opaque, //
};
use kernel_ext::{
    bindings,
    iova::Range,
    rwsem::ReadGuard, //
};

use super::{
    Content,
    Session, //
};
use crate::{
    dma_logging::{
        self,
        LogOps, //
    },
    driver::{
        requests::{
            self,
            Ops, //
        },
        Device,
        Share,
        Type,
        TypeOf, //
    },
    migration::{
        Machine,
        MigrationOps, //
    },
    pages::{
        GuestAccess,
        GuestPages,
        PinCalls,
        Pins, //
    },
    peers::{
        DriverKey,
        MoveDevice,
        PeerOf, //
    },
    uuid::Uuid, //
};

/// A driver's device together with the data that the bus keeps for it.
///
/// It dereferences to `D`; [`ARef`] counts references to it. The `D` is dropped with the last
/// reference, which may be after the device was removed. Then only the holders of references can
/// access it.
///
/// # Invariants
///
/// It begins with a `struct vfio_device` that `_vfio_alloc_device()` returned, and `content` is
/// initialised.
#[repr(C)]
pub struct Instance<D: Device> {
    vfio: Opaque<bindings::vfio_device>,
    /// Whether `content` must be dropped.
    ready: AtomicBool,
    content: MaybeUninit<Content<D>>,
}

// SAFETY: VFIO synchronises access to the C part. Any thread may use the rest.
unsafe impl<D: Device> Send for Instance<D> {}
// SAFETY: As above.
unsafe impl<D: Device> Sync for Instance<D> {}

// SAFETY: The functions count references to the `struct device`, whose release function frees the
// rest.
unsafe impl<D: Device> AlwaysRefCounted for Instance<D> {
    fn inc_ref(&self) {
        // SAFETY: A shared reference implies a non-zero reference count.
        unsafe { bindings::get_device(&raw mut (*self.as_ptr()).device) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        let device: *mut bindings::vfio_device = obj.cast().as_ptr();
        // SAFETY: By this function's contract.
        unsafe { bindings::put_device(&raw mut (*device).device) };
    }
}

impl<D: Device> Deref for Instance<D> {
    type Target = D;

    fn deref(&self) -> &D {
        &self.content().device
    }
}

impl<D: Device> Instance<D> {
    /// # Safety
    ///
    /// `device` is the `struct vfio_device` of an `Instance<D>`, and stays allocated for all of
    /// `'a`.
    pub(crate) unsafe fn from_raw<'a>(device: *mut bindings::vfio_device) -> &'a Self {
        // SAFETY: By this function's contract.
        unsafe { &*device.cast() }
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::vfio_device {
        self.vfio.get()
    }

    pub(super) fn content(&self) -> &Content<D> {
        // SAFETY: By the type invariant.
        unsafe { self.content.assume_init_ref() }
    }

    /// The functions with which an open device pins pages.
    const PIN_CALLS: &'static PinCalls = &PinCalls {
        pin: bindings::vfio_pin_pages,
        unpin: bindings::vfio_unpin_pages,
    };

    /// Keeps the device open while the result exists.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is not open.
    pub(super) fn while_open(&self) -> Result<OpenInstance<'_, D>> {
        let session = self.content().session.read();
        if session.payer.is_none() {
            return Err(ENODEV);
        }
        // INVARIANT: The session is locked, and was checked above.
        Ok(OpenInstance {
            instance: self,
            session,
        })
    }

    /// Unpins the pages in a range.
    pub(crate) fn unpin(&self, iovas: Range) {
        // SAFETY: Pages are pinned only while the device is open: `end_session` unpins all of them
        // while the core still counts the device as open.
        unsafe { self.content().pins.revoke(iovas) };
    }

    /// Allocates an instance for a new device of the bus, which is not visible yet. `move_device` is
    /// `None` if the `vfio.ko` in use is not that of this project.
    ///
    /// # Errors
    ///
    /// The driver's errors, `ENOMEM`.
    ///
    /// # Safety
    ///
    /// `dev` is a device of the bus `mdev` that is being bound.
    pub(crate) unsafe fn new(
        dev: *mut bindings::device,
        uuid: Uuid,
        ty: &'static TypeOf<D>,
        share: Share<D::Parent>,
        move_device: Option<&Arc<MoveDevice>>,
    ) -> Result<ARef<Self>> {
        // SAFETY: By this function's contract the device has a driver.
        let driver = DriverKey(unsafe { (*dev).driver } as usize);
        const {
            // The alignment that `kvzalloc()` guarantees.
            assert!(core::mem::align_of::<Self>() <= core::mem::align_of::<u64>());
        }
        let size = core::mem::size_of::<Self>();
        // SAFETY: By this function's contract; the table is static.
        let raw = unsafe { bindings::_vfio_alloc_device(size, dev, Ops::<D>::TABLE) };
        let raw = from_err_ptr(raw)?;
        // SAFETY: `from_err_ptr` excludes error pointers, and the function returns no null pointer.
        let this = unsafe { NonNull::new_unchecked(raw).cast::<Self>() };
        // SAFETY: The function returned a counted reference. `release` checks `ready`, which is
        // zero, before it drops anything.
        let this = unsafe { ARef::from_raw(this) };
        // SAFETY: A valid device of the bus; the reference is counted.
        let dev: ARef<BusDevice> = unsafe { BusDevice::get_device(dev) };
        // SAFETY: These are the functions of this device's core. The device exists whenever it is
        // open.
        let pins = unsafe { Pins::new(Self::PIN_CALLS, raw) }?;
        let peer = match move_device.filter(|_| ty.peer_to_peer()) {
            Some(move_device) => {
                // SAFETY: `dev` is the device of this instance, and is bound to the driver. The
                // instance exists until `remove_callback` has removed the peer from its group.
                let peer = unsafe { PeerOf::new(&dev, driver, &this, move_device.clone()) };
                Some(peer?)
            }
            None => None,
        };
        let parent = share.parent().clone();
        let create = D::create(&parent, ty, uuid);
        let content = try_pin_init!(Content {
            device <- create,
            uuid,
            ty,
            share,
            session <- Session::new(),
            pins,
            machine <- Machine::new(),
            vectors: requests::all_vectors::<D>(&device)?,
            peer,
            dev,
        }? Error);
        let slot = this.content.as_ptr().cast_mut();
        // SAFETY: No other reference to the memory exists, and it does not move until it is dropped
        // in place.
        unsafe { pin_init::raw_try_init(slot, content) }?;
        // INVARIANT: `content` was just initialised.
        this.ready.store(true, Ordering::Relaxed);
        if dma_logging::can_be_reported(move_device.is_some()) {
            // SAFETY: The device is not visible yet, and the table is static.
            unsafe { (*raw).log_ops = LogOps::<D>::TABLE };
        }
        if D::MIGRATION.is_some() {
            // SAFETY: As above.
            unsafe {
                (*raw).migration_flags = MigrationOps::<D>::FLAGS;
                (*raw).mig_ops = MigrationOps::<D>::TABLE;
            }
        }
        Ok(this)
    }

    /// Drops the driver's and the bus's data. VFIO frees the memory.
    ///
    /// # Safety
    ///
    /// `this` is an instance, possibly one whose initialisation failed. No reference to it exists
    /// any more.
    pub(crate) unsafe fn release(this: *mut Self) {
        // SAFETY: By this function's contract. Zeroed memory is a valid `ready`.
        unsafe {
            if *(*this).ready.get_mut() {
                (*this).content.assume_init_drop();
            }
        }
    }
}

/// A device that stays open as long as this value exists.
///
/// # Invariants
///
/// The device's session is locked for reading, and open.
pub(super) struct OpenInstance<'a, D: Device> {
    instance: &'a Instance<D>,
    session: ReadGuard<'a, Session>,
}

impl<D: Device> OpenInstance<'_, D> {
    /// Reads from the memory of the process, see [`Instance::dma_read`].
    pub(super) fn read(&self, iova: u64, to: &mut [u8]) -> Result {
        let (device, data) = (self.instance.as_ptr(), to.as_mut_ptr().cast());
        // SAFETY: By the type invariant the device stays open. The buffer has `to.len()` bytes.
        to_result(unsafe { bindings::vfio_dma_rw(device, iova, data, to.len(), false) })
    }

    /// Writes to the memory of the process, see [`Instance::dma_write`]. Does not log the write.
    pub(super) fn write(&self, iova: u64, from: &[u8]) -> Result {
        let (device, data) = (self.instance.as_ptr(), from.as_ptr().cast_mut().cast());
        // SAFETY: As for `read`. For a write the function only reads the buffer.
        to_result(unsafe { bindings::vfio_dma_rw(device, iova, data, from.len(), true) })
    }

    /// Pins pages of the memory of the process, see [`Instance::pin`].
    pub(super) fn pin(&self, iova: u64, count: usize, access: GuestAccess) -> Result<GuestPages> {
        let pins = &self.instance.content().pins;
        let payer = self.session.payer.as_ref().ok_or(ENODEV)?;
        // SAFETY: By the type invariant the device stays open.
        payer.charge(|| unsafe { pins.pin(iova, count, access) })
    }
}
