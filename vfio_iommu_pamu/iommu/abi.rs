// SPDX-License-Identifier: GPL-2.0

//! The callbacks of the kernel's IOMMU core, and the registration with it.
//!
//! C header: [`include/linux/iommu.h`](srctree/include/linux/iommu.h)

use core::ptr::{
    null_mut,
    NonNull, //
};

use kernel::{
    device::Device,
    error::{
        from_err_ptr,
        from_result,
        to_result, //
    },
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    sync::{
        aref::ARef,
        global_lock,
        Arc, //
    },
    types::{
        ForeignOwnable,
        Opaque, //
    }, //
};

use kernel_ext::{
    bindings,
    compat::this_module,
    iommu::Group, //
};

use crate::system::System;

use super::{
    is_outside,
    pci_liodns,
    Iommu,
    Member, //
};

/// The IOMMU core's structure of an IOMMU.
pub(super) struct IommuDevice(Opaque<bindings::iommu_device>);

// SAFETY: The IOMMU core locks its structure. This module only passes its address.
unsafe impl Send for IommuDevice {}
// SAFETY: As above.
unsafe impl Sync for IommuDevice {}

impl IommuDevice {
    /// Returns the structure of an IOMMU that isn't registered.
    pub(super) fn new() -> Self {
        Self(Opaque::new(Default::default()))
    }
}

/// A constant structure of the IOMMU core with pointers to others.
#[repr(transparent)]
struct Constant<T>(T);

// SAFETY: Nothing writes to the structure, nor to what it points to, until the module is freed.
unsafe impl<T> Sync for Constant<T> {}

/// A domain. The core only compares its address, and reads its type and operations.
struct Domain(Opaque<bindings::iommu_domain>);

// SAFETY: Nothing writes to a domain that isn't for page tables.
unsafe impl Sync for Domain {}

impl Domain {
    /// Returns a domain of this type.
    const fn new(kind: u32, ops: &'static Constant<bindings::iommu_domain_ops>) -> Self {
        Self(Opaque::new(bindings::iommu_domain {
            type_: kind,
            ops: &raw const ops.0,
            ..pin_init::zeroed()
        }))
    }

    /// Returns the address of the C structure.
    const fn as_ptr(&'static self) -> *mut bindings::iommu_domain {
        self.0.get()
    }
}

/// Returns operations of a domain that devices are attached to by `attach`.
const fn domain_ops(
    attach: unsafe extern "C" fn(
        *mut bindings::iommu_domain,
        *mut bindings::device,
        *mut bindings::iommu_domain,
    ) -> c_int,
) -> Constant<bindings::iommu_domain_ops> {
    Constant(bindings::iommu_domain_ops {
        attach_dev: Some(attach),
        ..pin_init::zeroed()
    })
}

static IDENTITY_OPS: Constant<bindings::iommu_domain_ops> = domain_ops(attach_identity_callback);
static BLOCKED_OPS: Constant<bindings::iommu_domain_ops> = domain_ops(attach_blocked_callback);
static IDENTITY: Domain = Domain::new(bindings::IOMMU_DOMAIN_IDENTITY, &IDENTITY_OPS);
static BLOCKED: Domain = Domain::new(bindings::IOMMU_DOMAIN_BLOCKED, &BLOCKED_OPS);

static OPS: Constant<bindings::iommu_ops> = Constant(bindings::iommu_ops {
    capable: Some(capable_callback),
    probe_device: Some(probe_device_callback),
    release_device: Some(release_device_callback),
    device_group: Some(device_group_callback),
    def_domain_type: Some(def_domain_type_callback),
    owner: this_module::<crate::LocalModule>().as_ptr(),
    identity_domain: IDENTITY.as_ptr(),
    blocked_domain: BLOCKED.as_ptr(),
    ..pin_init::zeroed()
});

global_lock! {
    /// The registered PAMUs, or `None`. The lock nests inside the locks of the IOMMU core.
    unsafe(uninit) static REGISTERED: Mutex<Option<Arc<Iommu>>> = None;
}

/// Initializes the lock.
///
/// # Safety
///
/// Neither this function nor any other function of this file was called before.
pub(crate) unsafe fn init_lock() {
    // SAFETY: By the contract of this function.
    unsafe { REGISTERED.init() };
}

/// Returns the registered PAMUs.
///
/// # Errors
///
/// `ENODEV` if there are none.
fn registered() -> Result<Arc<Iommu>> {
    REGISTERED.lock().clone().ok_or(ENODEV)
}

/// Returns a new group without devices.
///
/// # Errors
///
/// `ENOMEM`, or an error of sysfs.
pub(super) fn new_group() -> Result<ARef<Group>> {
    // SAFETY: There are no requirements.
    let group = from_err_ptr(unsafe { bindings::iommu_group_alloc() })?;
    let group = NonNull::new(group).ok_or(ENOMEM)?;
    // SAFETY: The function returned a counted reference, which the result takes over. The layouts
    // agree.
    Ok(unsafe { ARef::from_raw(group.cast()) })
}

