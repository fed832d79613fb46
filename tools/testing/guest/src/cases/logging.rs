// SPDX-License-Identifier: GPL-2.0

//! Arguments of DMA logging. `mtty` returns 0 for all requests that pass the checks of the core.

use crate::{
    dma_logging::{
        self,
        StartLogging,
        ranges_in_memory,
        send_report,
        stop, //
    },
    env::Setup,
    feature::{
        DMA_LOGGING_REPORT,
        DMA_LOGGING_START,
        DMA_LOGGING_STOP,
        GET,
        PROBE,
        SET,
        feature, //
    },
    harness::cases,
    mdev::{
        Open,
        open_mtty, //
    },
    requires, //
};
use anyhow::Result;
use vfio_client::{
    Bytes,
    Errno,
    Memory,
    PAGE_SIZE,
    structures::LoggingReport, //
};

cases! {
    #[rows("D13")] start_logging,
    #[rows("D13")] start_arguments,
    #[rows("D13")] start_alignment,
    #[rows("D13")] start_overlaps,
    #[rows("D13")] start_pointers,
    #[rows("D13")] answer_cannot_be_written,
    #[rows("D14")] stop_logging,
    #[rows("D15")] report_arguments,
    #[rows("D15")] report_depends_on_iova_bitmap_support,
    device_without_logging,
}

/// Starts logging. `mtty` does not change the page size.
fn start(open: &Open, page_size: u64, ranges: &[(u64, u64)]) -> Result<Result<u64, Errno>> {
    dma_logging::start(&open.device, page_size, ranges)
}

/// Starts logging of `num_ranges` ranges at address `ranges`.
fn start_at(open: &Open, num_ranges: u32, ranges: u64) -> Result<u64, Errno> {
    let start = StartLogging {
        page_size: 4096,
        num_ranges,
        ranges,
    };
    start.send(&open.device)
}

fn report(open: &Open, iova: u64, length: u64, page_size: u64) -> Result<Result<i32, Errno>> {
    // Enough for one bit per page of 1 GiB.
    let bits = Memory::anonymous(9 * PAGE_SIZE)?;
    let report = LoggingReport {
        iova,
        length,
        page_size,
        bitmap: bits.addr(),
    };
    Ok(send_report(&open.device, &report))
}

fn start_logging() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    assert_eq!(start(&open, 4096, &[(0, 1 << 30)])?, Ok(4096));
    assert_eq!(stop(&open.device), Ok(0));
    let full: Vec<_> = (0..256).map(|i| (i * 0x10000, 0x10000)).collect();
    assert_eq!(start(&open, 4096, &full)?, Ok(4096), "the maximum number");
    assert_eq!(
        start(&open, 4096, &full)?,
        Ok(4096),
        "mtty accepts it again"
    );
    assert_eq!(stop(&open.device), Ok(0));
    Ok(())
}

fn start_arguments() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    assert_eq!(start(&open, 4096, &[])?, Err(Errno::EINVAL));
    assert_eq!(
        start_at(&open, 0, 1),
        Err(Errno::EINVAL),
        "the ranges are not read"
    );
    let long: Vec<_> = (0..257).map(|i| (i * 0x10000, 0x10000)).collect();
    assert_eq!(start(&open, 4096, &long)?, Err(Errno::E2BIG));
    assert_eq!(start_at(&open, u32::MAX, 1), Err(Errno::E2BIG));
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

fn start_alignment() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    let end = u64::MAX - 4095;
    for (page_size, range, expected) in [
        (4096, (1, 4096), Err(Errno::EINVAL)),
        (4096, (0, 4095), Err(Errno::EINVAL)),
        (8192, (4096, 8192), Err(Errno::EINVAL)),
        (1, (1, 1), Ok(1)),
        (4096, (end - 4096, 4096), Ok(4096)),
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

fn start_overlaps() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    let page = 4096;
    let einval = Err(Errno::EINVAL);
    for (ranges, expected) in [
        (&[(0, page), (page, page)][..], Ok(page)),
        (&[(page, page), (0, page)], Ok(page)),
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

fn start_pointers() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    assert_eq!(start_at(&open, 1, 0), Err(Errno::EFAULT));
    assert_eq!(start_at(&open, 1, u64::MAX - 15), Err(Errno::EFAULT));
    // The second range is beyond the end of the memory.
    let memory = ranges_in_memory(&[(0, 4096); 256])?;
    let last = memory.addr() + memory.len() as u64 - 16;
    assert_eq!(start_at(&open, 1, last), Ok(4096));
    assert_eq!(start_at(&open, 2, last), Err(Errno::EFAULT));
    // The first error determines the result: the second range overlaps the first.
    let pair = last - 16;
    assert_eq!(start_at(&open, 3, pair), Err(Errno::EINVAL));
    Ok(())
}

fn answer_cannot_be_written() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    let ranges = ranges_in_memory(&[(0, 4096)])?;
    let mut memory = Memory::anonymous(PAGE_SIZE)?;
    let start = StartLogging {
        page_size: 4096,
        num_ranges: 1,
        ranges: ranges.addr(),
    };
    let request = Bytes::new()
        .u32(32)
        .u32(SET | DMA_LOGGING_START)
        .raw(start.bytes().as_ref());
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

fn stop_logging() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    assert_eq!(
        stop(&open.device),
        Ok(0),
        "mtty accepts a stop without a start"
    );
    let mut data = Bytes::new().u64(1);
    let more = feature(&open.device, SET | DMA_LOGGING_STOP, &mut data);
    assert_eq!(more, Ok(0), "the payload is ignored");
    let get = feature(&open.device, GET | DMA_LOGGING_STOP, &mut data);
    assert_eq!(get, Err(Errno::EINVAL));
    Ok(())
}

fn report_arguments() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
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

/// The kernel is built with support for user bitmaps only with IOMMUFD, or if one of its own
/// drivers needs it.
fn report_depends_on_iova_bitmap_support() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    let expected = if requires::iommufd() {
        Ok(0)
    } else {
        Err(Errno::EOPNOTSUPP)
    };
    for page_size in [4096, 8192, 1 << 30] {
        let answer = report(&open, 0, 1 << 30, page_size)?;
        assert_eq!(answer, expected);
    }
    Ok(())
}

fn device_without_logging() -> Result<()> {
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
