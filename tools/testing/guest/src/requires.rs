// SPDX-License-Identifier: GPL-2.0

//! What a case can require of the modules and of the kernel: the functions that
//! `#[requires(...)]` names.

use crate::{
    env,
    pin, //
};
use std::{
    fs::{
        self,
        File, //
    },
    path::Path, //
};
use vfio_client::Iommufd;

/// The file of containers.
const CONTAINER: &str = "/dev/vfio/vfio";

/// The language in which a module is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// C.
    C,
    /// Rust.
    Rust,
}

/// Returns whether `vfio.ko` is written in `language`.
pub fn core(language: Language) -> bool {
    language_of("vfio") == language
}

/// Returns whether `vfio_iommu_type1.ko` is written in `language`.
pub fn type1(language: Language) -> bool {
    language_of("vfio_iommu_type1") == language
}

/// Returns whether `mdev.ko` is written in `language`.
pub fn mdev(language: Language) -> bool {
    language_of("mdev") == language
}

/// Returns whether `vfio_iommu_type1.ko` is loaded. The kernel's can't be selected on PowerPC.
pub fn has_type1() -> bool {
    Path::new("/sys/module/vfio_iommu_type1").exists()
}

/// Returns whether the driver that pins pages is written in `language`.
pub fn driver(language: Language) -> bool {
    pin::in_rust() == (language == Language::Rust)
}

/// Returns the language of a loaded module. All Rust modules use `vfio_rust.ko`.
fn language_of(module: &str) -> Language {
    let holder = Path::new("/sys/module/vfio_rust/holders").join(module);
    if holder.exists() {
        Language::Rust
    } else {
        Language::C
    }
}

/// Returns whether the IOMMU can let devices write to memory, but not read it. In the page tables of
/// an SMMU, memory that can be written can be read.
pub fn write_only_mappings() -> bool {
    !smmu()
}

/// Returns whether the IOMMU translates the addresses of interrupts, as an SMMU does, so that the
/// kernel has to map them.
pub fn msi_through_page_tables() -> bool {
    smmu()
}

/// Returns whether the IOMMU is an SMMUv3.
pub fn smmu() -> bool {
    let units = fs::read_dir("/sys/class/iommu")
        .into_iter()
        .flatten()
        .flatten();
    units
        .filter_map(|unit| unit.file_name().into_string().ok())
        .any(|name| name.starts_with("smmu3"))
}

/// Returns whether the IOMMU is a PAMU that our module drives by its registers.
pub fn pamu_hardware() -> bool {
    Path::new("/sys/class/iommu/pamu").exists()
}

/// Returns whether the controller above [`PAMU_EDU`](crate::env::PAMU_EDU) had a driver that does no
/// DMA before our module was loaded.
pub fn controller_in_pci_stub() -> bool {
    Path::new("/sys/bus/pci/drivers/pci-stub/0001:00:00.0").exists()
}

/// Returns whether the kernel supports fault injection.
pub fn fault_injection() -> bool {
    Path::new("/proc/thread-self/fail-nth").exists()
}

/// Returns whether the kernel charges memory to cgroups.
pub fn memory_cgroups() -> bool {
    Path::new("/proc/kpagecgroup").exists()
}

/// Returns whether the kernel has PID namespaces.
pub fn pid_namespaces() -> bool {
    Path::new("/proc/self/ns/pid_for_children").exists()
}

/// Returns whether the CPU and the kernel support memory protection keys.
pub fn protection_keys() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    flags.split_whitespace().any(|flag| flag == "ospke")
}

/// Returns whether the kernel shows VFIO devices in debugfs.
pub fn vfio_debugfs() -> bool {
    Path::new("/sys/kernel/debug/vfio").join(env::EDU).exists()
}

/// Returns whether VFIO supports devices without an IOMMU.
pub fn noiommu() -> bool {
    Path::new("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode").exists()
}

/// Returns whether devices can be used through their groups.
pub fn groups() -> bool {
    Path::new("/sys/class/vfio").exists()
}

/// Returns whether there are containers: those of VFIO, or of IOMMUFD in their place.
pub fn containers() -> bool {
    Path::new(CONTAINER).exists()
}

/// Returns whether there are containers of VFIO, and not of IOMMUFD in their place.
pub fn vfio_containers() -> bool {
    let Ok(file) = File::options().read(true).write(true).open(CONTAINER) else {
        return false;
    };
    // Only an iommufd has address spaces.
    Iommufd::from_fd(file.into()).ioas().is_err()
}

/// Returns whether devices have files of their own.
pub fn device_files() -> bool {
    Path::new("/dev/vfio/devices").exists()
}

/// Returns whether the kernel has IOMMUFD.
pub fn iommufd() -> bool {
    Path::new(Iommufd::PATH).exists()
}

/// Returns whether IOMMUFD is a module, and not part of the kernel.
pub fn iommufd_module() -> bool {
    Path::new("/sys/module/iommufd/refcnt").exists()
}

/// Returns whether devices without an IOMMU have device files. The kernel has none on machines
/// without 64-bit atomics.
pub fn noiommu_device_files() -> bool {
    if !cfg!(target_has_atomic = "64") {
        return false;
    }
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    symbols.contains(" iommufd_ioas_noiommu_get_pa\t")
}
