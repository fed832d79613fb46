// SPDX-License-Identifier: GPL-2.0

//! Arguments of DMA logging. `mtty` returns 0 for all requests that pass the checks of the core.

use crate::{
    env::Setup,
    harness::cases,
    mdev::{
        DMA_LOGGING_REPORT,
        DMA_LOGGING_START,
        DMA_LOGGING_STOP,
        GET,
        Mdev,
        Open,
        PROBE,
        SET,
        UUIDS,
        feature, //
    },
};
use anyhow::Result;
use vfio_client::{
    Bytes,
    Errno,
    Memory,
    PAGE_SIZE, //
};

cases! {
    d13_start,
    d13_start_arguments,
    d13_start_alignment,
    d13_start_overlaps,
    d13_start_pointers,
    d13_answer_cannot_be_written,
    d14_stop,
    d15_report_arguments,
    d15_not_built_in,
    without_logging,
}

fn open() -> Result<(Mdev, Open)> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let open = mdev.open()?;
    // The caller's variables are dropped last to first: removing an open device would wait
    // forever.
    Ok((mdev, open))
}

/// Writes a list of ranges to user memory.
fn list(ranges: &[(u64, u64)]) -> Result<Memory> {
    let memory = Memory::anonymous(ranges.len() * 16)?;
    for (i, (iova, length)) in ranges.iter().enumerate() {
        memory.write_u64(16 * i, *iova);
        memory.write_u64(16 * i + 8, *length);
    }
    Ok(memory)
}

fn start_at(open: &Open, page_size: u64, count: u32, address: u64) -> Result<i32, Errno> {
    let mut data = Bytes::new().u64(page_size).u32(count).u32(0).u64(address);
    let before = data.clone();
    let answer = feature(&open.device, SET | DMA_LOGGING_START, &mut data);
    assert_eq!(data, before, "mtty does not change the page size");
    answer
}

fn start(open: &Open, page_size: u64, ranges: &[(u64, u64)]) -> Result<Result<i32, Errno>> {
    let memory = list(ranges)?;
    Ok(start_at(
        open,
        page_size,
        ranges.len() as u32,
        memory.addr(),
    ))
}

fn stop(open: &Open) -> Result<i32, Errno> {
    feature(&open.device, SET | DMA_LOGGING_STOP, &mut Bytes::new())
}

fn report(open: &Open, iova: u64, length: u64, page_size: u64) -> Result<Result<i32, Errno>> {
    // Enough for one bit per page of 1 GiB.
    let bits = Memory::anonymous(9 * PAGE_SIZE)?;
    let mut data = Bytes::new()
        .u64(iova)
        .u64(length)
        .u64(page_size)
        .u64(bits.addr());
    Ok(feature(&open.device, GET | DMA_LOGGING_REPORT, &mut data))
}

fn d13_start() -> Result<()> {
    let (_mdev, open) = open()?;
    assert_eq!(start(&open, 4096, &[(0, 1 << 30)])?, Ok(0));
    assert_eq!(stop(&open), Ok(0));
    let full: Vec<_> = (0..256).map(|i| (i * 0x10000, 0x10000)).collect();
    assert_eq!(start(&open, 4096, &full)?, Ok(0), "as many as there may be");
    assert_eq!(start(&open, 4096, &full)?, Ok(0), "mtty does not mind");
    assert_eq!(stop(&open), Ok(0));
    Ok(())
}

fn d13_start_arguments() -> Result<()> {
    let (_mdev, open) = open()?;
    assert_eq!(start(&open, 4096, &[])?, Err(Errno::EINVAL));
    assert_eq!(start_at(&open, 4096, 0, 1), Err(Errno::EINVAL), "not read");
    let long: Vec<_> = (0..257).map(|i| (i * 0x10000, 0x10000)).collect();
    assert_eq!(start(&open, 4096, &long)?, Err(Errno::E2BIG));
    assert_eq!(start_at(&open, 4096, u32::MAX, 1), Err(Errno::E2BIG));
    for size in [0, 8, 23] {
        let mut data = Bytes::new().fill(0, size);
        let answer = feature(&open.device, SET | DMA_LOGGING_START, &mut data);
        assert_eq!(answer, Err(Errno::EINVAL), "{size} bytes");
    }
    let mut data = Bytes::new().fill(0, 24);
    let answer = feature(&open.device, GET | DMA_LOGGING_START, &mut data);
    assert_eq!(answer, Err(Errno::EINVAL));
    let probe = feature(
        &open.device,
        SET | PROBE | DMA_LOGGING_START,
        &mut Bytes::new(),
    );
    assert_eq!(probe, Ok(0));
    Ok(())
}

fn d13_start_alignment() -> Result<()> {
    let (_mdev, open) = open()?;
    let end = u64::MAX - 4095;
    for (page_size, range, expected) in [
        (4096, (1, 4096), Err(Errno::EINVAL)),
        (4096, (0, 4095), Err(Errno::EINVAL)),
        (8192, (4096, 8192), Err(Errno::EINVAL)),
        (1, (1, 1), Ok(0)),
        (4096, (end - 4096, 4096), Ok(0)),
        (4096, (end, 4096), Err(Errno::EOVERFLOW)),
        (4096, (end, end), Err(Errno::EOVERFLOW)),
        (0, (4096, 4096), Err(Errno::EINVAL)),
    ] {
        assert_eq!(
            start(&open, page_size, &[range])?,
            expected,
            "{page_size:#x} {range:x?}"
        );
    }
    // The first invalid range determines the error.
    let ranges = [(0, 4096), (end, 4096), (1, 1)];
    assert_eq!(start(&open, 4096, &ranges)?, Err(Errno::EOVERFLOW));
    let ranges = [(0, 4096), (1, 1), (end, 4096)];
    assert_eq!(start(&open, 4096, &ranges)?, Err(Errno::EINVAL));
    Ok(())
}

