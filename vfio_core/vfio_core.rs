// SPDX-License-Identifier: GPL-2.0

//! The VFIO core: the files of containers, groups and devices, and the kernel interface of
//! `vfio.ko`.
//!
//! A *container* ([`container`]) is an address space that userspace fills. A *group* ([`group`]) is
//! the smallest unit that the IOMMU can isolate, and therefore the unit of ownership. A *device*
//! ([`device`]) is opened through its group once the group is in a container. A *backend*
//! ([`backend`]) is another module, which does the translation for a container.
//!
//! Unsafe code is confined to [`abi`]. It wraps `struct vfio_device` and the callbacks of device
//! drivers, and defines the functions of `include/linux/vfio.h` that C drivers call.
//!
//! For the lock order see `Documentation/locking.rst`.

#![deny(unsafe_code)]

#[cfg(any(CONFIG_IOMMUFD, CONFIG_VFIO_DEVICE_CDEV))]
compile_error!("kernels with IOMMUFD or VFIO_DEVICE_CDEV are not supported yet");

#[allow(unsafe_code)]
mod abi;
mod backend;
mod container;
mod device;
mod group;
mod irq_set;
mod migration;
#[cfg(CONFIG_VFIO_NOIOMMU)]
mod noiommu;
mod numbers;

use iommu_group::software;
use kernel::{
    debugfs::Dir,
    prelude::*, //
};
use kernel_ext::{
    chardev::ClassRegistration,
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
    _mover: software::Registration,
    #[pin]
    _container_node: MiscRegistration,
    _device_class: ClassRegistration,
    _virqfd: abi::virqfd::CleanupQueue,
    _group_numbers: group::registry::Numbered,
    _debug: Dir,
    #[cfg(CONFIG_VFIO_NOIOMMU)]
    _noiommu: kernel_ext::iommu_driver::Registration<noiommu::NoIommu>,
}

impl kernel::InPlaceModule for Vfio {
    fn init(_module: &'static ThisModule) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            _: {
                abi::globals::init();
            },
            #[cfg(CONFIG_VFIO_NOIOMMU)]
            _noiommu: noiommu::register()?,
            _debug: Dir::new(c"vfio"),
            _group_numbers: group::registry::Numbered::new(_debug)?,
            _virqfd: abi::virqfd::CleanupQueue::new()?,
            _device_class: device::CLASS.register()?,
            _mover: software::Registration::new(&group::regroup::Mover)?,
            _container_node <- container::register(),
            _: {
                pr_info!("VFIO - User Level meta-driver version: 0.3\n");
            },
        })
    }
}
