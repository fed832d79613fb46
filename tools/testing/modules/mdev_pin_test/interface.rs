// SPDX-License-Identifier: GPL-2.0

//! The ioctls of the device files of the two drivers that pin pages on demand: the Rust driver,
//! and the C driver, whose `vfio_pin_test.h` defines the same requests.
//!
//! The Rust driver and all programs that send these requests use this file.

const fn number(n: u32) -> u32 {
    ((b'P' as u32) << 8) | n
}

/// The size of the structure whose address most requests take: a `u64`, the iova; a `u32`, the
/// number of pages, or of bytes that follow the structure; a `u32`, [`READ`] and [`WRITE`]; a
/// `u64`, the word.
pub(crate) const HEADER: usize = 24;
/// The offset of the word.
pub(crate) const WORD: usize = 16;

/// The device reads the pages.
pub(crate) const READ: u32 = 1;
/// The device writes the pages.
pub(crate) const WRITE: u32 = 2;

/// Pins pages and returns their number. The word is set to the first word of the first page, if
/// this may be read.
pub(crate) const PIN: u32 = number(0);
/// Unpins the pinned pages of the range.
pub(crate) const UNPIN: u32 = number(1);
/// Stores the word at the start of a pinned page, like a device.
pub(crate) const POKE: u32 = number(2);
/// Copies from user memory to the bytes that follow the structure.
pub(crate) const DMA_READ: u32 = number(3);
/// Copies the bytes that follow the structure to user memory.
pub(crate) const DMA_WRITE: u32 = number(4);
/// Sets the misbehaviour. The argument is not an address, but [`KEEP`] and others.
pub(crate) const MISBEHAVE: u32 = number(5);
/// Returns the number of pages that the driver has pinned.
pub(crate) const PINNED: u32 = number(6);
/// Returns how often the driver was notified to unpin pages.
pub(crate) const UNMAPS: u32 = number(7);
/// Unpins pages, whether they are pinned or not. Not supported by the Rust driver.
pub(crate) const UNPIN_STRAY: u32 = number(8);
/// Pins pages and forgets them.
pub(crate) const PIN_ONLY: u32 = number(9);
/// Tries to use what was kept of a closed device: its pages and the device. Then releases them and
/// returns the number of the pages. Only supported by the Rust driver.
pub(crate) const TRY_KEPT: u32 = number(10);

/// Misbehaviour: keep pages when notified to unpin them.
pub(crate) const KEEP: u32 = 1;
/// Misbehaviour: pin pages again while notified to unpin them.
pub(crate) const PIN_AGAIN: u32 = 2;
/// Misbehaviour: do not unpin pages when the device is closed. The Rust driver stores the pages
/// and the device where they outlive the close.
pub(crate) const KEEP_CLOSED: u32 = 4;
/// Misbehaviour: the next two resets fail. Only supported by the Rust driver.
pub(crate) const FAIL_RESETS: u32 = 8;
/// Misbehaviour: when notified to unpin pages, pin a page again that was unpinned before. Only
/// supported by the C driver.
pub(crate) const PIN_EARLIER: u32 = 16;
