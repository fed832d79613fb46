// SPDX-License-Identifier: GPL-2.0

//! A machine with software PAMUs and MSI banks.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use kernel_ext::iommu_driver::GroupType;

use vfio_iommu_pamu::{
    pamu::Pamu,
    system::{
        OpenLiodns,
        Settings,
        System,
        ViolationHandler, //
    },
    tables::Tables, //
};

use crate::{
    msi::MsiBanks,
    software_pamu::{
        Permitted,
        SoftwarePamu, //
    },
    walk::{
        Fault,
        Transaction, //
    }, //
};

/// The maximum number of PAMUs, and of MSI banks. An SoC has about five of each.
const MOST: u32 = 64;

/// A machine with software PAMUs.
pub(crate) struct Machine {
    violations: ViolationHandler,
    pamus: KVec<Arc<SoftwarePamu>>,
    banks: MsiBanks,
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
        let banks = MsiBanks::new(banks)?;
        let system = System::new(all, tables, banks.for_driver()?, settings)?;
        let machine = Self {
            violations: ViolationHandler::new(system)?,
            pamus: software,
            banks,
        };
        Ok(Arc::new(machine, GFP_KERNEL)?)
    }

    /// Returns a machine with these numbers of PAMUs and MSI banks. The parameters of
    /// `vfio_iommu_pamu` set the sizes of its tables.
    ///
    /// # Errors
    ///
    /// `EINVAL` for tables that are empty or too large, and those of [`new`](Self::new).
    pub(crate) fn from_parameters(pamus: u32, banks: u32) -> Result<Arc<Self>> {
        let settings = Settings::from_parameters(OpenLiodns::NONE, GroupType::Emulated);
        Self::new(Tables::from_parameters()?, pamus, banks, settings)
    }

    /// Returns the PAMUs with their tables.
    pub(crate) fn system(&self) -> &Arc<System> {
        self.violations.system()
    }

    /// Returns the number of PAMUs.
    pub(crate) fn pamu_count(&self) -> usize {
        self.pamus.len()
    }

    /// Returns the MSI banks.
    pub(crate) fn banks(&self) -> &MsiBanks {
        &self.banks
    }

    /// Performs a transaction within one page, through one of the PAMUs.
    ///
    /// # Errors
    ///
    /// The fault. The violation was handled already.
    pub(crate) fn access<R>(
        &self,
        pamu: usize,
        transaction: &Transaction,
        f: impl FnOnce(&Permitted<'_>) -> R,
    ) -> Result<R, Fault> {
        self.pamus[pamu]
            .access(transaction, f)
            .map_err(|(fault, interrupts)| {
                if interrupts {
                    self.violations.interrupt();
                }
                fault
            })
    }
}

#[kunit_tests(pamu_sim_machine)]
mod tests {
    use super::*;

    use vfio_iommu_pamu::system::SystemRef;

    use crate::{
        abi::is_refused,
        tests::{
            machine,
            tables, //
        }, //
    };

    /// The module registers a machine before its tests run.
    #[test]
    fn one_machine_at_a_time() -> Result {
        assert!(is_refused(machine()?));
        assert!(SystemRef::get().is_some());
        assert!(Machine::get().is_some());
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
                open_liodns: OpenLiodns::NONE,
                groups: GroupType::Emulated,
            };
            let machine = Machine::new(tables()?, pamus, banks, settings);
            let found = machine.map(|machine| machine.system().max_windows());
            assert_eq!(found, windows);
        }
        Ok(())
    }
}
