// SPDX-License-Identifier: GPL-2.0

//! Software banks of message signalled interrupts.
//!
//! The doorbell of a bank is a word in a page, at the offset that it has in the alias pages of
//! hardware banks. A write to it raises an interrupt. The first byte written is the number of the
//! vector.
//!
//! The page is a page of memory, so that nothing else has its address. But writes to it are never
//! stored, because devices of several containers may reach it. It reads as zeroes.

use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};

use crate::{
    abi::Contiguous,
    paace::PAGE, //
};

use super::{
    Machine,
    Translated, //
};

/// The offset of the doorbell in its page.
const OFFSET: u64 = 0x140;

/// The vectors of a bank.
const VECTORS: usize = 256;

/// The handler that is called when a vector is written to the doorbell. It must not sleep.
pub(crate) trait Interrupt: Send + Sync {
    /// Handles an interrupt.
    fn interrupt(&self);
}

/// The handlers of a bank's vectors.
type Handlers = KVVec<Option<Arc<dyn Interrupt>>>;

/// An MSI bank.
#[pin_data]
struct Bank {
    page: Contiguous,
    #[pin]
    handlers: SpinLock<Handlers>,
}

impl Bank {
    fn new() -> Result<Arc<Self>> {
        let page = Contiguous::new(0)?;
        let mut handlers = KVVec::with_capacity(VECTORS, GFP_KERNEL)?;
        for _ in 0..VECTORS {
            handlers.push(None, GFP_KERNEL)?;
        }
        Arc::pin_init(
            pin_init!(Self {
                page,
                handlers <- new_spinlock!(handlers, "vfio_pamu::doorbell"),
            }),
            GFP_KERNEL,
        )
    }

    fn address(&self) -> u64 {
        self.page.phys() + OFFSET
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
pub(crate) struct Doorbells(KVec<Arc<Bank>>);

impl Doorbells {
    /// Returns `count` banks.
    pub(super) fn new(count: u32) -> Result<Self> {
        let mut banks = KVec::new();
        for _ in 0..count {
            banks.push(Bank::new()?, GFP_KERNEL)?;
        }
        Ok(Self(banks))
    }

    /// Returns the physical addresses of the doorbells.
    pub(super) fn addresses(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().map(|bank| bank.address())
    }

    /// Returns the bank whose doorbell page contains `place`, if any.
    fn bank_at(&self, place: &Translated) -> Option<&Bank> {
        let bank = self
            .0
            .iter()
            .find(|bank| bank.page.phys() == place.phys() & !(PAGE - 1));
        bank.map(|bank| &**bank)
    }

    /// Reads from a doorbell page. Returns whether the address is in one.
    pub(super) fn read(&self, from: &Translated, data: &mut [u8]) -> bool {
        let found = self.bank_at(from).is_some();
        if found {
            data.fill(0);
        }
        found
    }

    /// Writes to a doorbell page, and raises an interrupt if the address is that of the doorbell.
    /// Returns whether the address is in a doorbell page.
    pub(super) fn write(&self, to: &Translated, data: &[u8]) -> bool {
        let Some(bank) = self.bank_at(to) else {
            return false;
        };
        if to.phys() == bank.address() {
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
        Self::of(machine.doorbells(), number, handler)
    }

    /// Allocates a vector of one of these banks.
    pub(crate) fn of(
        doorbells: &Doorbells,
        number: u32,
        handler: Arc<dyn Interrupt>,
    ) -> Result<Self> {
        let bank = doorbells.0.get(number as usize).ok_or(ENODEV)?.clone();
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
