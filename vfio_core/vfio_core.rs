// SPDX-License-Identifier: GPL-2.0

//! The VFIO core: the files of containers, groups and devices, and the kernel interface of
//! `vfio.ko`.
//!
//! - [`container`]: an address space that userspace fills, `/dev/vfio/vfio`
//! - [`group`]: the devices that the IOMMU cannot isolate from each other, `/dev/vfio/N`; one user
//!   at a time
//! - [`device`]: a device that a driver registered; opened through its group once that is in a
//!   container
//! - [`iommu_driver`]: the modules that translate addresses for containers; `noiommu` is one
//!   without an IOMMU
//! - [`migration`], [`irq_set`], [`virqfd`]: helpers for device drivers
//! - [`exports`]: the functions of `include/linux/vfio.h`, which C code calls
//!
//! The path of a request: `group::file` finds and opens a device through `group::session`, which
//! calls the driver through [`device::set`]; [`device::file`] forwards requests to the driver.
//!
//! Unsafe code is confined to [`exports`] and to the `abi.rs` of each concept; [`abi`] is the entry
//! point. For the lock order see `Documentation/locking.rst`.

#![deny(unsafe_code)]

#[cfg(any(CONFIG_IOMMUFD, CONFIG_VFIO_DEVICE_CDEV))]
compile_error!("kernels with IOMMUFD or VFIO_DEVICE_CDEV are not supported yet");

#[allow(unsafe_code)]
mod abi;
mod container;
mod device;
#[allow(unsafe_code)]
mod exports;
mod group;
mod ida;
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
    debugfs::Dir,
    misc::MiscRegistration, //
};

module! {
    type: Vfio,
    name: "vfio",
    authors: ["The VFIO in Rust authors"],
    description: "VFIO - User Level meta-driver",
    license: "GPL v2",
    alias: ["char-major-10-196", "devname:vfio/vfio"],
}

/// The module's registrations. They are dropped from top to bottom.
#[pin_data]
struct Vfio {
    #[pin]
    _container_node: MiscRegistration,
    _device_class: ClassRegistration,
    _virqfd: virqfd::CleanupQueue,
    _group_class: group::registry::GroupClass,
    _debug: Dir,
    #[cfg(CONFIG_VFIO_NOIOMMU)]
    _noiommu: kernel_ext::iommu_driver::Registration<noiommu::NoIommu>,
}

impl Vfio {
    /// Creates the nodes, classes and files of the module.
    fn new() -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            #[cfg(CONFIG_VFIO_NOIOMMU)]
            _noiommu: noiommu::register()?,
            _debug: Dir::new(c"vfio")?,
            _group_class: group::registry::GroupClass::new(_debug)?,
            _virqfd: virqfd::CleanupQueue::new()?,
            _device_class: device::CLASS.register()?,
            _container_node <- container::register(),
            _: {
                pr_info!("VFIO - User Level meta-driver version: 0.3\n");
            },
        })
    }
}
