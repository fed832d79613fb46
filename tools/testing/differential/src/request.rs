// SPDX-License-Identifier: GPL-2.0

//! Requests, as bytes and as text.

use std::fmt;
use support::requests::{
    Bitmap,
    DirtyPages,
    DirtyRange,
    MapDma,
    UnmapDma, //
};
use vfio_client::{
    Bytes,
    request, //
};

/// The argument of a request.
#[derive(Clone, Debug)]
pub enum Argument {
    /// A number, or an address at which nothing is mapped.
    Value(u64),
    /// A structure.
    Bytes(Bytes),
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The request number.
    pub nr: u32,
    /// Its argument.
    pub argument: Argument,
    /// The description of the request.
    text: String,
}

impl Request {
    /// Creates a request whose argument is a number, or an address at which nothing is mapped.
    pub fn value(name: &str, nr: u32, value: u64) -> Self {
        Self {
            nr,
            argument: Argument::Value(value),
            text: format!("{name} {value:#x}"),
        }
    }

    /// Creates a request with a structure and its description.
    pub fn bytes(text: String, nr: u32, bytes: Bytes) -> Self {
        Self {
            nr,
            argument: Argument::Bytes(bytes),
            text,
        }
    }

    /// Resizes the structure: truncates it or appends bytes.
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

    /// Returns the structure, or no bytes.
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

impl From<MapDma> for Request {
    fn from(map: MapDma) -> Self {
        let MapDma {
            argsz,
            flags,
            vaddr,
            iova,
            size,
        } = map;
        let text =
            format!("map argsz={argsz} flags={flags:#x} {vaddr:#x} at {iova:#x} size={size:#x}");
        Self::bytes(text, request::IOMMU_MAP_DMA, map.bytes())
    }
}

impl From<UnmapDma> for Request {
    fn from(unmap: UnmapDma) -> Self {
        let UnmapDma {
            argsz,
            flags,
            iova,
            size,
            bitmap,
        } = unmap;
        let mut text = format!("unmap argsz={argsz} flags={flags:#x} {iova:#x} size={size:#x}");
        if let Some(bitmap) = bitmap {
            text += &format!(" {}", describe(bitmap));
        }
        Self::bytes(text, request::IOMMU_UNMAP_DMA, unmap.bytes())
    }
}

impl From<DirtyPages> for Request {
    fn from(dirty: DirtyPages) -> Self {
        let DirtyPages {
            argsz,
            flags,
            range,
        } = dirty;
        let mut text = format!("dirty argsz={argsz} flags={flags:#x}");
        if let Some(DirtyRange { iova, size, bitmap }) = range {
            text += &format!(" {iova:#x} size={size:#x} {}", describe(bitmap));
        }
        Self::bytes(text, request::IOMMU_DIRTY_PAGES, dirty.bytes())
    }
}

fn describe(bitmap: Bitmap) -> String {
    let Bitmap { pgsize, size, data } = bitmap;
    format!("bitmap({pgsize:#x} {size:#x} {data:#x})")
}

/// Returns a request with `argsz` and some words, in a buffer of `len` bytes.
pub fn words(name: &str, nr: u32, argsz: u32, words: &[u32], len: usize) -> Request {
    let mut bytes = Bytes::new().u32(argsz);
    for word in words {
        bytes = bytes.u32(*word);
    }
    let missing = len.saturating_sub(bytes.as_ref().len());
    let text = format!("{name} argsz={argsz} {words:x?} in {len} bytes");
    Request::bytes(text, nr, bytes.fill(0xa5, missing))
}

/// Requests to the driver that pins pages.
pub mod pin {
    use super::Request;
    use support::pin::Pages;

    pub use support::pin::Ask;

    /// Returns the request for a number, if it changes the state of a container.
    pub fn ask_of(nr: u32) -> Option<Ask> {
        [Ask::Pin, Ask::Unpin, Ask::Write]
            .into_iter()
            .find(|ask| ask.number() == nr)
    }

    /// Returns a request to the driver. `data` holds the bytes to write, or receives the bytes
    /// read.
    pub fn ask(ask: Ask, iova: u64, count: u32, prot: u32, word: u64, data: &[u8]) -> Request {
        let text = format!("{ask:?} {iova:#x} {count} prot={prot} word={word:#x}");
        let pages = Pages {
            iova,
            count,
            prot,
            word,
        };
        Request::bytes(text, ask.number(), pages.bytes().raw(data))
    }

    /// Returns a request for a number.
    pub fn count(ask: Ask) -> Request {
        Request::value(&format!("{ask:?}"), ask.number(), 0)
    }
}
