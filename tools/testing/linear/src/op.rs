// SPDX-License-Identifier: GPL-2.0

//! Requests and answers.

use crate::plan::{
    MEMORY,
    MEMORY_PAGES, //
};
use std::fmt;
use vfio_client::Errno;

/// The size of a page.
pub const PAGE: u64 = 4096;

/// The flags of MAP_DMA.
pub mod map {
    /// The device can read.
    pub const READ: u32 = 1;
    /// The device can write.
    pub const WRITE: u32 = 2;
    /// Set a new address in the process for a mapping whose address is invalid.
    pub const VADDR: u32 = 4;
}

/// The flags of UNMAP_DMA.
pub mod unmap {
    /// Get the dirty bitmap.
    pub const DIRTY: u32 = 1;
    /// Unmap all mappings.
    pub const ALL: u32 = 2;
    /// Keep the mappings, but invalidate their addresses in the process.
    pub const VADDR: u32 = 4;
}

/// The flags of DIRTY_PAGES.
pub mod dirty {
    /// Start tracking.
    pub const START: u32 = 1;
    /// Stop tracking.
    pub const STOP: u32 = 2;
}

impl Op {
    /// Returns the single requests of [`MapMany`](Self::MapMany).
    pub fn singles(iova: u64, count: u64, stride: u64) -> impl Iterator<Item = Self> {
        (0..count).map(move |nth| Self::Map {
            flags: map::READ | map::WRITE,
            vaddr: MEMORY + nth % MEMORY_PAGES * PAGE,
            iova: iova + nth * stride,
            size: PAGE,
        })
    }
}

/// A group of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// A group without an IOMMU, of the test driver that pins pages.
    Emulated = 0,
    /// An `edu` behind an IOMMU.
    Physical = 1,
    /// A second `edu`.
    Second = 2,
}

/// The number of groups.
pub const GROUPS: usize = 3;

/// All groups, by index.
pub const ALL_GROUPS: [Group; GROUPS] = [Group::Emulated, Group::Physical, Group::Second];

/// The bitmap argument of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bitmap {
    /// The page size.
    pub pgsize: u64,
    /// The size of the bitmap in bytes.
    pub size: u64,
    /// The number of bytes from its start that can be written.
    pub room: u64,
    /// The byte that fills it before the request.
    pub fill: u8,
}

impl Bitmap {
    /// Returns a bitmap that is zero and writable.
    pub fn clear(pgsize: u64, size: u64) -> Self {
        Self {
            pgsize,
            size,
            room: size,
            fill: 0,
        }
    }

    /// Returns its words before the request.
    pub fn words(&self) -> Vec<u64> {
        let count = self.room.min(self.size) / 8;
        vec![u64::from_ne_bytes([self.fill; 8]); count as usize]
    }
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// MAP_DMA.
    Map {
        /// Flags.
        flags: u32,
        /// The address in the process.
        vaddr: u64,
        /// The IOVA.
        iova: u64,
        /// The size in bytes.
        size: u64,
    },
    /// MAP_DMA of many single pages in sequence, up to the first failure.
    MapMany {
        /// The IOVA of the first page.
        iova: u64,
        /// The number of pages.
        count: u64,
        /// The distance between two IOVAs.
        stride: u64,
    },
    /// UNMAP_DMA.
    Unmap {
        /// Flags.
        flags: u32,
        /// The first IOVA.
        iova: u64,
        /// The size in bytes.
        size: u64,
        /// The bitmap, if the flags request one.
        bitmap: Option<Bitmap>,
    },
    /// DIRTY_PAGES without a bitmap.
    Track(u32),
    /// DIRTY_PAGES GET_BITMAP.
    Dirty {
        /// The first IOVA.
        iova: u64,
        /// The size in bytes.
        size: u64,
        /// The bitmap.
        bitmap: Bitmap,
    },
    /// GET_INFO.
    Info,
    /// CHECK_EXTENSION.
    Extension(u32),
    /// SET_IOMMU, with the module's mapping limit at that time.
    SetIommu {
        /// The backend.
        version: u32,
        /// The module's `dma_entry_limit`.
        limit: u32,
    },
    /// SET_CONTAINER.
    Join(Group),
    /// UNSET_CONTAINER.
    Leave(Group),
    /// GROUP_GET_STATUS.
    Status(Group),
    /// GET_DEVICE_FD of the driver that pins pages.
    Open,
    /// Close such a descriptor.
    Close,
    /// The driver calls `vfio_pin_pages()`.
    Pin {
        /// The first IOVA.
        iova: u64,
        /// The number of pages.
        count: u32,
        /// The requested access.
        prot: u32,
    },
    /// The driver calls `vfio_unpin_pages()` if it has pinned the page.
    Unpin(u64),
    /// The number of pages that the driver has pinned.
    Pinned,
    /// The driver calls `vfio_dma_rw()` and reads the marks of some pages.
    Read {
        /// The first page.
        iova: u64,
        /// The number of pages.
        count: u32,
    },
    /// The driver calls `vfio_dma_rw()` and writes to some pages.
    Write {
        /// The first page.
        iova: u64,
        /// The number of pages, one or two.
        count: u32,
    },
    /// The number of pages that a process has locked.
    Locked(u8),
    /// The sums over all containers in debugfs: the number of containers, their mappings, the pages
    /// charged and the pages pinned by drivers.
    Listed,
    /// The `edu` reads the mark of a page by DMA and writes it to [`RESULT`].
    Dma(u64),
}

