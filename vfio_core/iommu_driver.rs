// SPDX-License-Identifier: GPL-2.0

//! The list of backends: `struct vfio_iommu_driver`. A backend maps memory for the groups of a
//! container.

#[allow(unsafe_code)]
mod abi;

use kernel::prelude::*;

pub(crate) use abi::{
    init_lock,
    Iommu,
    IommuDriver,
    IommuDriverRef, //
};

use abi::DRIVERS;

/// Adds an IOMMU driver to the list. Containers try the most recently added one first.
///
/// # Errors
///
/// Returns `EINVAL` if the driver is already listed or has only one of the two device callbacks;
/// `ENOMEM`.
pub(crate) fn register(driver: IommuDriver) -> Result {
    if !driver.is_consistent() {
        pr_warn!(
            "an IOMMU driver must set both register_device and unregister_device, or neither\n"
        );
        return Err(EINVAL);
    }
    let mut drivers = DRIVERS.lock();
    if drivers.contains(&driver) {
        return Err(EINVAL);
    }
    drivers.push(driver, GFP_KERNEL)?;
    Ok(())
}

/// Removes an IOMMU driver from the list, if it is listed. Containers that use the driver keep its
/// module pinned.
pub(crate) fn unregister(driver: IommuDriver) {
    let mut drivers = DRIVERS.lock();
    drivers.retain(|listed| *listed != driver);
    if drivers.is_empty() {
        *drivers = KVec::new();
    }
}

/// Returns all IOMMU drivers, with their modules pinned, in the order in which containers try them.
pub(crate) fn all() -> Result<KVec<IommuDriverRef>> {
    let drivers = DRIVERS.lock();
    let mut pinned = KVec::with_capacity(drivers.len(), GFP_KERNEL)?;
    for driver in drivers.iter().rev().filter_map(IommuDriver::pin) {
        pinned.push(driver, GFP_KERNEL)?;
    }
    Ok(pinned)
}
