// SPDX-License-Identifier: GPL-2.0

//! The test cases, by subject.

mod arrival;
mod binding;
mod concurrent;
mod container;
mod device;
mod dirty;
mod disk;
mod dma;
mod emulated;
mod exports;
mod failing;
mod faults;
mod group;
mod handback;
mod hotplug;
mod info;
mod iommufd;
mod irq;
mod killed;
mod large_pages;
mod lifetime;
mod limits;
mod logging;
mod machine;
mod map;
mod mdev;
mod mdev_bus;
mod mdev_irq;
mod mdev_reset;
mod mdev_writes;
mod memory;
mod migration;
mod misbehaviour;
mod mixed;
mod nic;
mod nointremap;
mod noiommu;
mod noiommu_files;
mod p2p;
mod pamu;
mod pamu_driver;
mod pamu_hardware;
mod pin_faults;
mod pinned;
mod pinning;
mod pointers;
mod reasons;
mod refusals;
mod removal;
mod sriov;
mod stalled;
mod stress;
mod sysfs;
mod together;
mod unmap;
mod unmap_all;
mod viable;
mod virqfd;

pub(crate) use faults::Injector;
pub(crate) use p2p::races;
pub(crate) use pamu::random;
pub(crate) use together::program as together;

use crate::{
    env::EDU,
    pin, //
};
use anyhow::{
    Result,
    bail, //
};
use libtest_mimic::Trial;
use std::time::Duration;
use support::helper::inherited;
use vfio_client::{
    Container,
    Group, //
};

/// Returns the cases for a machine whose IOMMU isolates interrupts.
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
        large_pages::cases(),
        dirty::cases(),
        limits::cases(),
        memory::cases(),
        dma::cases(),
        disk::cases(),
        lifetime::cases(),
        pointers::cases(),
        sysfs::cases(),
        hotplug::cases(),
        refusals::cases(),
        reasons::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Returns the cases for a machine without interrupt remapping.
pub fn nointremap_set() -> Vec<Trial> {
    nointremap::cases()
}

/// Returns the cases for mediated devices.
pub fn mdev_set() -> Vec<Trial> {
    [
        mdev::cases(),
        mdev_bus::cases(),
        migration::cases(),
        logging::cases(),
        emulated::cases(),
        mixed::cases(),
        mdev_irq::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Creates the device of the driver that pins pages. The cases fail if it does not exist.
fn prepare_pinning() {
    if let Err(error) = pin::prepare() {
        eprintln!("{error:?}");
    }
}

/// Returns the cases for a driver that pins pages.
pub fn pinning_set() -> Vec<Trial> {
    prepare_pinning();
    [
        pinning::cases(),
        pinned::cases(),
        misbehaviour::cases(),
        pin_faults::cases(),
        unmap_all::cases(),
        mdev_reset::cases(),
        mdev_writes::cases(),
        together::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Returns the cases for a driver that calls the functions exported by the core.
pub fn exports_set() -> Vec<Trial> {
    [exports::cases(), virqfd::cases(), machine::cases()]
        .into_iter()
        .flatten()
        .collect()
}

/// Returns the cases for network controllers.
pub fn nic_set() -> Vec<Trial> {
    [nic::cases(), sriov::cases()]
        .into_iter()
        .flatten()
        .collect()
}

/// Returns the cases for a machine without an IOMMU.
pub fn noiommu_set() -> Vec<Trial> {
    [noiommu::cases(), noiommu_files::cases()]
        .into_iter()
        .flatten()
        .collect()
}

/// Runs the command of a helper process.
pub fn helper(words: &[&str]) -> Result<()> {
    match words {
        ["memlock-beside-registers"] => limits::memory_beside_registers(),
        ["pin-limit"] => pinned::helper::pin_limit(),
        ["pin-right"] => pinned::helper::pin_right(),
        ["together", seed, life] => {
            together::program(EDU, seed.parse()?, Duration::from_millis(life.parse()?))
        }
        ["open-and-send", group, socket] => {
            binding::helper::open_and_send(&Group::from_fd(inherited(group)?), &inherited(socket)?)
        }
        ["pid-outside", group] => binding::helper::outside(group),
        ["pid-inside", group] => binding::helper::inside(&Group::from_fd(inherited(group)?)),
        ["stop", place, container, driver] => killed::helper::stop(place, container, driver),
        ["stop-alone", place] => killed::helper::stop_alone(place),
        ["long", request, container] => killed::helper::long(request, container),
        ["iommufd", words @ ..] => iommufd::helper(words),
        ["merge", devices @ ..] => sriov::merge(devices),
        ["noiommu-file"] => noiommu_files::helper::open_file(),
        ["noiommu-iommufd", group] => {
            noiommu_files::helper::open_through(Group::from_fd(inherited(group)?))
        }
        ["noiommu-open"] => noiommu::helper::open(),
        ["noiommu-use", group, container] => noiommu::helper::attach(
            Group::from_fd(inherited(group)?),
            Container::from_fd(inherited(container)?),
        ),
        other => bail!("there is no helper {other:?}"),
    }
}

/// Returns the cases for a software PAMU.
pub fn pamu_set() -> Vec<Trial> {
    pamu::cases()
}

/// Returns the cases for a PAMU that the module drives by its registers.
pub fn pamu_hardware_set() -> Vec<Trial> {
    [pamu_hardware::all(), pamu_driver::cases()]
        .into_iter()
        .flatten()
        .collect()
}

/// Returns the cases for accelerators with peer-to-peer support.
pub fn p2p_set() -> Vec<Trial> {
    p2p::cases()
}

/// Returns the cases of [`Set::P2pC`](crate::Set::P2pC).
pub fn p2p_c_set() -> Vec<Trial> {
    p2p::cases_in_c()
}

/// Returns the cases for device files and iommufd.
pub fn iommufd_set() -> Vec<Trial> {
    prepare_pinning();
    iommufd::cases()
}

/// Returns the cases for hotplug.
pub fn hotplug_set() -> Vec<Trial> {
    [arrival::cases(), removal::cases(), handback::cases()]
        .into_iter()
        .flatten()
        .collect()
}

/// Returns the cases in which requests stall or processes are killed.
pub fn stalls_set() -> Vec<Trial> {
    prepare_pinning();
    [stalled::cases(), killed::cases()]
        .into_iter()
        .flatten()
        .collect()
}

/// Returns the cases that inject a failure at each possible point of a request.
pub fn failing_set() -> Vec<Trial> {
    failing::cases()
}

/// Returns the cases that look for races, and for leaks when memory runs out.
pub fn stress_set() -> Vec<Trial> {
    [stress::cases(), concurrent::cases(), faults::cases()]
        .into_iter()
        .flatten()
        .collect()
}
