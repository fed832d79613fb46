// SPDX-License-Identifier: GPL-2.0

//! The registers of a software PAMU.

#[allow(unsafe_code)]
mod abi;

pub(crate) use abi::Permitted;

use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};

use vfio_iommu_pamu::registers::{
    avs1,
    pc,
    pics,
    Register,
    REGISTERS_SIZE, //
};

use crate::{
    abi::Physical,
    walk::{
        self,
        Fault,
        Transaction, //
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
        f: impl FnOnce(&Permitted<'_>) -> R,
    ) -> Result<R, (Fault, bool)> {
        let mut registers = self.registers.lock();
        match Permitted::new(&registers, transaction) {
            Ok(permitted) => Ok(f(&permitted)),
            Err(fault) => {
                registers.violation(transaction, &fault);
                Err((fault, registers.interrupts()))
            }
        }
    }
}
