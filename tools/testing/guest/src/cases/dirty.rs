// SPDX-License-Identifier: GPL-2.0

//! Dirty page tracking.

use crate::{
    env::{
        EDU,
        EMPTY,
        attached, //
    },
    harness::cases, //
};
use anyhow::Result;
use support::{
    PAGE,
    requests::{
        Bitmap,
        DirtyPages,
        MapDma,
        UnmapDma, //
    },
};
use vfio_client::{
    Arena,
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
    #[rows("T-D1")] type1_v1_refuses_dirty_pages,
    #[rows("T-D2")] dirty_pages_arguments,
    #[rows("T-D3")] start_and_stop_any_number_of_times,
    #[rows("T-D4")] get_bitmap_arguments,
    #[rows("T-D4")] largest_bitmap,
    #[rows("T-D4")] unpinnable_memory_before_too_large_bitmap,
    #[rows("T-D5")] all_mapped_pages_are_dirty,
    #[rows("T-D7")] bits_in_the_middle_of_words,
    #[rows("T-U2", "T-U6")] unmap_with_bitmap_arguments,
    #[rows("T-U15")] unmap_with_bitmap,
}

/// Starts dirty page tracking.
fn start(container: &Container) {
    let start = DirtyPages::track(DirtyPages::START);
    assert_eq!(start.send(container), Ok(0));
}

fn type1_v1_refuses_dirty_pages() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1)?;
    for flags in [
        DirtyPages::START,
        DirtyPages::STOP,
        DirtyPages::GET_BITMAP,
        0xffff,
    ] {
        let request = DirtyPages::track(flags);
        assert_eq!(request.send(&container), Err(Errno::EACCES), "{request:x?}");
    }
    assert_eq!(
        raw::value(&container, request::IOMMU_DIRTY_PAGES, 1),
        Err(Errno::EACCES),
        "before the structure is read"
    );
    Ok(())
}

fn dirty_pages_arguments() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    const START: u32 = DirtyPages::START;
    const STOP: u32 = DirtyPages::STOP;
    const GET: u32 = DirtyPages::GET_BITMAP;
    for argsz in [0, 4, 7] {
        let request = DirtyPages {
            argsz,
            ..DirtyPages::track(START)
        };
        assert_eq!(request.send(&container), Err(Errno::EINVAL), "{request:x?}");
    }
    for flags in [8, START | 8, 1 << 31, START | STOP, STOP | GET, 7] {
        let request = DirtyPages::track(flags);
        assert_eq!(request.send(&container), Err(Errno::EINVAL), "{request:x?}");
    }
    let no_range = DirtyPages::track(GET);
    assert_eq!(no_range.send(&container), Err(Errno::EINVAL), "argsz");
    let unreadable_range = DirtyPages {
        argsz: DirtyPages::SIZE_WITH_RANGE,
        ..no_range
    };
    assert_eq!(unreadable_range.send(&container), Err(Errno::EFAULT));
    Ok(())
}

fn start_and_stop_any_number_of_times() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    const START: u32 = DirtyPages::START;
    const STOP: u32 = DirtyPages::STOP;
    for flags in [STOP, START, START, STOP, STOP, START] {
        assert_eq!(DirtyPages::track(flags).send(&container), Ok(0));
    }
    container.map(0x10 * PAGE, &memory, MapFlags::ReadWrite)?;
    assert_eq!(container.unmap_all()?, 8 * PAGE);
    Ok(())
}

