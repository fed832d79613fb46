// SPDX-License-Identifier: GPL-2.0

//! The memory that is mapped for devices, and the bitmap page. They have the same addresses in
//! every process.

use anyhow::Result;
use nix::sys::memfd::{
    MFdFlags,
    memfd_create, //
};
use std::{
    fs::File,
    os::fd::AsFd, //
};
use vfio_client::{
    Advice,
    Arena,
    Filling, //
};

/// The first address.
pub const BASE: u64 = 64 << 30;
/// The size of the whole range. Most of it is never filled, so mappings can run past the memory.
pub const SIZE: u64 = 1 << 40;
/// The size of a piece: one huge page.
pub const PIECE: u64 = 2 << 20;
/// The number of filled pieces.
pub const PIECES: u64 = 16;
/// The address of the bitmap page. Nothing is mapped after it.
pub const BITMAP: u64 = BASE + 2 * PIECES * PIECE;
/// The size of the bitmap page.
pub const BITMAP_LEN: usize = 4096;

/// The offset in the device file of some `edu` registers that have no effect.
const REGISTERS: u64 = 0x1_0000;

/// Changes to a piece.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    /// Replaces the content.
    Fill(Filling),
    /// Maps a part of a memfd.
    File,
    /// Maps registers of a device. This keeps the device file open.
    Registers,
    /// Changes the access to some pages: first, count, readable, writable.
    Protect(u64, u64, bool, bool),
    /// Calls madvise() for some pages: first, count.
    Advise(u64, u64, Advice),
}

/// The memory.
#[derive(Debug)]
pub struct Memory {
    arena: Arena,
    file: File,
}

fn piece(nth: u64) -> std::ops::Range<usize> {
    (nth * PIECE) as usize..((nth + 1) * PIECE) as usize
}

fn pages(nth: u64, first: u64, count: u64) -> std::ops::Range<usize> {
    let start = nth * PIECE + first * 4096;
    start as usize..(start + count * 4096) as usize
}

impl Memory {
    /// Creates the initial memory of a process.
    pub fn new() -> Result<Self> {
        let file = File::from(memfd_create(c"differential", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(PIECES * PIECE)?;
        let mut arena = Arena::new(BASE as usize, SIZE as usize)?;
        for nth in 0..PIECES {
            match nth % 4 {
                0 => arena.fill(piece(nth), Filling::Shared)?,
                1 => arena.fill_from(piece(nth), &file, nth * PIECE)?,
                2 => arena.fill(piece(nth), Filling::Private)?,
                _ => {
                    arena.fill(piece(nth), Filling::Private)?;
                    arena.advise(piece(nth), Advice::Huge)?;
                }
            }
        }
        let bitmap = (BITMAP - BASE) as usize;
        arena.fill(bitmap..bitmap + BITMAP_LEN, Filling::Shared)?;
        Ok(Self { arena, file })
    }

    /// Changes a piece.
    pub fn change(
        &mut self,
        nth: u64,
        change: Change,
        device: Option<impl AsFd>,
    ) -> vfio_client::Result {
        match change {
            Change::Fill(filling) => self.arena.fill(piece(nth), filling),
            Change::File => self.arena.fill_from(piece(nth), &self.file, nth * PIECE),
            Change::Registers => match device {
                Some(device) => {
                    self.arena.fill(piece(nth), Filling::Nothing)?;
                    let half = (nth * PIECE) as usize..(nth * PIECE + PIECE / 4) as usize;
                    self.arena.fill_from(half, device, REGISTERS)
                }
                None => Ok(()),
            },
            Change::Protect(first, count, readable, writable) => {
                self.arena
                    .protect(pages(nth, first, count), readable, writable)
            }
            Change::Advise(first, count, advice) => {
                self.arena.advise(pages(nth, first, count), advice)
            }
        }
    }

    /// Unmaps all pieces.
    pub fn clear(&mut self) -> vfio_client::Result {
        (0..PIECES).try_for_each(|nth| self.arena.fill(piece(nth), Filling::Nothing))
    }

    /// Fills the bitmap page with one byte.
    pub fn prepare_bitmap(&mut self, byte: u8) -> vfio_client::Result {
        self.arena
            .write((BITMAP - BASE) as usize, &[byte; BITMAP_LEN])
    }

    /// Returns the content of the bitmap page.
    pub fn bitmap(&self) -> vfio_client::Result<Vec<u8>> {
        let mut bytes = vec![0; BITMAP_LEN];
        self.arena.read((BITMAP - BASE) as usize, &mut bytes)?;
        Ok(bytes)
    }
}
