// SPDX-License-Identifier: GPL-2.0

//! Diagnosis of a failed claim of a group.

use kernel::{
    dev_warn,
    prelude::*, //
};

use kernel_ext::{
    iommu::Group,
    mm::may_warn, //
};

use crate::Binding;

/// Logs why the claim of `group` failed with `error`, device by device, and how to fix it.
///
/// Userspace gets only `EPERM` or `EBUSY`, which do not name the device that is the cause. The
/// messages are rate-limited because userspace can trigger them at will. Takes the group's mutex.
pub fn warn_claim_failed(group: &Group, error: Error) {
    if !(error == EPERM || error == EBUSY) || !may_warn() {
        return;
    }
    let id = group.id();
    let reason = if error == EBUSY {
        "it is not in its default domain"
    } else {
        "its DMA has another owner"
    };
    pr_warn!("group {id}: cannot be assigned to userspace: {reason}\n");
    let mut blocking = 0;
    let walk = group.for_each_device(|dev| {
        match Binding::of(dev) {
            Binding::Kernel(driver) => {
                blocking += 1;
                dev_warn!(
                    dev,
                    "blocks group {id}: bound to driver {}; unbind it, or bind it to vfio-pci\n",
                    driver.as_str()
                );
            }
            Binding::Unmanaged(driver) => {
                dev_warn!(
                    dev,
                    "does not block group {id}: bound to driver {}\n",
                    driver.as_str()
                );
            }
            Binding::Unbound => dev_warn!(dev, "does not block group {id}: no driver\n"),
            Binding::Changing => {
                blocking += 1;
                dev_warn!(
                    dev,
                    "blocks group {id}: being bound or unbound; try again\n"
                );
            }
        }
        Ok(())
    });
    match walk {
        Ok(()) if blocking == 0 => {
            pr_warn!("group {id}: in use by another process; close the group in that process\n")
        }
        Ok(()) => {}
        Err(e) => pr_warn!(
            "group {id}: cannot list its devices: error {}\n",
            e.to_errno()
        ),
    }
}
