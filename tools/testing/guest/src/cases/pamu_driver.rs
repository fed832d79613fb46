// SPDX-License-Identifier: GPL-2.0

//! The driver of the PAMU in our QEMU: what it is bound to, and what it registers.

use crate::harness::cases;
use anyhow::{
    Result,
    ensure, //
};
use std::{
    fs,
    path::Path, //
};

cases! {
    sysfs_cannot_unbind_the_drivers,
}

/// Containers and groups need the PAMUs as long as the module is loaded.
fn sysfs_cannot_unbind_the_drivers() -> Result<()> {
    for (driver, device) in [
        ("vfio_pamu", "iommu"),
        ("vfio_pamu_guts", "global-utilities"),
    ] {
        let folder = Path::new("/sys/bus/platform/drivers").join(driver);
        let names = fs::read_dir(&folder)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<Vec<_>>>()?;
        let bound = names.iter().any(|name| name.ends_with(device));
        ensure!(bound, "{driver} is bound to none of {names:?}");
        for file in ["bind", "unbind"] {
            ensure!(!names.iter().any(|name| name == file), "{driver}/{file}");
        }
    }
    Ok(())
}
