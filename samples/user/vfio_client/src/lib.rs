// SPDX-License-Identifier: GPL-2.0

//! Small safe types over the userspace interface of VFIO.
//!
//! C header: [`include/uapi/linux/vfio.h`](srctree/include/uapi/linux/vfio.h)
//!
//! The types correspond to the objects of the interface: a [`Container`] is a DMA address space, a
//! [`Group`] is the smallest set of devices that can be assigned, and a [`Device`] is a member of a
//! group. An [`Iommufd`] has DMA address spaces, too, for devices that are opened by a file of their
//! own. [`Memory`] is memory that a device may access. It is only accessed by volatile copies, so
//! no Rust reference points at bytes that a device changes.
//!
//! Programs that send invalid requests use [`raw`].
//!
//! All unsafe code of the userspace programs is below `abi.rs`.

#![deny(unsafe_code)]

mod abi;
mod bytes;
mod caps;
mod container;
mod device;
mod device_file;
mod dma;
pub mod edu;
mod error;
mod group;
mod iommufd;
mod iova;
mod irq;
pub mod mdev;
mod migration;
pub mod pamu;
pub mod pci;
pub mod raw;
mod register;
pub mod request;
pub mod structures;
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
pub use iommufd::{
    Iommufd,
    IovaRanges, //
};
pub use iova::IovaAllocator;
pub use irq::Interrupt;
pub use migration::MigrationState;
pub use nix::errno::Errno;
pub use register::{
    Register,
    Word, //
};
pub use vfio_bindings::bindings::vfio as uapi;

/// The size of the kernel's smallest page, for which the program was compiled: see [`check_page_size`].
pub const PAGE_SIZE: usize = if cfg!(page_size = "16384") {
    16384
} else {
    4096
};

/// Checks that the kernel has pages of [`PAGE_SIZE`].
///
/// A program for a kernel with pages of 16 KiB is compiled with `--cfg page_size="16384"`.
pub fn check_page_size() -> Result {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE)
        .map_err(Error::during("sysconf"))?;
    if size == Some(PAGE_SIZE as _) {
        Ok(())
    } else {
        Err(Error::new(
            "page size other than this program was compiled for",
            Errno::ENOEXEC,
        ))
    }
}