fn d13_start_overlaps() -> Result<()> {
    let (_mdev, open) = open()?;
    let page = 4096;
    let einval = Err(Errno::EINVAL);
    for (ranges, expected) in [
        (&[(0, page), (page, page)][..], Ok(0)),
        (&[(page, page), (0, page)], Ok(0)),
        (&[(0, page), (0, page)], einval),
        (&[(0, 4 * page), (page, page)], einval),
        (&[(page, page), (0, 4 * page)], einval),
        (&[(0, 2 * page), (page, 2 * page)], einval),
        (&[(8 * page, page), (0, 4 * page), (3 * page, page)], einval),
    ] {
        assert_eq!(start(&open, page, ranges)?, expected, "{ranges:x?}");
    }
    Ok(())
}

fn d13_start_pointers() -> Result<()> {
    let (_mdev, open) = open()?;
    assert_eq!(start_at(&open, 4096, 1, 0), Err(Errno::EFAULT));
    assert_eq!(start_at(&open, 4096, 1, u64::MAX - 15), Err(Errno::EFAULT));
    // The second range is beyond the end of the memory.
    let memory = list(&[(0, 4096); 256])?;
    let last = memory.addr() + memory.len() as u64 - 16;
    assert_eq!(start_at(&open, 4096, 1, last), Ok(0));
    assert_eq!(start_at(&open, 4096, 2, last), Err(Errno::EFAULT));
    // The first error determines the result: the second range overlaps the first.
    let pair = last - 16;
    assert_eq!(start_at(&open, 4096, 3, pair), Err(Errno::EINVAL));
    Ok(())
}

fn d13_answer_cannot_be_written() -> Result<()> {
    let (_mdev, open) = open()?;
    let ranges = list(&[(0, 4096)])?;
    let mut memory = Memory::anonymous(PAGE_SIZE)?;
    let request = Bytes::new()
        .u32(32)
        .u32(SET | DMA_LOGGING_START)
        .u64(4096)
        .u32(1)
        .u32(0)
        .u64(ranges.addr());
    memory.write(0, request.as_ref());
    memory.protect(true, false)?;
    let answer = vfio_client::raw::at(
        &open.device,
        vfio_client::request::DEVICE_FEATURE,
        &mut memory,
        0,
    );
    assert_eq!(answer, Err(Errno::EFAULT));
    Ok(())
}

fn d14_stop() -> Result<()> {
    let (_mdev, open) = open()?;
    assert_eq!(stop(&open), Ok(0), "mtty does not mind");
    let mut data = Bytes::new().u64(1);
    let more = feature(&open.device, SET | DMA_LOGGING_STOP, &mut data);
    assert_eq!(more, Ok(0), "no payload is looked at");
    let get = feature(&open.device, GET | DMA_LOGGING_STOP, &mut data);
    assert_eq!(get, Err(Errno::EINVAL));
    Ok(())
}

fn d15_report_arguments() -> Result<()> {
    let (_mdev, open) = open()?;
    for page_size in [0, 1, 2048, 4095, 4097, 12288, u64::MAX] {
        let answer = report(&open, 0, 4096, page_size)?;
        assert_eq!(answer, Err(Errno::EINVAL), "page size {page_size:#x}");
    }
    for (iova, length) in [(u64::MAX, 1), (u64::MAX - 4095, 4096), (1, u64::MAX)] {
        let answer = report(&open, iova, length, 4096)?;
        assert_eq!(answer, Err(Errno::EOVERFLOW), "{iova:#x} {length:#x}");
    }
    for size in [0, 31] {
        let mut data = Bytes::new().fill(0, size);
        let answer = feature(&open.device, GET | DMA_LOGGING_REPORT, &mut data);
        assert_eq!(answer, Err(Errno::EINVAL), "{size} bytes");
    }
    let mut data = Bytes::new().fill(0, 32);
    let set = feature(&open.device, SET | DMA_LOGGING_REPORT, &mut data);
    assert_eq!(set, Err(Errno::EINVAL));
    Ok(())
}

/// The kernel is built with support for user bitmaps only if one of its own drivers needs it.
fn d15_not_built_in() -> Result<()> {
    let (_mdev, open) = open()?;
    for page_size in [4096, 8192, 1 << 30] {
        let answer = report(&open, 0, 1 << 30, page_size)?;
        assert_eq!(answer, Err(Errno::EOPNOTSUPP));
    }
    Ok(())
}

fn without_logging() -> Result<()> {
    let setup = Setup::new()?;
    for flags in [
        SET | DMA_LOGGING_START,
        SET | DMA_LOGGING_STOP,
        GET | DMA_LOGGING_REPORT,
        PROBE | DMA_LOGGING_START,
    ] {
        let mut data = Bytes::new().fill(0, 64);
        let answer = feature(&setup.device, flags, &mut data);
        assert_eq!(answer, Err(Errno::ENOTTY));
    }
    Ok(())
}
