// SPDX-License-Identifier: GPL-2.0

//! VFIO container backend for IOMMUs with page tables: VT-d, AMD-Vi, virtio-iommu and others.
//!
//! A process maps ranges of its memory at iovas of its choice. The devices assigned to it can then
//! access that memory and nothing else. The memory is pinned as long as it is mapped, and counts
//! against the process's limit on locked memory.
//!
//! - [`backend`]: the callbacks of the core. [`container`]: the state of one container, and the
//!   list of all containers.
//! - [`map`], [`unmap`], [`dirty`], [`info`]: the ioctls. [`request`]: their arguments.
//! - [`attach`]: attaching and detaching groups.
//! - [`emulated`]: page pinning and copying for the drivers of emulated devices.
//! - [`space`]: the mappings (`Dma`, `DmaTree`) and the range lock that protects them.
//! - [`pages`]: the pages of a mapping. `pages::pin_map` pins them and maps them in the IOMMU; [`pins`]
//!   has those that drivers have pinned.
//! - [`error`]: an errno with its reason, and the tracepoint that reports both.
//! - [`stats`]: request statistics. [`debugfs`]: the debugfs file, which shows all containers and
//!   their statistics.
//!
//! A map request runs through [`backend`], [`map`], [`space`] (locks the range), `pages::pin_map` and
//! [`kernel_ext::iommu::Mapping`].
//!
//! C header: [`include/uapi/linux/vfio.h`](srctree/include/uapi/linux/vfio.h)

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod abi;
mod attach;
mod backend;
mod container;
mod debugfs;
mod dirty;
mod emulated;
mod error;
mod info;
mod map;
mod pages;
mod pins;
mod request;
mod space;
mod stats;
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

kernel_ext::compat::module! {
    type: Type1,
    name: "vfio_iommu_type1",
    authors: ["The VFIO in Rust authors"],
    description: "Type1 IOMMU driver for VFIO",
    license: "GPL v2",
}

module_param! {
    /// Whether to attach groups without interrupt remapping.
    pub(crate) static ALLOW_UNSAFE_INTERRUPTS: bool = false;
    name: "allow_unsafe_interrupts",
    kind: "bool",
    description: "Enable VFIO IOMMU support for on platforms without interrupt remapping support."
}

module_param! {
    /// Whether to map page by page, so that the IOMMU only uses its smallest page size.
    pub(crate) static DISABLE_HUGEPAGES: bool = false;
    name: "disable_hugepages",
    kind: "bool",
    description: "Disable VFIO IOMMU support for IOMMU hugepages."
}

module_param! {
    /// The maximum number of mappings in a new container.
    pub(crate) static DMA_ENTRY_LIMIT: u32 = 65535;
    name: "dma_entry_limit",
    kind: "uint",
    description: "Maximum number of user DMA mappings per container (65535)."
}

/// The callbacks by which `vfio.ko` finds this backend.
static TABLE: Table<Container> = Table::new();

/// The module. Containers can choose this backend while it is loaded.
struct Type1 {
    // Dropped first: after that there are no containers to show, and none can be created.
    _registration: Registration<Container>,
    _debugfs: debugfs::File,
}

impl Type1 {
    /// Creates the debugfs file, and registers the backend.
    fn new() -> Result<Self> {
        let debugfs = debugfs::show()?;
        Ok(Self {
            _registration: Registration::new(&TABLE)?,
            _debugfs: debugfs,
        })
    }
}
