// SPDX-License-Identifier: GPL-2.0

//! `restore`.

use anyhow::Result;
use std::fs;

use super::Case;
use crate::{
    hold::hold,
    machine::{
        DISK,
        EDU,
        SHARED,
        SIBLING,
        has_driver,
        store, //
    },
    program::vfioctl, //
};

/// Returns the cases.
pub fn cases() -> Vec<Case> {
    vec![
        ("restore::left_over_new_id", Box::new(new_id)),
        ("restore::without_memory", Box::new(forgotten)),
        ("restore::refuses_an_open_device", Box::new(open)),
    ]
}

const NEW_ID: &str = "/sys/bus/pci/drivers/vfio-pci/new_id";
const REMOVE_ID: &str = "/sys/bus/pci/drivers/vfio-pci/remove_id";
const STATE: &str = "/run/vfioctl/devices.json";

fn new_id() -> Result<()> {
    let model = "1b36 0010";
    store(NEW_ID, model)?;
    vfioctl(&format!("bind {DISK}"))?.exits(0)?;
    vfioctl(&format!("restore {DISK}"))?.exits(0)?;
    has_driver(DISK, "nvme")?;
    // Without knowledge of the driver, the kernel would choose vfio-pci again.
    vfioctl(&format!("bind {DISK}"))?.exits(0)?;
    fs::remove_file(STATE)?;
    let restored = vfioctl(&format!("restore {DISK}"))?
        .exits(0)
        .and(has_driver(DISK, "nvme"));
    // It may be gone already.
    let _ = store(REMOVE_ID, model);
    restored
}

fn forgotten() -> Result<()> {
    vfioctl(&format!("bind {SHARED}"))?.exits(0)?;
    fs::remove_file(STATE)?;
    vfioctl(&format!("restore {SHARED}"))?.exits(0)?;
    has_driver(SHARED, "")?;
    has_driver(SIBLING, "virtio-pci")?;
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    fs::write(STATE, "{ damaged")?;
    vfioctl(&format!("restore {EDU}"))?
        .exits(1)?
        .complains("its contents are damaged")?;
    fs::remove_file(STATE)?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    has_driver(EDU, "")
}

fn open() -> Result<()> {
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let helper = hold(EDU)?;
    let said = vfioctl(&format!("restore {EDU}"))?.exits(4)?;
    said.complains(&format!("({})", helper.id()))?;
    has_driver(EDU, "vfio-pci")?;
    helper.finish()?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    Ok(())
}
