// SPDX-License-Identifier: GPL-2.0

//! What the release of memory relies on: transactions are permitted and finished under the lock of
//! the PAMU, and a drain waits for that lock.

use core::marker::PhantomData;

use kernel::sync::lock::{
    spinlock::SpinLockBackend,
    Guard, //
};

use vfio_iommu_pamu::{
    pamu::Pamu,
    registers::{
        avs1,
        pics,
        Register, //
    }, //
};

use crate::{
    abi::Physical,
    walk::{
        self,
        Fault,
        Transaction,
        Translated, //
    }, //
};

use super::{
    Registers,
    SoftwarePamu, //
};

/// A transaction that a PAMU has permitted and not finished yet.
///
/// # Invariants
///
/// An entry of the PAMU permits `transaction` and translates it to `translated`. The PAMU has been
/// locked since before the entry was read, and stays locked for `'a`.
pub(crate) struct Permitted<'a> {
    transaction: Transaction,
    translated: Translated,
    _locked: PhantomData<&'a Registers>,
}

impl<'a> Permitted<'a> {
    /// Translates a transaction by the registers of a locked PAMU.
    ///
    /// # Errors
    ///
    /// The fault, if the PAMU refuses the transaction.
    pub(super) fn new(
        registers: &'a Guard<'_, Registers, SpinLockBackend>,
        transaction: &Transaction,
    ) -> Result<Self, Fault> {
        let translated = walk::translate(&**registers, &Physical, transaction)?;
        // INVARIANT: The entry was just read, and the guard is borrowed for `'a`.
        Ok(Self {
            transaction: *transaction,
            translated,
            _locked: PhantomData,
        })
    }

    /// Returns the physical address.
    pub(crate) fn phys(&self) -> u64 {
        self.translated.phys()
    }

    /// Returns whether the PAMU permits `operation` on the first `len` bytes.
    pub(crate) fn permits(&self, operation: u8, len: usize) -> bool {
        operation == self.transaction.operation && len as u64 <= self.transaction.len
    }
}

// SAFETY: A transaction accesses memory only as a `Permitted`, that is, as an entry of the tables
// permits, and not while the gate is closed. It holds the lock until it has finished. `drain` takes
// the lock, so it waits for the transactions that began before, and later ones see all previous
// writes.
unsafe impl Pamu for SoftwarePamu {
    fn read(&self, register: Register) -> u32 {
        walk::Registers::get(&*self.registers.lock(), register)
    }

    unsafe fn write(&self, register: Register, value: u32) {
        use walk::Registers;
        let mut registers = self.registers.lock();
        match register {
            // Writing ones clears bits. The LIODN is cleared together with the violation.
            Register::Avs1 => {
                let rest = registers.get(Register::Avs1) & !(value & avs1::STATUS);
                let rest = if rest & avs1::AV == 0 { 0 } else { rest };
                registers.set(Register::Avs1, rest);
            }
            // The status follows AVS1.
            Register::Pics => {
                let status = registers.get(Register::Avs1) & avs1::AV != 0;
                let status = if status { pics::AV } else { 0 };
                registers.set(Register::Pics, value & pics::AV_ENABLE | status);
            }
            // These registers describe the hardware and are read-only.
            Register::Pr1 | Register::Pr2 => {}
            Register::Pc1 | Register::Pc2 | Register::Pc3 | Register::Pc4 => {}
            _ => registers.set(register, value),
        }
    }

    fn drain(&self) {
        // A thread that holds the lock is in the middle of a transaction; wait for it.
        drop(self.registers.lock());
    }
}
