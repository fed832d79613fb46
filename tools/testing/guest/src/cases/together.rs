// SPDX-License-Identifier: GPL-2.0

//! Mapping, pinning, dirty page tracking, and adding and removing hardware, all concurrently in
//! one container, by processes that are killed.

use crate::{
    harness::cases,
    pin::{
        Pinning,
        READ,
        WRITE, //
    },
    threads::{
        self,
        Body,
        Tally, //
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
use support::{
    PAGE,
    helper::Helper,
    machine::locked_pages,
    requests::{
        Bitmap,
        DirtyPages, //
    },
};
use vfio_client::{
    Container, Errno, MapFlags, Memory, PAGE_SIZE,
    edu::{
        self,
        Edu, //
    },
};

cases! {
    #[requires(type1(Rust))] random_programs_share_container,
}

/// How long the case runs.
const TIME: Duration = Duration::from_secs(6);
/// How long a process lives.
const LIFE: Duration = Duration::from_millis(1500);

/// The size of the memory that is mapped in pieces.
const POOL: usize = 64 * PAGE_SIZE;
/// Where the pieces are mapped: this many places at this distance.
const PLACES: u64 = 8;
const PLACE: u64 = 32 * PAGE;

/// In the C module, two unmaps of pinned pages deadlock.
fn random_programs_share_container() -> Result<()> {
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
    // The last process runs to its end.
    let mut program = start()?;
    program.line()?;
    eprintln!("{kills} programs killed; the last one:");
    let mut lines = 0;
    loop {
        let line = program.line()?;
        if line.is_empty() {
            break;
        }
        eprintln!("{line}");
        lines += 1;
    }
    program.finish()?;
    assert_eq!(lines, 5, "each thread of the last one came to its end");
    // Everything still works.
    let pinning = Pinning::new()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    pinning.container.map(0, &memory, MapFlags::ReadWrite)?;
    let (group, device) = pinning.join_edu()?;
    Edu::new(&device)?.load(0, edu::MEMORY as u64)?;
    assert_eq!(pinning.pinner.pin(0, 1, READ)?.0, 1);
    drop((device, group, pinning));
    assert_eq!(locked_pages(), 0);
    Ok(())
}

/// Runs all operations at random, with the given `edu`. Reports when it has begun, and how often
/// each operation has succeeded.
pub fn program(edu: &str, seed: u64, life: Duration) -> Result<()> {
    let pinning = Pinning::new()?;
    let memory = Memory::anonymous(POOL)?;
    crate::helper::say("begun");
    let end = Instant::now() + life;
    // On a slow machine, operations that have not succeeded yet get more time.
    let at_last = end + 10 * life;
    // Memory may be mapped already or not mapped any more, and tracking may be off.
    let steps: [(Step<'_>, Tally); 5] = [
        (
            &|random| map(random, &pinning.container, &memory),
            Tally::new("map", &[Errno::EEXIST]),
        ),
        (
            &|random| map(random, &pinning.container, &memory),
            Tally::new("map, too", &[Errno::EEXIST]),
        ),
        (
            &|random| pin(random, &pinning),
            Tally::new("pin", &[Errno::EINVAL, Errno::ENOENT]),
        ),
        (
            &|random| track(random, &pinning.container),
            Tally::new("track", &[Errno::EINVAL]),
        ),
        (
            &|random| {
                let edu = pinning.join(edu)?;
                thread::sleep(Duration::from_millis(random.u64(0..20)));
                drop(edu);
                Ok(())
            },
            Tally::new("join", &[]),
        ),
    ];
    let bodies = (seed * steps.len() as u64..).zip(steps);
    let bodies = bodies.map(|(seed, (step, mut tally))| -> Body<'_, Tally> {
        Box::new(move || {
            let mut random = fastrand::Rng::with_seed(seed);
            while Instant::now() < if tally.works() { end } else { at_last } {
                tally.note(step(&mut random))?;
            }
            Ok(tally)
        })
    });
    for tally in threads::run(bodies.collect())? {
        tally.check()?;
        crate::helper::say(tally);
    }
    Ok(())
}

/// An operation of the process.
type Step<'a> = &'a (dyn Fn(&mut fastrand::Rng) -> Result<()> + Sync);

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

fn track(random: &mut fastrand::Rng, container: &Container) -> Result<()> {
    let bits = Memory::anonymous(PAGE_SIZE)?;
    let bitmap = Bitmap {
        pgsize: PAGE,
        size: PLACES * PLACE / PAGE / 8,
        data: bits.addr(),
    };
    let request = match random.u8(0..5) {
        0 => DirtyPages::track(DirtyPages::START),
        1 => DirtyPages::track(DirtyPages::STOP),
        _ => DirtyPages::get(0, PLACES * PLACE, bitmap),
    };
    request.send(container)?;
    Ok(())
}
