// SPDX-License-Identifier: GPL-2.0

//! PAMUs whose registers are memory, for the tests of this module.

use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

use kernel_ext::iommu_driver::GroupType;

use crate::{
    pamu::Pamu,
    registers::{
        Register,
        REGISTERS_SIZE, //
    },
    system::{
        OpenLiodns,
        Registration,
        Settings,
        System, //
    },
    tables::{
        ContiguousPages,
        TableSizes,
        Tables, //
    },
};

use super::{
    RegisterPage,
    RegisterSpace, //
};

/// Memory in place of registers, so that tests can inspect it as bytes.
impl RegisterSpace for ContiguousPages {
    fn read(&self, offset: usize) -> Option<u32> {
        self.words()
            .get(offset / 4)
            .map(|word| u32::from_le(word.load(Relaxed)))
    }

    fn write(&self, offset: usize, value: u32) {
        if let Some(word) = self.words().get(offset / 4) {
            word.store(value.to_le(), Relaxed);
        }
    }
}

/// Returns two PAMUs, and the memory of their registers.
pub(super) fn pamus() -> Result<(Arc<ContiguousPages>, [RegisterPage<ContiguousPages>; 2])> {
    let space = Arc::new(ContiguousPages::new(1)?, GFP_KERNEL)?;
    let pages = [0, REGISTERS_SIZE].map(|base| RegisterPage {
        space: space.clone(),
        base,
    });
    Ok((space, pages))
}

/// Registers a system with 16 LIODNs and one PAMU, whose registers are the first page of `space`.
///
/// # Errors
///
/// `EBUSY` if this machine has PAMUs already, `ENOMEM`.
pub(super) fn register(space: Arc<ContiguousPages>) -> Result<Registration> {
    let page = RegisterPage { space, base: 0 };
    page.set(Register::Pc2, 15 << 16);
    let mut pamus: KVec<Arc<dyn Pamu>> = KVec::new();
    pamus.push(Arc::new(page, GFP_KERNEL)?, GFP_KERNEL)?;
    let sizes = TableSizes {
        liodns: 16,
        spaaces: 16,
    };
    Registration::of_this_module(|| {
        let settings = Settings::from_parameters(OpenLiodns::NONE, GroupType::Iommu);
        System::new(pamus, Tables::new(sizes)?, KVec::new(), settings)
    })
}

/// Registers PAMUs for tests of containers, unless this machine has PAMUs already.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn register_if_none() -> Result<Option<Registration>> {
    match register(pamus()?.0) {
        Err(e) if e == EBUSY => Ok(None),
        result => result.map(Some),
    }
}
