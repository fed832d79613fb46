// SPDX-License-Identifier: GPL-2.0

//! Dirty page tracking.

use crate::{
    env::{
        EDU,
        attached, //
    },
    harness::cases,
};
use anyhow::Result;
use vfio_client::{
    Arena,
    Bytes,
    Container,
    Errno,
    Filling,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    raw,
    request, //
};

cases! {
    t_d1_not_in_v1,
    t_d2_arguments,
    t_d3_start_and_stop,
    t_d4_get_arguments,
    t_d4_largest_bitmap,
    t_d4_unpinnable_before_too_large,
    t_d5_everything_is_dirty,
    t_d7_bits_in_the_middle_of_words,
    t_u02_and_u06_unmap_arguments,
    t_u15_unmap_with_bitmap,
}

const PAGE: u64 = PAGE_SIZE as u64;
const START: u32 = 1;
const STOP: u32 = 2;
const GET: u32 = 4;

fn dirty(container: &Container, argsz: u32, flags: u32) -> Result<i32, Errno> {
    let mut bytes = Bytes::new().u32(argsz).u32(flags);
    raw::bytes(container, request::IOMMU_DIRTY_PAGES, &mut bytes)
}

/// Starts dirty page tracking in the container.
pub(super) fn start(container: &Container) -> Result<i32, Errno> {
    dirty(container, 8, START)
}

/// Builds a request for a bitmap of `bits`.
fn get_request(argsz: u32, iova: u64, size: u64, pgsize: u64, bits: &Memory, len: u64) -> Bytes {
    let range = Bytes::new().u32(argsz).u32(GET).u64(iova).u64(size);
    range.u64(pgsize).u64(len).u64(bits.addr())
}

fn get(container: &Container, mut request: Bytes) -> Result<i32, Errno> {
    let before = request.clone();
    let answer = raw::bytes(container, request::IOMMU_DIRTY_PAGES, &mut request);
    assert_eq!(request, before, "the structure is only read");
    answer
}

fn t_d1_not_in_v1() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1)?;
    for flags in [START, STOP, GET, 0xffff] {
        assert_eq!(dirty(&container, 8, flags), Err(Errno::EACCES));
    }
    assert_eq!(
        raw::value(&container, request::IOMMU_DIRTY_PAGES, 1),
        Err(Errno::EACCES),
        "before the structure is read"
    );
    Ok(())
}

fn t_d2_arguments() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    for argsz in [0, 4, 7] {
        assert_eq!(dirty(&container, argsz, START), Err(Errno::EINVAL));
    }
    for flags in [8, START | 8, 1 << 31, START | STOP, STOP | GET, 7] {
        assert_eq!(dirty(&container, 8, flags), Err(Errno::EINVAL));
    }
    assert_eq!(dirty(&container, 8, GET), Err(Errno::EINVAL), "no range");
    assert_eq!(
        dirty(&container, 48, GET),
        Err(Errno::EFAULT),
        "range cut off"
    );
    Ok(())
}

fn t_d3_start_and_stop() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    for flags in [STOP, START, START, STOP, STOP, START] {
        assert_eq!(dirty(&container, 8, flags), Ok(0));
    }
    container.map(0x10000, &memory, MapFlags::ReadWrite)?;
    assert_eq!(container.unmap_all()?, 8 * PAGE);
    Ok(())
}

fn t_d4_get_arguments() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(8 * PAGE_SIZE)?;
    container.map(0x10000, &memory, MapFlags::ReadWrite)?;
    let bits = Memory::anonymous(PAGE_SIZE)?;
    bits.fill(0, PAGE_SIZE, 0x5a);
    let size = 8 * PAGE;
    let ask = |argsz, iova, size, pgsize, len| {
        get(
            &container,
            get_request(argsz, iova, size, pgsize, &bits, len),
        )
    };
    assert_eq!(
        ask(48, 0x10000, size, PAGE, 8),
        Err(Errno::EINVAL),
        "not tracking"
    );
    assert_eq!(dirty(&container, 8, START), Ok(0));
    for (what, argsz, iova, size, pgsize, len, errno) in [
        ("short", 47, 0x10000, size, PAGE, 8, Errno::EINVAL),
        ("empty", 48, 0x10000, 0, PAGE, 8, Errno::EINVAL),
        (
            "wraps",
            48,
            u64::MAX - PAGE + 1,
            2 * PAGE,
            PAGE,
            8,
            Errno::EOVERFLOW,
        ),
        ("no bitmap", 48, 0x10000, size, PAGE, 0, Errno::EINVAL),
        (
            "bitmap too small",
            48,
            0x10000,
            65 * PAGE,
            PAGE,
            8,
            Errno::EINVAL,
        ),
        (
            "other page size",
            48,
            0x10000,
            size,
            2 * PAGE,
            8,
            Errno::EINVAL,
        ),
        ("iova", 48, 0x10800, size, PAGE, 8, Errno::EINVAL),
        ("size", 48, 0x10000, size - 1, PAGE, 8, Errno::EINVAL),
        (
            "bisected at its start",
            48,
            0x11000,
            size,
            PAGE,
            8,
            Errno::EINVAL,
        ),
        (
            "bisected at its end",
            48,
            0x10000,
            size - PAGE,
            PAGE,
            8,
            Errno::EINVAL,
        ),
    ] {
        assert_eq!(ask(argsz, iova, size, pgsize, len), Err(errno), "{what}");
    }
    assert_eq!(bits.to_vec(0, 16), [0x5a; 16], "nothing was written");
    let outside = Bytes::new().u32(48).u32(GET).u64(0x10000).u64(size);
    assert_eq!(
        get(&container, outside.clone().u64(PAGE).u64(8).u64(1 << 63)),
        Err(Errno::EINVAL),
        "bitmap in the kernel's half"
    );
    assert_eq!(
        get(&container, outside.u64(PAGE).u64(8).u64(PAGE)),
        Err(Errno::EFAULT),
        "bitmap nowhere"
    );
    Ok(())
}

