// SPDX-License-Identifier: GPL-2.0

//! Entries of the access authorisation and control tables: their content and their encoding.
//!
//! The *aperture* of a LIODN is the range of device addresses that it may use. Its size is a power
//! of two. It is divided into *windows* of equal size, and each window leads to one *block* of
//! memory. The LIODN's primary entry contains the aperture and window 0. Each other window has a
//! secondary entry; these are consecutive.
//!
//! An entry has 64 bytes, which are 16 big-endian words. This module uses words in host byte order;
//! the code that accesses the tables in memory swaps them.

mod aperture;
mod encoding;
mod operation_mapping;
#[cfg(CONFIG_KUNIT = "y")]
mod properties;

use kernel::prelude::*;

use kernel_ext::iommu::{
    self,
    Prot, //
};

pub use aperture::Aperture;

pub(crate) use aperture::Windows;
pub(crate) use encoding::{
    with_access,
    with_stash,
    word, //
};
pub(crate) use operation_mapping::{
    row,
    OperationMapping,
    MAPPING_ROWS,
    ROW,
    ROWS, //
};

/// The base-2 logarithm of the smallest aperture, window and block.
pub(crate) const MIN_ORDER: u32 = 12;

/// The smallest aperture, window and block.
pub(crate) const MIN_SIZE: u64 = 1 << MIN_ORDER;

/// The number of words of an entry.
pub(crate) const WORDS: usize = 16;

/// An entry as words in host byte order.
pub(crate) type Words = [u32; WORDS];

/// The reason why an entry is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// A reserved bit is set.
    Reserved,
    /// A secondary entry is in the place of a primary one, or the reverse.
    Kind,
    /// The aperture isn't a power of two of at least 4 KiB, or isn't aligned to its size.
    Aperture,
    /// The number of windows isn't a power of two up to 65536, or leaves less than 4 KiB for each.
    Windows,
    /// The block isn't a power of two of at least 4 KiB, is larger than its window, or isn't
    /// aligned to its size.
    Block,
    /// Translation by pages, which isn't supported.
    Translation,
    /// The operation mapping is reserved, or contains operations that don't exist.
    Operation,
    /// The partition isn't in the range 0 to 7.
    Partition,
    /// The entry is valid but empty.
    Empty,
}

impl From<Invalid> for Error {
    fn from(_: Invalid) -> Self {
        EINVAL
    }
}

/// The accesses that a window permits to a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Access {
    /// Nothing.
    #[default]
    Denied = 0,
    /// Read.
    Query = 1,
    /// Write.
    Update = 2,
    /// Both.
    All = 3,
}

impl Access {
    /// Returns the access with these two bits.
    pub(crate) fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Denied,
            1 => Self::Query,
            2 => Self::Update,
            _ => Self::All,
        }
    }

    /// Returns this access without writes.
    pub(crate) fn without_update(self) -> Self {
        Self::from_bits(self as u32 & Self::Query as u32)
    }
}

impl From<Prot> for Access {
    fn from(prot: Prot) -> Self {
        let read = prot.contains(iommu::Access::Read);
        let write = prot.contains(iommu::Access::Write);
        Self::from_bits(u32::from(read) | u32::from(write) << 1)
    }
}

/// The block of memory that a window leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    /// The accesses that the device may make.
    pub(crate) access: Access,
    /// The physical address, a multiple of `size`.
    pub(crate) phys: u64,
    /// How many bytes of the window lead there, starting at its first. 0 if it was never set, and
    /// for the only window of an undivided aperture, all of which leads there.
    pub(crate) size: u64,
    /// Whether addresses are translated. If not, they are physical addresses.
    pub(crate) translated: bool,
}

/// The identifier of a cache that device writes are stashed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StashId(pub(crate) core::num::NonZero<u8>);

/// The destination of transactions in the SoC, and their attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Domain {
    /// Memory.
    Host {
        /// The destination's identifier. Linux never sets it.
        destination: u8,
        /// The partition's identifier, 0 to 7. Linux never sets it.
        partition: u8,
        /// The identifier of the snooper.
        snoop: u8,
        /// Whether caches are kept coherent.
        coherent: bool,
    },
    /// Another I/O device.
    Io {
        /// The destination's identifier.
        destination: u8,
    },
}

impl Default for Domain {
    fn default() -> Self {
        Self::Host {
            destination: 0,
            partition: 0,
            snoop: 0,
            coherent: true,
        }
    }
}

/// The attributes that all entries of a LIODN have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The destination of transactions; coherent memory by default.
    pub(crate) domain: Domain,
    /// The cache that writes are stashed in, if any.
    pub(crate) stash: Option<StashId>,
    /// The mapping of the device's operations.
    pub(crate) operation: OperationMapping,
}

/// A primary entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ppaace {
    /// Whether the LIODN is enabled.
    pub(crate) valid: bool,
    /// The aperture, or `None` in an entry that was never configured.
    pub(crate) aperture: Option<Aperture>,
    /// The number of windows of the aperture.
    pub(crate) windows: Windows,
    /// The index of the first secondary entry; 0 if there is none.
    pub(crate) first_spaace: u32,
    /// Window 0.
    pub(crate) block: Block,
    /// The attributes.
    pub(crate) attributes: Attributes,
}

/// A secondary entry: a window other than the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spaace {
    /// Whether the window is set.
    pub(crate) valid: bool,
    /// The LIODN that it belongs to.
    pub(crate) liodn: u16,
    /// The block that it leads to.
    pub(crate) block: Block,
    /// The attributes.
    pub(crate) attributes: Attributes,
}

/// Returns whether an aperture, a window or a block can have `size` bytes.
pub(crate) fn is_block_size(size: u64) -> bool {
    size.is_power_of_two() && size >= MIN_SIZE
}
