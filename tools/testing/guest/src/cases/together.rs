// SPDX-License-Identifier: GPL-2.0

//! Mapping, pinning, asking for dirty pages and hardware that comes and goes, all at once in one
//! container, by programs that are killed.

use crate::{
    harness::cases,
    helper::Helper,
    leak::locked_kib,
    pin::{
        Pinning,
        READ,
        WRITE, //
    },
};
use anyhow::{
    Context,
    Result, //
};
use std::{
    thread,
    time::{
        Duration,
        Instant, //
    },
};
use vfio_client::{
    Bytes,
    Container,
    MapFlags,
    Memory,
    PAGE_SIZE,
    edu::Edu,
    raw,
    request, //
};

cases! {
    #[our_type1]
    everything_in_one_container,
}

/// For how long the case goes on.
const TIME: Duration = Duration::from_secs(6);
/// How long a program lives.
const LIFE: Duration = Duration::from_millis(1500);

const PAGE: u64 = PAGE_SIZE as u64;
/// Bytes of the memory that is mapped in pieces.
const POOL: usize = 64 * PAGE_SIZE;
/// Where the pieces go: this many places, each this far from the next.
const PLACES: u64 = 8;
const PLACE: u64 = 32 * PAGE;

/// In the kernel's own module two unmaps of pinned pages wait for each other.
fn everything_in_one_container() -> Result<()> {
    let end = Instant::now() + TIME;
    let mut seed = 0;
    let mut start = || {
        seed += 1;
        let life = (2 * LIFE).as_millis().to_string();
        Helper::spawn(&["together", &seed.to_string(), &life], &[])
    };
    let mut kills = 0;
    while Instant::now() < end {
        let mut program = start()?;
        program.line().context("it doesn't start")?;
        thread::sleep(LIFE);
        program.kill()?;
        kills += 1;
    }
    // The last one lives to its end.
    let mut program = start()?;
    program.line()?;
    let operations = program.line()?;
    program.finish()?;
    eprintln!("{kills} programs killed, the last one did {operations} operations");
    // All works as before.
    let pinning = Pinning::new()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    pinning.container.map(0, &memory, MapFlags::ReadWrite)?;
    let (group, device) = pinning.join_edu()?;
    Edu::new(&device)?.load(0, PAGE)?;
    assert_eq!(pinning.pinner.pin(0, 1, READ)?.0, 1);
    drop((device, group, pinning));
    assert_eq!(locked_kib(), 0);
    Ok(())
}

/// The program: does all at random, and says when it has begun and how many operations that were.
pub fn program(seed: u64, life: Duration) -> Result<()> {
    let pinning = Pinning::new()?;
    let memory = Memory::anonymous(POOL)?;
    crate::helper::say("begun");
    let end = Instant::now() + life;
    type Step<'a> = &'a (dyn Fn(&mut fastrand::Rng) -> Result<()> + Sync);
    let steps: [Step<'_>; 5] = [
        &|random| map(random, &pinning.container, &memory),
        &|random| map(random, &pinning.container, &memory),
        &|random| pin(random, &pinning),
        &|random| track(random, &pinning.container),
        &|random| {
            let edu = pinning.join_edu()?;
            thread::sleep(Duration::from_millis(random.u64(0..20)));
            drop(edu);
            Ok(())
        },
    ];
    let count = thread::scope(|scope| {
        let threads: Vec<_> = (seed * steps.len() as u64..)
            .zip(steps)
            .map(|(seed, step)| {
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(seed);
                    let mut count = 0u64;
                    while Instant::now() < end {
                        // Failures are part of it.
                        let _ = step(&mut random);
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        let counts = threads.into_iter().map(|thread| thread.join().unwrap_or(0));
        counts.sum::<u64>()
    });
    crate::helper::say(count);
    Ok(())
}

fn place(random: &mut fastrand::Rng) -> u64 {
    random.u64(0..PLACES) * PLACE
}

fn map(random: &mut fastrand::Rng, container: &Container, memory: &Memory) -> Result<()> {
    match random.u8(0..8) {
        0 => container.unmap_all().map(drop)?,
        1 | 2 => container
            .unmap(place(random), random.u64(1..4) * PLACE)
            .map(drop)?,
        _ => {
            let pages = random.usize(1..32);
            let first = random.usize(0..POOL / PAGE_SIZE - pages);
            container.map_part(
                place(random),
                memory,
                first * PAGE_SIZE,
                pages * PAGE_SIZE,
                MapFlags::ReadWrite,
            )?;
        }
    }
    Ok(())
}

fn pin(random: &mut fastrand::Rng, pinning: &Pinning) -> Result<()> {
    let pinner = &pinning.pinner;
    let iova = place(random) + random.u64(0..16) * PAGE;
    let count = random.u32(1..16);
    match random.u8(0..6) {
        0 => pinner.write(iova, &[1; 100]).map(drop)?,
        1 => pinner.read(iova, 2 * PAGE_SIZE).map(drop)?,
        2 => pinner.unpin(iova, count).map(drop)?,
        3 => pinner.poke(iova, 1).map(drop)?,
        _ => pinner.pin(iova, count, READ | WRITE).map(drop)?,
    }
    Ok(())
}

/// Flags of `VFIO_IOMMU_DIRTY_PAGES`.
const START: u32 = 1;
const STOP: u32 = 2;
const GET: u32 = 4;

fn track(random: &mut fastrand::Rng, container: &Container) -> Result<()> {
    let flags = [START, STOP, GET, GET, GET][random.usize(0..5)];
    let mut bytes = Bytes::new()
        .u32(if flags == GET { 48 } else { 8 })
        .u32(flags);
    let bits = Memory::anonymous(PAGE_SIZE)?;
    if flags == GET {
        bytes = bytes
            .u64(0)
            .u64(PLACES * PLACE)
            .u64(PAGE)
            .u64(PLACES * PLACE / PAGE / 8)
            .u64(bits.addr());
    }
    raw::bytes(container, request::IOMMU_DIRTY_PAGES, &mut bytes)?;
    Ok(())
}