/// The limit applies to the size of the bitmap, not to the number of bytes written.
fn t_d4_largest_bitmap() -> Result<()> {
    const LARGEST: usize = 256 << 20;
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(8 * PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    assert_eq!(dirty(&container, 8, START), Ok(0));
    let mut bits = Arena::new(1 << 36, LARGEST + PAGE_SIZE)?;
    bits.fill(0..PAGE_SIZE, Filling::Private)?;
    let mut word = [0; 8];
    for (len, answer, bit) in [(LARGEST + 8, Err(Errno::EINVAL), 0), (LARGEST, Ok(0), 0xff)] {
        let range = Bytes::new().u32(48).u32(GET).u64(0).u64(8 * PAGE);
        let bitmap = range.u64(PAGE).u64(len as u64).u64(bits.addr());
        assert_eq!(get(&container, bitmap), answer, "{len:#x} bytes");
        bits.read(0, &mut word)?;
        assert_eq!(u64::from_ne_bytes(word), bit, "{len:#x} bytes");
    }
    Ok(())
}

/// A mapping with more pages than a bitmap covers: an error from pinning its pages is reported
/// first.
fn t_d4_unpinnable_before_too_large() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    assert_eq!(dirty(&container, 8, START), Ok(0));
    let size = 1 << 43;
    let ranges = container.info()?.ranges();
    let is_translated = ranges.iter().any(|range| range.end >= 2 * size - 1);
    // Above all user addresses.
    let (nowhere, read_write) = (0x7fff_ffff_f000, 3);
    let mut map = Bytes::new().u32(32).u32(read_write);
    map = map.u64(nowhere).u64(size).u64(size);
    let expected = if is_translated {
        Errno::EFAULT
    } else {
        Errno::EINVAL
    };
    let answer = raw::bytes(&container, request::IOMMU_MAP_DMA, &mut map);
    assert_eq!(answer, Err(expected));
    Ok(())
}

fn t_d5_everything_is_dirty() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(130 * PAGE_SIZE)?;
    container.map_part(0, &memory, 0, 70 * PAGE_SIZE, MapFlags::ReadWrite)?;
    let bits = Memory::anonymous(PAGE_SIZE)?;
    assert_eq!(dirty(&container, 8, START), Ok(0));
    for _ in 0..2 {
        bits.fill(0, 32, 0);
        let request = get_request(48, 0, 70 * PAGE, PAGE, &bits, 16);
        assert_eq!(get(&container, request), Ok(0));
        // The device cannot report which pages it wrote, so all pages are dirty.
        assert_eq!(bits.read_u64(0), u64::MAX);
        assert_eq!(bits.read_u64(8), (1 << 6) - 1);
        assert_eq!(bits.read_u64(16), 0);
    }
    // A range without mappings leaves the user's words unchanged.
    bits.fill(0, 32, 0xa5);
    let request = get_request(48, 0x1000_0000, 64 * PAGE, PAGE, &bits, 8);
    assert_eq!(get(&container, request), Ok(0));
    assert_eq!(bits.to_vec(0, 32), [0xa5; 32]);
    // The range starts before the mapping, so the bits are shifted.
    container.map_part(
        0x1000_0000 + 3 * PAGE,
        &memory,
        70 * PAGE_SIZE,
        5 * PAGE_SIZE,
        MapFlags::ReadWrite,
    )?;
    bits.fill(0, 32, 0);
    let request = get_request(48, 0x1000_0000, 64 * PAGE, PAGE, &bits, 8);
    assert_eq!(get(&container, request), Ok(0));
    assert_eq!(bits.read_u64(0), 0x1f << 3);
    assert_eq!(dirty(&container, 8, STOP), Ok(0));
    Ok(())
}