fn get_bitmap_arguments() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(8 * PAGE_SIZE)?;
    container.map(0x10 * PAGE, &memory, MapFlags::ReadWrite)?;
    let bits = Memory::anonymous(PAGE_SIZE)?;
    bits.fill(0, PAGE_SIZE, 0x5a);
    let size = 8 * PAGE;
    let bitmap = Bitmap::word_in(&bits);
    let get = |iova, size, bitmap| DirtyPages::get(iova, size, bitmap);
    let valid = get(0x10 * PAGE, size, bitmap);
    assert_eq!(valid.send(&container), Err(Errno::EINVAL), "not tracking");
    start(&container);
    let top = u64::MAX - PAGE + 1;
    let no_bits = Bitmap { size: 0, ..bitmap };
    let larger_pages = Bitmap {
        pgsize: 2 * PAGE,
        ..bitmap
    };
    let in_kernel = Bitmap {
        data: 1 << 63,
        ..bitmap
    };
    let einval = Errno::EINVAL;
    for (case, request, errno) in [
        ("argsz", DirtyPages { argsz: 47, ..valid }, einval),
        ("size 0", get(0x10 * PAGE, 0, bitmap), einval),
        ("range wraps", get(top, 2 * PAGE, bitmap), Errno::EOVERFLOW),
        ("no bitmap", get(0x10 * PAGE, size, no_bits), einval),
        (
            "bitmap too small",
            get(0x10 * PAGE, 65 * PAGE, bitmap),
            einval,
        ),
        (
            "other page size",
            get(0x10 * PAGE, size, larger_pages),
            einval,
        ),
        (
            "misaligned iova",
            get(0x10 * PAGE + 0x800, size, bitmap),
            einval,
        ),
        (
            "misaligned size",
            get(0x10 * PAGE, size - 1, bitmap),
            einval,
        ),
        (
            "starts in a mapping",
            get(0x11 * PAGE, size, bitmap),
            einval,
        ),
        (
            "ends in a mapping",
            get(0x10 * PAGE, size - PAGE, bitmap),
            einval,
        ),
        (
            "bitmap in the kernel",
            get(0x10 * PAGE, size, in_kernel),
            einval,
        ),
    ] {
        assert_eq!(request.send(&container), Err(errno), "{case}: {request:x?}");
    }
    assert_eq!(bits.to_vec(0, 16), [0x5a; 16], "nothing was written");
    let unmapped = Bitmap {
        data: PAGE,
        ..bitmap
    };
    assert_eq!(
        get(0x10 * PAGE, size, unmapped).send(&container),
        Err(Errno::EFAULT),
        "bitmap in unmapped memory"
    );
    Ok(())
}

/// The limit applies to the size of the bitmap, not to the number of bytes written.
fn largest_bitmap() -> Result<()> {
    const LARGEST: usize = 256 << 20;
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(8 * PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    start(&container);
    let mut bits = Arena::new(EMPTY, LARGEST + PAGE_SIZE)?;
    bits.fill(0..PAGE_SIZE, Filling::Private)?;
    let mut word = [0; 8];
    for (len, answer, bit) in [(LARGEST + 8, Err(Errno::EINVAL), 0), (LARGEST, Ok(0), 0xff)] {
        let bitmap = Bitmap {
            pgsize: PAGE,
            size: len as u64,
            data: bits.addr(),
        };
        let get = DirtyPages::get(0, 8 * PAGE, bitmap);
        assert_eq!(get.send(&container), answer, "{get:x?}");
        bits.read(0, &mut word)?;
        assert_eq!(u64::from_ne_bytes(word), bit, "{len:#x} bytes");
    }
    Ok(())
}

/// A mapping with more pages than a bitmap covers: an error from pinning its pages is reported
/// first.
fn unpinnable_memory_before_too_large_bitmap() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    start(&container);
    let size = PAGE << 31;
    let ranges = container.info()?.ranges();
    let is_translated = ranges.iter().any(|range| range.end >= 2 * size - 1);
    // The memory is above all user addresses.
    let map = MapDma {
        vaddr: 1 << 63,
        iova: size,
        size,
        ..MapDma::default()
    };
    let expected = if is_translated {
        Errno::EFAULT
    } else {
        Errno::EINVAL
    };
    assert_eq!(map.send(&container), Err(expected));
    Ok(())
}

fn all_mapped_pages_are_dirty() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(130 * PAGE_SIZE)?;
    container.map_part(0, &memory, 0, 70 * PAGE_SIZE, MapFlags::ReadWrite)?;
    let bits = Memory::anonymous(PAGE_SIZE)?;
    start(&container);
    for _ in 0..2 {
        bits.fill(0, 32, 0);
        let two_words = Bitmap {
            size: 16,
            ..Bitmap::word_in(&bits)
        };
        let get = DirtyPages::get(0, 70 * PAGE, two_words);
        assert_eq!(get.send(&container), Ok(0));
        // The device cannot report which pages it wrote, so all pages are dirty.
        assert_eq!(bits.read_u64(0), u64::MAX);
        assert_eq!(bits.read_u64(8), (1 << 6) - 1);
        assert_eq!(bits.read_u64(16), 0);
    }
    // A range without mappings leaves the user's words unchanged.
    bits.fill(0, 32, 0xa5);
    let get = DirtyPages::get(0x10000 * PAGE, 64 * PAGE, Bitmap::word_in(&bits));
    assert_eq!(get.send(&container), Ok(0));
    assert_eq!(bits.to_vec(0, 32), [0xa5; 32]);
    // The range starts before the mapping, so the bits are shifted.
    container.map_part(
        0x10000 * PAGE + 3 * PAGE,
        &memory,
        70 * PAGE_SIZE,
        5 * PAGE_SIZE,
        MapFlags::ReadWrite,
    )?;
    bits.fill(0, 32, 0);
    assert_eq!(get.send(&container), Ok(0));
    assert_eq!(bits.read_u64(0), 0x1f << 3);
    let stop = DirtyPages::track(DirtyPages::STOP);
    assert_eq!(stop.send(&container), Ok(0));
    Ok(())
}

