// SPDX-License-Identifier: GPL-2.0

//! Software PAMUs, for tests on machines without PAMUs.
//!
//! A software PAMU models the hardware. It is given the physical addresses of the tables through
//! its registers, and it reads the entries from memory for each transaction ([`walk`]). A permitted
//! transaction reaches the machine's memory, or the doorbell of an MSI bank ([`doorbell`]). A
//! refused transaction is recorded in the registers and raises an interrupt.
//!
//! A device is any caller of a [`Master`], with any LIODN. Nothing but its driver isolates such a
//! device from other devices, so the kernel is tainted as one under test.

mod doorbell;
mod master;
#[cfg(CONFIG_KUNIT = "y")]
mod trials;
mod walk;

use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};

use kernel_ext::{
    iommu_driver::GroupKind,
    taint, //
};

use crate::{
    abi::{
        Physical,
        MACHINE,
        SYSTEM, //
    },
    msi::Bank,
    pamu::Pamu,
    parameters,
    registers::{
        avs1,
        pc,
        pics,
        Register,
        PAGE, //
    },
    system::{
        Listener,
        Settings,
        System, //
    },
    tables::Tables, //
};

pub(crate) use doorbell::Doorbells;
pub(crate) use walk::{
    Fault,
    Transaction,
    Translated, //
};

pub(crate) use doorbell::{
    Interrupt,
    Vector, //
};
pub(crate) use master::Master;

/// The values of all registers.
struct Registers(KBox<[u32; PAGE / 4]>);

