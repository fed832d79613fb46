// SPDX-License-Identifier: GPL-2.0

//! The VFIO core: the files of containers, groups and devices, and the kernel interface of
//! `vfio.ko`.
//!
//! - [`container`]: an address space that userspace fills, `/dev/vfio/vfio`
//! - [`group`]: the devices that the IOMMU cannot isolate from each other, `/dev/vfio/N`; one user
//!   at a time
//! - [`device`]: a device that a driver registered; opened through its group once that is in a
//!   container or an iommufd, or through its own file, `/dev/vfio/devices/vfioN`, with an iommufd
//! - [`iommu_driver`]: the modules that translate addresses for containers; `noiommu` is one
//!   without an IOMMU
//! - [`migration`], [`irq_set`], [`virqfd`]: helpers for device drivers
//! - [`exports`]: the functions of `include/linux/vfio.h`, which C code calls; those for IOMMUFD are
//!   in `device::standard`
//!
//! The path of a request: `group::file` finds and opens a device through `group::device_fd`, and
//! [`device::cdev`] through the device's own file. Both call the driver through [`device::set`].
//! [`device::file`] forwards requests to the driver.
//!
//! Unsafe code is confined to files named `abi.rs` and `exports.rs`; [`abi`] is the entry point. For the lock order see `Documentation/locking.rst`.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod abi;
mod container;
mod device;
#[allow(unsafe_code)]
mod exports;
mod group;
mod iommu_driver;
mod irq_set;
#[allow(unsafe_code)]
#[path = "kvm/abi.rs"]
mod kvm;
mod migration;
#[cfg(CONFIG_VFIO_NOIOMMU)]
mod noiommu;
#[allow(unsafe_code)]
#[path = "virqfd/abi.rs"]
mod virqfd;

use kernel::prelude::*;
use kernel_ext::{
    chardev::ClassRegistration,
    debugfs::Dir, //
};

kernel_ext::compat::module! {
    type: Vfio,
    name: "vfio",
    authors: ["The VFIO in Rust authors"],
    description: "VFIO - User Level meta-driver",
    license: "GPL v2",
}

/// The module's registrations. They are dropped from top to bottom.
struct Vfio {
    _container_node: container::ContainerNode,
    _device_nodes: device::cdev::DeviceNodes,
    _device_class: ClassRegistration,
    _virqfd: virqfd::CleanupQueue,
    _group_class: group::registry::GroupClass,
    _debug: Dir,
    #[cfg(CONFIG_VFIO_NOIOMMU)]
    _noiommu: kernel_ext::iommu_driver::Registration<noiommu::NoIommu>,
}

impl Vfio {
    /// Creates the nodes, classes and files of the module.
    fn new() -> Result<Self> {
        #[cfg(CONFIG_VFIO_NOIOMMU)]
        let noiommu = noiommu::register()?;
        let debug = Dir::new(c"vfio")?;
        let group_class = group::registry::GroupClass::new(&debug)?;
        let virqfd = virqfd::CleanupQueue::new()?;
        let device_class = device::CLASS.register()?;
        let device_nodes = device::cdev::DeviceNodes::new()?;
        let container_node = container::ContainerNode::new()?;
        pr_info!("VFIO - User Level meta-driver version: 0.3\n");
        Ok(Self {
            _container_node: container_node,
            _device_nodes: device_nodes,
            _device_class: device_class,
            _virqfd: virqfd,
            _group_class: group_class,
            _debug: debug,
            #[cfg(CONFIG_VFIO_NOIOMMU)]
            _noiommu: noiommu,
        })
    }
}