/// Returns whether a device has a driver, or is about to get one.
pub(super) fn has_driver(dev: &Device) -> bool {
    let dev = kernel_ext::iommu::raw_device(dev);
    // SAFETY: The device is valid. The pointer is only compared.
    !unsafe { (&raw const (*dev).driver).read_volatile() }.is_null()
}

/// Returns whether a driver of the kernel uses a PCI device outside of the groups of the PAMUs.
/// `registered` tells whether there are such groups.
///
/// # Safety
///
/// `dev` is a valid device on the PCI bus.
unsafe fn is_used_outside(dev: *mut bindings::device, registered: bool) -> bool {
    // SAFETY: By the contract of this function.
    unsafe { bindings::kernel_ext_device_lock(dev) };
    // SAFETY: As above. The group is only compared.
    let (driver, in_group) = unsafe { ((*dev).driver, !(*dev).iommu_group.is_null()) };
    let used = !driver.is_null() && {
        // SAFETY: A driver on the PCI bus is the `driver` of a `pci_driver`. It stays as long as the
        // device is locked.
        let driver = unsafe { kernel::container_of!(driver, bindings::pci_driver, driver) };
        // SAFETY: As above.
        let managed = unsafe { (*driver).driver_managed_dma };
        is_outside(!managed, in_group, registered)
    };
    // SAFETY: It was locked above.
    unsafe { bindings::kernel_ext_device_unlock(dev) };
    used
}

/// Reserves the LIODNs that are used outside of the groups of the PAMUs. `registered` tells whether
/// there are such groups.
///
/// # Errors
///
/// `EBUSY` if a container has such a LIODN; `ENOMEM`.
fn reserve_used(system: &System, registered: bool) -> Result {
    /// Reserves the LIODNs of a device, if they are used.
    ///
    /// # Safety
    ///
    /// `dev` is a valid PCI device, and `data` points to the arguments of `reserve_used`.
    unsafe extern "C" fn callback(dev: *mut bindings::device, data: *mut c_void) -> c_int {
        // SAFETY: By the contract of this function.
        let (system, registered) = unsafe { *data.cast::<(&System, bool)>() };
        // SAFETY: By the contract of this function.
        if !unsafe { is_used_outside(dev, registered) } {
            return 0;
        }
        // SAFETY: By the contract of this function.
        let dev = unsafe { Device::from_raw(dev) };
        from_result(|| {
            let liodns = match pci_liodns(dev) {
                Err(e) if e == ENODEV => return Ok(0),
                result => result?,
            };
            for liodn in liodns {
                match system.reserve(liodn) {
                    // The hardware doesn't have it.
                    Err(e) if e == ENODEV => {}
                    result => result?,
                }
            }
            Ok(0)
        })
    }
    let mut arguments = (system, registered);
    // SAFETY: The function passes `data` to the callback unchanged.
    to_result(unsafe {
        bindings::kernel_ext_walk_pci_devices((&raw mut arguments).cast(), Some(callback))
    })
}

/// The registration of the PAMUs with the IOMMU core. Dropping it removes the devices behind them
/// from their groups.
///
/// # Invariants
///
/// The IOMMU core knows the device of `Iommu`, and sysfs shows it.
pub(crate) struct Registration(Arc<Iommu>);

impl Registration {
    /// Registers the PAMUs of `system`, whose device is `parent`. The PCI devices behind them get
    /// groups, unless they have a driver already, or a driver does DMA with their LIODN.
    ///
    /// # Errors
    ///
    /// `EBUSY` if PAMUs are registered; `ENOMEM`; those of sysfs.
    pub(crate) fn new(system: Arc<System>, parent: &Device) -> Result<Self> {
        reserve_used(&system, false)?;
        let iommu = Iommu::new(system)?;
        {
            let mut registered = REGISTERED.lock();
            if registered.is_some() {
                return Err(EBUSY);
            }
            *registered = Some(iommu.clone());
        }
        register(&iommu, parent).inspect_err(|_| drop(REGISTERED.lock().take()))?;
        // INVARIANT: The PAMUs were just registered.
        let this = Self(iommu);
        // A driver may have got a device after the first call and before the device got a group.
        reserve_used(&this.0.system, true)?;
        Ok(this)
    }
}

