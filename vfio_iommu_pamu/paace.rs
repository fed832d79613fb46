// SPDX-License-Identifier: GPL-2.0

//! Entries of the access authorisation and control tables: what they say, and how that is coded.
//!
//! A LIODN's *aperture* is the one range of device addresses that it may use, a power of two long.
//! It is divided into *windows* of equal size, each of which leads to one *block* of memory. The
//! LIODN's primary entry has the aperture and window 0; the other windows have a secondary entry
//! each, in a row.
//!
//! An entry has 64 bytes, which are 16 big-endian words. Here they are words of the host: the
//! memory of the tables is where they are swapped.

mod aperture;
mod coding;
mod operation;
#[cfg(CONFIG_KUNIT = "y")]
mod properties;

use kernel::prelude::*;

use kernel_ext::iommu::{
    self,
    Prot, //
};

pub(crate) use aperture::{
    Aperture,
    Windows, //
};
pub(crate) use coding::{
    with_access,
    with_stash,
    word, //
};
pub(crate) use operation::{
    row,
    OperationMapping,
    MAPPING_ROWS,
    ROW,
    ROWS, //
};

/// The base-2 logarithm of the smallest aperture, window and block.
pub(crate) const MIN_ORDER: u32 = 12;

/// The smallest aperture, window and block.
pub(crate) const PAGE: u64 = 1 << MIN_ORDER;

/// The words of an entry.
pub(crate) const WORDS: usize = 16;

/// An entry as words of the host.
pub(crate) type Words = [u32; WORDS];

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// A reserved bit is set.
    Reserved,
    /// It is a secondary entry in the place of a primary one, or the other way round.
    Kind,
    /// The aperture isn't a power of two of at least 4 KiB, or doesn't begin at a multiple of it.
    Aperture,
    /// The number of windows isn't a power of two up to 65536, or leaves less than 4 KiB for each.
    Windows,
    /// The block isn't a power of two of at least 4 KiB, is larger than its window, or doesn't begin
    /// at a multiple of its size.
    Block,
    /// Translation by pages, which isn't supported.
    Translation,
    /// The operation mapping is reserved, or has operations that don't exist.
    Operation,
    /// The partition isn't one of 0 to 7.
    Partition,
    /// A valid entry that has nothing to say.
    Empty,
}

impl From<Invalid> for Error {
    fn from(_: Invalid) -> Self {
        EINVAL
    }
}

/// What a device may do with a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Access {
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
    /// The access with these two bits.
    pub(crate) fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::Denied,
            1 => Self::Query,
            2 => Self::Update,
            _ => Self::All,
        }
    }
}

impl From<Prot> for Access {
    fn from(prot: Prot) -> Self {
        let read = prot.contains(iommu::Access::Read);
        let write = prot.contains(iommu::Access::Write);
        Self::from_bits(u32::from(read) | u32::from(write) << 1)
    }
}

/// Where a window leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Block {
    /// What the device may do with it.
    pub(crate) access: Access,
    /// The physical address, a multiple of `size`.
    pub(crate) phys: u64,
    /// How many bytes of the window lead there, from its start on; 0 if that was never said, and for
    /// the only window of an aperture, all of which leads there.
    pub(crate) size: u64,
    /// Whether addresses are translated; if not, they are physical ones.
    pub(crate) translated: bool,
}

/// The identifier of a cache that a device's writes go to right away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StashId(pub(crate) core::num::NonZero<u8>);

/// On whose side of the SoC transactions come out, and with what attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Domain {
    /// Memory.
    Host {
        /// The destination's identifier; Linux never says one.
        destination: u8,
        /// The partition's identifier, 0 to 7; Linux never says one.
        partition: u8,
        /// Who snoops.
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

/// What all entries of a LIODN have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Where transactions come out; memory, coherently, by default.
    pub(crate) domain: Domain,
    /// The cache that writes go to, if any.
    pub(crate) stash: Option<StashId>,
    /// What becomes of the device's operations.
    pub(crate) operation: OperationMapping,
}

/// A primary entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Primary {
    /// Whether the LIODN may do anything.
    pub(crate) valid: bool,
    /// The aperture; `None` in an entry that was never configured.
    pub(crate) aperture: Option<Aperture>,
    /// How many windows the aperture is divided into.
    pub(crate) windows: Windows,
    /// The index of the first secondary entry; 0 if there is none.
    pub(crate) first_secondary: u32,
    /// Window 0.
    pub(crate) block: Block,
    /// The attributes.
    pub(crate) attributes: Attributes,
}

/// A secondary entry: a window other than the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Secondary {
    /// Whether the window leads anywhere.
    pub(crate) valid: bool,
    /// The LIODN that it belongs to.
    pub(crate) liodn: u16,
    /// Where it leads to.
    pub(crate) block: Block,
    /// The attributes.
    pub(crate) attributes: Attributes,
}

/// Whether an aperture, a window or a block can have `size` bytes.
pub(crate) fn is_block_size(size: u64) -> bool {
    size.is_power_of_two() && size >= PAGE
}
