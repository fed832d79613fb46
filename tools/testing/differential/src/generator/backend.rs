// SPDX-License-Identifier: GPL-2.0

//! Requests to the backend of a container.

use super::Generator;
use crate::{
    memory::{
        BASE,
        BITMAP,
        PIECE,
        PIECES,
        SIZE, //
    },
    model::{
        Model,
        Space, //
    },
    request::{
        Request,
        words, //
    },
    step::{
        Bitmap,
        CONTAINERS,
        File,
        Step, //
    },
};
use support::requests::{
    self,
    DirtyPages,
    DirtyRange,
    MapDma,
    UnmapDma, //
};
use vfio_client::request;

const PAGE: u64 = 4096;
/// Most mappings are in a window of `WINDOW_PAGES` pages that starts here.
const WINDOW: u64 = 0x10_0000;
const WINDOW_PAGES: u64 = 512;

/// Addresses that are special to an IOMMU or to arithmetic.
const SPECIAL: [u64; 10] = [
    0,
    0xfee0_0000,
    0xfedf_f000,
    0xfef0_0000,
    (1 << 39) - PAGE,
    1 << 39,
    (1 << 48) - PAGE,
    1 << 48,
    u64::MAX - (PAGE - 1),
    1 << 63,
];

/// Invalid or extreme sizes.
const SIZES: [u64; 9] = [
    0,
    1,
    PAGE - 1,
    PAGE + 1,
    PIECE * PIECES + PAGE,
    1 << 39,
    u64::MAX,
    u64::MAX - (PAGE - 1),
    1 << 63,
];

/// Addresses at which programs cannot have memory: above user space, and below the lowest mapping.
const NOWHERE: [u64; 4] = [0x7fff_ffff_f000, 0xffff_8000_0000_0000, 0, 0x1000];
/// The number of bytes below the lowest possible mapping.
const BELOW: u64 = 0x1_0000;

