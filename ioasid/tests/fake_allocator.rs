// SPDX-License-Identifier: GPL-2.0

//! A custom allocator with configurable faults.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Completion,
        Mutex, //
    }, //
};

use crate::{
    allocator::{
        Allocator,
        Kind, //
    },
    gfp::Gfp,
    id::range::IdRange, //
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

/// A pause in a call of an allocator, until the test continues it.
#[pin_data]
pub(super) struct Pause {
    #[pin]
    pub(super) entered: Completion,
    #[pin]
    pub(super) go_on: Completion,
}

impl Pause {
    pub(super) fn new() -> Result<Arc<Self>> {
        let init = pin_init!(Self {
            entered <- Completion::new(),
            go_on <- Completion::new(),
        });
        Arc::pin_init(init, GFP_KERNEL)
    }
}

/// The fault of an allocator.
pub(super) enum Fault {
    None,
    /// It pauses before it allocates an id.
    Pause(Arc<Pause>),
    /// It always returns this id.
    Return(u32),
    /// It always fails.
    Fail,
}

/// An allocator over a stock.
pub(super) struct FakeAllocator {
    stock: Arc<Stock>,
    fault: Fault,
}

impl FakeAllocator {
    pub(super) fn new(stock: &Arc<Stock>, fault: Fault) -> Result<Arc<Self>> {
        let stock = stock.clone();
        Ok(Arc::new(Self { stock, fault }, GFP_KERNEL)?)
    }
}

/// Returns a kind that is identified by its number.
pub(super) fn kind(number: usize) -> Kind {
    Kind::Functions(number, 0)
}

impl Allocator for FakeAllocator {
    fn alloc(&self, range: IdRange, _gfp: Gfp) -> Result<u32> {
        match &self.fault {
            Fault::Return(id) => return Ok(*id),
            Fault::Fail => return Err(ENODEV),
            Fault::Pause(pause) => {
                pause.entered.complete_all();
                pause.go_on.wait_for_completion();
            }
            Fault::None => {}
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