/// Shows the PAMUs in sysfs, and registers them.
fn register(iommu: &Iommu, parent: &Device) -> Result {
    let device = iommu.device.0.get();
    // SAFETY: The structure is initialized and not registered, `parent` is valid, and the name has
    // no conversions.
    to_result(unsafe {
        bindings::iommu_device_sysfs_add(
            device,
            kernel_ext::iommu::raw_device(parent),
            null_mut(),
            c"pamu".as_char_ptr(),
        )
    })?;
    // SAFETY: The structure lives until `Registration` unregisters it, and the operations are
    // static. There is no device whose firmware refers to the PAMUs as its IOMMU.
    let ret = unsafe { bindings::iommu_device_register(device, &raw const OPS.0, null_mut()) };
    to_result(ret).inspect_err(|_| {
        // SAFETY: It was just added.
        unsafe { bindings::iommu_device_sysfs_remove(device) };
    })
}

impl Drop for Registration {
    fn drop(&mut self) {
        let device = self.0.device.0.get();
        // SAFETY: By the type invariant.
        unsafe { bindings::iommu_device_unregister(device) };
        // SAFETY: By the type invariant.
        unsafe { bindings::iommu_device_sysfs_remove(device) };
        let iommu = REGISTERED.lock().take();
        drop(iommu);
    }
}

/// # Safety
///
/// Only the IOMMU core calls this function.
unsafe extern "C" fn capable_callback(
    _dev: *mut bindings::device,
    cap: bindings::iommu_cap,
) -> bool {
    // CoreNet keeps the caches coherent with the transactions of all devices.
    cap == bindings::iommu_cap_IOMMU_CAP_CACHE_COHERENCY
}

/// # Safety
///
/// Only the IOMMU core calls this function.
unsafe extern "C" fn def_domain_type_callback(_dev: *mut bindings::device) -> c_int {
    bindings::IOMMU_DOMAIN_IDENTITY as c_int
}

/// # Safety
///
/// `dev` is a valid device that has a `dev_iommu`. If this returns no error, the IOMMU core calls
/// `release_device_callback` for it later, and none of the other callbacks after that.
unsafe extern "C" fn probe_device_callback(
    dev: *mut bindings::device,
) -> *mut bindings::iommu_device {
    // SAFETY: By the contract of this function.
    let device = unsafe { Device::from_raw(dev) };
    let found = registered().and_then(|iommu| Ok((iommu.member(device)?, iommu)));
    match found {
        Ok((member, iommu)) => {
            let member = <KBox<Member> as ForeignOwnable>::into_foreign(member);
            // SAFETY: By the contract of this function.
            unsafe { bindings::dev_iommu_priv_set(dev, member) };
            iommu.device.0.get()
        }
        Err(e) => e.to_ptr(),
    }
}

/// Returns what `probe_device_callback` stored.
///
/// # Safety
///
/// `probe_device_callback` accepted the device, and `release_device_callback` wasn't called for it.
unsafe fn stored(dev: *mut bindings::device) -> *mut c_void {
    // SAFETY: By the contract of this function, the device has a `dev_iommu`.
    unsafe { (*(*dev).iommu).priv_ }
}

/// # Safety
///
/// `probe_device_callback` accepted the device, and this wasn't called for it.
unsafe extern "C" fn release_device_callback(dev: *mut bindings::device) {
    // SAFETY: By the contract of this function.
    let member = unsafe { stored(dev) };
    // SAFETY: `probe_device_callback` stored it, and nobody uses it any more.
    let member = unsafe { <KBox<Member> as ForeignOwnable>::from_foreign(member) };
    // Its LIODNs stay as they are: those of the other devices, and of the last one in the identity
    // domain.
    member.leave();
}

/// # Safety
///
/// `probe_device_callback` accepted the device, and `release_device_callback` isn't called for it
/// before this returns.
unsafe extern "C" fn device_group_callback(
    dev: *mut bindings::device,
) -> *mut bindings::iommu_group {
    // SAFETY: By the contract of this function.
    let member = unsafe { <KBox<Member> as ForeignOwnable>::borrow(stored(dev)) };
    match member.group() {
        // The caller gets the reference.
        Ok(group) => ARef::into_raw(group).cast().as_ptr(),
        Err(e) => e.to_ptr(),
    }
}

/// # Safety
///
/// That of `device_group_callback`.
unsafe extern "C" fn attach_identity_callback(
    _domain: *mut bindings::iommu_domain,
    dev: *mut bindings::device,
    _old: *mut bindings::iommu_domain,
) -> c_int {
    // SAFETY: By the contract of this function.
    unsafe { <KBox<Member> as ForeignOwnable>::borrow(stored(dev)) }.open();
    0
}

/// # Safety
///
/// That of `device_group_callback`.
unsafe extern "C" fn attach_blocked_callback(
    _domain: *mut bindings::iommu_domain,
    dev: *mut bindings::device,
    _old: *mut bindings::iommu_domain,
) -> c_int {
    // SAFETY: By the contract of this function.
    unsafe { <KBox<Member> as ForeignOwnable>::borrow(stored(dev)) }.block();
    0
}
