// SPDX-License-Identifier: GPL-2.0

//! Devices violate their mappings, are shut off, and are revived.

use super::{
    LIODN,
    OTHER_LIODN,
    PAGE,
    divided,
    join,
    refused,
    unreached, //
};
use crate::{
    harness::{
        Failure,
        cases, //
    },
    stall::LIMIT, //
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use pamu_dma::open;
use std::{
    os::fd::AsRawFd,
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
    Bytes,
    Errno,
    Interrupt,
    MapFlags,
    Memory,
    pamu,
    raw, //
};

cases! {
    violation_is_signalled,
    eventfd_applies_to_devices_that_join_later,
    violation_while_a_device_joins,
    bad_eventfd,
    violation_disables_one_device_only,
    violations_of_several_devices,
    liodn_is_disabled_until_revived,
    liodn_is_disabled_while_nothing_is_mapped,
    violation_does_not_outlive_the_container,
    violation_after_a_noisy_device_is_reported,
    violation_beside_a_device_that_never_stops,
}

fn violation_is_signalled() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    let memory = Memory::anonymous(4096)?;
    pamu.map(0, &memory, MapFlags::Read)?;
    let event = Interrupt::new()?;
    pamu.set_violation_event(Some(&event))?;
    assert_eq!(engine.read(PAGE)?, Err(Errno::EFAULT));
    assert_eq!(event.wait(LIMIT)?, 1);
    // The violation is signalled once, however often the access is repeated.
    assert_eq!(engine.read(2 * PAGE)?, Err(Errno::EFAULT));
    assert_eq!(event.take()?, 0);
    assert_eq!(pamu.violation(0)?.map(|v| v.iova), Some(PAGE));
    pamu.revive(LIODN)?;
    refused(&pamu, &engine, 3 * PAGE);
    assert_eq!(event.take()?, 1);
    pamu.set_violation_event(None)?;
    refused(&pamu, &engine, 3 * PAGE);
    assert_eq!(event.take()?, 0);
    Ok(())
}

fn eventfd_applies_to_devices_that_join_later() -> Result<()> {
    let (pamu, _engine) = divided(8, PAGE)?;
    let memory = Memory::anonymous(4096)?;
    pamu.map(0, &memory, MapFlags::Read)?;
    let event = Interrupt::new()?;
    pamu.set_violation_event(Some(&event))?;
    let other = join(&pamu)?;
    assert_eq!(other.read(PAGE)?, Err(Errno::EFAULT));
    assert_eq!(event.take()?, 1);
    assert_eq!(pamu.violation(0)?.map(|v| v.liodn), Some(OTHER_LIODN));
    Ok(())
}

/// A violation is signalled even while the device joins. Engine 2 uses the LIODN of engine 1 and
/// accesses memory all the time.
fn violation_while_a_device_joins() -> Result<()> {
    const TIME: Duration = Duration::from_secs(10);
    const FEWEST: u32 = 10;
    let (pamu, _engine) = divided(8, PAGE)?;
    let memory = Memory::anonymous(4096)?;
    pamu.map(0, &memory, MapFlags::Read)?;
    let event = Interrupt::new()?;
    pamu.set_violation_event(Some(&event))?;
    let (_second, intruder) = open(2)?;
    intruder.pretend(OTHER_LIODN)?;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let intruder = scope.spawn(|| -> Result<()> {
            while !over.load(Ordering::Relaxed) {
                ensure!(intruder.read(PAGE)? == Err(Errno::EFAULT), "it got in");
            }
            Ok(())
        });
        let end = Instant::now() + TIME;
        let mut rounds = (0..).take_while(|&round| round < FEWEST || Instant::now() < end);
        let rounds = rounds.try_for_each(|round: u32| {
            let group = pamu_dma::group(1)?;
            group.set_container(pamu.container())?;
            let start = Instant::now();
            while pamu.violation(OTHER_LIODN)?.is_none() {
                ensure!(start.elapsed() < LIMIT, "no violation");
            }
            let signals = event.wait(LIMIT);
            let signals = signals.with_context(|| format!("round {round}"))?;
            ensure!(signals == 1, "round {round}: {signals} signals");
            Ok(())
        });
        over.store(true, Ordering::Relaxed);
        intruder.join().expect("the intruder ends")?;
        rounds
    })
}

fn bad_eventfd() -> Result<()> {
    let (pamu, _engine) = open(0)?;
    let container = pamu.container();
    let set = |fd: i32| {
        let mut bytes = Bytes::of(&fd);
        raw::bytes(container, pamu::SET_VIOLATION_EVENTFD, &mut bytes)
    };
    assert_eq!(set(-2), Err(Errno::EBADF));
    assert_eq!(set(9999), Err(Errno::EBADF));
    assert_eq!(set(std::io::stdin().as_raw_fd()), Err(Errno::EINVAL));
    assert_eq!(set(-1), Ok(0));
    Ok(())
}

fn violation_disables_one_device_only() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    let memory = Memory::anonymous(4096)?;
    pamu.map(0, &memory, MapFlags::Read)?;
    let other = join(&pamu)?;
    assert_eq!(other.read(PAGE)?, Err(Errno::EFAULT));
    assert_eq!(other.read(0)?, Err(Errno::EFAULT));
    assert_eq!(engine.read(0)?, Ok(0));
    assert_eq!(pamu.revive(LIODN).errno(), Errno::EINVAL);
    pamu.revive(OTHER_LIODN)?;
    assert_eq!(other.read(0)?, Ok(0));
    Ok(())
}

