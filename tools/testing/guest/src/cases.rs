// SPDX-License-Identifier: GPL-2.0

//! The cases, by what they look at.

mod binding;
mod container;
mod device;
mod dirty;
mod dma;
mod group;
mod hotplug;
mod info;
mod irq;
mod lifetime;
mod limits;
mod map;
mod nointremap;
mod pointers;
mod stress;
mod sysfs;
mod unmap;
mod viable;

use libtest_mimic::Trial;

/// The cases for a machine whose IOMMU isolates interrupts.
pub fn main_set() -> Vec<Trial> {
    [
        container::cases(),
        group::cases(),
        viable::cases(),
        binding::cases(),
        device::cases(),
        irq::cases(),
        info::cases(),
        map::cases(),
        unmap::cases(),
        dirty::cases(),
        limits::cases(),
        dma::cases(),
        lifetime::cases(),
        pointers::cases(),
        sysfs::cases(),
        hotplug::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The cases for a machine without interrupt remapping.
pub fn nointremap_set() -> Vec<Trial> {
    nointremap::cases()
}

/// The cases that look for races.
pub fn stress_set() -> Vec<Trial> {
    stress::cases()
}