impl Generator<'_> {
    /// Chooses a request to an open container.
    pub(super) fn backend_step(&mut self, model: &Model) -> Option<Step> {
        let slot = self.choices.usize(0..CONTAINERS);
        let space = model.container(slot)?;
        if space.iommu.is_none() && self.percent(92) {
            return self.set_up(model, slot);
        }
        let file = File::Container(slot);
        let plain = |request| Step::Send {
            file,
            request,
            bitmap: None,
        };
        Some(match self.choices.u32(0..100) {
            0..42 => plain(self.map_request(space)),
            42..70 => self.unmap_step(file, space),
            70..84 => self.dirty_step(file, space),
            84..91 => plain(self.info_request()),
            91..94 => plain(self.extension_request()),
            94..95 => plain(Request::value("api", request::GET_API_VERSION, 0)),
            95..97 => plain(self.set_iommu_request()),
            97 => Step::Read(file, 0, 8),
            _ => plain(self.strange_request()),
        })
    }

    /// Chooses a request that an agent sends.
    pub(super) fn agents_request(&mut self, space: &Space) -> Request {
        match self.choices.u32(0..10) {
            0..6 => self.map_request(space),
            6..9 => self.unmap_request(space, None).0,
            _ => self.info_request(),
        }
    }

    fn set_iommu_request(&mut self) -> Request {
        let others = [0, 2, 4, 6, 7, 8, 9, 10, 11, 9999, u64::MAX];
        let usual = self.pick(&[3, 3, 1]);
        let iommu = self.mostly(usual, 88, &others);
        Request::value("set_iommu", request::SET_IOMMU, iommu)
    }

    fn extension_request(&mut self) -> Request {
        let extension = self.choices.u64(0..14);
        let extension = self.mostly(extension, 90, &[1000, 9999, (1 << 32) | 1, u64::MAX]);
        Request::value("extension", request::CHECK_EXTENSION, extension)
    }

    /// Sets up a container that has no backend.
    pub(super) fn set_up(&mut self, model: &Model, slot: usize) -> Option<Step> {
        let space = model.container(slot)?;
        if space.groups.is_empty() {
            return self.join_step(model, slot);
        }
        Some(Step::Send {
            file: File::Container(slot),
            request: self.set_iommu_request(),
            bitmap: None,
        })
    }

    /// Returns an address with no memory at it or in the `size` bytes after it.
    fn nowhere(&mut self, size: u64) -> u64 {
        let address = self.pick(&NOWHERE);
        if size < BELOW - 0x1000 {
            return address;
        }
        self.pick(&NOWHERE[..2])
    }

    /// Returns an address in the program's memory for a mapping of `size` bytes.
    fn vaddr(&mut self, size: u64) -> u64 {
        let piece = BASE + self.choices.u64(0..PIECES) * PIECE;
        let page = if size >= PIECE || self.percent(20) {
            0
        } else {
            self.choices.u64(0..512)
        };
        let vaddr = piece + page * PAGE;
        // An address range must not exceed the range that the program reserved.
        if size > SIZE / 2 || self.percent(2) {
            return self.nowhere(size);
        }
        let odd = self.choices.u64(1..PAGE);
        self.mostly(vaddr, 98, &[vaddr + odd])
    }

    fn iova(&mut self, space: &Space) -> u64 {
        let page = self.choices.u64(0..WINDOW_PAGES);
        let usual = WINDOW + page * PAGE;
        match self.choices.u32(0..100) {
            0..80 => usual,
            80..86 => (64 + self.choices.u64(0..4)) * PIECE,
            86..91 => match self.some_map(space) {
                Some((iova, size)) => iova.wrapping_add(size),
                None => usual,
            },
            91..98 => self.pick(&SPECIAL),
            _ => usual + self.choices.u64(1..PAGE),
        }
    }

    fn size(&mut self) -> u64 {
        match self.choices.u32(0..100) {
            0..60 => PAGE * self.choices.u64(1..9),
            60..80 => PAGE * self.choices.u64(1..130),
            80..96 => self.pick(&[PIECE, 2 * PIECE, PIECE + PAGE, PIECE / 2]),
            96..98 => self.choices.u64(1..PIECE),
            _ => self.pick(&SIZES),
        }
    }

    fn some_map(&mut self, space: &Space) -> Option<(u64, u64)> {
        let dmas = space.twins.dmas();
        let dma = dmas.get(self.choices.usize(0..dmas.len().max(1)))?;
        Some((dma.iova, dma.size))
    }

    fn argsz(&mut self, usual: u32) -> u32 {
        self.mostly(
            usual,
            98,
            &[0, usual - 1, usual + 1, usual + 24, 8, u32::MAX],
        )
    }

    fn map_request(&mut self, space: &Space) -> Request {
        let dmas = space.twins.dmas().iter();
        let invalid: Vec<_> = dmas.filter(|dma| dma.vaddr_invalid).collect();
        let (mut iova, mut size) = (self.iova(space), self.size());
        let mut flags = match self.choices.u32(0..100) {
            0..72 => MapDma::READ_WRITE,
            72..85 => MapDma::READ,
            85..92 => MapDma::WRITE,
            92..94 => MapDma::VADDR,
            94..98 => self.choices.u32(0..8),
            _ => (1 << self.choices.u32(0..32)) | self.choices.u32(0..4),
        };
        if !invalid.is_empty() && self.percent(40) {
            let dma = self.pick(&invalid);
            (iova, size) = (dma.iova, dma.size);
            let invalid = MapDma::VADDR | MapDma::READ;
            flags = self.mostly(MapDma::VADDR, 90, &[MapDma::READ_WRITE, invalid]);
        }
        let vaddr = self.vaddr(size);
        let map = MapDma {
            argsz: self.argsz(MapDma::SIZE),
            flags,
            vaddr,
            iova,
            size,
        };
        let request = Request::from(map);
        if self.percent(2) {
            let len = self.choices.usize(0..64);
            return request.resized(len);
        }
        request
    }

    /// Chooses a range to unmap or to query.
    fn range(&mut self, space: &Space) -> (u64, u64) {
        let some = self.some_map(space);
        let usual = (self.iova(space), self.size());
        match (self.choices.u32(0..100), some) {
            (0..55, Some(exact)) => exact,
            (55..75, Some((first, first_size))) => {
                // From the start of one mapping to the end of another one.
                let (last, last_size) = self.some_map(space).unwrap_or((first, first_size));
                let (start, end) = if first <= last {
                    (first, last.wrapping_add(last_size))
                } else {
                    (last, first.wrapping_add(first_size))
                };
                (start, end.wrapping_sub(start))
            }
            (75..82, _) => (WINDOW, WINDOW_PAGES * PAGE),
            (82..88, Some((iova, size))) => (iova, size / 2 / PAGE * PAGE),
            (88..92, Some((iova, size))) => (iova.wrapping_add(PAGE), size),
            _ => usual,
        }
    }

    /// Chooses a bitmap for a range.
    fn bitmap(&mut self, size: u64) -> (requests::Bitmap, Bitmap) {
        // Not 0: the C module's behaviour is undefined then, see c-vfio-defects.rst.
        let page_size = self.mostly(PAGE, 94, &[1, 3, 2048, 2 * PAGE, PIECE, 1 << 63]);
        let bytes = (size / PAGE).div_ceil(64) * 8;
        let giant = (256 << 20) + 1;
        let wrong = [0, bytes.saturating_sub(8), bytes / 2, bytes + 8, giant];
        let length = self.mostly(bytes, 90, &wrong);
        let start = self.mostly(0, 84, &[4, 8, 24, 4080, 4088, 4095]);
        let fill = self.pick(&[0, 0, 0xff, 0x5a]);
        let nowhere = self.nowhere(length);
        let chance = if length < SIZE / 2 { 96 } else { 0 };
        let data = self.mostly(BITMAP + start, chance, &[nowhere]);
        let argument = requests::Bitmap {
            pgsize: page_size,
            size: length,
            data,
        };
        (argument, Bitmap { fill })
    }

    fn unmap_step(&mut self, file: File, space: &Space) -> Step {
        let dirty = self.percent(if space.twins.tracks() { 30 } else { 4 });
        let (request, bitmap) = self.unmap_request(space, dirty.then_some(()));
        Step::Send {
            file,
            request,
            bitmap,
        }
    }

    fn unmap_request(&mut self, space: &Space, dirty: Option<()>) -> (Request, Option<Bitmap>) {
        let (mut iova, mut size) = self.range(space);
        let mut flags = match self.choices.u32(0..100) {
            0..82 => 0,
            82..86 => UnmapDma::ALL,
            86..94 => UnmapDma::VADDR,
            94..97 => UnmapDma::ALL | UnmapDma::VADDR,
            _ => (1 << self.choices.u32(0..32)) & !1,
        };
        if flags & UnmapDma::ALL != 0 && self.percent(85) {
            (iova, size) = (0, 0);
        }
        if dirty.is_some() {
            flags = self.mostly(1, 94, &[3, 5]);
            let (argument, bitmap) = self.bitmap(size);
            let unmap = UnmapDma {
                argsz: self.argsz(UnmapDma::SIZE_WITH_BITMAP),
                flags,
                iova,
                size,
                bitmap: Some(argument),
            };
            let request = Request::from(unmap);
            if self.percent(2) {
                let len = self.choices.usize(0..48);
                return (request.resized(len), Some(bitmap));
            }
            return (request, Some(bitmap));
        }
        let unmap = UnmapDma {
            argsz: self.argsz(UnmapDma::SIZE),
            flags,
            iova,
            size,
            bitmap: None,
        };
        let request = Request::from(unmap);
        if self.percent(2) {
            let len = self.choices.usize(0..40);
            return (request.resized(len), None);
        }
        (request, None)
    }

    fn dirty_step(&mut self, file: File, space: &Space) -> Step {
        let chance = if space.twins.tracks() { 85 } else { 15 };
        if !self.percent(chance) {
            let usual = if space.twins.tracks() { 2 } else { 1 };
            let flags = self.mostly(usual, 88, &[0, 1, 2, 3, 4, 5, 8, 1 << 31]);
            return Step::Send {
                file,
                request: Request::from(DirtyPages {
                    argsz: self.argsz(DirtyPages::SIZE),
                    flags,
                    range: None,
                }),
                bitmap: None,
            };
        }
        let (iova, size) = self.range(space);
        let (argument, bitmap) = self.bitmap(size);
        let flags = self.mostly(4, 96, &[5, 6, 7, 12]);
        let dirty = DirtyPages {
            argsz: self.argsz(DirtyPages::SIZE_WITH_RANGE),
            flags,
            range: Some(DirtyRange {
                iova,
                size,
                bitmap: argument,
            }),
        };
        let request = Request::from(dirty);
        let request = if self.percent(2) {
            let len = self.choices.usize(0..48);
            request.resized(len)
        } else {
            request
        };
        Step::Send {
            file,
            request,
            bitmap: Some(bitmap),
        }
    }

    fn info_request(&mut self) -> Request {
        let random = self.choices.u32(0..300);
        let argsz = self.pick(&[16, 20, 24, 48, 112, 128, 160, 256, random, random]);
        let len = self.mostly(argsz.max(24) as usize, 92, &[0, 8, 16, argsz as usize]);
        words("info", request::IOMMU_GET_INFO, argsz, &[0xee], len)
    }

    /// Chooses an unknown request, or a request without its structure.
    fn strange_request(&mut self) -> Request {
        let nr = request::number(self.choices.u32(0..24));
        let nr = self.mostly(nr, 80, &[request::UNKNOWN, 0, u32::MAX, 0x5401]);
        if matches!(nr, request::CHECK_EXTENSION | request::SET_IOMMU) {
            return self.extension_request();
        }
        let address = self.pick(&NOWHERE);
        Request::value(&format!("request({nr:#x})"), nr, address)
    }
}
