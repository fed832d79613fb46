// SPDX-License-Identifier: GPL-2.0

//! The list of backends: `struct vfio_iommu_driver`. A backend maps memory for the groups of a
//! container.

#[allow(unsafe_code)]
mod abi;

use kernel::prelude::*;
use kernel_ext::iommu_driver::Ops;

pub(crate) use abi::{
    all,
    init_lock,
    Iommu,
    IommuDriver,
    IommuDriverRef,
    Member, //
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

/// Removes the IOMMU driver with the table `ops` from the list, if it is listed. Containers that use
/// the driver keep its module pinned.
pub(crate) fn unregister(ops: *const Ops) {
    let mut drivers = DRIVERS.lock();
    drivers.retain(|listed| !listed.is(ops));
    if drivers.is_empty() {
        *drivers = KVec::new();
    }
}
