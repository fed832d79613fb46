// SPDX-License-Identifier: GPL-2.0

//! The modules of the software PAMU are unloaded and loaded again.

use super::{
    PAGE,
    divided, //
};
use crate::{
    harness::cases,
    modules::{
        debugfs_files_hold,
        load,
        references,
        unload, //
    }, //
};
use anyhow::Result;
use std::{
    fs,
    time::{
        Duration,
        Instant, //
    }, //
};
use vfio_client::{
    Container,
    Errno,
    MapFlags,
    Memory,
    pamu, //
};

cases! {
    container_keeps_the_pamu_loaded,
    no_backend_without_a_pamu,
    unloading_while_a_device_is_noisy,
    debugfs_files_hold_the_module,
}

/// The modules of the software PAMU and its devices, with their parameters.
struct Modules {
    pamus: String,
    devices: String,
}

impl Modules {
    /// Returns the modules as they are loaded.
    fn loaded() -> Result<Self> {
        let parameter = |module, name| -> Result<String> {
            let value = fs::read_to_string(format!("/sys/module/{module}/parameters/{name}"))?;
            Ok(format!("{name}={}", value.trim()))
        };
        Ok(Self {
            pamus: parameter("pamu_sim", "pamus")?,
            devices: parameter("pamu_dma", "devices")?,
        })
    }

    /// Unloads both modules.
    fn unload(&self) -> Result<()> {
        unload(c"pamu_dma")?;
        unload(c"pamu_sim")?;
        Ok(())
    }

    /// Loads both modules again.
    fn load(&self) -> Result<()> {
        load(&["pamu_sim", &self.pamus])?;
        load(&["pamu_dma", &self.devices])
    }
}

/// A container holds a reference to the module of its PAMU.
fn container_keeps_the_pamu_loaded() -> Result<()> {
    let references = || references("pamu_sim");
    let before = references()?;
    let container = divided(8, PAGE)?;
    assert_eq!(references()?, before + 1);
    let another = pamu_dma::open(1)?;
    assert_eq!(references()?, before + 2);
    drop((container, another));
    assert_eq!(references()?, before);
    Ok(())
}

/// Without a PAMU, containers of this type are not available.
fn no_backend_without_a_pamu() -> Result<()> {
    let modules = Modules::loaded()?;
    let container = Container::open()?;
    assert_eq!(container.check_extension(pamu::EXTENSION)?, 1);
    modules.unload()?;
    let without = container.check_extension(pamu::EXTENSION);
    modules.load()?;
    assert_eq!(without?, 0);
    assert_eq!(container.check_extension(pamu::EXTENSION)?, 1);
    Ok(())
}

/// Reports delayed by a noisy device neither block the unloading of the modules nor run after it.
fn unloading_while_a_device_is_noisy() -> Result<()> {
    let modules = Modules::loaded()?;
    let start = Instant::now();
    for round in 1..=10 {
        let (pamu, engine) = divided(8, PAGE)?;
        let memory = Memory::anonymous(4096)?;
        pamu.map(0, &memory, MapFlags::Read)?;
        for _ in 0..round {
            assert_eq!(engine.read(PAGE)?, Err(Errno::EFAULT));
        }
        drop((pamu, engine));
        modules.unload()?;
        unload(c"vfio_iommu_pamu")?;
        modules.load()?;
        // With KUnit, loading takes long.
        if start.elapsed() > Duration::from_secs(5) {
            break;
        }
    }
    Ok(())
}

fn debugfs_files_hold_the_module() -> Result<()> {
    let modules = Modules::loaded()?;
    let files = ["liodns", "registers", "violations"].map(|file| format!("vfio_iommu_pamu/{file}"));
    let files = files.each_ref().map(String::as_str);
    debugfs_files_hold(c"vfio_iommu_pamu", &files, || modules.unload())?;
    modules.load()
}