/// The address to which the `edu` writes the mark.
pub const RESULT: u64 = 0x40_0000;
/// The value for a failed read.
pub const FAULT: u64 = 0x6661_756c_7400;

/// The mark of the first page; each further page has the next number.
pub const MARK: u64 = 0x100;

/// The answer to a request: numbers or an error.
///
/// UNMAP_DMA returns the number of bytes unmapped, then the words of its bitmap. GET_BITMAP returns
/// the words of its bitmap. GET_INFO returns the number of available mappings, the page sizes, and
/// the first and last addresses of all ranges.
pub type Answer = Result<Vec<u64>, Errno>;

/// The thread number of requests that are sent sequentially.
pub const ALONE: u8 = u8::MAX;

/// A request and its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Call<O = Op> {
    /// The process: 0 or 1.
    pub process: u8,
    /// The thread of the process.
    pub thread: u8,
    /// The request.
    pub op: O,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Emulated => "emulated",
            Self::Physical => "edu",
            Self::Second => "second-edu",
        })
    }
}

impl fmt::Display for Bitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pgsize, size, room, ..
        } = self;
        write!(f, "bitmap(pgsize {pgsize:#x}, {size} bytes")?;
        if room < size {
            write!(f, ", {room} in memory")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map {
                flags,
                vaddr,
                iova,
                size,
            } => write!(
                f,
                "MAP_DMA flags {flags:#x} iova {iova:#x} size {size:#x} vaddr {vaddr:#x}"
            ),
            Self::MapMany {
                iova,
                count,
                stride,
            } => write!(
                f,
                "MAP_DMA {count} times, iova {iova:#x} and every {stride:#x}"
            ),
            Self::Unmap {
                flags,
                iova,
                size,
                bitmap,
            } => {
                write!(
                    f,
                    "UNMAP_DMA flags {flags:#x} iova {iova:#x} size {size:#x}"
                )?;
                bitmap.map_or(Ok(()), |bitmap| write!(f, " {bitmap}"))
            }
            Self::Track(dirty::START) => f.write_str("DIRTY_PAGES START"),
            Self::Track(dirty::STOP) => f.write_str("DIRTY_PAGES STOP"),
            Self::Track(flags) => write!(f, "DIRTY_PAGES flags {flags:#x}"),
            Self::Dirty { iova, size, bitmap } => {
                write!(f, "GET_BITMAP iova {iova:#x} size {size:#x} {bitmap}")
            }
            Self::Info => f.write_str("GET_INFO"),
            Self::Extension(nr) => write!(f, "CHECK_EXTENSION {nr}"),
            Self::SetIommu { version, limit } => {
                write!(f, "SET_IOMMU {version} (dma_entry_limit {limit})")
            }
            Self::Join(group) => write!(f, "SET_CONTAINER {group}"),
            Self::Leave(group) => write!(f, "UNSET_CONTAINER {group}"),
            Self::Status(group) => write!(f, "GROUP_GET_STATUS {group}"),
            Self::Open => f.write_str("GET_DEVICE_FD"),
            Self::Close => f.write_str("close device"),
            Self::Pin { iova, count, prot } => {
                write!(f, "vfio_pin_pages iova {iova:#x} pages {count} prot {prot}")
            }
            Self::Unpin(iova) => write!(f, "vfio_unpin_pages iova {iova:#x}"),
            Self::Pinned => f.write_str("pages pinned by the driver"),
            Self::Read { iova, count } => {
                write!(f, "vfio_dma_rw read iova {iova:#x} pages {count}")
            }
            Self::Write { iova, count } => {
                write!(f, "vfio_dma_rw write iova {iova:#x} pages {count}")
            }
            Self::Locked(process) => write!(f, "VmLck of process {process}"),
            Self::Listed => f.write_str("containers in debugfs"),
            Self::Dma(iova) => write!(f, "DMA read by edu, iova {iova:#x}"),
        }
    }
}

impl<O: fmt::Display> fmt::Display for Call<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.thread {
            ALONE => write!(f, "{}.- {}", self.process, self.op),
            thread => write!(f, "{}.{thread} {}", self.process, self.op),
        }
    }
}

/// Formats an answer.
pub fn describe(answer: &Answer) -> String {
    match answer {
        Ok(numbers) => {
            let words: Vec<_> = numbers.iter().map(|n| format!("{n:#x}")).collect();
            format!("ok {}", words.join(" ")).trim_end().to_owned()
        }
        Err(errno) => format!("{errno:?}"),
    }
}
