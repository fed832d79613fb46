// SPDX-License-Identifier: GPL-2.0

//! Diagnosis of a failed claim of a group.

use kernel::{
    dev_warn,
    prelude::*, //
};

use kernel_ext::{
    iommu::{
        member::Binding,
        Group, //
    },
    mm::may_warn, //
};

/// Logs why the claim of `group` failed with `error`, device by device, and how to fix it.
///
/// User space only sees `EPERM` or `EBUSY`, which does not tell which device of the group is the
/// cause. The messages are rate-limited, because user space can trigger them at will. Takes the
/// group's mutex.
pub fn explain_refusal(group: &Group, error: Error) {
    if !(error == EPERM || error == EBUSY) || !may_warn() {
        return;
    }
    let id = group.id();
    let reason = if error == EBUSY {
        "it isn't in its default domain"
    } else {
        "its DMA has an owner"
    };
    pr_warn!("group {id} can't be given to a program: {reason}\n");
    let mut in_the_way = 0;
    let walk = group.for_each_device(|dev| {
        match Binding::of(dev) {
            Binding::Kernel(driver) => {
                in_the_way += 1;
                dev_warn!(
                    dev,
                    "in group {id}, used by driver {}: bind it to vfio-pci, or unbind it\n",
                    driver.as_str()
                );
            }
            Binding::Unmanaged(driver) => {
                dev_warn!(
                    dev,
                    "in group {id}, driver {}: not in the way\n",
                    driver.as_str()
                );
            }
            Binding::Unbound => dev_warn!(dev, "in group {id}, no driver: not in the way\n"),
            Binding::Changing => {
                in_the_way += 1;
                dev_warn!(dev, "in group {id}, being bound or unbound: try again\n");
            }
        }
        Ok(())
    });
    match walk {
        Ok(()) if in_the_way == 0 => pr_warn!("group {id} is in use by another program\n"),
        Ok(()) => {}
        Err(e) => pr_warn!("group {id}: the walk ended early: {}\n", e.to_errno()),
    }
}
