// SPDX-License-Identifier: GPL-2.0

//! The registers of hardware PAMUs, their interrupt, the LIODNs of the device tree, the global
//! utilities of this SoC, and the registration of the drivers.

use core::marker::PhantomData;

use kernel::{
    device::{
        Core,
        Device, //
    },
    driver::{
        DriverLayout,
        RegistrationOps, //
    },
    irq::{
        Flags,
        ThreadedHandler,
        ThreadedRegistration, //
    },
    platform,
    prelude::*,
    sync::{
        global_lock,
        Arc, //
    },
    types::Opaque, //
};

use kernel_ext::bindings;

use crate::{
    firmware,
    pamu::Pamu,
    registers::Register,
    system::OpenLiodns, //
};

use super::{
    guts::Guts,
    swapped,
    RegisterPage,
    RegisterSpace, //
};

// SAFETY: The page is that of a hardware PAMU, or memory of a test, which accesses nothing. The
// PAMU reads the tables and permits transactions as its manual says. Its entry caches are coherent
// with the processors' writes, and writes to its registers are not reordered. Transactions that it
// has permitted are over when memory is released: vfio-pci stops a device before its group is
// detached. For memory that is unmapped from a running device nothing ensures that; the contract of
// the trait has that exception.
unsafe impl<S: RegisterSpace> Pamu for RegisterPage<S> {
    fn read(&self, register: Register) -> u32 {
        // Nothing is pending on a device that is gone.
        let value = self.space.read(self.base + register as usize);
        value.map_or(0, swapped)
    }

    unsafe fn write(&self, register: Register, value: u32) {
        self.space
            .write(self.base + register as usize, swapped(value));
    }

    fn drain(&self) {
        // There is no drain command: the entry caches are coherent with the processors' writes, and
        // nothing can be done for transactions.
    }
}

#[cfg(CONFIG_KUNIT = "y")]
impl RegisterPage<crate::tables::ContiguousPages> {
    /// Writes a register.
    pub(super) fn set(&self, register: Register, value: u32) {
        // SAFETY: The registers are memory of a test. No hardware reads tables.
        unsafe { self.write(register, value) };
    }
}

/// The LIODNs of the devices in the device tree.
pub(super) struct TreeLiodns(KVec<u32>);

impl TreeLiodns {
    /// Returns those of a test, in which no device does DMA.
    #[cfg(CONFIG_KUNIT = "y")]
    pub(super) fn of_test(liodns: KVec<u32>) -> Self {
        Self(liodns)
    }

    /// Returns those of the tree that contains the node of `dev`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn of(dev: &Device) -> Result<Self> {
        Ok(Self(match dev.fwnode() {
            Some(node) => firmware::all_liodns(node)?,
            None => KVec::new(),
        }))
    }

    /// Returns them as LIODNs that may access all memory while they are neither blocked nor
    /// claimed.
    pub(super) fn liodns(&self) -> OpenLiodns<'_> {
        // SAFETY: The caller binds the driver of the PAMUs. `Registration::new` fails while a
        // container of an earlier binding exists, so the DMA of no device is userspace's now. Later,
        // while that of a device is, the IOMMU core has its group in the blocked domain, or a
        // container has claimed its LIODNs. At other times a kernel driver uses it, and its bus
        // addresses are physical addresses.
        unsafe { OpenLiodns::new(&self.0) }
    }

    /// Returns their number.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

global_lock! {
    /// The global utilities of this SoC, or `None`.
    pub(super) unsafe(uninit) static GUTS: Mutex<Option<Arc<Guts>>> = None;
}

/// Initializes the lock of the global utilities.
///
/// # Safety
///
/// This function wasn't called before, and [`GUTS`](static@GUTS) wasn't used before.
pub(crate) unsafe fn init_lock() {
    // SAFETY: By the contract of this function.
    unsafe { GUTS.init() };
}

/// Requests the first interrupt of the PAMUs. A thread calls `handler`.
pub(super) fn violation_interrupt<'a, T: ThreadedHandler + 'a>(
    pdev: &'a platform::Device<Core<'_>>,
    handler: T,
) -> impl PinInit<ThreadedRegistration<'a, T>, Error> + 'a {
    let flags = Flags::SHARED | Flags::ONESHOT;
    // SAFETY: The registration becomes part of the driver's data, which the driver core drops.
    unsafe { pdev.request_threaded_irq_by_index(flags, 0, c"vfio_pamu", Ok::<T, Error>(handler)) }
}

/// The adapter of a platform driver that sysfs can neither bind nor unbind.
///
/// Groups, containers and the DMA of the kernel's drivers rely on the PAMUs. They hold references to
/// the module, but the driver core doesn't ask the module before it unbinds a driver.
pub(crate) struct Permanent<T>(PhantomData<T>);

// SAFETY: The type, the data and the offset are those of `platform::Adapter`.
unsafe impl<T: platform::Driver> DriverLayout for Permanent<T> {
    type DriverType = bindings::platform_driver;
    type DriverData<'bound> = T::Data<'bound>;
    const DEVICE_DRIVER_OFFSET: usize =
        <platform::Adapter<T> as DriverLayout>::DEVICE_DRIVER_OFFSET;
}

// SAFETY: `register` succeeds if `platform::Adapter` does, whose `unregister` reverts that.
unsafe impl<T: platform::Driver> RegistrationOps for Permanent<T> {
    unsafe fn register(
        driver: &Opaque<Self::DriverType>,
        name: &'static CStr,
        module: &'static ThisModule,
    ) -> Result {
        // SAFETY: Nothing else accesses a driver that isn't registered.
        unsafe { (*driver.get()).driver.suppress_bind_attrs = true };
        // SAFETY: By the contract of this function.
        unsafe { platform::Adapter::<T>::register(driver, name, module) }
    }

    unsafe fn unregister(driver: &Opaque<Self::DriverType>) {
        // SAFETY: By the contract of this function.
        unsafe { platform::Adapter::<T>::unregister(driver) };
    }
}
