// SPDX-License-Identifier: GPL-2.0

//! `struct mdev_driver` and `struct mdev_parent` of drivers in Rust: the registration of drivers
//! and parents with the bus.

use core::{
    marker::PhantomData,
    ops::Deref,
    ptr::NonNull, //
};

use kernel::{
    device::{
        Bound,
        Device as BusDevice, //
    },
    error::{
        from_result,
        to_result, //
    },
    ffi::{
        c_char,
        c_int,
        c_uint, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        Arc, //
    },
    types::Opaque, //
};
use kernel_ext::{
    bindings,
    compat::this_module, //
};

use super::{
    capacity::{
        Capacity,
        Share, //
    },
    Parent,
    Type, //
};
use crate::{
    bus,
    device::Mdev,
    instance::Instance,
    parent,
    peers::{
        self,
        MoveDevice, //
    },
    sysfs, //
};

/// A driver in `/sys/bus/mdev/drivers`.
///
/// It is unregistered when the last reference is dropped. Its parents hold references, so that it
/// outlives them.
///
/// # Invariants
///
/// The driver is registered.
#[pin_data(PinnedDrop)]
pub struct Driver<P: Parent> {
    #[pin]
    raw: Opaque<bindings::mdev_driver>,
    _parents: PhantomData<fn(P)>,
}

// SAFETY: Only the driver core accesses a registered driver, under its own locks.
unsafe impl<P: Parent> Send for Driver<P> {}
// SAFETY: As above.
unsafe impl<P: Parent> Sync for Driver<P> {}

impl<P: Parent> Driver<P> {
    /// Registers the driver.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the name is taken, `ENOMEM`, and the errors of sysfs.
    pub fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            try_pin_init!(Self {
                // INVARIANT: Initialisation fails if the registration fails.
                raw <- Opaque::try_ffi_init(|slot: *mut bindings::mdev_driver| {
                    // SAFETY: `slot` is valid for writes and pinned. The driver is unregistered
                    // before `slot` is freed.
                    unsafe {
                        slot.write(Self::table());
                        bus::register_driver(slot)
                    }
                }),
                _parents: PhantomData,
            }? Error),
            GFP_KERNEL,
        )
    }

    fn table() -> bindings::mdev_driver {
        let mut driver: bindings::mdev_driver = pin_init::zeroed();
        driver.device_api = P::API.name().as_char_ptr();
        driver.probe = Some(Self::probe_callback);
        driver.remove = Some(Self::remove_callback);
        driver.get_available = Some(Self::available_callback);
        driver.show_description = Some(Self::description_callback);
        driver.driver.name = P::NAME.as_char_ptr();
        driver.driver.owner = this_module::<P::OwnerModule>().as_ptr();
        driver
    }

    /// # Safety
    ///
    /// Called by the bus with a device of one of the driver's parents that is being bound.
    unsafe extern "C" fn probe_callback(mdev: *mut bindings::mdev_device) -> c_int {
        from_result(|| {
            // SAFETY: By this function's contract. The parent stays registered while a device is
            // being bound.
            let (mdev, slot) = unsafe { (Mdev::from_raw(mdev), TypeSlot::<P>::of((*mdev).type_)) };
            let share = Share::new(slot.capacity.clone(), slot.ty)?;
            let dev = mdev.raw_device();
            let move_device = slot.move_device.as_ref();
            // SAFETY: By this function's contract.
            let instance = unsafe {
                Instance::<P::Device>::new(dev, mdev.uuid(), slot.ty, share, move_device)
            }?;
            let register = || {
                // SAFETY: The device is initialised. `remove_callback` unregisters it.
                to_result(unsafe { bindings::vfio_register_emulated_iommu_dev(instance.as_ptr()) })
            };
            match instance.peer() {
                Some(peer) => peers::register(peer.peer(), register, || {
                    // SAFETY: The device was registered.
                    unsafe { bindings::vfio_unregister_group_dev(instance.as_ptr()) }
                })?,
                None => register()?,
            }
            // SAFETY: While a device is bound, `driver_data` belongs to its driver.
            unsafe { (*dev).driver_data = ARef::into_raw(instance).as_ptr().cast() };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the bus with a device that went through [`Self::probe_callback`].
    unsafe extern "C" fn remove_callback(mdev: *mut bindings::mdev_device) {
        // SAFETY: By this function's contract. The reference is the one that `probe_callback`
        // stored.
        let instance: ARef<Instance<P::Device>> = unsafe {
            let data = core::mem::replace(&mut (*mdev).dev.driver_data, core::ptr::null_mut());
            ARef::from_raw(NonNull::new_unchecked(data.cast()))
        };
        let unregister = || {
            // SAFETY: `probe_callback` registered the device. The call waits until the device has no
            // users.
            unsafe { bindings::vfio_unregister_group_dev(instance.as_ptr()) };
        };
        match instance.peer() {
            Some(peer) => peers::unregister(peer.peer(), unregister),
            None => unregister(),
        }
    }

    /// # Safety
    ///
    /// Called by the bus with a type of one of the driver's registered parents.
    unsafe extern "C" fn available_callback(ty: *mut bindings::mdev_type) -> c_uint {
        // SAFETY: By this function's contract.
        let slot = unsafe { TypeSlot::<P>::of(ty) };
        slot.capacity.available(slot.ty)
    }

    /// # Safety
    ///
    /// Called by the bus with a type of one of the driver's parents and a page to fill.
    unsafe extern "C" fn description_callback(
        ty: *mut bindings::mdev_type,
        page: *mut c_char,
    ) -> isize {
        // SAFETY: By this function's contract.
        unsafe { sysfs::show_text(page, TypeSlot::<P>::of(ty).ty.description()) }
    }
}

#[pinned_drop]
impl<P: Parent> PinnedDrop for Driver<P> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant the driver is registered. Its parents hold references, so
        // it has none left.
        unsafe { bindings::driver_unregister(&raw mut (*self.raw.get()).driver) }
    }
}

