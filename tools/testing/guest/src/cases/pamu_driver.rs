// SPDX-License-Identifier: GPL-2.0

//! The driver of the PAMU in our QEMU: what it is bound to, and what it registers.

use crate::{
    env::PAMU_EDU,
    harness::cases, //
};
use anyhow::{
    Result,
    ensure, //
};
use std::{
    fs,
    path::Path, //
};
use vfio_client::pci;

cases! {
    #[requires(controller_in_pci_stub)] group_beside_a_driver_without_dma,
    tests_of_the_module_are_skipped_visibly,
    sysfs_cannot_unbind_the_drivers,
}

/// With `CONFIG_PCIEPORTBUS`, each port has a driver long before a module can be loaded. It does no
/// DMA, so the devices behind the port can be in a group, without the port.
fn group_beside_a_driver_without_dma() -> Result<()> {
    let members = pci::members(pci::group_of(PAMU_EDU)?)?;
    ensure!(members.iter().any(|member| member == PAMU_EDU));
    let ports = members.iter().filter(|member| member.ends_with(":00.0"));
    assert_eq!(ports.count(), 0, "{members:?}");
    Ok(())
}

/// The unit tests that register PAMUs can't do that here. Tests without PAMUs still run.
fn tests_of_the_module_are_skipped_visibly() -> Result<()> {
    for (suite, skipped, ran) in [
        ("vfio_pamu_attach", true, false),
        ("vfio_pamu_platform_driver", true, true),
        ("vfio_pamu_windows", false, true),
    ] {
        let text = fs::read_to_string(format!("/sys/kernel/debug/kunit/{suite}/results"))?;
        let cases = text.lines().filter(|line| line.starts_with("    ok "));
        let (skips, others) = cases.partition::<Vec<_>, _>(|line| line.contains("# SKIP"));
        assert_eq!(
            (!skips.is_empty(), !others.is_empty()),
            (skipped, ran),
            "{text}"
        );
        ensure!(!text.contains("not ok"), "{text}");
    }
    Ok(())
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
