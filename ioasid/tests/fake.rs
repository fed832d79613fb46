// SPDX-License-Identifier: GPL-2.0

//! A custom allocator with configurable faults.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    },
};

use kernel_ext::gfp::Gfp;

use crate::{
    range::IdRange,
    source::{
        Allocator,
        Kind, //
    },
};

/// The ids that some allocators share.
#[pin_data]
pub(super) struct Stock {
    first: u32,
    /// Bit n is set while `first + n` is allocated.
    #[pin]
    taken: Mutex<u64>,
}

/// The number of ids in a stock.
pub(super) const STOCK: u32 = u64::BITS;

impl Stock {
    pub(super) fn new(first: u32) -> Result<Arc<Self>> {
        let taken = 0;
        Arc::pin_init(
            pin_init!(Self { first, taken <- new_mutex!(taken) }),
            GFP_KERNEL,
        )
    }

    /// Returns the bits of the allocated ids.
    pub(super) fn taken(&self) -> u64 {
        *self.taken.lock()
    }

    /// Frees all ids.
    pub(super) fn reset(&self) {
        *self.taken.lock() = 0;
    }
}

/// The fault of an allocator.
#[derive(Clone, Copy)]
pub(super) enum Trick {
    None,
    /// It always returns this id.
    Return(u32),
    /// It always fails.
    Fail,
}

/// An allocator over a stock.
pub(super) struct Fake {
    stock: Arc<Stock>,
    trick: Trick,
}

impl Fake {
    pub(super) fn new(stock: &Arc<Stock>, trick: Trick) -> Result<Arc<Self>> {
        let stock = stock.clone();
        Ok(Arc::new(Self { stock, trick }, GFP_KERNEL)?)
    }
}

/// Returns a kind that is identified by its number.
pub(super) fn kind(number: usize) -> Kind {
    Kind::Functions(number, 0)
}

impl Allocator for Fake {
    fn alloc(&self, range: IdRange, _gfp: Gfp) -> Result<u32> {
        match self.trick {
            Trick::Return(id) => return Ok(id),
            Trick::Fail => return Err(ENODEV),
            Trick::None => {}
        }
        let mut taken = self.stock.taken.lock();
        let free = |&bit: &u32| *taken & 1 << bit == 0 && range.contains(self.stock.first + bit);
        let bit = (0..STOCK).find(free).ok_or(ENOSPC)?;
        *taken |= 1 << bit;
        Ok(self.stock.first + bit)
    }

    fn free(&self, id: u32) {
        let mut taken = self.stock.taken.lock();
        let bit = id.wrapping_sub(self.stock.first);
        if bit < STOCK {
            assert!(*taken & 1 << bit != 0);
            *taken &= !(1 << bit);
        }
    }
}