/// A type of a parent, as it is registered with the bus.
#[repr(C)]
struct TypeSlot<P: Parent> {
    raw: Opaque<bindings::mdev_type>,
    ty: &'static P::Type,
    capacity: Arc<Capacity<P>>,
    move_device: Option<Arc<MoveDevice>>,
}

impl<P: Parent> TypeSlot<P> {
    /// # Safety
    ///
    /// `ty` is part of a `TypeSlot<P>` whose parent is registered for all of `'a`.
    unsafe fn of<'a>(ty: *mut bindings::mdev_type) -> &'a Self {
        // SAFETY: By this function's contract. A slot begins with its `mdev_type`.
        unsafe { &*ty.cast() }
    }
}

/// The structures of a registered parent. They do not move.
struct ParentData<P: Parent> {
    raw: Opaque<bindings::mdev_parent>,
    /// What `pointers` points to.
    _slots: KVec<TypeSlot<P>>,
    pointers: KVec<*mut bindings::mdev_type>,
    capacity: Arc<Capacity<P>>,
    dev: ARef<BusDevice>,
    driver: Arc<Driver<P>>,
}

/// A registered parent. Dropping it unregisters the parent and removes its devices, and waits until
/// they have no users.
///
/// # Invariants
///
/// The parent is registered.
pub struct ParentRegistration<P: Parent>(KBox<ParentData<P>>);

// SAFETY: The bus synchronises access to the C parts. Any thread may use the rest.
unsafe impl<P: Parent> Send for ParentRegistration<P> {}
// SAFETY: As above.
unsafe impl<P: Parent> Sync for ParentRegistration<P> {}

impl<P: Parent> ParentRegistration<P> {
    /// Registers `parent` on `dev`. The result must be dropped before `dev` is unbound.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and the errors of sysfs.
    pub fn new(driver: Arc<Driver<P>>, dev: &BusDevice<Bound>, parent: P) -> Result<Self> {
        Self::register(driver, dev.into(), parent)
    }

    pub(super) fn register(
        driver: Arc<Driver<P>>,
        dev: ARef<BusDevice>,
        parent: P,
    ) -> Result<Self> {
        let capacity = Capacity::new(Arc::new(parent, GFP_KERNEL)?)?;
        let move_device = match MoveDevice::get() {
            Some(found) => Some(Arc::new(found, GFP_KERNEL)?),
            None => None,
        };
        let mut slots = KVec::with_capacity(P::TYPES.len(), GFP_KERNEL)?;
        for ty in P::TYPES {
            let raw = bindings::mdev_type {
                sysfs_name: ty.sysfs_name().as_char_ptr(),
                pretty_name: ty.name().as_char_ptr(),
                ..pin_init::zeroed()
            };
            let slot = TypeSlot {
                raw: Opaque::new(raw),
                ty,
                capacity: capacity.clone(),
                move_device: move_device.clone(),
            };
            slots.push(slot, GFP_KERNEL)?;
        }
        let mut pointers = KVec::with_capacity(P::TYPES.len(), GFP_KERNEL)?;
        for slot in &slots {
            let slot: *const TypeSlot<P> = slot;
            pointers.push(slot.cast_mut().cast(), GFP_KERNEL)?;
        }
        let mut data = KBox::new(
            ParentData {
                raw: Opaque::zeroed(),
                _slots: slots,
                pointers,
                capacity,
                dev,
                driver,
            },
            GFP_KERNEL,
        )?;
        let dev: *const BusDevice = &*data.dev;
        // SAFETY: All arguments stay at their addresses until `drop`: the box, the allocations of
        // its vectors, the driver in its `Arc`, and the device, whose reference is counted.
        unsafe {
            parent::register(
                data.raw.get(),
                dev.cast_mut().cast(),
                data.driver.raw.get(),
                data.pointers.as_mut_ptr(),
                P::TYPES.len() as u32,
            )
        }?;
        // INVARIANT: The parent was just registered.
        Ok(Self(data))
    }

    pub(super) fn driver(&self) -> &Arc<Driver<P>> {
        &self.0.driver
    }
}

impl<P: Parent> Deref for ParentRegistration<P> {
    type Target = Arc<P>;

    fn deref(&self) -> &Arc<P> {
        self.0.capacity.parent()
    }
}

impl<P: Parent> Drop for ParentRegistration<P> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { parent::unregister(self.0.raw.get()) };
    }
}
