// SPDX-License-Identifier: GPL-2.0

//! Identify data structures (section 5.15 of the specification).

use vfio_client::{
    Memory,
    PAGE_SIZE, //
};

/// The page that describes the controller.
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
        let text = |at, len| {
            String::from_utf8_lossy(&page.to_vec(at, len))
                .trim()
                .to_owned()
        };
        let shift = page.read_u8(77);
        Self {
            serial: text(4, 20),
            model: text(24, 40),
            max_transfer: (shift != 0)
                .then(|| PAGE_SIZE.checked_shl(shift.into()))
                .flatten(),
        }
    }
}

/// The page that describes a namespace.
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
        let format = usize::from(page.read_u8(26) & 0xf);
        let shift = (page.read_u32(128 + 4 * format) >> 16) & 0xff;
        Self {
            blocks: page.read_u64(0),
            block_size: 1usize.checked_shl(shift).unwrap_or(0),
        }
    }
}