fn violations_of_several_devices() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    let memory = Memory::anonymous(4096)?;
    pamu.map(0, &memory, MapFlags::Read)?;
    let other = join(&pamu)?;
    assert_eq!(other.read(2 * PAGE)?, Err(Errno::EFAULT));
    assert_eq!(engine.read(PAGE)?, Err(Errno::EFAULT));
    let from = |liodn| {
        pamu.violation(liodn)
            .map(|found| found.map(|v| (v.liodn, v.iova)))
    };
    assert_eq!(from(0)?, Some((LIODN, PAGE)));
    assert_eq!(from(LIODN)?, Some((LIODN, PAGE)));
    assert_eq!(from(LIODN + 1)?, Some((OTHER_LIODN, 2 * PAGE)));
    assert_eq!(from(OTHER_LIODN + 1)?, None);
    pamu.revive(LIODN)?;
    assert_eq!(from(0)?, Some((OTHER_LIODN, 2 * PAGE)));
    pamu.revive(OTHER_LIODN)?;
    assert_eq!(from(0)?, None);
    Ok(())
}

/// Neither mapping nor unmapping revives a device that was shut off.
fn liodn_is_disabled_until_revived() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    let memory = Memory::anonymous(4096)?;
    pamu.map(0, &memory, MapFlags::Read)?;
    assert_eq!(engine.read(PAGE)?, Err(Errno::EFAULT));
    pamu.map(PAGE, &memory, MapFlags::Read)?;
    assert_eq!(engine.read(PAGE)?, Err(Errno::EFAULT));
    pamu.unmap(0, 8 * PAGE)?;
    pamu.set_windows(4)?;
    pamu.map(0, &memory, MapFlags::Read)?;
    assert_eq!(engine.read(0)?, Err(Errno::EFAULT));
    assert_eq!(pamu.violation(0)?.map(|v| v.iova), Some(PAGE));
    pamu.revive(LIODN)?;
    assert_eq!(engine.read(0)?, Ok(0));
    Ok(())
}

fn liodn_is_disabled_while_nothing_is_mapped() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    // The device has no access anyway, so it cannot be revived.
    unreached(&pamu, &engine, 0);
    assert_eq!(pamu.revive(LIODN).errno(), Errno::EINVAL);
    let memory = Memory::anonymous(4096)?;
    pamu.map(0, &memory, MapFlags::Read)?;
    assert_eq!(engine.read(0)?, Ok(0));
    Ok(())
}

fn violation_does_not_outlive_the_container() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    let memory = Memory::anonymous(4096)?;
    pamu.map(0, &memory, MapFlags::Read)?;
    assert_eq!(engine.read(PAGE)?, Err(Errno::EFAULT));
    drop((pamu, engine));
    let (pamu, engine) = divided(8, PAGE)?;
    assert_eq!(pamu.violation(0)?, None);
    pamu.map(0, &memory, MapFlags::Read)?;
    assert_eq!(engine.read(0)?, Ok(0));
    Ok(())
}

/// A device that continues after it was shut off keeps its PAMU from reporting for a while.
/// Violations of other devices are reported after that, without a request.
fn violation_after_a_noisy_device_is_reported() -> Result<()> {
    let (pamu, noisy) = divided(8, PAGE)?;
    let (second, other) = open(1)?;
    second.set_geometry(0, 8 * PAGE - 1)?;
    second.set_windows(8)?;
    let memory = Memory::anonymous(4096)?;
    pamu.map(0, &memory, MapFlags::Read)?;
    second.map(0, &memory, MapFlags::Read)?;
    let event = Interrupt::new()?;
    second.set_violation_event(Some(&event))?;
    for _ in 0..5 {
        for _ in 0..2 {
            assert_eq!(noisy.read(PAGE)?, Err(Errno::EFAULT));
        }
        assert_eq!(other.read(PAGE)?, Err(Errno::EFAULT));
        assert_eq!(event.wait(LIMIT)?, 1);
        second.revive(OTHER_LIODN)?;
        pamu.revive(LIODN)?;
    }
    Ok(())
}

/// This takes longer, because the PAMU records one violation at a time.
fn violation_beside_a_device_that_never_stops() -> Result<()> {
    let (pamu, noisy) = divided(8, PAGE)?;
    let memory = Memory::anonymous(4096)?;
    pamu.map(0, &memory, MapFlags::Read)?;
    let other = join(&pamu)?;
    assert_eq!(noisy.read(PAGE)?, Err(Errno::EFAULT));
    let event = Interrupt::new()?;
    pamu.set_violation_event(Some(&event))?;
    let over = AtomicBool::new(false);
    let told = thread::scope(|scope| {
        for engine in [&noisy, &other] {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(engine.read(PAGE).unwrap(), Err(Errno::EFAULT));
                }
            });
        }
        let told = event.wait(Duration::from_secs(60));
        over.store(true, Ordering::Relaxed);
        told
    })?;
    assert_eq!(told, 1);
    assert_eq!(pamu.violation(OTHER_LIODN)?.map(|v| v.iova), Some(PAGE));
    Ok(())
}
