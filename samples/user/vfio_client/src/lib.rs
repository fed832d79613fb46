// SPDX-License-Identifier: GPL-2.0

//! Small safe types over the userspace interface of VFIO.
//!
//! C header: [`include/uapi/linux/vfio.h`](srctree/include/uapi/linux/vfio.h)
//!
//! The objects are those of the interface: a [`Container`] is an address space for DMA, a [`Group`]
//! is the smallest set of devices that can be given away, a [`Device`] is one of them. Memory which
//! a device may touch is a [`Memory`]: it is only ever accessed by volatile copies, so no Rust
//! reference can point at bytes that a device changes.
//!
//! Programs that want to send *wrong* requests use [`raw`].
//!
//! All unsafe code of the userspace programs lives below `abi.rs`.

#![deny(unsafe_code)]

mod abi;
mod bytes;
mod caps;
mod container;
mod device;
mod dma;
pub mod edu;
mod error;
mod group;
mod iova;
mod irq;
pub mod mdev;
mod migration;
pub mod pamu;
pub mod pci;
pub mod raw;
pub mod request;
pub mod wait;

pub use abi::{
    Advice,
    Arena,
    FaultOn,
    Filling,
    Memory,
    Userfault, //
};
pub use bytes::Bytes;
pub use caps::{
    Capability,
    chain, //
};
pub use container::{
    Container,
    Iommu,
    IommuInfo,
    IovaRange,
    MapFlags, //
};
pub use device::{
    Device,
    DeviceInfo,
    IrqInfo,
    RegionInfo, //
};
pub use dma::DmaBuffer;
pub use error::{
    Error,
    Result, //
};
pub use group::Group;
pub use iova::IovaAllocator;
pub use irq::Interrupt;
pub use migration::MigrationState;
pub use nix::errno::Errno;
pub use vfio_bindings::bindings::vfio as uapi;

/// The size of the smallest page.
pub const PAGE_SIZE: usize = 4096;
