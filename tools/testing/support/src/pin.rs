// SPDX-License-Identifier: GPL-2.0

//! The requests to the drivers that pin pages on demand.

#[path = "../../modules/mdev_pin_test/interface.rs"]
mod interface;

use std::mem::offset_of;
use vfio_client::Bytes;
use zerocopy::{
    FromBytes,
    Immutable,
    IntoBytes, //
};

/// The device of the driver in C.
pub const IN_C: &str = "vfio_pin_test.0";

/// The device reads the pages.
pub const READ: u32 = interface::READ;
/// The device writes the pages.
pub const WRITE: u32 = interface::WRITE;

/// The requests. `interface.rs` describes them.
#[allow(missing_docs, reason = "`interface.rs` describes the requests")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Ask {
    Pin = interface::PIN,
    Unpin = interface::UNPIN,
    Poke = interface::POKE,
    Read = interface::DMA_READ,
    Write = interface::DMA_WRITE,
    Misbehave = interface::MISBEHAVE,
    Pinned = interface::PINNED,
    Unmaps = interface::UNMAPS,
    UnpinStray = interface::UNPIN_STRAY,
    PinOnly = interface::PIN_ONLY,
    TryKept = interface::TRY_KEPT,
}

impl Ask {
    /// Returns the number of the request.
    pub fn number(self) -> u32 {
        self as u32
    }
}

/// The misbehaviours. `interface.rs` describes them.
#[allow(missing_docs, reason = "`interface.rs` describes the misbehaviours")]
pub mod misbehave {
    use super::interface;

    pub const KEEP: u32 = interface::KEEP;
    pub const PIN_AGAIN: u32 = interface::PIN_AGAIN;
    pub const KEEP_CLOSED: u32 = interface::KEEP_CLOSED;
    pub const FAIL_RESETS: u32 = interface::FAIL_RESETS;
    pub const PIN_EARLIER: u32 = interface::PIN_EARLIER;
}

/// The argument of most requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
pub struct Pages {
    /// The first address.
    pub iova: u64,
    /// The number of pages, or of bytes that follow the structure.
    pub count: u32,
    /// [`READ`] and [`WRITE`].
    pub prot: u32,
    /// The word to store, or the word that was read.
    pub word: u64,
}

impl Pages {
    /// Returns the bytes of the structure.
    pub fn bytes(&self) -> Bytes {
        const {
            assert!(size_of::<Pages>() == interface::HEADER);
            assert!(offset_of!(Pages, word) == interface::WORD);
        }
        Bytes::of(self)
    }

    /// Returns the data that follow the structure.
    pub fn data(answer: &Bytes) -> &[u8] {
        &answer.as_ref()[size_of::<Self>()..]
    }
}
