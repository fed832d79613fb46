// SPDX-License-Identifier: GPL-2.0

//! The registers of a software PAMU.

use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};

use vfio_iommu_pamu::{
    pamu::Pamu,
    registers::{
        avs1,
        pc,
        pics,
        Register,
        REGISTERS_SIZE, //
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

/// The values of all registers.
struct Registers(KBox<[u32; REGISTERS_SIZE / 4]>);

impl Registers {
    /// Returns the registers at power-on: the gate is closed, and the capabilities are those of the
    /// larger PAMUs of these SoCs.
    fn new() -> Result<Self> {
        let mut this = Self(KBox::new([0; REGISTERS_SIZE / 4], GFP_KERNEL)?);
        this.set(Register::Pr1, 0x0100_0101);
        this.set(Register::Pc2, 0xffff << 16);
        this.set(Register::Pc3, MWCE << 21);
        this.set(Register::Pc, pc::PGC);
        Ok(this)
    }

    fn set(&mut self, register: Register, value: u32) {
        self.0[register as usize / 4] = value;
    }

    /// Returns whether an interrupt is requested.
    fn interrupts(&self) -> bool {
        use walk::Registers;
        self.get(Register::Pics) & (pics::AV | pics::AV_ENABLE) == pics::AV | pics::AV_ENABLE
    }

    /// Records a violation. The first one stays until it is cleared.
    fn violation(&mut self, transaction: &Transaction, fault: &Fault) {
        use walk::Registers;
        if self.get(Register::Avs1) & avs1::AV != 0 {
            return;
        }
        let liodn = u32::from(transaction.liodn) << avs1::LIODN_SHIFT;
        self.set(Register::Avs1, liodn | fault.status);
        self.set(Register::Avah, (transaction.address >> 32) as u32);
        self.set(Register::Aval, transaction.address as u32);
        self.set(Register::Poeah, (fault.entry >> 32) as u32);
        self.set(Register::Poeal, fault.entry as u32);
        self.set(Register::Pics, self.get(Register::Pics) | pics::AV);
    }
}

/// The code of the maximum number of windows, which is 2^(MWCE + 1).
const MWCE: u32 = 7;

impl walk::Registers for Registers {
    fn get(&self, register: Register) -> u32 {
        self.0[register as usize / 4]
    }
}

impl walk::TableMemory for Physical {
    fn load(&self, phys: u64) -> Option<u32> {
        Physical::load(*self, phys)
    }
}

/// A software PAMU. It handles one transaction at a time.
#[pin_data]
pub(crate) struct SoftwarePamu {
    #[pin]
    registers: SpinLock<Registers>,
}

impl SoftwarePamu {
    /// Returns a PAMU in its power-on state.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        let registers = Registers::new()?;
        Arc::pin_init(
            pin_init!(Self {
                registers <- new_spinlock!(registers, "pamu_sim::registers"),
            }),
            GFP_KERNEL,
        )
    }

    /// Translates a transaction and calls `f` with the result. A concurrent drain of the PAMU waits
    /// until `f` has returned.
    ///
    /// # Errors
    ///
    /// The fault, and whether there is an interrupt to handle.
    pub(crate) fn access<R>(
        &self,
        transaction: &Transaction,
        f: impl FnOnce(&Translated) -> R,
    ) -> Result<R, (Fault, bool)> {
        let mut registers = self.registers.lock();
        match walk::translate(&*registers, &Physical, transaction) {
            Ok(translated) => Ok(f(&translated)),
            Err(fault) => {
                registers.violation(transaction, &fault);
                Err((fault, registers.interrupts()))
            }
        }
    }
}

impl Pamu for SoftwarePamu {
    fn read(&self, register: Register) -> u32 {
        walk::Registers::get(&*self.registers.lock(), register)
    }

    fn write(&self, register: Register, value: u32) {
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