fn unmap_with_bitmap_arguments() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(8 * PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    let bits = Memory::anonymous(PAGE_SIZE)?;
    let size = 8 * PAGE;
    let bitmap = Bitmap::word_in(&bits);
    let unmap = |bitmap| UnmapDma::with_bitmap(0, size, bitmap);
    let valid = unmap(bitmap);
    assert_eq!(valid.send(&container), Err(Errno::EINVAL), "not tracking");
    start(&container);
    for argsz in [24, 40, 47] {
        let unmap = UnmapDma { argsz, ..valid };
        assert_eq!(unmap.send(&container), Err(Errno::EINVAL), "{unmap:x?}");
    }
    for bitmap in [
        Bitmap { size: 0, ..bitmap },
        Bitmap {
            pgsize: 2 * PAGE,
            ..bitmap
        },
        Bitmap {
            data: 1 << 63,
            ..bitmap
        },
    ] {
        let unmap = unmap(bitmap);
        assert_eq!(unmap.send(&container), Err(Errno::EINVAL), "{unmap:x?}");
    }
    let unreadable_bitmap = UnmapDma {
        bitmap: None,
        ..valid
    };
    assert_eq!(unreadable_bitmap.send(&container), Err(Errno::EFAULT));
    assert_eq!(container.unmap_all()?, size, "the mapping is unchanged");
    Ok(())
}

fn unmap_with_bitmap() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(8 * PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    let bits = Memory::anonymous(PAGE_SIZE)?;
    start(&container);
    let size = 8 * PAGE;
    // The bitmap cannot be written, so the mapping stays.
    let bitmap = Bitmap::word_in(&bits);
    let unwritable = Bitmap {
        data: PAGE,
        ..bitmap
    };
    assert_eq!(
        UnmapDma::with_bitmap(0, size, unwritable).send(&container),
        Err(Errno::EFAULT)
    );
    assert_eq!(
        UnmapDma::with_bitmap(0, size, bitmap).send(&container),
        Ok(size)
    );
    assert_eq!((bits.read_u64(0), bits.read_u64(8)), (0xff, 0));
    assert_eq!(container.unmap_all()?, 0);
    Ok(())
}

fn bits_in_the_middle_of_words() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(64 * PAGE_SIZE)?;
    // Two mappings in one word, a hole of several words, and a mapping that crosses the end of a
    // word.
    for (first, count) in [(3, 5), (8, 2), (250, 10)] {
        let (offset, len) = (first as usize % 50 * PAGE_SIZE, count * PAGE_SIZE);
        container.map_part(first * PAGE, &memory, offset, len, MapFlags::ReadWrite)?;
    }
    start(&container);
    let bits = Memory::anonymous(PAGE_SIZE)?;
    let words = || -> Vec<u64> { (0..6).map(|nth| bits.read_u64(8 * nth)).collect() };
    let bitmap = Bitmap {
        size: 40,
        ..Bitmap::word_in(&bits)
    };
    let get = DirtyPages::get(0, 320 * PAGE, bitmap);
    assert_eq!(get.send(&container), Ok(0));
    assert_eq!(words(), [0x3f8, 0, 0, 0x3f << 58, 0xf, 0]);
    // The low bits of a word in which a mapping begins stay unchanged, as do the words of holes.
    bits.fill(0, 48, 0);
    bits.write_u64(0, 0b101);
    bits.write_u64(8, 0xa5a5);
    assert_eq!(get.send(&container), Ok(0));
    assert_eq!(words()[0] & 0x3ff, 0x3f8 | 0b101);
    assert_eq!(words()[1..3], [0xa5a5, 0]);
    Ok(())
}
