// SPDX-License-Identifier: GPL-2.0

//! Safe types for programs that drive devices through VFIO.
//!
//! The types correspond to the objects of the interface (`<linux/vfio.h>` and `<linux/iommufd.h>`):
//!
//! | Type | Object |
//! |---|---|
//! | [`Group`] | the smallest set of devices that can be assigned, `/dev/vfio/N` |
//! | [`Container`] | a DMA address space for the devices of groups, `/dev/vfio/vfio` |
//! | [`Iommufd`] | address spaces for devices that are opened by files of their own, `/dev/iommu` |
//! | [`Device`] | a device: regions, interrupts, reset, migration |
//! | [`Memory`], [`DmaBuffer`] | memory that a device may access, and registers |
//! | [`Register`] | a place and a width in such memory |
//! | [`Interrupt`] | an eventfd that counts interrupts |
//!
//! There are two ways to open a device. A kernel has one of them or both:
//!
//! ```no_run
//! use vfio_client::{AddressSpace, Device, DmaBuffer, Group, Iommu, Iommufd, IovaAllocator, pci};
//!
//! # fn main() -> vfio_client::Result {
//! let address = "0000:01:00.0";
//!
//! {
//!     // By its group, in a container.
//!     let group = Group::open(pci::group_of(address)?)?;
//!     let container = group.attach(Iommu::Type1v2)?;
//!     let device = group.device(address)?;
//!     let mut iovas = IovaAllocator::new(&container.ranges()?, 0x10_0000);
//!     let buffer = DmaBuffer::new(&container, &mut iovas, 4096)?;
//! }
//! {
//!     // By its own file, in an address space of an iommufd.
//!     let iommufd = Iommufd::open()?;
//!     let device = Device::open_file(&pci::sysfs(address))?;
//!     device.bind(&iommufd)?;
//!     let space = iommufd.address_space(iommufd.ioas()?);
//!     device.attach(space.id())?;
//!     let mut iovas = IovaAllocator::new(&space.ranges()?, 0x10_0000);
//!     let buffer = DmaBuffer::new(&space, &mut iovas, 4096)?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Safety
//!
//! Programs need no unsafe code. The crate ensures the following, whatever the program does and
//! whatever the kernel answers:
//!
//! * No Rust reference points at bytes that a device or the kernel changes: [`Memory`] is accessed by
//!   volatile copies only.
//! * A device can reach only memory that is a [`Memory`], or was one. If it is dropped while it is
//!   mapped, its addresses are not used again in this process. Otherwise the driver of a mediated
//!   device, which looks up the addresses later than the mapping was made, would find something else.
//! * An answer of the kernel that contradicts itself is an [`Error`] with `EPROTO`. A loop in a chain of
//!   capabilities ends it. No answer makes the crate panic, loop for ever, or allocate more than some
//!   megabytes.
//!
//! A function panics only if an argument is wrong in a way that the program could have avoided, such as
//! an access outside of a [`Memory`]; its documentation says so.
//!
//! All unsafe code is below `abi.rs`.
//!
//! # Features
//!
//! `testing`
//!     adds what tests of the kernel need: requests byte by byte (`raw`), and memory whose accesses
//!     fail (`Arena`) or block (`Userfault`). `raw` does not check the addresses in requests that
//!     the crate does not know, so a program that uses it must not send those of anything else.

#![deny(missing_docs, unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

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
mod query;
#[cfg(feature = "testing")]
pub mod raw;
mod register;
pub mod request;
pub mod structures;
#[cfg(test)]
mod tests;
pub mod wait;

pub use abi::Memory;
#[cfg(feature = "testing")]
pub use abi::{
    Advice,
    Arena,
    FaultOn,
    Filling,
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
pub use dma::{
    AddressSpace,
    DmaBuffer,
    Ioas, //
};
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
#[cfg(target_pointer_width = "64")]
pub use vfio_bindings::bindings::vfio as uapi;

/// The declarations of `<linux/vfio.h>`, for machines with 32 bits: the layouts of the crate
/// `vfio_bindings` are those of 64 bits. `VFIO_BINDINGS` is the output of bindgen.
#[cfg(target_pointer_width = "32")]
#[allow(
    clippy::all,
    missing_docs,
    nonstandard_style,
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    reason = "it is generated"
)]
pub mod uapi {
    include!(env!("VFIO_BINDINGS"));
}

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

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
