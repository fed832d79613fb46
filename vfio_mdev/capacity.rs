// SPDX-License-Identifier: GPL-2.0

//! The part of a parent's capacity that its devices use.

use kernel::prelude::*;

/// The capacity in use, in the unit of [`Type::cost`](crate::Type::cost).
#[derive(Default)]
pub(crate) struct Taken(u32);

impl Taken {
    /// Returns the unused part of `capacity`.
    fn left(&self, capacity: u32) -> u32 {
        capacity.saturating_sub(self.0)
    }

    /// Returns how many more devices of cost `cost` fit into `capacity`.
    pub(crate) fn available(&self, capacity: u32, cost: u32) -> u32 {
        self.left(capacity).checked_div(cost).unwrap_or(u32::MAX)
    }

    /// Adds the cost of a device.
    ///
    /// # Errors
    ///
    /// `EUSERS` if the remaining capacity is too small.
    pub(crate) fn take(&mut self, capacity: u32, cost: u32) -> Result {
        if cost > self.left(capacity) {
            return Err(EUSERS);
        }
        self.0 += cost;
        Ok(())
    }

    /// Subtracts the cost of a device.
    pub(crate) fn give_back(&mut self, cost: u32) {
        self.0 -= cost;
    }
}

#[kunit_tests(vfio_mdev_capacity)]
mod tests {
    use super::*;

    #[test]
    fn costs_add_up() {
        let mut taken = Taken::default();
        assert_eq!(taken.available(8, 2), 4);
        assert_eq!(taken.take(8, 2), Ok(()));
        assert_eq!(taken.take(8, 5), Ok(()));
        assert_eq!(taken.available(8, 2), 0);
        assert_eq!(taken.available(8, 1), 1);
        assert_eq!(taken.take(8, 2), Err(EUSERS));
        taken.give_back(5);
        assert_eq!(taken.available(8, 2), 3);
    }

    #[test]
    fn capacity_may_shrink() {
        let mut taken = Taken::default();
        assert_eq!(taken.take(8, 8), Ok(()));
        assert_eq!(taken.available(4, 1), 0);
        assert_eq!(taken.take(4, 1), Err(EUSERS));
        taken.give_back(8);
        assert_eq!(taken.available(4, 1), 4);
    }

    #[test]
    fn what_costs_nothing_always_fits() {
        let mut taken = Taken::default();
        assert_eq!(taken.take(0, 0), Ok(()));
        assert_eq!(taken.available(0, 0), u32::MAX);
        assert_eq!(taken.take(u32::MAX, u32::MAX), Ok(()));
        assert_eq!(taken.take(u32::MAX, 1), Err(EUSERS));
    }
}
