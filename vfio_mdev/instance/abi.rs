// SPDX-License-Identifier: GPL-2.0

//! A driver's device together with its `struct vfio_device`.
//!
//! Only generic code calls the functions of `vfio.ko`, see [`vfio_device`].

use core::{
    ops::Deref,
    ptr::NonNull, //
};

use kernel::{
    device::Device as BusDevice,
    error::to_result,
    prelude::*,
    sync::{
        aref::{
            ARef,
            AlwaysRefCounted, //
        },
        Arc, //
    }, //
};
use kernel_ext::{
    bindings,
    iova::Range,
    rwsem::ReadGuard,
    vfio_device, //
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
        requests,
        Device,
        Index,
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
#[repr(transparent)]
pub struct Instance<D: Device>(vfio_device::Device<Content<D>>);

// SAFETY: The functions are those of the device that an instance consists of.
unsafe impl<D: Device> AlwaysRefCounted for Instance<D> {
    fn inc_ref(&self) {
        self.0.inc_ref();
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        // SAFETY: By this function's contract.
        unsafe { vfio_device::Device::<Content<D>>::dec_ref(obj.cast()) };
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

    /// Returns the instance that consists of this device.
    pub(crate) fn of(device: &vfio_device::Device<Content<D>>) -> &Self {
        // SAFETY: Both types have the same layout.
        unsafe { &*core::ptr::from_ref(device).cast() }
    }

    pub(crate) fn as_ptr(&self) -> *mut bindings::vfio_device {
        self.0.as_ptr()
    }

    pub(super) fn content(&self) -> &Content<D> {
        &self.0
    }

    /// Returns the size of the data that follow a `VFIO_DEVICE_SET_IRQS` request, in bytes. The
    /// request is for an interrupt type with `vectors` vectors.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the request is malformed.
    pub(crate) fn irq_data_size(
        &self,
        header: &mut bindings::vfio_irq_set,
        vectors: u32,
    ) -> Result<usize> {
        self.0.irq_data_size(header, vectors, D::Irq::COUNT)
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

    /// Allocates an instance for a new device of the bus, which is not visible yet. `move_device`
    /// is `None` if the `vfio.ko` in use is not that of this project.
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
        // SAFETY: A device that is being bound is valid.
        let dev: &BusDevice = unsafe { BusDevice::from_raw(dev) };
        let parent = share.parent().clone();
        let content = |vfio: &vfio_device::Device<Content<D>>| {
            // SAFETY: These are the functions of this device's core. The device exists whenever it
            // is open.
            let pins = unsafe { Pins::new(Self::PIN_CALLS, vfio.as_ptr()) }?;
            let peer = match move_device.filter(|_| ty.peer_to_peer()) {
                Some(move_device) => {
                    let (this, move_device) = (Self::of(vfio), move_device.clone());
                    // SAFETY: `dev` is the device of this instance, and is bound to the driver. The
                    // instance exists until `remove_callback` has removed the peer from the list of all
                    // peers and from its group.
                    Some(unsafe { PeerOf::new(dev, driver, this, move_device) }?)
                }
                None => None,
            };
            let create = D::create(&parent, ty, uuid);
            Ok::<_, Error>(try_pin_init!(Content {
                device <- create,
                uuid,
                ty,
                share,
                session <- Session::new(),
                pins,
                machine <- Machine::new(),
                vectors: requests::all_vectors::<D>(&device)?,
                peer,
                dev: dev.into(),
            }? Error))
        };
        // SAFETY: The closure only stores the addresses of the device and of the instance.
        let this = unsafe { vfio_device::Device::new_cyclic(dev, content) }?;
        let raw = this.as_ptr();
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
        // SAFETY: Both types have the same layout, and the reference is counted.
        Ok(unsafe { ARef::from_raw(ARef::into_raw(this).cast()) })
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
