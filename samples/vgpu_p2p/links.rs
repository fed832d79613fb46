// SPDX-License-Identifier: GPL-2.0

//! Links between peers. A group has a link while one of its devices is open.

use kernel::{
    new_spinlock,
    prelude::*,
    sync::{
        Arc,
        SpinLock, //
    }, //
};

/// The links of a card.
#[pin_data]
pub(crate) struct Links {
    /// A bitmap of the links in use.
    #[pin]
    in_use: SpinLock<u64>,
}

impl Links {
    /// Creates the links of a card: 64, all free.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self { in_use <- new_spinlock!(0, "vgpu_p2p::Links") }),
            GFP_KERNEL,
        )
    }

    /// Allocates a link.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if all are in use.
    pub(crate) fn alloc(&self) -> Result<u32> {
        let mut in_use = self.in_use.lock();
        let number = in_use.trailing_ones();
        *in_use |= 1_u64.checked_shl(number).ok_or(ENOSPC)?;
        Ok(number)
    }

    /// Frees a link that was allocated.
    pub(crate) fn free(&self, number: u32) {
        *self.in_use.lock() &= !(1 << number);
    }
}

/// A device's end of a link.
#[pin_data]
pub(crate) struct Link {
    #[pin]
    number: SpinLock<Option<u32>>,
}

impl Link {
    /// Creates an end that has no link.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self { number <- new_spinlock!(None, "vgpu_p2p::Link") })
    }

    /// Returns the number of the link, if there is one.
    pub(crate) fn number(&self) -> Option<u32> {
        *self.number.lock()
    }

    /// Sets the link.
    pub(crate) fn join(&self, number: u32) {
        *self.number.lock() = Some(number);
    }

    /// Clears the link.
    pub(crate) fn leave(&self) {
        *self.number.lock() = None;
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vgpu_p2p_links)]
mod tests {
    use super::*;

    #[test]
    fn each_is_in_use_once() -> Result {
        let links = Links::new()?;
        for number in 0..64 {
            assert_eq!(links.alloc(), Ok(number));
        }
        assert_eq!(links.alloc(), Err(ENOSPC));
        links.free(7);
        assert_eq!(links.alloc(), Ok(7));
        Ok(())
    }
}
