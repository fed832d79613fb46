// SPDX-License-Identifier: GPL-2.0

//! The callbacks of PCI controllers for MSIs.
//!
//! C header: `arch/powerpc/include/asm/pci-bridge.h`

use core::ptr::NonNull;

use kernel::{
    device::Device,
    error::{
        from_result,
        to_result, //
    },
    ffi::c_int,
    prelude::*,
    sync::global_lock, //
};

use kernel_ext::{
    bindings,
    firmware::is_pci,
    iommu::raw_device,
    vec_slot::VecSlot, //
};

use super::{
    super::MsiBankUse,
    lead,
    Message, //
};

/// A callback that sets up the MSIs of a device.
type Setup = unsafe extern "C" fn(*mut bindings::pci_dev, c_int, c_int) -> c_int;
/// A callback that tears them down.
type Teardown = unsafe extern "C" fn(*mut bindings::pci_dev);

/// The callbacks of the driver of the banks.
#[derive(Clone, Copy)]
struct Callbacks {
    controller: usize,
    setup: Setup,
    teardown: Teardown,
}

global_lock! {
    /// The callbacks that controllers had before. Nothing is locked while this lock is held.
    unsafe(uninit) static CALLBACKS: Mutex<KVec<Callbacks>> = KVec::new();
}

global_lock! {
    /// The banks that PCI devices use, each with the address of its device. Nothing is locked while
    /// this lock is held.
    unsafe(uninit) static USES: Mutex<KVec<(usize, MsiBankUse)>> = KVec::new();
}

/// Initializes the locks.
///
/// # Safety
///
/// Neither this function nor any other function of this file was called before.
pub(crate) unsafe fn init_lock() {
    // SAFETY: By the contract of this function.
    unsafe { CALLBACKS.init() };
    // SAFETY: As above.
    unsafe { USES.init() };
}

/// A PCI controller whose callbacks for MSIs are those of this file. Dropping it restores those of
/// the driver of the banks.
///
/// # Invariants
///
/// The controller is valid: PowerPC never frees one that was found at boot. [`CALLBACKS`] has its
/// former callbacks.
pub(crate) struct Interposed(NonNull<bindings::pci_controller>);

// SAFETY: The callbacks of a controller are words, which any thread may read and write.
unsafe impl Send for Interposed {}
// SAFETY: As above.
unsafe impl Sync for Interposed {}

/// Returns the controller of a PCI device.
///
/// # Safety
///
/// `dev` is a valid PCI device.
unsafe fn controller_of(dev: *mut bindings::pci_dev) -> *mut bindings::pci_controller {
    // SAFETY: By the contract of this function. A device keeps its bus, whose `sysdata` is the
    // controller on PowerPC.
    unsafe { (*(*dev).bus).sysdata.cast() }
}

/// Returns the controller of a device, which lives as long as the device. Returns `None` if the
/// device isn't on the PCI bus.
fn controller(dev: &Device) -> Option<NonNull<bindings::pci_controller>> {
    if !is_pci(dev) {
        return None;
    }
    // SAFETY: A device on the PCI bus is the `dev` of a `pci_dev`.
    let pci = unsafe { kernel::container_of!(raw_device(dev), bindings::pci_dev, dev) };
    // SAFETY: It is valid as long as `dev` is.
    NonNull::new(unsafe { controller_of(pci) })
}

impl Interposed {
    /// Returns whether this is the controller of `dev`.
    pub(crate) fn is_of(&self, dev: &Device) -> bool {
        controller(dev) == Some(self.0)
    }

    /// Interposes in the controller of a PCI device, whose MSIs and those of its neighbours are not
    /// set up. Returns `None` if the controller has no MSIs.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device isn't on the PCI bus; `ENOMEM`.
    pub(crate) fn new(dev: &Device) -> Result<Option<Self>> {
        let controller = controller(dev).ok_or(ENODEV)?;
        // SAFETY: The controller is valid as long as the device is.
        let ops = unsafe { &raw mut (*controller.as_ptr()).controller_ops };
        // SAFETY: As above. Only the driver of the banks, at boot, and this file write to these.
        let former = unsafe { ((*ops).setup_msi_irqs, (*ops).teardown_msi_irqs) };
        let (Some(setup), Some(teardown)) = former else {
            return Ok(None);
        };
        CALLBACKS.lock().push(
            Callbacks {
                controller: controller.as_ptr() as usize,
                setup,
                teardown,
            },
            GFP_KERNEL,
        )?;
        // SAFETY: As above. The callbacks stay until this is dropped, and a module isn't unloaded
        // while the IOMMU core has a device that it accepted.
        unsafe {
            (&raw mut (*ops).setup_msi_irqs).write_volatile(Some(setup_callback));
            (&raw mut (*ops).teardown_msi_irqs).write_volatile(Some(teardown_callback));
        }
        // INVARIANT: The former callbacks are in the list.
        Ok(Some(Self(controller)))
    }
}