impl Registers {
    /// Returns the registers at power-on: the gate is closed, and the capabilities are those of the
    /// larger PAMUs of these SoCs.
    fn new() -> Result<Self> {
        let mut this = Self(KBox::new([0; PAGE / 4], GFP_KERNEL)?);
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

/// The maximum number of PAMUs, and of MSI banks. An SoC has about five of each.
const MOST: u32 = 64;

/// The code of the maximum number of windows, which is 2^(MWCE + 1).
const MWCE: u32 = 7;

impl walk::Registers for Registers {
    fn get(&self, register: Register) -> u32 {
        self.0[register as usize / 4]
    }
}

impl walk::Memory for Physical {
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
                registers <- new_spinlock!(registers, "vfio_pamu::software"),
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
    fn access<R>(
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

/// The registration of the software machine. It can be found as long as this lives.
pub(crate) struct Published(());

impl Published {
    /// Registers `machine`.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there are hardware or software PAMUs already.
    fn new(machine: Arc<Machine>) -> Result<Self> {
        let mut system = SYSTEM.lock();
        if system.is_some() {
            return Err(EBUSY);
        }
        *system = Some(machine.system().clone());
        *MACHINE.lock() = Some(machine);
        Ok(Self(()))
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        let system = SYSTEM.lock().take();
        let machine = MACHINE.lock().take();
        drop((system, machine));
    }
}

/// A machine with software PAMUs.
pub(crate) struct Machine {
    listener: Listener,
    pamus: KVec<Arc<SoftwarePamu>>,
    doorbells: Doorbells,
}

impl Machine {
    /// Returns a machine with the given numbers of PAMUs and MSI banks.
    ///
    /// # Errors
    ///
    /// `EINVAL` for no PAMU, or for more than [`MOST`] PAMUs or banks; `ENOMEM`.
    pub(crate) fn new(
        tables: Arc<Tables>,
        pamus: u32,
        banks: u32,
        settings: Settings<'_>,
    ) -> Result<Arc<Self>> {
        if pamus > MOST || banks > MOST {
            return Err(EINVAL);
        }
        let mut software = KVec::new();
        let mut all: KVec<Arc<dyn Pamu>> = KVec::new();
        for _ in 0..pamus {
            let pamu = SoftwarePamu::new()?;
            software.push(pamu.clone(), GFP_KERNEL)?;
            all.push(pamu, GFP_KERNEL)?;
        }
        let doorbells = Doorbells::new(banks)?;
        let mut banks = KVec::new();
        for address in doorbells.addresses() {
            banks.push(Bank::new(address), GFP_KERNEL)?;
        }
        let system = System::new(all, tables, banks, settings)?;
        let machine = Self {
            listener: Listener::new(system)?,
            pamus: software,
            doorbells,
        };
        Ok(Arc::new(machine, GFP_KERNEL)?)
    }

    /// Returns the machine that the module parameters request, if any.
    ///
    /// # Errors
    ///
    /// `EINVAL` for tables that are empty or too large, and those of [`new`](Self::new); `EBUSY` if
    /// there is a hardware PAMU.
    pub(crate) fn of_parameters() -> Result<Option<Published>> {
        if parameters::SOFTWARE.get() == 0 {
            return Ok(None);
        }
        let settings = Settings {
            max_windows: parameters::MAX_WINDOWS.get(),
            open: &[],
            groups: GroupKind::Emulated,
        };
        let machine = Self::new(
            Tables::new(parameters::limits())?,
            parameters::SOFTWARE.get(),
            parameters::SOFTWARE_MSI_BANKS.get(),
            settings,
        )?;
        let published = Published::new(machine)?;
        pr_warn!("PAMUs in software are for tests: they do not isolate devices from each other\n");
        taint::test();
        Ok(Some(published))
    }

    /// Returns the machine that was created when the module was loaded, if any.
    pub(crate) fn get() -> Option<Arc<Self>> {
        MACHINE.lock().clone()
    }

    /// Returns the PAMUs with their tables.
    pub(crate) fn system(&self) -> &Arc<System> {
        self.listener.system()
    }

    /// Returns the MSI banks.
    pub(crate) fn doorbells(&self) -> &Doorbells {
        &self.doorbells
    }

    /// Performs a transaction within one page, through one of the PAMUs.
    ///
    /// # Errors
    ///
    /// The fault. The violation was handled already.
    fn access<R>(
        &self,
        pamu: usize,
        transaction: &Transaction,
        f: impl FnOnce(&Translated) -> R,
    ) -> Result<R, Fault> {
        self.pamus[pamu]
            .access(transaction, f)
            .map_err(|(fault, interrupts)| {
                if interrupts {
                    self.listener.interrupt();
                }
                fault
            })
    }
}

#[kunit_tests(vfio_pamu_software)]
mod tests {
    use super::{
        trials::{
            machine,
            tables, //
        },
        *, //
    };

    #[test]
    fn there_is_one_machine_at_a_time() -> Result {
        // The module parameters may have created one already.
        let first = Published::new(machine()?);
        assert!(first.as_ref().err().is_none_or(|e| *e == EBUSY));
        assert_eq!(Published::new(machine()?).err(), Some(EBUSY));
        assert!(System::get().is_some());
        let was_first = first.is_ok();
        drop(first);
        assert_eq!(System::get().is_none(), was_first);
        Ok(())
    }

    #[test]
    fn sizes_of_machines() -> Result {
        for (pamus, banks, asked, windows) in [
            (1, 0, 256, Ok(256)),
            (MOST, MOST, u32::MAX, Ok(256)),
            (1, 3, 5, Ok(4)),
            (1, 3, 1, Ok(1)),
            (1, 3, 0, Err(EINVAL)),
            (0, 3, 256, Err(EINVAL)),
            (MOST + 1, 3, 256, Err(EINVAL)),
            (1, MOST + 1, 256, Err(EINVAL)),
            (u32::MAX, u32::MAX, 256, Err(EINVAL)),
        ] {
            let settings = Settings {
                max_windows: asked,
                open: &[],
                groups: GroupKind::Emulated,
            };
            let machine = Machine::new(tables()?, pamus, banks, settings);
            let found = machine.map(|machine| machine.system().max_windows());
            assert_eq!(found, windows);
        }
        Ok(())
    }
}
