// SPDX-License-Identifier: GPL-2.0

//! Backend of VFIO containers for IOMMUs with page tables: VT-d, AMD-Vi, virtio-iommu and others.
//!
//! A program maps ranges of its memory at device addresses of its choice; the devices that it was
//! given then reach that memory and nothing else. The memory is pinned as long as it is mapped, and
//! counts against the program's limit on locked memory.
//!
//! - [`container`]: the state of one container. [`space`]: what is mapped, and who may change it when.
//! - [`map`], [`unmap`], [`dirty`], [`info`]: the ioctls. [`request`]: what they may ask for.
//! - [`attach`]: groups of devices come and go.
//! - [`populate`]: pins memory and hands it to the IOMMU.
//! - [`refusal`]: why a request fails.
//! - [`debugfs`]: what there is, for people, and [`spent`]: what it took.
//! - [`emulated`]: devices without an IOMMU, whose drivers ask for pages.
//!
//! C header: [`include/uapi/linux/vfio.h`](srctree/include/uapi/linux/vfio.h)

#![deny(unsafe_code)]

mod abi;
mod attach;
mod backend;
mod bitmap;
mod caps;
mod container;
mod debugfs;
mod dirty;
mod emulated;
mod info;
mod map;
mod pages;
mod pins;
mod populate;
mod refusal;
mod request;
mod space;
mod spent;
mod unmap;

use kernel::prelude::*;

use kernel_ext::{
    iommu_driver::{
        Registration,
        Table, //
    },
    module_param, //
};

use crate::container::Container;

module! {
    type: Type1,
    name: "vfio_iommu_type1",
    authors: ["The VFIO in Rust authors"],
    description: "Type1 IOMMU driver for VFIO",
    license: "GPL v2",
}

module_param! {
    /// Whether to take groups whose devices can raise any interrupt.
    pub(crate) static ALLOW_UNSAFE_INTERRUPTS: bool = false;
    name: "allow_unsafe_interrupts",
    kind: "bool",
    description: "Enable VFIO IOMMU support for on platforms without interrupt remapping support."
}

module_param! {
    /// Whether to map page by page, so that the IOMMU uses its smallest pages only.
    pub(crate) static DISABLE_HUGEPAGES: bool = false;
    name: "disable_hugepages",
    kind: "bool",
    description: "Disable VFIO IOMMU support for IOMMU hugepages."
}

module_param! {
    /// How many mappings a new container may have at a time.
    pub(crate) static DMA_ENTRY_LIMIT: u32 = 65535;
    name: "dma_entry_limit",
    kind: "uint",
    description: "Maximum number of user DMA mappings per container (65535)."
}

/// The callbacks that `vfio.ko` finds this backend by.
static TABLE: Table<Container> = Table::new();

/// The module: as long as it is loaded, containers can choose this backend.
struct Type1 {
    // Goes first: then there are no containers to show, and none will be.
    _registration: Registration<Container>,
    _debugfs: Pin<KBox<debugfs::File>>,
}

impl kernel::Module for Type1 {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        abi::globals::init();
        let debugfs = debugfs::show()?;
        Ok(Self {
            _registration: Registration::new(&TABLE)?,
            _debugfs: debugfs,
        })
    }
}