impl Drop for Interposed {
    fn drop(&mut self) {
        let Some(former) = callbacks(self.0.as_ptr()) else {
            return;
        };
        // SAFETY: By the type invariant.
        let ops = unsafe { &raw mut (*self.0.as_ptr()).controller_ops };
        // SAFETY: As above. These are what `new` replaced.
        unsafe {
            (&raw mut (*ops).setup_msi_irqs).write_volatile(Some(former.setup));
            (&raw mut (*ops).teardown_msi_irqs).write_volatile(Some(former.teardown));
        }
        let mut list = CALLBACKS.lock();
        list.retain(|other| other.controller != former.controller);
        // Statics are not dropped when the module is unloaded, so free the memory here.
        if list.is_empty() {
            *list = KVec::new();
        }
    }
}

/// Returns the former callbacks of a controller.
fn callbacks(controller: *const bindings::pci_controller) -> Option<Callbacks> {
    let list = CALLBACKS.lock();
    let found = list
        .iter()
        .find(|callbacks| callbacks.controller == controller as usize);
    found.copied()
}

/// An MSI that was set up.
///
/// # Invariants
///
/// The MSIs of its device are not torn down as long as this lives.
struct Msi(NonNull<bindings::msi_desc>);

impl Message for Msi {
    fn address(&self) -> u64 {
        // SAFETY: By the type invariant.
        unsafe { bindings::kernel_ext_msi_address(self.0.as_ptr()) }
    }

    fn set_address(&self, address: u64) -> Result {
        // SAFETY: By the type invariant. The device writes there only as far as the PAMU lets it.
        to_result(unsafe { bindings::kernel_ext_msi_set_address(self.0.as_ptr(), address) })
    }
}

/// Leads the MSIs of a device, which were just set up, through windows.
///
/// # Safety
///
/// `pci` is a valid device whose MSIs the caller sets up.
unsafe fn lead_all(pci: *mut bindings::pci_dev) -> Result {
    // SAFETY: By the contract of this function.
    let dev = unsafe { Device::from_raw(&raw mut (*pci).dev) };
    // SAFETY: The function that sets up MSIs has the lock of their list.
    let mut next = unsafe { bindings::kernel_ext_msi_first(pci) };
    while let Some(desc) = NonNull::new(next) {
        // INVARIANT: The caller sets them up, so they are not torn down during this function.
        if let Some(bank) = lead(dev, &Msi(desc))? {
            let mut uses = USES.lock();
            // If this fails, the bank is dropped after the guard: that takes the container's lock.
            VecSlot::new(&mut uses, GFP_KERNEL)?.fill((pci as usize, bank));
        }
        // SAFETY: As above.
        next = unsafe { bindings::kernel_ext_msi_next(pci) };
    }
    Ok(())
}

/// # Safety
///
/// `dev` is a valid PCI device whose MSIs the caller sets up.
unsafe extern "C" fn setup_callback(
    dev: *mut bindings::pci_dev,
    count: c_int,
    kind: c_int,
) -> c_int {
    from_result(|| {
        // SAFETY: By the contract of this function.
        let former = callbacks(unsafe { controller_of(dev) }).ok_or(ENODEV)?;
        // SAFETY: By the contract of this function, which is that of the former callback, too.
        let result = unsafe { (former.setup)(dev, count, kind) };
        if result == 0 {
            // SAFETY: By the contract of this function.
            if let Err(e) = unsafe { lead_all(dev) } {
                // The caller would take those that are set up for all that there are, and try again
                // to set up that many.
                // SAFETY: By the contract of this function.
                unsafe { teardown_callback(dev) };
                return Err(e);
            }
        }
        Ok(result)
    })
}

/// # Safety
///
/// `dev` is a valid PCI device whose MSIs the caller tears down.
unsafe extern "C" fn teardown_callback(dev: *mut bindings::pci_dev) {
    // SAFETY: By the contract of this function.
    if let Some(former) = callbacks(unsafe { controller_of(dev) }) {
        // SAFETY: By the contract of this function, which is that of the former callback, too.
        unsafe { (former.teardown)(dev) };
    }
    // One by one: dropping takes the lock of the container.
    while let Some(bank) = take_use(dev as usize) {
        drop(bank);
    }
}

/// Takes a bank that a device uses from the list.
fn take_use(dev: usize) -> Option<MsiBankUse> {
    let mut uses = USES.lock();
    let place = uses.iter().position(|(user, _)| *user == dev)?;
    let (_, bank) = uses.remove(place).ok()?;
    if uses.is_empty() {
        *uses = KVec::new();
    }
    Some(bank)
}
