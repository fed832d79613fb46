// SPDX-License-Identifier: GPL-2.0

//! Writes of a Rust driver to user memory, and the dirty log that records them.

use crate::{
    dma_logging::{
        self,
        send_report, //
    },
    harness::cases,
    pin::{
        IOVA,
        Pinning,
        mapped, //
    },
};
use anyhow::{
    Result,
    ensure, //
};
use std::{
    sync::Barrier,
    thread, //
};
use support::PAGE;
use vfio_client::{
    Errno,
    MapFlags,
    Memory,
    PAGE_SIZE,
    structures::LoggingReport, //
};

cases! {
    #[requires(driver(Rust), core(Rust))] logging_starts_during_write,
    #[requires(driver(Rust), core(Rust))] write_to_last_page_of_address_space,
    #[requires(driver(Rust), core(Rust))] failed_write_logs_written_pages,
}

/// Starts logging `pages` pages at [`IOVA`].
fn start(pinning: &Pinning, pages: usize) -> Result<()> {
    let range = (IOVA, pages as u64 * PAGE);
    let device = pinning.pinner.device();
    assert_eq!(dma_logging::start(device, PAGE, &[range])?, Ok(PAGE));
    Ok(())
}

fn stop(pinning: &Pinning) {
    assert_eq!(dma_logging::stop(pinning.pinner.device()), Ok(0));
}

/// Returns which of `pages` pages at [`IOVA`] are in the log.
fn written(pinning: &Pinning, pages: usize) -> Result<Vec<bool>> {
    let bits = Memory::anonymous(pages.div_ceil(8))?;
    let report = LoggingReport {
        iova: IOVA,
        length: pages as u64 * PAGE,
        page_size: PAGE,
        bitmap: bits.addr(),
    };
    assert_eq!(send_report(pinning.pinner.device(), &report), Ok(0));
    Ok((0..pages)
        .map(|page| (bits.read_u8(page / 8) >> (page % 8)) & 1 == 1)
        .collect())
}

/// Data written after the log was started is recorded, even if the write began before.
fn logging_starts_during_write() -> Result<()> {
    const PAGES: usize = 256;
    const ROUNDS: usize = 300;
    let (pinning, memory) = mapped(PAGES)?;
    let data = vec![0xa5; PAGES * PAGE_SIZE];
    let (mut during, mut round) = (0, 0);
    while during < 3 && round < ROUNDS {
        memory.discard()?;
        let barrier = Barrier::new(2);
        let late = thread::scope(|scope| -> Result<bool> {
            let writer = scope.spawn(|| {
                barrier.wait();
                pinning.pinner.write(IOVA, &data)
            });
            barrier.wait();
            // The log must start when the write has reached the first page but not the last one.
            while memory.read_u8(0) == 0 && !writer.is_finished() {}
            let begun = memory.read_u8(0) != 0;
            start(&pinning, PAGES)?;
            let late = begun && memory.read_u8((PAGES - 1) * PAGE_SIZE) == 0;
            assert_eq!(writer.join().expect("the thread has panicked"), Ok(0));
            Ok(late)
        })?;
        let written = written(&pinning, PAGES)?;
        if late {
            assert!(written[PAGES - 1], "round {round}");
            during += 1;
        }
        stop(&pinning);
        round += 1;
    }
    ensure!(during > 0, "logging never started during a write");
    println!("logging started during a write in {during} of {round} rounds");
    Ok(())
}

fn write_to_last_page_of_address_space() -> Result<()> {
    const LAST: u64 = u64::MAX - (PAGE - 1);
    let (pinning, _memory) = mapped(1)?;
    let last = Memory::anonymous(PAGE_SIZE)?;
    pinning.container.map(LAST, &last, MapFlags::ReadWrite)?;
    for logged in [false, true] {
        if logged {
            start(&pinning, 1)?;
        }
        let data = vec![1 + u8::from(logged); PAGE_SIZE];
        assert_eq!(pinning.pinner.write(LAST, &data), Ok(0), "{logged}");
        assert_eq!(last.to_vec(0, PAGE_SIZE), data);
        let beyond = pinning.pinner.write(LAST + 1, &data);
        assert_eq!(beyond, Err(Errno::EINVAL), "{logged}");
    }
    Ok(())
}

/// The log has the written pages, and none of those from the failing page on.
fn failed_write_logs_written_pages() -> Result<()> {
    let (pinning, _memory) = mapped(4)?;
    start(&pinning, 8)?;
    let answer = pinning
        .pinner
        .write(IOVA + 2 * PAGE, &vec![1; 4 * PAGE_SIZE]);
    assert_eq!(answer, Err(Errno::EINVAL));
    let expected = [false, false, true, true, false, false, false, false];
    assert_eq!(written(&pinning, 8)?, expected);
    Ok(())
}
