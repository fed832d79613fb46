// SPDX-License-Identifier: GPL-2.0

//! The modules of VFIO, and what the machine isolates.

use serde::Serialize;

use super::System;

/// The modules of VFIO.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Modules {
    /// Whether `vfio` is loaded or built in.
    pub vfio: bool,
    /// Whether `vfio_iommu_type1` is loaded or built in.
    pub type1: bool,
    /// Whether `vfio` is that of this project.
    pub vfio_in_rust: bool,
    /// Whether `vfio_iommu_type1` is that of this project.
    pub type1_in_rust: bool,
    /// Whether `mdev` is that of this project.
    pub mdev_in_rust: bool,
    /// Whether the kernel has `/dev/iommu`.
    pub iommufd: bool,
    /// Whether containers accept devices whose interrupts are not isolated.
    pub unsafe_interrupts: bool,
    /// Whether devices without an IOMMU may be used.
    pub noiommu: bool,
    /// Whether the machine isolates interrupts; `None` if that cannot be told.
    pub interrupt_remapping: Option<bool>,
}

impl Modules {
    /// Reads which modules are loaded.
    pub fn read(system: &System) -> Self {
        let loaded = |name: &str| system.exists(format!("/sys/module/{name}"));
        let in_rust = |name: &str| system.exists(format!("/sys/module/vfio_rust/holders/{name}"));
        let is_set = |module: &str, parameter: &str| {
            let value = system.read(format!("/sys/module/{module}/parameters/{parameter}"));
            value.is_some_and(|value| is_yes(&value))
        };
        Self {
            vfio: loaded("vfio"),
            type1: loaded("vfio_iommu_type1"),
            vfio_in_rust: in_rust("vfio"),
            type1_in_rust: in_rust("vfio_iommu_type1"),
            mdev_in_rust: in_rust("mdev"),
            iommufd: system.exists("/dev/iommu"),
            unsafe_interrupts: is_set("vfio_iommu_type1", "allow_unsafe_interrupts"),
            noiommu: is_set("vfio", "enable_unsafe_noiommu_mode"),
            interrupt_remapping: interrupt_remapping(
                &system.read("/proc/interrupts").unwrap_or_default(),
            ),
        }
    }

    /// Returns a short description of the stack.
    pub fn describe(&self) -> &'static str {
        match (self.vfio, self.vfio_in_rust, self.type1, self.type1_in_rust) {
            (false, ..) => "not loaded",
            (_, true, _, true) | (_, true, false, _) => "Rust",
            (_, false, _, false) => "C",
            (_, true, true, false) => "Rust, with vfio_iommu_type1 in C",
            (_, false, _, true) => "C, with vfio_iommu_type1 in Rust",
        }
    }
}

fn is_yes(value: &str) -> bool {
    matches!(value, "Y" | "y" | "1")
}

/// Returns whether the interrupts of a PC are remapped, by the names of its interrupt controllers in
/// `/proc/interrupts`: those behind an IOMMU that remaps have the prefix `IR-`. Other machines
/// isolate interrupts in other ways.
fn interrupt_remapping(interrupts: &str) -> Option<bool> {
    let mut words = interrupts.split_whitespace();
    if words.clone().any(|word| word.starts_with("IR-")) {
        return Some(true);
    }
    let is_pc = |word: &str| word.starts_with("IO-APIC") || word.starts_with("PCI-MSI");
    words.any(is_pc).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupt_controllers() {
        let pc = "           CPU0\n  4:  10   IO-APIC   4-edge      ttyS0\n";
        assert_eq!(interrupt_remapping(pc), Some(false));
        let remapped = "  4:  10   IR-IO-APIC   4-edge\n 25: 0 IR-PCI-MSIX-0000:00:03.0 0-edge\n";
        assert_eq!(interrupt_remapping(remapped), Some(true));
        assert_eq!(
            interrupt_remapping(" 13: 5 GICv3 27 Level arch_timer\n"),
            None
        );
        assert_eq!(interrupt_remapping(""), None);
    }
}
