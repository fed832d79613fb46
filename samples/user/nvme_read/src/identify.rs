// SPDX-License-Identifier: GPL-2.0

//! Identify data structures (section 5.15 of the specification).

use crate::prp::PAGE_SIZE;
use vfio_client::Memory;
use zerocopy::{
    FromBytes, IntoBytes,
    little_endian::{
        U16,
        U64, //
    },
};

/// The start of the page that describes the controller.
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct Controller {
    vendor: U16,
    subsystem_vendor: U16,
    serial: [u8; 20],
    model: [u8; 40],
    firmware: [u8; 8],
    arbitration_burst: u8,
    ieee_oui: [u8; 3],
    multi_path: u8,
    /// The binary logarithm of the number of pages; 0 is no limit.
    max_transfer: u8,
}

/// The start of the page that describes a namespace.
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct Namespace {
    blocks: U64,
    capacity: U64,
    utilization: U64,
    features: u8,
    formats: u8,
    /// The index of the format in use, in the lower 4 bits.
    format: u8,
    reserved: [u8; 101],
    block_formats: [BlockFormat; 16],
}

const _: () = assert!(size_of::<Namespace>() == 192);

#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct BlockFormat {
    metadata_size: U16,
    /// The binary logarithm of the size of a block.
    shift: u8,
    performance: u8,
}

/// The description of the controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerPage {
    /// The model name.
    pub model: String,
    /// The serial number.
    pub serial: String,
    /// The maximum number of bytes that one command can transfer.
    pub max_transfer: Option<usize>,
}

impl ControllerPage {
    /// Parses the page.
    pub fn parse(page: &Memory) -> Self {
        let controller: Controller = page.read_value(0);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let shift = controller.max_transfer;
        Self {
            serial: text(&controller.serial),
            model: text(&controller.model),
            max_transfer: (shift != 0)
                .then(|| PAGE_SIZE.checked_shl(shift.into()))
                .flatten(),
        }
    }
}

/// The description of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespacePage {
    /// The number of blocks.
    pub blocks: u64,
    /// The size of a block.
    pub block_size: usize,
}

impl NamespacePage {
    /// Parses the page.
    pub fn parse(page: &Memory) -> Self {
        let namespace: Namespace = page.read_value(0);
        let format = &namespace.block_formats[usize::from(namespace.format & 0xf)];
        Self {
            blocks: namespace.blocks.get(),
            block_size: 1usize.checked_shl(format.shift.into()).unwrap_or(0),
        }
    }
}
