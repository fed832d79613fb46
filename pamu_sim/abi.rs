// SPDX-License-Identifier: GPL-2.0

//! The entry point of the module, the registered machine, and the memory of the machine as the
//! devices behind a software PAMU access it.

use core::ptr::NonNull;

use kernel::{
    page::{
        PAGE_SHIFT,
        PAGE_SIZE, //
    },
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic, //
        },
        global_lock,
        Arc, //
    }, //
};

use kernel_ext::{
    bindings,
    module::taint_test, //
};

use vfio_iommu_pamu::system::Registration;

use crate::{
    machine::Machine,
    software_pamu::Permitted,
    walk::{
        READ,
        WRITE, //
    },
    Module,
    MSI_BANKS,
    PAMUS, //
};

global_lock! {
    /// The machine that this module has registered, or `None`.
    unsafe(uninit) static MACHINE: Mutex<Option<Arc<Machine>>> = None;
}

impl kernel::Module for Module {
    fn init(module: &'static ThisModule) -> Result<Self> {
        // SAFETY: The kernel calls this once, before any other function of the module.
        unsafe { MACHINE.init() };
        let machine = Machine::from_parameters(PAMUS.get(), MSI_BANKS.get())?;
        // SAFETY: The registration becomes part of the module's data, which the kernel drops before
        // it frees the module.
        let registered = unsafe { Registered::new(module, machine)? };
        pr_warn!("software PAMUs are for tests only: they do not isolate devices\n");
        taint_test();
        Ok(Self(registered))
    }
}

impl Machine {
    /// Returns the registered machine, if any.
    pub(crate) fn get() -> Option<Arc<Self>> {
        MACHINE.lock().clone()
    }
}

/// The registration of a machine. [`Machine::get`] finds it, and containers can use its PAMUs, as
/// long as this lives.
pub(crate) struct Registered {
    _registration: Registration,
}

impl Registered {
    /// Registers `machine`. `module` is this module.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there are hardware or software PAMUs already.
    ///
    /// # Safety
    ///
    /// This is dropped before the module is freed.
    unsafe fn new(module: &'static ThisModule, machine: Arc<Machine>) -> Result<Self> {
        // SAFETY: The PAMUs of a machine are code of this module. The registration is dropped
        // together with this value.
        let registration = unsafe { Registration::new(module, || Ok(machine.system().clone()))? };
        *MACHINE.lock() = Some(machine);
        Ok(Self {
            _registration: registration,
        })
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let machine = MACHINE.lock().take();
        drop(machine);
    }
}

/// Returns whether registering a machine fails because there is one already.
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) fn is_refused(machine: Arc<Machine>) -> bool {
    let module = kernel_ext::compat::this_module::<crate::LocalModule>();
    // SAFETY: The value is dropped before this returns.
    let result = unsafe { Registered::new(module, machine) };
    result.is_err_and(|e| e == EBUSY)
}

/// The memory of this machine, as the devices behind a PAMU access it.
#[derive(Clone, Copy)]
pub(crate) struct Physical;

impl Physical {
    /// Returns the kernel address of `len` bytes that lie in one page, or `None` if they are not
    /// RAM.
    fn address(phys: u64, len: usize) -> Option<NonNull<u8>> {
        let frame = usize::try_from(phys >> PAGE_SHIFT).ok()?;
        let offset = phys as usize % PAGE_SIZE;
        // SAFETY: The function only looks at the frame's number, and at its `struct page` if there
        // is one.
        let is_ram = unsafe { bindings::kernel_ext_pfn_is_ram(frame) };
        if !is_ram || len > PAGE_SIZE - offset {
            return None;
        }
        // SAFETY: The frame is RAM, so it has a `struct page`.
        let page = unsafe { bindings::kernel_ext_pfn_to_page(frame) };
        // SAFETY: The page is valid. On 64-bit machines all pages have an address.
        let base = NonNull::new(unsafe { bindings::kernel_ext_page_address(page) }.cast::<u8>())?;
        // SAFETY: The offset is less than a page.
        Some(unsafe { base.add(offset) })
    }

    /// Returns the big-endian word at `phys`. Returns `None` if `phys` isn't a multiple of four or
    /// isn't RAM.
    pub(crate) fn load(self, phys: u64) -> Option<u32> {
        if phys % 4 != 0 {
            return None;
        }
        let word = Self::address(phys, 4)?.cast::<u32>();
        // SAFETY: This is memory of the machine. Whatever it is used for, a word of it can be read
        // atomically, and every bit pattern is a valid word.
        let word = unsafe { Atomic::from_ptr(word.as_ptr()) };
        Some(u32::from_be(word.load(Acquire)))
    }

    /// Reads from the address that a transaction was translated to. The data lies in one page.
    /// Returns whether there is memory that the transaction may read.
    pub(crate) fn read(self, from: &Permitted<'_>, data: &mut [u8]) -> bool {
        if !from.permits(READ, data.len()) {
            return false;
        }
        let Some(address) = Self::address(from.phys(), data.len()) else {
            return false;
        };
        // SAFETY: By the type invariant of `Permitted` an entry of the PAMU leads to this memory,
        // and the PAMU is locked. By the type invariant of `MappedBlock` the device may access the
        // memory until the entry was closed and the PAMU drained, and a drain waits for the lock.
        // Concurrent accesses are those that any user memory is exposed to.
        unsafe { core::ptr::copy_nonoverlapping(address.as_ptr(), data.as_mut_ptr(), data.len()) };
        true
    }

    /// Writes to the address that a transaction was translated to. The data lies in one page.
    /// Returns whether there is memory that the transaction may write.
    pub(crate) fn write(self, to: &Permitted<'_>, data: &[u8]) -> bool {
        if !to.permits(WRITE, data.len()) {
            return false;
        }
        let Some(address) = Self::address(to.phys(), data.len()) else {
            return false;
        };
        // SAFETY: As for `read`; the entry permits writing.
        unsafe { core::ptr::copy_nonoverlapping(data.as_ptr(), address.as_ptr(), data.len()) };
        true
    }
}

/// Returns the first `size` bytes of `memory` as a block for a window. Tests drop the memory after
/// every LIODN with a window to it.
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) fn block_of(
    memory: &vfio_iommu_pamu::tables::ContiguousPages,
    size: u64,
    access: vfio_iommu_pamu::paace::Access,
) -> vfio_iommu_pamu::liodn::MappedBlock {
    // SAFETY: The tests keep the memory that long. A size that isn't the memory's is refused when
    // the window is set.
    unsafe { vfio_iommu_pamu::liodn::MappedBlock::new(memory.phys(), size, access) }
}

/// Returns LIODNs of a machine that isn't registered as open.
#[cfg(CONFIG_KUNIT = "y")]
pub(crate) fn open(liodns: &[u32]) -> vfio_iommu_pamu::system::OpenLiodns<'_> {
    // SAFETY: The tests, which are the only devices of such a machine, access their own memory.
    unsafe { vfio_iommu_pamu::system::OpenLiodns::new(liodns) }
}
