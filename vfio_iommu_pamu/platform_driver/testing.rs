// SPDX-License-Identifier: GPL-2.0

//! PAMUs whose registers are memory, for the tests of this module.

use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

use kernel_ext::{
    iommu_driver::GroupType,
    testing::skip, //
};

use crate::{
    pamu::Pamu,
    registers::{
        pics,
        Register,
        REGISTERS_SIZE, //
    },
    system::{
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
    abi::TreeLiodns,
    swapped,
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

/// Registers that all read as one value and can't be written, or are gone.
pub(super) struct Stuck(pub(super) Option<u32>);

impl RegisterSpace for Stuck {
    fn read(&self, _offset: usize) -> Option<u32> {
        self.0
    }

    fn write(&self, _offset: usize, _value: u32) {}
}

/// As memory, but the status of violations is cleared by writing ones, as in hardware.
pub(super) struct Clearing(ContiguousPages);

impl RegisterSpace for Clearing {
    fn read(&self, offset: usize) -> Option<u32> {
        self.0.read(offset)
    }

    fn write(&self, offset: usize, value: u32) {
        let value = swapped(value);
        let former = self.read(offset).map_or(0, swapped);
        let page = offset % REGISTERS_SIZE;
        let value = if page == Register::Avs1 as usize {
            former & !value
        } else if page == Register::Pics as usize {
            former & !value & pics::AV | value & pics::AV_ENABLE
        } else {
            value
        };
        self.0.write(offset, swapped(value));
    }
}

impl RegisterPage<Clearing> {
    /// Sets a register, as the PAMU does.
    pub(super) fn put(&self, register: Register, value: u32) {
        self.space
            .0
            .write(self.base + register as usize, swapped(value));
    }
}

/// Returns two PAMUs, and the memory of their registers.
pub(super) fn pamus() -> Result<(Arc<ContiguousPages>, [RegisterPage<ContiguousPages>; 2])> {
    let space = Arc::new(ContiguousPages::new(1)?, GFP_KERNEL)?;
    let pages = pages(&space);
    Ok((space, pages))
}

/// Returns two PAMUs whose status can be cleared, and their registers.
pub(super) fn clearing_pamus() -> Result<(Arc<Clearing>, [RegisterPage<Clearing>; 2])> {
    let space = Arc::new(Clearing(ContiguousPages::new(1)?), GFP_KERNEL)?;
    let pages = pages(&space);
    Ok((space, pages))
}

/// Returns the two PAMUs with these registers.
fn pages<S>(space: &Arc<S>) -> [RegisterPage<S>; 2] {
    [0, REGISTERS_SIZE].map(|base| RegisterPage {
        space: space.clone(),
        base,
    })
}

/// Registers a system with 16 LIODNs and one PAMU, whose registers are the first page of `space`. The
/// LIODNs `open` may access all memory.
///
/// # Errors
///
/// `EBUSY` if this machine has PAMUs already, `ENOMEM`.
pub(super) fn register<S: RegisterSpace + 'static>(
    space: Arc<S>,
    open: &[u32],
) -> Result<Registration> {
    space.write(Register::Pc2 as usize, swapped(15 << 16));
    let page = RegisterPage { space, base: 0 };
    let mut listed = KVec::new();
    listed.extend_from_slice(open, GFP_KERNEL)?;
    let open = TreeLiodns::of_test(listed);
    let mut pamus: KVec<Arc<dyn Pamu>> = KVec::new();
    pamus.push(Arc::new(page, GFP_KERNEL)?, GFP_KERNEL)?;
    let sizes = TableSizes {
        liodns: 16,
        spaaces: 16,
    };
    Registration::of_this_module(|| {
        let settings = Settings::from_parameters(open.liodns(), GroupType::Iommu);
        System::new(pamus, Tables::new(sizes)?, KVec::new(), settings)
    })
}

/// Registers PAMUs as [`register`] does. If this machine has PAMUs already, reports the test as skipped
/// and returns `None`.
///
/// # Errors
///
/// `ENOMEM`.
pub(super) fn register_or_skip<S: RegisterSpace + 'static>(
    space: Arc<S>,
    open: &[u32],
) -> Result<Option<Registration>> {
    match register(space, open) {
        Err(e) if e == EBUSY => {
            skip(c"this machine has PAMUs");
            Ok(None)
        }
        result => result.map(Some),
    }
}

/// Registers PAMUs for tests of containers, as [`register_or_skip`] does.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn register_for_container() -> Result<Option<Registration>> {
    register_or_skip(pamus()?.0, &[])
}
