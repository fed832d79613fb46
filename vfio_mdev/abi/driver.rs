// SPDX-License-Identifier: GPL-2.0

//! Registration of Rust drivers and parents with the bus.

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
        from_err_ptr,
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
        Arc,
        Mutex, //
    },
    types::Opaque, //
};
use kernel_ext::bindings;

use super::{
    device::Mdev,
    instance::Instance,
    locks,
    parent,
    peer,
    sysfs, //
};
use crate::{
    capacity::Taken,
    driver::{
        Parent,
        Type, //
    },
    peers, //
};

// --- Data shared by a parent's devices --------------------------------------------------------

/// The parent's data, and the capacity that its devices use.
#[pin_data]
struct Shared<P: Parent> {
    parent: Arc<P>,
    #[pin]
    taken: Mutex<Taken>,
}

/// A device's share of the parent's capacity. Dropping it returns the capacity.
pub(super) struct Share<P: Parent> {
    shared: Arc<Shared<P>>,
    cost: u32,
}

impl<P: Parent> Share<P> {
    /// # Errors
    ///
    /// `EUSERS` if the remaining capacity is too small.
    fn take(shared: Arc<Shared<P>>, ty: &P::Type) -> Result<Self> {
        let cost = ty.cost();
        let capacity = shared.parent.capacity();
        shared.taken.lock().take(capacity, cost)?;
        Ok(Self { shared, cost })
    }

    pub(super) fn parent(&self) -> &Arc<P> {
        &self.shared.parent
    }
}

impl<P: Parent> Drop for Share<P> {
    fn drop(&mut self) {
        self.shared.taken.lock().give_back(self.cost);
    }
}

