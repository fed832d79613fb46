// SPDX-License-Identifier: GPL-2.0

//! Several processes at once, and races within a process.

use crate::{
    env::{
        EDU,
        attached,
        group, //
    },
    harness::cases,
    requires::fault_injection,
    stress::{
        self,
        Counts, //
    },
    threads::{
        self,
        Body,
        Tally, //
    },
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    sync::atomic::{
        AtomicBool,
        AtomicUsize,
        Ordering, //
    },
    thread,
    time::{
        Duration,
        Instant, //
    },
};
use support::helper::Helper;
use vfio_client::{
    Container,
    Errno,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    wait::until, //
};

cases! {
    requests_race_last_group,
    all_requests_concurrently,
}

/// How long each case runs.
const TIME: Duration = Duration::from_secs(10);
/// The maximum number of rounds until each request has succeeded.
const ROUNDS: u64 = 6;
/// The number of processes that use devices at the same time.
const USERS: u64 = 4;

/// Requests are passed from a container to its backend, which can be removed with the last group
/// at any time.
fn requests_race_last_group() -> Result<()> {
    let container = Container::open()?;
    let memory = Memory::anonymous(16 * PAGE_SIZE)?;
    let over = AtomicBool::new(false);
    let working = AtomicUsize::new(0);
    let during =
        |request: &dyn Fn(&mut Tally) -> Result<()>, name: &'static str| -> Result<Tally> {
            // Without a backend, requests fail with this errno.
            let mut tally = Tally::new(name, &[Errno::EINVAL]);
            while !over.load(Ordering::Relaxed) {
                let before = tally.works();
                request(&mut tally)?;
                working.fetch_add(usize::from(!before && tally.works()), Ordering::Relaxed);
            }
            Ok(tally)
        };
    let bodies: Vec<Body<'_, Tally>> = vec![
        Box::new(|| {
            let ask = |tally: &mut Tally| tally.note(container.info().map_err(Into::into));
            during(&ask, "get info")
        }),
        Box::new(|| {
            let map = |tally: &mut Tally| {
                let mapped = container.map(0x10_0000, &memory, MapFlags::ReadWrite);
                tally.note(mapped.map_err(Into::into))?;
                tally.note(container.unmap_all().map_err(Into::into))
            };
            during(&map, "map and unmap all")
        }),
        Box::new(|| {
            let outcome = use_and_leave(&container, &working);
            over.store(true, Ordering::Relaxed);
            outcome
        }),
    ];
    for tally in threads::run(bodies)? {
        eprintln!("{tally}");
        tally.check()?;
    }
    Ok(())
}

/// Repeatedly gives the container a group and a backend and removes them at once, for [`TIME`].
/// Keeps the first group until both other threads are `working`.
fn use_and_leave(container: &Container, working: &AtomicUsize) -> Result<Tally> {
    let mut tally = Tally::new("set and leave", &[]);
    let first = group(EDU)?;
    first.set_container(container)?;
    container.set_iommu(Iommu::Type1v2)?;
    let both = || anyhow::Ok(working.load(Ordering::Relaxed) == 2);
    ensure!(
        until(3 * TIME, both)?,
        "expected each request to succeed at least once"
    );
    drop(first);
    let end = Instant::now() + TIME;
    while Instant::now() < end {
        let group = group(EDU)?;
        group.set_container(container)?;
        tally.note(container.set_iommu(Iommu::Type1v2).map_err(Into::into))?;
    }
    Ok(tally)
}

/// Several processes use everything at random while devices and modules are removed and some of
/// the processes are killed. On a busy host not every request succeeds in the first round.
fn all_requests_concurrently() -> Result<()> {
    // Kernels with debugging checks are slow.
    let time = if fault_injection() { 4 * TIME } else { TIME };
    let (mut counts, mut changes) = (Counts::of_users(), Counts::of_changes());
    for round in 0..ROUNDS {
        concurrent_round(round, time, &mut counts, &mut changes)?;
        if counts.check().is_ok() {
            break;
        }
    }
    for line in counts.lines().iter().chain(&changes.lines()) {
        eprintln!("{line}");
    }
    counts.check()?;
    changes.check()?;
    // The machine still works.
    let (container, group) = attached(EDU, Iommu::Type1v2)?;
    group.device(EDU)?;
    drop(container);
    Ok(())
}

/// One round of [`all_requests_concurrently`].
fn concurrent_round(
    round: u64,
    time: Duration,
    counts: &mut Counts,
    changes: &mut Counts,
) -> Result<()> {
    let end = Instant::now() + time;
    let mut seed = 1000 * round;
    let mut start = |kind: &str| -> Result<Helper> {
        seed += 1;
        let left = end.saturating_duration_since(Instant::now());
        let words = [kind, &seed.to_string(), &left.as_millis().to_string()];
        Helper::spawn(&words, &[])
    };
    let mut churn = start("stress-churn")?;
    let mut users = Vec::new();
    for _ in 0..USERS {
        users.push(start("stress-use")?);
    }
    let mut kills = 0;
    while Instant::now() + Duration::from_secs(1) < end {
        thread::sleep(time / 16);
        let mut user = users.remove(0);
        user.kill_later()?;
        collect(&mut user, counts)?;
        users.push(start("stress-use")?);
        kills += 1;
    }
    for mut user in users {
        collect(&mut user, counts)?;
        user.finish()?;
    }
    collect(&mut churn, changes)?;
    churn.finish()?;
    eprintln!("kill: {kills}");
    stress::restore(stress::DEVICES)
}

/// Adds up all counts that a helper prints until it ends.
fn collect(helper: &mut Helper, counts: &mut Counts) -> Result<()> {
    loop {
        let line = helper.line()?;
        if line.is_empty() {
            return Ok(());
        }
        counts.add(&line).context(line)?;
    }
}
