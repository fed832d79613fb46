// SPDX-License-Identifier: GPL-2.0

//! Concurrent requests.

use crate::{
    measure::{
        print,
        time, //
    },
    memory::{
        Filled,
        Kind,
        MEBIBYTE, //
    },
    request::{
        Attached,
        Request, //
    },
};
use anyhow::{
    Context,
    Result,
    anyhow, //
};
use std::{
    sync::{
        Barrier,
        atomic::{
            AtomicBool,
            Ordering, //
        },
    },
    thread,
    time::Instant,
};
use vfio_client::{
    Memory,
    PAGE_SIZE,
    request, //
};

const IOVA: u64 = 1 << 33;
const OTHER_IOVA: u64 = 1 << 32;
/// The number of comparisons of two threads with one.
const ROUNDS: usize = 5;

/// Measures with the group of `device`.
pub fn measure(device: &str) -> Result<()> {
    latencies(device)?;
    threads(device)
}

/// Measures the worst latency of small requests while 2 GiB of unpopulated memory are being mapped.
fn latencies(device: &str) -> Result<()> {
    const SIZE: usize = 2048 * MEBIBYTE;
    let attached = Attached::new(device)?;
    let container = &attached.container;
    let memory = Memory::anonymous(SIZE)?;
    let small = Memory::anonymous(PAGE_SIZE)?;
    small.write_u8(0, 1);
    let page = PAGE_SIZE as u64;
    let over = AtomicBool::new(false);
    let mut map = Request::map(memory.addr(), IOVA, SIZE as u64)?;
    let mut unmap = Request::unmap(IOVA, SIZE as u64)?;
    let mut info = Request::info(request::IOMMU_GET_INFO)?;
    let mut small_map = Request::map(small.addr(), OTHER_IOVA, page)?;
    let mut small_unmap = Request::unmap(OTHER_IOVA, page)?;
    type Small<'a> = &'a mut (dyn FnMut() -> Result<()> + Send);
    let mut get_info = || info.send(container).map(drop);
    let mut map_page = || {
        small_map.send(container)?;
        small_unmap.send_unmap(container, page)
    };
    let small: [(&str, Small<'_>); 2] = [
        ("worst IOMMU_GET_INFO while 2 GiB are mapped", &mut get_info),
        (
            "worst map+unmap of a page while 2 GiB are mapped",
            &mut map_page,
        ),
    ];
    for (name, op) in small {
        over.store(false, Ordering::Relaxed);
        let worst = thread::scope(|scope| -> Result<u64> {
            let worst = scope.spawn(|| -> Result<u64> {
                let mut worst = 0;
                while !over.load(Ordering::Relaxed) {
                    worst = worst.max(time(&mut *op)?);
                }
                Ok(worst)
            });
            let mapped = map.send(container);
            over.store(true, Ordering::Relaxed);
            mapped?;
            worst.join().map_err(|_| anyhow!("a thread panicked"))?
        })
        .with_context(|| name.to_owned())?;
        print(name, &[worst]);
        unmap.send_unmap(container, SIZE as u64)?;
        memory.discard()?;
    }
    Ok(())
}

/// Compares two threads, each of which maps and unmaps its own range, with one thread that does
/// both.
fn threads(device: &str) -> Result<()> {
    const SIZE: usize = 256 * MEBIBYTE;
    let attached = Attached::new(device)?;
    let container = &attached.container;
    let size = SIZE as u64;
    let mut work = Vec::new();
    for nth in 0..2 {
        let memory = Filled::new(Kind::Pages, SIZE)?;
        let iova = IOVA + nth * 2 * size;
        let map = Request::map(memory.addr, iova, size)?;
        let unmap = Request::unmap(iova, size)?;
        work.push((memory, map, unmap));
    }
    let mut samples = [const { Vec::new() }; 2];
    for _ in 0..ROUNDS {
        let alone = time(|| {
            for (_, map, unmap) in &mut work {
                map.send(container)?;
                unmap.send_unmap(container, size)?;
            }
            Ok(())
        })?;
        let mut both = Vec::new();
        for (_, map, unmap) in &mut work {
            both.push(move || {
                map.send(container)?;
                unmap.send_unmap(container, size)
            });
        }
        samples[0].push(alone);
        samples[1].push(time_together(both)?);
    }
    print("512 MiB of 4 KiB pages: one thread", &samples[0]);
    print("512 MiB of 4 KiB pages: two threads", &samples[1]);
    Ok(())
}

/// Runs each item of `work` in its own thread. Returns the time from the start of the first to the
/// end of the last one, in nanoseconds.
fn time_together<F: FnOnce() -> Result<()> + Send>(work: Vec<F>) -> Result<u64> {
    let ready = Barrier::new(work.len());
    let times = thread::scope(|scope| {
        let threads: Vec<_> = work
            .into_iter()
            .map(|work| {
                let ready = &ready;
                scope.spawn(move || -> Result<_> {
                    ready.wait();
                    let start = Instant::now();
                    work()?;
                    Ok((start, Instant::now()))
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| {
            let result = thread.join();
            result.map_err(|_| anyhow!("a thread panicked"))?
        });
        joined.collect::<Result<Vec<_>>>()
    })?;
    let start = times.iter().map(|(start, _)| *start).min();
    let end = times.iter().map(|(_, end)| *end).max();
    let (start, end) = start.zip(end).context("no work")?;
    Ok((end - start).as_nanos() as u64) // CAST: This runs for less than 500 years.
}