// --- Drivers ----------------------------------------------------------------------------------

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
    /// Registers a driver of `module`.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the name is taken, `ENOMEM`, and the errors of sysfs.
    pub fn new(module: &'static ThisModule) -> Result<Arc<Self>> {
        Arc::pin_init(
            try_pin_init!(Self {
                // INVARIANT: Initialisation fails if the registration fails.
                raw <- Opaque::try_ffi_init(|slot: *mut bindings::mdev_driver| {
                    // SAFETY: `slot` is valid for writes and pinned. The driver is unregistered
                    // before `slot` is freed.
                    unsafe {
                        slot.write(Self::table(module));
                        parent::register_driver(slot)
                    }
                }),
                _parents: PhantomData,
            }? Error),
            GFP_KERNEL,
        )
    }

    fn table(module: &'static ThisModule) -> bindings::mdev_driver {
        let mut driver: bindings::mdev_driver = pin_init::zeroed();
        driver.device_api = P::API.name().as_char_ptr();
        driver.probe = Some(Self::probe_callback);
        driver.remove = Some(Self::remove_callback);
        driver.get_available = Some(Self::available_callback);
        driver.show_description = Some(Self::description_callback);
        driver.driver.name = P::NAME.as_char_ptr();
        driver.driver.owner = module.as_ptr();
        driver.driver.dev_groups = peer::groups();
        driver
    }

    /// # Safety
    ///
    /// Called by the bus with a device of one of the driver's parents that is being bound.
    unsafe extern "C" fn probe_callback(mdev: *mut bindings::mdev_device) -> c_int {
        from_result(|| {
            // SAFETY: By this function's contract.
            let (mdev, slot) = unsafe { (Mdev::from_raw(mdev), TypeSlot::<P>::of((*mdev).type_)) };
            // SAFETY: The parent stays registered while a device is being bound.
            let shared = unsafe { (*slot.owner).shared.clone() };
            let share = Share::take(shared, slot.ty)?;
            let dev = mdev.raw_device();
            // SAFETY: By this function's contract.
            let instance = unsafe { Instance::<P::Device>::new(dev, mdev.uuid(), slot.ty, share) }?;
            let register = || {
                // SAFETY: The device is initialised. `remove_callback` unregisters it.
                to_result(unsafe { bindings::vfio_register_emulated_iommu_dev(instance.as_ptr()) })
            };
            match instance.peer() {
                Some(peer) => peers::enter(peer, register)?,
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
        // SAFETY: `probe_callback` registered the device. The call waits until the device has no
        // users.
        unsafe { bindings::vfio_unregister_group_dev(instance.as_ptr()) };
        if let Some(peer) = instance.peer() {
            peers::leave(peer);
        }
    }

    /// # Safety
    ///
    /// Called by the bus with a type of one of the driver's registered parents.
    unsafe extern "C" fn available_callback(ty: *mut bindings::mdev_type) -> c_uint {
        // SAFETY: By this function's contract.
        let (slot, shared) = unsafe {
            let slot = TypeSlot::<P>::of(ty);
            (slot, &(*slot.owner).shared)
        };
        // The driver's functions are called without the lock.
        let (capacity, cost) = (shared.parent.capacity(), slot.ty.cost());
        shared.taken.lock().available(capacity, cost)
    }

    /// # Safety
    ///
    /// Called by the bus with a type of one of the driver's parents and a page to fill.
    unsafe extern "C" fn description_callback(
        ty: *mut bindings::mdev_type,
        page: *mut c_char,
    ) -> isize {
        // SAFETY: By this function's contract.
        from_result(|| unsafe { sysfs::show(page, TypeSlot::<P>::of(ty).ty.description()) })
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

// --- Parents ----------------------------------------------------------------------------------

/// A type of a parent, as it is registered with the bus.
#[repr(C)]
struct TypeSlot<P: Parent> {
    raw: bindings::mdev_type,
    ty: &'static P::Type,
    owner: *const Registered<P>,
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

/// The data of a registered parent. It does not move.
struct Registered<P: Parent> {
    raw: Opaque<bindings::mdev_parent>,
    slots: KVec<Opaque<TypeSlot<P>>>,
    pointers: KVec<*mut bindings::mdev_type>,
    shared: Arc<Shared<P>>,
    dev: ARef<BusDevice>,
    driver: Arc<Driver<P>>,
}

/// A registered parent. Dropping it unregisters the parent and removes its devices, and waits until
/// they have no users.
///
/// # Invariants
///
/// The parent is registered.
pub struct Registration<P: Parent>(KBox<Registered<P>>);

// SAFETY: The bus synchronises access to the C parts. Any thread may use the rest.
unsafe impl<P: Parent> Send for Registration<P> {}
// SAFETY: As above.
unsafe impl<P: Parent> Sync for Registration<P> {}

impl<P: Parent> Registration<P> {
    /// Registers `parent` on `dev`. The result must be dropped before `dev` is unbound.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and the errors of sysfs.
    pub fn new(driver: Arc<Driver<P>>, dev: &BusDevice<Bound>, parent: P) -> Result<Self> {
        Self::register(driver, dev.into(), parent)
    }

    fn register(driver: Arc<Driver<P>>, dev: ARef<BusDevice>, parent: P) -> Result<Self> {
        let parent = Arc::new(parent, GFP_KERNEL)?;
        let shared = Arc::pin_init(
            pin_init!(Shared {
                parent,
                taken <- locks::taken(),
            }),
            GFP_KERNEL,
        )?;
        let mut registered = KBox::new(
            Registered {
                raw: Opaque::zeroed(),
                slots: KVec::with_capacity(P::TYPES.len(), GFP_KERNEL)?,
                pointers: KVec::with_capacity(P::TYPES.len(), GFP_KERNEL)?,
                shared,
                dev,
                driver,
            },
            GFP_KERNEL,
        )?;
        let owner: *const Registered<P> = &*registered;
        for ty in P::TYPES {
            let raw = bindings::mdev_type {
                sysfs_name: ty.sysfs_name().as_char_ptr(),
                pretty_name: ty.name().as_char_ptr(),
                ..pin_init::zeroed()
            };
            let slot = TypeSlot { raw, ty, owner };
            registered.slots.push(Opaque::new(slot), GFP_KERNEL)?;
        }
        for i in 0..P::TYPES.len() {
            let pointer = registered.slots[i].get().cast();
            registered.pointers.push(pointer, GFP_KERNEL)?;
        }
        let dev: *const BusDevice = &*registered.dev;
        // SAFETY: All arguments stay at their addresses until `drop`: the box, the allocations of
        // its vectors, the driver in its `Arc`, and the device, whose reference is counted.
        unsafe {
            parent::register(
                registered.raw.get(),
                dev.cast_mut().cast(),
                registered.driver.raw.get(),
                registered.pointers.as_mut_ptr(),
                P::TYPES.len() as u32,
            )
        }?;
        // INVARIANT: The parent was just registered.
        Ok(Self(registered))
    }
}

impl<P: Parent> Deref for Registration<P> {
    type Target = Arc<P>;

    fn deref(&self) -> &Arc<P> {
        &self.0.shared.parent
    }
}

impl<P: Parent> Drop for Registration<P> {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        parent::unregister(unsafe { parent::Parent::from_raw(self.0.raw.get()) });
    }
}

// --- Parents without hardware -----------------------------------------------------------------

/// A parent without hardware. Its device is `/sys/devices/virtual/<NAME>/<NAME>`, in the class
/// `NAME`, where `NAME` is that of the [`Parent`].
pub struct VirtualParent<P: Parent> {
    // Dropped before the device.
    registration: Registration<P>,
    device: VirtualDevice,
}

impl<P: Parent> VirtualParent<P> {
    /// Registers a driver of `module`, creates the device and registers `parent` on it.
    ///
    /// # Errors
    ///
    /// `EBUSY` or `EEXIST` if the name is taken, `ENOMEM`, and the errors of sysfs.
    pub fn new(module: &'static ThisModule, parent: P) -> Result<Self> {
        let driver = Driver::new(module)?;
        let class = Arc::new(VirtualClass::new(P::NAME)?, GFP_KERNEL)?;
        Self::register(driver, class, P::NAME, parent)
    }

    /// Registers another parent of the same driver, on a new device `name` of the same class.
    ///
    /// # Errors
    ///
    /// As for [`new`](VirtualParent::new).
    pub fn beside(&self, name: &CStr, parent: P) -> Result<Self> {
        let driver = self.registration.0.driver.clone();
        Self::register(driver, self.device.class.clone(), name, parent)
    }

    fn register(
        driver: Arc<Driver<P>>,
        class: Arc<VirtualClass>,
        name: &CStr,
        parent: P,
    ) -> Result<Self> {
        let device = VirtualDevice::new(class, name)?;
        Ok(Self {
            registration: Registration::register(driver, device.device(), parent)?,
            device,
        })
    }
}

impl<P: Parent> Deref for VirtualParent<P> {
    type Target = Arc<P>;

    fn deref(&self) -> &Arc<P> {
        &self.registration
    }
}

/// A class of devices without hardware.
///
/// # Invariants
///
/// The class is registered.
struct VirtualClass(NonNull<bindings::class>);

// SAFETY: It is only used by functions that do their own locking.
unsafe impl Send for VirtualClass {}
// SAFETY: As above.
unsafe impl Sync for VirtualClass {}

impl VirtualClass {
    fn new(name: &'static CStr) -> Result<Self> {
        // SAFETY: The name is static.
        let class = from_err_ptr(unsafe { bindings::class_create(name.as_char_ptr()) })?;
        // INVARIANT: The class was just registered.
        Ok(Self(NonNull::new(class).ok_or(ENOMEM)?))
    }
}

impl Drop for VirtualClass {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the class is registered. Its devices hold references, so it
        // has none left.
        unsafe { bindings::class_destroy(self.0.as_ptr()) };
    }
}

/// A device without hardware.
///
/// # Invariants
///
/// The device is registered.
struct VirtualDevice {
    device: NonNull<bindings::device>,
    // Dropped after the device.
    class: Arc<VirtualClass>,
}

// SAFETY: It is only used by functions that do their own locking.
unsafe impl Send for VirtualDevice {}
// SAFETY: As above.
unsafe impl Sync for VirtualDevice {}

impl VirtualDevice {
    fn new(class: Arc<VirtualClass>, name: &CStr) -> Result<Self> {
        // SAFETY: The class is registered, and the format matches its argument.
        let device = from_err_ptr(unsafe {
            bindings::device_create(
                class.0.as_ptr(),
                core::ptr::null_mut(),
                0,
                core::ptr::null_mut(),
                c"%s".as_char_ptr(),
                name.as_char_ptr(),
            )
        })?;
        let device = NonNull::new(device).ok_or(ENOMEM)?;
        // INVARIANT: The device was just registered.
        Ok(Self { device, class })
    }

    fn device(&self) -> ARef<BusDevice> {
        // SAFETY: By the type invariant.
        unsafe { BusDevice::get_device(self.device.as_ptr()) }
    }
}

impl Drop for VirtualDevice {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::device_unregister(self.device.as_ptr()) };
    }
}
