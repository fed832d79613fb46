// SPDX-License-Identifier: GPL-2.0

//! Software banks of message signalled interrupts (MSI), and the interrupts of devices.
//!
//! The doorbell of a bank is a word in a page, at the offset that it has in the alias pages of
//! hardware banks. A write to it raises an interrupt. The first byte written is the number of the
//! vector.
//!
//! The page is a page of memory, so that nothing else has its address. But writes to it are never
//! stored, because devices of several containers may reach it. It reads as zeroes.

use kernel::{
    device::Device,
    new_spinlock,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};

use kernel_ext::eventfd::EventFd;

use vfio_iommu_pamu::{
    msi::{
        MsiBank,
        MsiBankUse, //
    },
    tables::ContiguousPages, //
};

use crate::{
    machine::Machine,
    software_pamu::Permitted, //
};

/// The vectors of a bank.
const VECTORS: usize = 256;

/// The handler that is called when a vector is written to the doorbell. It must not sleep.
pub(crate) trait Interrupt: Send + Sync {
    /// Handles an interrupt.
    fn interrupt(&self);
}

/// The handlers of a bank's vectors.
type Handlers = KVVec<Option<Arc<dyn Interrupt>>>;

/// The offset of a doorbell in its page.
const DOORBELL: u64 = 0x140;

/// An MSI bank.
#[pin_data]
struct Bank {
    /// The page of the doorbell. Its memory is never accessed; it only keeps the address from being
    /// used for anything else.
    page: Arc<ContiguousPages>,
    #[pin]
    handlers: SpinLock<Handlers>,
}

impl Bank {
    fn new() -> Result<Arc<Self>> {
        let page = Arc::new(ContiguousPages::new(0)?, GFP_KERNEL)?;
        let mut handlers = KVVec::with_capacity(VECTORS, GFP_KERNEL)?;
        for _ in 0..VECTORS {
            handlers.push(None, GFP_KERNEL)?;
        }
        Arc::pin_init(
            pin_init!(Self {
                page,
                handlers <- new_spinlock!(handlers, "pamu_sim::handlers"),
            }),
            GFP_KERNEL,
        )
    }

    /// Calls the handler of the vector that was written to the doorbell.
    fn ring(&self, data: &[u8]) {
        let Some(vector) = data.first() else {
            return;
        };
        let handlers = self.handlers.lock();
        if let Some(Some(handler)) = handlers.get(usize::from(*vector)) {
            handler.interrupt();
        }
    }
}

/// All MSI banks of a machine.
pub(crate) struct MsiBanks(KVec<Arc<Bank>>);

impl MsiBanks {
    /// Returns `count` banks.
    pub(crate) fn new(count: u32) -> Result<Self> {
        let mut banks = KVec::new();
        for _ in 0..count {
            banks.push(Bank::new()?, GFP_KERNEL)?;
        }
        Ok(Self(banks))
    }

    /// Returns the banks for the driver of the PAMUs.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn for_driver(&self) -> Result<KVec<MsiBank>> {
        let mut banks = KVec::with_capacity(self.0.len(), GFP_KERNEL)?;
        for bank in &self.0 {
            let bank = MsiBank::in_memory(bank.page.clone(), DOORBELL);
            banks.push(bank, GFP_KERNEL)?;
        }
        Ok(banks)
    }

    /// Returns the bank whose doorbell page contains `place`, if any.
    fn bank_at(&self, place: &Permitted<'_>) -> Option<&Bank> {
        let bank = self
            .0
            .iter()
            .find(|bank| bank.page.phys() == place.phys() & !(PAGE_SIZE as u64 - 1));
        bank.map(|bank| &**bank)
    }

    /// Reads from a doorbell page. Returns whether the address is in one.
    pub(crate) fn read(&self, from: &Permitted<'_>, data: &mut [u8]) -> bool {
        let found = self.bank_at(from).is_some();
        if found {
            data.fill(0);
        }
        found
    }

    /// Writes to a doorbell page, and raises an interrupt if the address is that of the doorbell.
    /// Returns whether the address is in a doorbell page.
    pub(crate) fn write(&self, to: &Permitted<'_>, data: &[u8]) -> bool {
        let Some(bank) = self.bank_at(to) else {
            return false;
        };
        if to.phys() == bank.page.phys() + DOORBELL {
            bank.ring(data);
        }
        true
    }
}

/// An allocated vector of a bank. Dropping it frees the vector.
pub(crate) struct Vector {
    bank: Arc<Bank>,
    data: u32,
}

impl Vector {
    /// Allocates a vector of bank `number`. Its interrupts call `handler`.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the machine has no software PAMUs or no such bank; `ENOSPC` if all vectors of
    /// the bank are in use.
    pub(crate) fn new(number: u32, handler: Arc<dyn Interrupt>) -> Result<Self> {
        let machine = Machine::get().ok_or(ENODEV)?;
        Self::of(machine.banks(), number, handler)
    }

    /// Allocates a vector of one of these banks.
    pub(crate) fn of(banks: &MsiBanks, number: u32, handler: Arc<dyn Interrupt>) -> Result<Self> {
        let bank = banks.0.get(number as usize).ok_or(ENODEV)?.clone();
        let data = {
            let mut handlers = bank.handlers.lock();
            let free = handlers.iter().position(Option::is_none).ok_or(ENOSPC)?;
            handlers[free] = Some(handler);
            free as u32
        };
        Ok(Self { bank, data })
    }

    /// Returns the value that the device writes to the doorbell, as a little-endian word.
    pub(crate) fn data(&self) -> u32 {
        self.data
    }
}

impl Drop for Vector {
    fn drop(&mut self) {
        let handler = self.bank.handlers.lock()[self.data as usize].take();
        drop(handler);
    }
}

/// The interrupt of a device. Dropping it frees its vector and ends the use of the bank. Until then
/// the bank can't be unmapped.
pub struct Msi {
    bank: MsiBankUse,
    vector: Vector,
}

/// Signals an eventfd on each interrupt.
struct Signal(EventFd);

impl Interrupt for Signal {
    fn interrupt(&self) {
        self.0.signal();
    }
}

impl Msi {
    /// Allocates an interrupt of `bank` for a device, or of the first bank that is mapped for the
    /// device. It signals the eventfd `fd`.
    ///
    /// # Errors
    ///
    /// `EBADF` or `EINVAL` if `fd` isn't an eventfd; `ENODEV` if the device has no LIODN, or if
    /// there is no such bank; `EINVAL` if no container has the LIODN, or if the bank isn't mapped
    /// there with write access; `ENOSPC` if all vectors of the bank are in use; `ENOMEM`.
    pub fn new(dev: &Device, bank: Option<u32>, fd: i32) -> Result<Self> {
        let event = EventFd::from_fd(fd)?;
        let bank = MsiBankUse::new(dev, bank)?;
        let handler = Arc::new(Signal(event), GFP_KERNEL_ACCOUNT)?;
        let vector = Vector::new(bank.bank(), handler)?;
        Ok(Self { bank, vector })
    }

    /// Returns the address that the device writes to.
    pub fn address(&self) -> u64 {
        self.bank.address()
    }

    /// Returns the value that the device writes, as a little-endian word.
    pub fn data(&self) -> u32 {
        self.vector.data()
    }
}
