// SPDX-License-Identifier: GPL-2.0

//! Requests of several threads to one container.

use crate::{
    env::{
        EDU,
        attached, //
    },
    harness::cases,
    leak::locked_kib,
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
use vfio_client::{
    Container,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE, //
};

cases! {
    t_u09_all_while_others_unmap,
}

/// For how long the threads go on.
const TIME: Duration = Duration::from_secs(5);

const PAGE: u64 = PAGE_SIZE as u64;
/// How many pages the thread maps that unmaps all, and how many each of the others.
const MANY: u64 = 1500;
const FEW: u64 = 5;
const OTHERS: u64 = 3;
/// Each thread maps in a range of its own, this far from the next.
const APART: u64 = 0x1000_0000;

fn t_u09_all_while_others_unmap() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    unmap_all_while_others_unmap(&container)?;
    assert_eq!(locked_kib(), 0);
    Ok(())
}

/// How many bytes a thread has mapped and unmapped.
#[derive(Debug, Default)]
struct Sums {
    mapped: u64,
    unmapped: u64,
    rounds: u64,
}

/// One thread unmaps all of the container, others what is in their ranges.
///
/// An unmap takes each mapping that it is about, or another unmap does: so all that was mapped has been
/// unmapped once, whoever did it.
pub(super) fn unmap_all_while_others_unmap(container: &Container) -> Result<()> {
    let avail = container.info()?.dma_avail();
    let memory = Memory::anonymous(PAGE_SIZE)?;
    let end = Instant::now() + TIME;
    let mut bodies: Vec<threads::Body<'_, Sums>> = vec![Box::new(|| {
        // The others don't unmap in this range, and have few mappings.
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
    assert_eq!(container.unmap_all()?, 0, "all is gone");
    assert_eq!(container.info()?.dma_avail(), avail);
    Ok(())
}

/// Maps `count` single pages with gaps from `start` on, and unmaps, until `end`; an unmap must take as many
/// bytes as are in `sizes`.
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
            "{unmapped:#x} bytes went in round {round}"
        );
        sums.mapped += count * PAGE;
        sums.unmapped += unmapped;
        sums.rounds += 1;
    }
    Ok(sums)
}
