// SPDX-License-Identifier: GPL-2.0

//! What goes on at the same time.

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
};
use vfio_client::{
    Memory,
    PAGE_SIZE,
    request, //
};

const IOVA: u64 = 1 << 33;
const OTHER_IOVA: u64 = 1 << 32;
/// How often two threads are compared with one.
const ROUNDS: usize = 5;

/// Measures with the group of `device`.
pub fn measure(device: &str) -> Result<()> {
    latencies(device)?;
    threads(device)
}

/// Looks how long small requests take while 2 GiB are being mapped that aren't there yet.
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
            worst.join().map_err(|_| anyhow!("a thread ended"))?
        })
        .with_context(|| name.to_owned())?;
        print(name, worst);
        unmap.send_unmap(container, SIZE as u64)?;
        memory.discard()?;
    }
    Ok(())
}

/// Compares two threads, each of which maps and unmaps a range of its own, with one that does all.
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
    let mut best = [u64::MAX; 2];
    for _ in 0..ROUNDS {
        let alone = time(|| {
            for (_, map, unmap) in &mut work {
                map.send(container)?;
                unmap.send_unmap(container, size)?;
            }
            Ok(())
        })?;
        let start = Barrier::new(3);
        let both = thread::scope(|scope| -> Result<u64> {
            let threads: Vec<_> = work
                .iter_mut()
                .map(|(_, map, unmap)| {
                    let start = &start;
                    scope.spawn(move || -> Result<()> {
                        start.wait();
                        map.send(container)?;
                        unmap.send_unmap(container, size)
                    })
                })
                .collect();
            start.wait();
            time(|| {
                for thread in threads {
                    thread.join().map_err(|_| anyhow!("a thread ended"))??;
                }
                Ok(())
            })
        })?;
        best = [best[0].min(alone), best[1].min(both)];
    }
    print("512 MiB of 4 KiB pages: one thread", best[0]);
    print("512 MiB of 4 KiB pages: two threads", best[1]);
    Ok(())
}
