// SPDX-License-Identifier: GPL-2.0

//! Requests, as bytes and in words.

#[path = "../../modules/mdev_pin_test/interface.rs"]
#[allow(dead_code, reason = "other programs ask for the rest")]
mod interface;

use std::fmt;
use vfio_client::{
    Bytes,
    request, //
};

/// What goes with a request.
#[derive(Clone, Debug)]
pub enum Argument {
    /// A number, or an address of nothing.
    Value(u64),
    /// A structure.
    Bytes(Bytes),
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its number.
    pub nr: u32,
    /// Its argument.
    pub argument: Argument,
    /// The same in words.
    text: String,
}

impl Request {
    /// A request with a number, or the address of nothing.
    pub fn value(name: &str, nr: u32, value: u64) -> Self {
        Self {
            nr,
            argument: Argument::Value(value),
            text: format!("{name} {value:#x}"),
        }
    }

    /// A request with a structure that was described in words.
    pub fn bytes(text: String, nr: u32, bytes: Bytes) -> Self {
        Self {
            nr,
            argument: Argument::Bytes(bytes),
            text,
        }
    }

    /// The same with a structure that ends before its time, or goes on after it.
    #[must_use]
    pub fn resized(mut self, len: usize) -> Self {
        if let Argument::Bytes(bytes) = &mut self.argument {
            let mut raw = bytes.as_ref().to_vec();
            raw.resize(len, 0xee);
            *bytes = Bytes::new().raw(&raw);
            self.text += &format!(" in {len} bytes");
        }
        self
    }

    /// The structure, or no bytes.
    pub fn structure(&self) -> Bytes {
        match &self.argument {
            Argument::Bytes(bytes) => bytes.clone(),
            Argument::Value(_) => Bytes::new(),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A mapping.
pub fn map(argsz: u32, flags: u32, vaddr: u64, iova: u64, size: u64) -> Request {
    let text = format!("map argsz={argsz} flags={flags:#x} {vaddr:#x} at {iova:#x} size={size:#x}");
    let bytes = Bytes::new().u32(argsz).u32(flags);
    let bytes = bytes.u64(vaddr).u64(iova).u64(size);
    Request::bytes(text, request::IOMMU_MAP_DMA, bytes)
}

/// A description of a bitmap.
#[derive(Clone, Copy, Debug)]
pub struct BitmapArgument {
    /// The size of a page.
    pub page_size: u64,
    /// How many bytes it has.
    pub size: u64,
    /// Where it is.
    pub data: u64,
}

impl BitmapArgument {
    fn append(self, bytes: Bytes) -> Bytes {
        bytes.u64(self.page_size).u64(self.size).u64(self.data)
    }
}

impl fmt::Display for BitmapArgument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            page_size,
            size,
            data,
        } = self;
        write!(f, "bitmap({page_size:#x} {size:#x} {data:#x})")
    }
}

/// The end of a mapping.
pub fn unmap(
    argsz: u32,
    flags: u32,
    iova: u64,
    size: u64,
    bitmap: Option<BitmapArgument>,
) -> Request {
    let mut text = format!("unmap argsz={argsz} flags={flags:#x} {iova:#x} size={size:#x}");
    let mut bytes = Bytes::new().u32(argsz).u32(flags).u64(iova).u64(size);
    if let Some(bitmap) = bitmap {
        text += &format!(" {bitmap}");
        bytes = bitmap.append(bytes);
    }
    Request::bytes(text, request::IOMMU_UNMAP_DMA, bytes)
}

/// The start or the end of keeping track of dirty pages, or something wrong.
pub fn track(argsz: u32, flags: u32) -> Request {
    let text = format!("dirty argsz={argsz} flags={flags:#x}");
    let bytes = Bytes::new().u32(argsz).u32(flags);
    Request::bytes(text, request::IOMMU_DIRTY_PAGES, bytes)
}

/// A question which pages are dirty.
pub fn dirty(argsz: u32, flags: u32, iova: u64, size: u64, bitmap: BitmapArgument) -> Request {
    let text = format!("dirty argsz={argsz} flags={flags:#x} {iova:#x} size={size:#x} {bitmap}");
    let bytes = Bytes::new().u32(argsz).u32(flags).u64(iova).u64(size);
    Request::bytes(text, request::IOMMU_DIRTY_PAGES, bitmap.append(bytes))
}

/// A structure with nothing but `argsz` and some words, in a buffer of so many bytes.
pub fn words(name: &str, nr: u32, argsz: u32, words: &[u32], len: usize) -> Request {
    let mut bytes = Bytes::new().u32(argsz);
    for word in words {
        bytes = bytes.u32(*word);
    }
    let missing = len.saturating_sub(bytes.as_ref().len());
    let text = format!("{name} argsz={argsz} {words:x?} in {len} bytes");
    Request::bytes(text, nr, bytes.fill(0xa5, missing))
}

/// The requests of the driver that pins pages.
pub mod pin {
    use super::{
        Bytes,
        Request,
        interface, //
    };

    /// What is asked of the driver.
    #[repr(u32)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Ask {
        /// Pin pages.
        Pin = interface::PIN,
        /// Unpin those which are pinned.
        Unpin = interface::UNPIN,
        /// Store a word in a pinned page.
        Poke = interface::POKE,
        /// Read memory.
        Read = interface::DMA_READ,
        /// Write memory.
        Write = interface::DMA_WRITE,
        /// How many are pinned?
        Pinned = interface::PINNED,
        /// How often was the driver told to give up pages?
        Unmaps = interface::UNMAPS,
    }

    impl Ask {
        /// What a number asks for, of what changes a container.
        pub fn of(nr: u32) -> Option<Self> {
            [Self::Pin, Self::Unpin, Self::Write]
                .into_iter()
                .find(|ask| *ask as u32 == nr)
        }
    }

    /// A request to the driver; `data` is what is written, or where to read to.
    pub fn ask(ask: Ask, iova: u64, count: u32, prot: u32, word: u64, data: &[u8]) -> Request {
        let text = format!("{ask:?} {iova:#x} {count} prot={prot} word={word:#x}");
        let bytes = Bytes::new().u64(iova).u32(count).u32(prot).u64(word);
        Request::bytes(text, ask as u32, bytes.raw(data))
    }

    /// A question for a number.
    pub fn count(ask: Ask) -> Request {
        Request::value(&format!("{ask:?}"), ask as u32, 0)
    }
}
