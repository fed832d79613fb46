// SPDX-License-Identifier: GPL-2.0

//! The capacity of a parent, and the part of it that each of its devices uses.

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        Arc,
        Mutex, //
    }, //
};
use kernel_ext::compat::EUSERS;

use super::{
    Parent,
    Type, //
};

/// A parent, and the part of its capacity that its devices use.
#[pin_data]
pub(super) struct Capacity<P: Parent> {
    parent: Arc<P>,
    #[pin]
    used: Mutex<UsedCapacity>,
}

impl<P: Parent> Capacity<P> {
    /// Creates the capacity of a parent without devices.
    pub(super) fn new(parent: Arc<P>) -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                parent,
                used <- UsedCapacity::new(),
            }),
            GFP_KERNEL,
        )
    }

    pub(super) fn parent(&self) -> &Arc<P> {
        &self.parent
    }

    /// Returns how many more devices of type `ty` the parent can have.
    pub(super) fn available(&self, ty: &P::Type) -> u32 {
        // The driver's functions are called without the lock.
        let (capacity, cost) = (self.parent.capacity(), ty.cost());
        self.used.lock().available(capacity, cost)
    }
}

/// A device's share of the parent's capacity. Dropping it returns the capacity.
pub(crate) struct Share<P: Parent> {
    capacity: Arc<Capacity<P>>,
    cost: u32,
}

impl<P: Parent> Share<P> {
    /// Takes the share of a new device of type `ty`.
    ///
    /// # Errors
    ///
    /// `EUSERS` if the remaining capacity is too small.
    pub(super) fn new(capacity: Arc<Capacity<P>>, ty: &P::Type) -> Result<Self> {
        let cost = ty.cost();
        let total = capacity.parent.capacity();
        capacity.used.lock().take(total, cost)?;
        Ok(Self { capacity, cost })
    }

    pub(crate) fn parent(&self) -> &Arc<P> {
        &self.capacity.parent
    }
}

impl<P: Parent> Drop for Share<P> {
    fn drop(&mut self) {
        self.capacity.used.lock().release(self.cost);
    }
}

/// The largest number that `available_instances` has. Programs read the attribute as an `int`, for
/// example `mdevctl`.
const MAX_AVAILABLE: u32 = i32::MAX as u32;

/// The capacity in use, in the unit of [`Type::cost`].
#[derive(Default)]
struct UsedCapacity(u32);

impl UsedCapacity {
    /// Creates the lock of a new parent: no capacity is in use.
    ///
    /// The lock is initialised by a function that is compiled only once, because the name of a lock
    /// in generic code lies in the module of the driver, while its class lies in this module.
    /// lockdep warns about a class with several names.
    #[inline(never)]
    fn new() -> impl PinInit<Mutex<Self>> {
        new_mutex!(Self::default(), "vfio_mdev::UsedCapacity")
    }

    /// Returns the unused part of `capacity`.
    fn left(&self, capacity: u32) -> u32 {
        capacity.saturating_sub(self.0)
    }

    /// Returns how many more devices of cost `cost` fit into `capacity`, at most [`MAX_AVAILABLE`].
    fn available(&self, capacity: u32, cost: u32) -> u32 {
        let available = self.left(capacity).checked_div(cost);
        available.map_or(MAX_AVAILABLE, |count| count.min(MAX_AVAILABLE))
    }

    /// Adds the cost of a device.
    ///
    /// # Errors
    ///
    /// `EUSERS` if the remaining capacity is too small.
    fn take(&mut self, capacity: u32, cost: u32) -> Result {
        if cost > self.left(capacity) {
            return Err(EUSERS);
        }
        self.0 += cost;
        Ok(())
    }

    /// Subtracts the cost of a device.
    fn release(&mut self, cost: u32) {
        self.0 -= cost;
    }
}

#[kunit_tests(vfio_mdev_capacity)]
mod tests {
    use super::*;

    #[test]
    fn costs_add_up() {
        let mut used = UsedCapacity::default();
        assert_eq!(used.available(8, 2), 4);
        assert_eq!(used.take(8, 2), Ok(()));
        assert_eq!(used.take(8, 5), Ok(()));
        assert_eq!(used.available(8, 2), 0);
        assert_eq!(used.available(8, 1), 1);
        assert_eq!(used.take(8, 2), Err(EUSERS));
        used.release(5);
        assert_eq!(used.available(8, 2), 3);
    }

    #[test]
    fn capacity_may_shrink() {
        let mut used = UsedCapacity::default();
        assert_eq!(used.take(8, 8), Ok(()));
        assert_eq!(used.available(4, 1), 0);
        assert_eq!(used.take(4, 1), Err(EUSERS));
        used.release(8);
        assert_eq!(used.available(4, 1), 4);
    }

    #[test]
    fn available_instances_fit_an_int() {
        let used = UsedCapacity::default();
        assert_eq!(used.available(u32::MAX, 1), i32::MAX as u32);
        assert_eq!(used.available(u32::MAX, 2), i32::MAX as u32);
        assert_eq!(used.available(u32::MAX - 3, 2), i32::MAX as u32 - 1);
    }

    #[test]
    fn what_costs_nothing_always_fits() {
        let mut used = UsedCapacity::default();
        assert_eq!(used.take(0, 0), Ok(()));
        assert_eq!(used.available(0, 0), MAX_AVAILABLE);
        assert_eq!(used.take(u32::MAX, u32::MAX), Ok(()));
        assert_eq!(used.take(u32::MAX, 1), Err(EUSERS));
    }
}
