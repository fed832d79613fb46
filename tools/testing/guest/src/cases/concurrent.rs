// SPDX-License-Identifier: GPL-2.0

//! Requests from several threads to one container.

use crate::{
    env::{
        EDU,
        attached, //
    },
    harness::cases,
    threads, //
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    ops::Range,
    time::{
        Duration,
        Instant, //
    },
};
use support::{
    PAGE,
    machine::locked_pages, //
};
use vfio_client::{
    Container,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE, //
};

cases! {
    #[rows("T-U9")] unmap_all_while_other_threads_unmap,
}

/// How long the threads run.
const TIME: Duration = Duration::from_secs(5);

/// The number of pages mapped by the thread that unmaps everything, and by each of the others.
const MANY: u64 = 1500;
const FEW: u64 = 5;
const OTHERS: u64 = 3;
/// The distance between the ranges of the threads.
const APART: u64 = 0x1000_0000;

fn unmap_all_while_other_threads_unmap() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    unmap_all_while_others_unmap(&container)?;
    assert_eq!(locked_pages(), 0);
    Ok(())
}

/// The number of bytes that a thread has mapped and unmapped.
#[derive(Debug, Default)]
struct Sums {
    mapped: u64,
    unmapped: u64,
    rounds: u64,
}

/// One thread unmaps the whole container while others unmap their own ranges.
///
/// Each mapping in the range of an unmap is removed by that unmap or by another one. So every
/// mapping is unmapped exactly once.
pub(super) fn unmap_all_while_others_unmap(container: &Container) -> Result<()> {
    let avail = container.info()?.dma_avail();
    let memory = Memory::anonymous(PAGE_SIZE)?;
    let end = Instant::now() + TIME;
    let mut bodies: Vec<threads::Body<'_, Sums>> = vec![Box::new(|| {
        // The other threads do not unmap in this range, and have few mappings.
        let sizes = MANY * PAGE..(MANY + OTHERS * FEW) * PAGE + 1;
        rounds(container, &memory, end, (APART, MANY), sizes, || {
            Ok(container.unmap_all()?)
        })
    })];
    for other in 0..OTHERS {
        let start = (2 + other) * APART;
        let memory = &memory;
        bodies.push(Box::new(move || {
            let sizes = 0..FEW * PAGE + 1;
            rounds(container, memory, end, (start, FEW), sizes, || {
                Ok(container.unmap(start, APART)?)
            })
        }));
    }
    let sums = threads::run(bodies)?;
    eprintln!("{sums:?}");
    let total = |of: fn(&Sums) -> u64| sums.iter().map(of).sum::<u64>();
    assert_eq!(total(|sums| sums.mapped), total(|sums| sums.unmapped));
    assert_eq!(container.unmap_all()?, 0, "nothing is left");
    assert_eq!(container.info()?.dma_avail(), avail);
    Ok(())
}

/// Maps `count` single pages with gaps starting at `start` and unmaps them, until `end`. The size
/// returned by each unmap must be in `sizes`.
fn rounds(
    container: &Container,
    memory: &Memory,
    end: Instant,
    (start, count): (u64, u64),
    sizes: Range<u64>,
    unmap: impl Fn() -> Result<u64>,
) -> Result<Sums> {
    let mut sums = Sums::default();
    while sums.rounds == 0 || Instant::now() < end {
        let round = sums.rounds;
        for page in 0..count {
            container
                .map(start + 2 * page * PAGE, memory, MapFlags::ReadWrite)
                .with_context(|| format!("page {page} of round {round}"))?;
        }
        let unmapped = unmap().with_context(|| format!("round {round}"))?;
        ensure!(
            sizes.contains(&unmapped) && unmapped % PAGE == 0,
            "{unmapped:#x} bytes were unmapped in round {round}"
        );
        sums.mapped += count * PAGE;
        sums.unmapped += unmapped;
        sums.rounds += 1;
    }
    Ok(sums)
}
