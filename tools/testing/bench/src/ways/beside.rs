// SPDX-License-Identifier: GPL-2.0

//! The worst latency of small requests while another thread maps much memory.
//!
//! There is one processor, so the threads take turns. A request that waits for no lock of the
//! other thread waits at most for its turn; [`ALONE`] has this time.

use super::{
    IOVA, PAGE,
    space::{
        Space,
        Way, //
    },
};
use crate::{
    measure::{
        is_wanted_any,
        print,
        settle,
        time, //
    },
    memory::MEBIBYTE,
};
use anyhow::{
    Context,
    Result,
    anyhow, //
};
use std::{
    hint::spin_loop,
    sync::atomic::{
        AtomicBool,
        Ordering, //
    },
    thread,
    time::{
        Duration,
        Instant, //
    },
};
use vfio_client::{
    Memory,
    PAGE_SIZE, //
};

/// The size of the memory, which is not there yet.
const SIZE: usize = 128 * MEBIBYTE;
const OTHER_IOVA: u64 = 1 << 36;
const INFO: &str = "worst request for information while 128 MiB are mapped";
const PAIR: &str = "worst map+unmap of a page while 128 MiB are mapped";
const ALONE: &str = "worst map+unmap of a page beside a thread that only computes";
/// The time for which that thread computes.
const COMPUTING: Duration = Duration::from_millis(80);

/// An operation that a thread repeats.
type Small<'a> = &'a mut (dyn FnMut() -> Result<()> + Send);

/// Measures with the group or the file of `device`.
pub fn measure(way: Way, device: &str) -> Result<()> {
    if ![INFO, PAIR, ALONE]
        .iter()
        .any(|name| is_wanted_any(name, &[]))
    {
        return Ok(());
    }
    let space = Space::open(way, device)?;
    let memory = Memory::anonymous(SIZE)?;
    let page = Memory::anonymous(PAGE_SIZE)?;
    page.write_u8(0, 1);
    let mut map = space.map(memory.addr(), IOVA, SIZE as u64)?;
    let mut unmap = space.unmap(IOVA, SIZE as u64)?;
    let mut info = space.info()?;
    let mut map_page = space.map(page.addr(), OTHER_IOVA, PAGE)?;
    let mut unmap_page = space.unmap(OTHER_IOVA, PAGE)?;
    let mut ask = || info.send(&space);
    let mut pair = || {
        map_page.send(&space)?;
        unmap_page.send(&space, PAGE)
    };
    print(ALONE, &[worst(&mut pair, compute).context(ALONE)?]);
    let small: [(&str, Small<'_>); 2] = [(INFO, &mut ask), (PAIR, &mut pair)];
    for (name, op) in small {
        let worst = worst(op, || map.send(&space)).context(name)?;
        print(name, &[worst]);
        unmap.send(&space, SIZE as u64)?;
        memory.discard()?;
    }
    Ok(())
}

/// Returns the worst duration of `op`, which a thread repeats while `other` runs.
fn worst(op: Small<'_>, other: impl FnOnce() -> Result<()>) -> Result<u64> {
    let over = AtomicBool::new(false);
    settle();
    thread::scope(|scope| -> Result<u64> {
        let worst = scope.spawn(|| -> Result<u64> {
            let mut worst = 0;
            while !over.load(Ordering::Relaxed) {
                worst = worst.max(time(&mut *op)?);
            }
            Ok(worst)
        });
        let other = other();
        over.store(true, Ordering::Relaxed);
        other?;
        worst.join().map_err(|_| anyhow!("a thread panicked"))?
    })
}

/// Computes without any request.
fn compute() -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < COMPUTING {
        spin_loop();
    }
    Ok(())
}