fn unmap_request(argsz: u32, flags: u32, iova: u64, size: u64) -> Bytes {
    Bytes::new().u32(argsz).u32(flags).u64(iova).u64(size)
}

fn t_u02_and_u06_unmap_arguments() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(8 * PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    let bits = Memory::anonymous(PAGE_SIZE)?;
    let size = 8 * PAGE;
    let ask = |argsz, pgsize: u64, len: u64, data: u64| {
        let mut bytes = unmap_request(argsz, 1, 0, size)
            .u64(pgsize)
            .u64(len)
            .u64(data);
        let before = bytes.clone();
        let answer = raw::bytes(&container, request::IOMMU_UNMAP_DMA, &mut bytes);
        assert_eq!(bytes, before);
        answer
    };
    assert_eq!(
        ask(48, PAGE, 8, bits.addr()),
        Err(Errno::EINVAL),
        "not tracking"
    );
    assert_eq!(dirty(&container, 8, START), Ok(0));
    for argsz in [24, 40, 47] {
        assert_eq!(ask(argsz, PAGE, 8, bits.addr()), Err(Errno::EINVAL));
    }
    assert_eq!(ask(48, PAGE, 0, bits.addr()), Err(Errno::EINVAL));
    assert_eq!(ask(48, 2 * PAGE, 8, bits.addr()), Err(Errno::EINVAL));
    assert_eq!(ask(48, PAGE, 8, 1 << 63), Err(Errno::EINVAL));
    let mut cut = unmap_request(48, 1, 0, size);
    assert_eq!(
        raw::bytes(&container, request::IOMMU_UNMAP_DMA, &mut cut),
        Err(Errno::EFAULT)
    );
    assert_eq!(container.unmap_all()?, size, "all of it is still there");
    Ok(())
}

fn t_u15_unmap_with_bitmap() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(8 * PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    let bits = Memory::anonymous(PAGE_SIZE)?;
    assert_eq!(dirty(&container, 8, START), Ok(0));
    let size = 8 * PAGE;
    // The bitmap cannot be written, so the mapping stays.
    let mut bytes = unmap_request(48, 1, 0, size).u64(PAGE).u64(8).u64(PAGE);
    assert_eq!(
        raw::bytes(&container, request::IOMMU_UNMAP_DMA, &mut bytes),
        Err(Errno::EFAULT)
    );
    let mut bytes = unmap_request(48, 1, 0, size)
        .u64(PAGE)
        .u64(8)
        .u64(bits.addr());
    assert_eq!(
        raw::bytes(&container, request::IOMMU_UNMAP_DMA, &mut bytes),
        Ok(0)
    );
    assert_eq!(bytes.get_u64(16), size);
    assert_eq!((bits.read_u64(0), bits.read_u64(8)), (0xff, 0));
    assert_eq!(container.unmap_all()?, 0);
    Ok(())
}

fn t_d7_bits_in_the_middle_of_words() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(64 * PAGE_SIZE)?;
    // Two mappings in one word, a hole of several words, and a mapping that crosses the end of a
    // word.
    for (first, count) in [(3, 5), (8, 2), (250, 10)] {
        let (offset, len) = (first as usize % 50 * PAGE_SIZE, count * PAGE_SIZE);
        container.map_part(first * PAGE, &memory, offset, len, MapFlags::ReadWrite)?;
    }
    assert_eq!(dirty(&container, 8, START), Ok(0));
    let bits = Memory::anonymous(PAGE_SIZE)?;
    let words = || -> Vec<u64> { (0..6).map(|nth| bits.read_u64(8 * nth)).collect() };
    let request = || get_request(48, 0, 320 * PAGE, PAGE, &bits, 40);
    assert_eq!(get(&container, request()), Ok(0));
    assert_eq!(words(), [0x3f8, 0, 0, 0x3f << 58, 0xf, 0]);
    // The low bits of a word in which a mapping begins stay unchanged, as do the words of holes.
    bits.fill(0, 48, 0);
    bits.write_u64(0, 0b101);
    bits.write_u64(8, 0xa5a5);
    assert_eq!(get(&container, request()), Ok(0));
    assert_eq!(words()[0] & 0x3ff, 0x3f8 | 0b101);
    assert_eq!(words()[1..3], [0xa5a5, 0]);
    Ok(())
}
