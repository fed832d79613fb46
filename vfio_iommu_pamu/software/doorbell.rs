// SPDX-License-Identifier: GPL-2.0

//! Banks of message signalled interrupts in software.
//!
//! A bank's doorbell is a word in a page, at the offset that the alias pages of the real ones have. A write
//! to it interrupts: its first byte is the number of the vector.
//!
//! The page is one of memory, so that nothing else has its address; but nothing is ever stored there, as
//! devices of several containers may reach it. It reads as zeroes.

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

/// Called when a vector was written to the doorbell. May not sleep.
pub(crate) trait Interrupt: Send + Sync {
    /// There was an interrupt.
    fn interrupt(&self);
}

/// The handlers of a bank's vectors.
type Handlers = KVVec<Option<Arc<dyn Interrupt>>>;

/// A bank.
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

/// All banks of a machine.
pub(crate) struct Doorbells(KVec<Arc<Bank>>);

impl Doorbells {
    /// So many banks.
    pub(super) fn new(count: u32) -> Result<Self> {
        let mut banks = KVec::new();
        for _ in 0..count {
            banks.push(Bank::new()?, GFP_KERNEL)?;
        }
        Ok(Self(banks))
    }

    /// The physical addresses of the doorbells.
    pub(super) fn addresses(&self) -> impl Iterator<Item = u64> + '_ {
        self.0.iter().map(|bank| bank.address())
    }

    /// The bank whose page this is in, if any.
    fn bank_at(&self, place: &Translated) -> Option<&Bank> {
        let bank = self
            .0
            .iter()
            .find(|bank| bank.page.phys() == place.phys() & !(PAGE - 1));
        bank.map(|bank| &**bank)
    }

    /// Reads from the page of a doorbell. Returns whether it is one.
    pub(super) fn read(&self, from: &Translated, data: &mut [u8]) -> bool {
        let found = self.bank_at(from).is_some();
        if found {
            data.fill(0);
        }
        found
    }

    /// Writes to the page of a doorbell, and interrupts if it is to the doorbell. Returns whether it is one.
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

/// An interrupt behind a doorbell, until it is dropped.
pub(crate) struct Vector {
    bank: Arc<Bank>,
    data: u32,
}

impl Vector {
    /// Takes a vector of bank `number`, which calls `handler`.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the machine has no software PAMUs, or no such bank; `ENOSPC` if all of its vectors
    /// are taken.
    pub(crate) fn new(number: u32, handler: Arc<dyn Interrupt>) -> Result<Self> {
        let machine = Machine::get().ok_or(ENODEV)?;
        Self::of(machine.doorbells(), number, handler)
    }

    /// Takes a vector of one of these banks.
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

    /// What the device has to write to the doorbell, as a little-endian word.
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
