// SPDX-License-Identifier: GPL-2.0

//! What the drivers that pin pages on demand are asked, by ioctl on the device's file: both the one in
//! Rust and the one in C, whose `vfio_pin_test.h` says the same.
//!
//! Used by the driver in Rust and by all programs that ask.

const fn number(n: u32) -> u32 {
    ((b'P' as u32) << 8) | n
}

/// Bytes of the structure that most requests take the address of: a `u64`, the iova; a `u32`, the count
/// of pages, or of bytes that follow the structure; a `u32`, [`READ`] and [`WRITE`]; a `u64`, the word.
pub(crate) const HEADER: usize = 24;
/// Where the word is.
pub(crate) const WORD: usize = 16;

/// The device reads the pages.
pub(crate) const READ: u32 = 1;
/// The device writes the pages.
pub(crate) const WRITE: u32 = 2;

/// Pins pages. Returns how many; the word becomes the first one of the first page, if it may be read.
pub(crate) const PIN: u32 = number(0);
/// Unpins those pages of the range which are pinned.
pub(crate) const UNPIN: u32 = number(1);
/// Stores the word at the start of a pinned page, as a device would.
pub(crate) const POKE: u32 = number(2);
/// Copies from the program's memory to behind the structure.
pub(crate) const DMA_READ: u32 = number(3);
/// Copies into the program's memory from behind the structure.
pub(crate) const DMA_WRITE: u32 = number(4);
/// The argument is no address: [`KEEP`] and others.
pub(crate) const MISBEHAVE: u32 = number(5);
/// Returns how many pages the driver has.
pub(crate) const PINNED: u32 = number(6);
/// Returns how often the driver was told to give up pages.
pub(crate) const UNMAPS: u32 = number(7);
/// Unpins pages whether they are pinned or not. A driver in Rust can't.
pub(crate) const UNPIN_STRAY: u32 = number(8);
/// Pins pages and forgets them.
pub(crate) const PIN_ONLY: u32 = number(9);
/// Tries what was kept from a device that was closed: its pages, and the device. Gives it up then, and
/// returns how many pages that were. Only in Rust.
pub(crate) const TRY_KEPT: u32 = number(10);

/// Misbehaviour: keep pages when told to give them up.
pub(crate) const KEEP: u32 = 1;
/// Misbehaviour: pin pages again while being told to give them up.
pub(crate) const PIN_AGAIN: u32 = 2;
/// Misbehaviour: don't unpin when the device is closed. The driver in Rust keeps pages and device where
/// they outlive it.
pub(crate) const KEEP_CLOSED: u32 = 4;
/// Misbehaviour: the next two resets fail. Only in Rust.
pub(crate) const FAIL_RESETS: u32 = 8;
/// Misbehaviour: when told to give up pages, pin one again of those that were given up before. Only in C.
pub(crate) const PIN_EARLIER: u32 = 16;
