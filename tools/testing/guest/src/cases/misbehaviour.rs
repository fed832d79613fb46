// SPDX-License-Identifier: GPL-2.0

//! Drivers that pin pages and break the rules.
//!
//! The backend must survive every error of a C driver. A Rust driver can make fewer errors: pages
//! that it keeps, forgets or pins at the wrong time are taken away from it.

use crate::{
    harness::{
        Failure,
        cases, //
    },
    pin::{
        self,
        IOVA,
        KEEP,
        KEEP_CLOSED,
        PIN_AGAIN,
        PIN_EARLIER,
        Pinning,
        READ,
        WRITE,
        mapped, //
    },
    stall::LIMIT, //
};
use anyhow::{
    Context,
    Result, //
};
use std::{
    sync::atomic::{
        AtomicBool,
        AtomicUsize,
        Ordering::Relaxed, //
    },
    thread,
    time::{
        Duration,
        Instant, //
    },
};
use support::{
    PAGE,
    kmsg::says,
    machine::locked_pages, //
};
use vfio_client::{
    Errno,
    MapFlags,
    PAGE_SIZE, //
};

cases! {
    #[rows("T-U14")] #[requires(driver(C), type1(Rust))] unmap_fails_if_driver_keeps_pages,
    #[rows("T-U14")] #[requires(driver(C), type1(Rust))] unmap_fails_if_driver_pins_again,
    #[requires(driver(C))] unmap_while_driver_moves_its_pins,
    #[requires(driver(C), type1(Rust))] unmap_while_mappings_are_replaced,
    #[requires(driver(C), type1(Rust))] pages_kept_after_close_are_released_with_container,
    #[rows("T-X2")] #[requires(driver(C))] each_pin_needs_an_unpin,
    #[requires(driver(Rust))] unmap_revokes_kept_pages,
    #[requires(driver(Rust))] unmap_revokes_pages_pinned_again,
    #[requires(driver(Rust))] forgotten_pages_stay_pinned,
    #[requires(driver(Rust))] close_unpins_forgotten_pages,
    #[requires(driver(Rust))] closed_device_cannot_use_kept_pages,
    #[requires(driver(Rust))] removed_device_cannot_use_kept_pages,
    #[requires(driver(Rust))] invalid_ranges_are_refused,
    #[requires(driver(Rust), type1(Rust))] threads_pin_while_memory_is_remapped,
}

// --- In C -------------------------------------------------------------------------------------

/// The unmap fails and changes nothing. The log names the drivers that may be responsible.
fn unmap_fails_if_driver_keeps_pages() -> Result<()> {
    let (pinning, _memory) = mapped(4)?;
    let pinner = &pinning.pinner;
    assert_eq!(pinner.pin(IOVA, 2, READ)?.0, 2);
    let before = pinner.unmaps()?;
    pinner.misbehave(KEEP)?;
    let blame = ["vfio_pin_test.0", "0x100000-0x103fff", "still pinned"];
    let outcome = says(&blame, || {
        let unmap = pinning.container.unmap(IOVA, 4 * PAGE);
        assert_eq!(unmap.errno(), Errno::EBUSY);
        Ok(())
    });
    let told = pinner.unmaps()? - before;
    pinner.misbehave(0)?;
    outcome?;
    assert!(told >= 1, "it was told");
    assert_eq!(
        (pinner.pinned()?, locked_pages()),
        (2, 2),
        "all is as it was"
    );
    assert_eq!(pinner.pin(IOVA, 4, READ)?.0, 4, "the driver still works");
    assert_eq!(pinning.container.unmap(IOVA, 4 * PAGE)?, 4 * PAGE);
    assert_eq!(locked_pages(), 0);
    Ok(())
}

/// Unpinning pages and pinning them again has the same result.
fn unmap_fails_if_driver_pins_again() -> Result<()> {
    let (pinning, _memory) = mapped(4)?;
    let pinner = &pinning.pinner;
    assert_eq!(pinner.pin(IOVA, 4, READ)?.0, 4);
    pinner.misbehave(PIN_AGAIN)?;
    let unmap = pinning.container.unmap(IOVA, 4 * PAGE);
    pinner.misbehave(0)?;
    assert_eq!(unmap.errno(), Errno::EBUSY);
    assert_eq!((pinner.pinned()?, locked_pages()), (1, 1));
    assert_eq!(pinning.container.unmap(IOVA, 4 * PAGE)?, 4 * PAGE);
    assert_eq!(locked_pages(), 0);
    Ok(())
}

/// There is always a pinned page in one of the mappings, but each mapping is without pinned pages
/// for a moment.
fn unmap_while_driver_moves_its_pins() -> Result<()> {
    let (pinning, memory) = mapped(1)?;
    let (pinner, container) = (&pinning.pinner, &pinning.container);
    container.map(IOVA + PAGE, &memory, MapFlags::ReadWrite)?;
    container.map(IOVA + 8 * PAGE, &memory, MapFlags::ReadWrite)?;
    // The driver pins the page of its last notification again. This makes it a page other than
    // those below.
    assert_eq!(pinner.pin(IOVA + 8 * PAGE, 1, READ)?.0, 1);
    assert_eq!(container.unmap(IOVA + 8 * PAGE, PAGE)?, PAGE);
    assert_eq!(pinner.pin(IOVA, 2, READ)?.0, 2);
    pinner.misbehave(PIN_EARLIER)?;
    let unmapped = container.unmap_all();
    pinner.misbehave(0)?;
    assert_eq!(unmapped?, 2 * PAGE);
    assert_eq!((pinner.pinned()?, locked_pages()), (0, 0));
    Ok(())
}

/// An unmap of several mappings goes on one by one, because one of them always has a pinned page.
/// Other threads, more than there are processors, replace mappings in its range by larger and smaller
/// ones.
fn unmap_while_mappings_are_replaced() -> Result<()> {
    const TIME: Duration = Duration::from_secs(2);
    const PLACES: u64 = 4;
    let (pinning, memory) = mapped(2)?;
    let (pinner, container) = (&pinning.pinner, &pinning.container);
    container.unmap_all()?;
    let map = |iova, pages: usize| {
        container.map_part(iova, &memory, 0, pages * PAGE_SIZE, MapFlags::ReadWrite)
    };
    let first = IOVA + 2 * PLACES * PAGE;
    let pin_and_unmap = || -> Result<()> {
        pinner.misbehave(0)?;
        for iova in [first, first + PAGE, first + 2 * PAGE] {
            map(iova, 1)?;
        }
        // As above.
        assert_eq!(pinner.pin(first + 2 * PAGE, 1, READ)?.0, 1);
        container.unmap(first + 2 * PAGE, PAGE)?;
        assert_eq!(pinner.pin(first, 2, READ)?.0, 2);
        pinner.misbehave(PIN_EARLIER)?;
        container.unmap(IOVA, first + 2 * PAGE - IOVA)?;
        Ok(())
    };
    let done = AtomicBool::new(false);
    let replace = |iova| -> Result<()> {
        while !done.load(Relaxed) {
            for pages in [1, 2] {
                map(iova, pages)?;
                container.unmap(iova, pages as u64 * PAGE)?;
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let places = (0..PLACES).map(|n| IOVA + 2 * n * PAGE);
        let replacing: Vec<_> = places
            .map(|iova| scope.spawn(move || replace(iova)))
            .collect();
        let start = Instant::now();
        let mut result = Ok(());
        let mut rounds = 0;
        while result.is_ok() && start.elapsed() < TIME {
            result = pin_and_unmap();
            rounds += 1;
        }
        done.store(true, Relaxed);
        for thread in replacing {
            result = result.and(thread.join().expect("the thread has not panicked"));
        }
        pinner.misbehave(0)?;
        result.with_context(|| format!("in round {rounds}"))
    })
}

/// The driver cannot be asked to unpin any more. The pages are released with the container, and
/// uncharged.
fn pages_kept_after_close_are_released_with_container() -> Result<()> {
    let (pinning, _memory) = mapped(4)?;
    assert_eq!(pinning.pinner.pin(IOVA, 2, READ)?.0, 2);
    pinning.pinner.misbehave(KEEP_CLOSED)?;
    drop(pinning.pinner);
    assert_eq!(locked_pages(), 2);
    says(
        &[
            "pages are still pinned by the driver of a closed device",
            "0x100000-0x103fff",
        ],
        || {
            let unmap = pinning.container.unmap(IOVA, 4 * PAGE);
            assert_eq!(unmap.errno(), Errno::EBUSY);
            Ok(())
        },
    )?;
    drop((pinning.container, pinning.group));
    assert_eq!(locked_pages(), 0);
    Ok(())
}

fn each_pin_needs_an_unpin() -> Result<()> {
    let (pinning, _memory) = mapped(4)?;
    let pinner = &pinning.pinner;
    for _ in 0..3 {
        assert_eq!(pinner.pin_only(IOVA, 2, READ)?, 2);
        assert_eq!(locked_pages(), 2);
    }
    for left in [2, 2, 0, 0] {
        pinner.unpin_stray(IOVA, 2)?;
        assert_eq!(locked_pages(), left);
    }
    assert_eq!(pinner.pin(IOVA, 2, READ)?.0, 2);
    Ok(())
}

// --- In Rust ----------------------------------------------------------------------------------

fn unmap_revokes_kept_pages() -> Result<()> {
    let (pinning, memory) = mapped(4)?;
    let pinner = &pinning.pinner;
    memory.write_u64(0, 1);
    assert_eq!(pinner.pin(IOVA, 2, READ | WRITE)?.0, 2);
    pinner.misbehave(KEEP)?;
    assert_eq!(pinning.container.unmap(IOVA, 4 * PAGE)?, 4 * PAGE);
    assert_eq!(locked_pages(), 0);
    assert_eq!(pinner.pinned()?, 2, "the driver counts the revoked pages");
    assert_eq!(pinner.poke(IOVA, 2), Err(Errno::ENODEV));
    assert_eq!(memory.read_u64(0), 1);
    // The pages that the driver has kept are not those that it pins at the same address later.
    pinning.container.map(IOVA, &memory, MapFlags::ReadWrite)?;
    assert_eq!(pinner.poke(IOVA, 2), Err(Errno::ENODEV));
    assert_eq!(pinner.pin(IOVA, 1, READ | WRITE)?, (1, 1));
    pinner.poke(IOVA, 3)?;
    assert_eq!(memory.read_u64(0), 3);
    pinner.unpin(IOVA + PAGE, 1)?;
    assert_eq!((pinner.pinned()?, locked_pages()), (1, 1));
    Ok(())
}

fn unmap_revokes_pages_pinned_again() -> Result<()> {
    let (pinning, _memory) = mapped(4)?;
    let pinner = &pinning.pinner;
    assert_eq!(pinner.pin(IOVA, 2, READ | WRITE)?.0, 2);
    pinner.misbehave(PIN_AGAIN)?;
    let before = pinner.unmaps()?;
    assert_eq!(pinning.container.unmap(IOVA, 4 * PAGE)?, 4 * PAGE);
    assert_eq!(pinner.unmaps()? - before, 1);
    assert_eq!(pinner.pinned()?, 1, "the driver pinned the page again");
    assert_eq!(pinner.poke(IOVA, 2), Err(Errno::ENODEV));
    assert_eq!(locked_pages(), 0);
    Ok(())
}

/// Forgotten pages stay pinned while they are mapped and the device is open.
fn forgotten_pages_stay_pinned() -> Result<()> {
    let (pinning, memory) = mapped(8)?;
    let pinner = &pinning.pinner;
    for _ in 0..100 {
        assert_eq!(pinner.pin_only(IOVA, 4, READ)?, 4);
        assert_eq!(pinner.pin_only(IOVA + 2 * PAGE, 4, READ | WRITE)?, 4);
    }
    assert_eq!(locked_pages(), 6);
    pinner.unpin(IOVA, 8)?;
    assert_eq!(locked_pages(), 6, "the driver forgot these pages");
    assert_eq!(pinning.container.unmap(IOVA, 8 * PAGE)?, 8 * PAGE);
    assert_eq!(locked_pages(), 0);
    pinning.container.map(IOVA, &memory, MapFlags::ReadWrite)?;
    assert_eq!(pinner.pin(IOVA, 8, READ)?.0, 8);
    pinner.unpin(IOVA, 8)?;
    assert_eq!(locked_pages(), 0);
    Ok(())
}

fn close_unpins_forgotten_pages() -> Result<()> {
    let (pinning, _memory) = mapped(8)?;
    for _ in 0..10 {
        assert_eq!(pinning.pinner.pin_only(IOVA, 8, READ)?, 8);
    }
    assert_eq!(locked_pages(), 8);
    drop(pinning.pinner);
    assert_eq!(locked_pages(), 0);
    assert_eq!(pinning.container.unmap(IOVA, 8 * PAGE)?, 8 * PAGE);
    Ok(())
}

/// Closes a device and leaves its pages with the driver.
fn leave_pages() -> Result<()> {
    let (pinning, _memory) = mapped(4)?;
    assert_eq!(pinning.pinner.pin(IOVA, 4, READ | WRITE)?.0, 4);
    pinning.pinner.misbehave(KEEP_CLOSED)?;
    drop(pinning.pinner);
    assert_eq!(locked_pages(), 0);
    assert_eq!(pinning.container.unmap(IOVA, 4 * PAGE)?, 4 * PAGE);
    Ok(())
}

/// The device is opened again with the same addresses, while the driver tries to use the pages
/// that it was given before.
fn closed_device_cannot_use_kept_pages() -> Result<()> {
    leave_pages()?;
    let (pinning, memory) = mapped(4)?;
    memory.write_u64(0, 5);
    // It is the same device, so it can access memory again, but not by the old pages.
    assert_eq!(pinning.pinner.pin(IOVA, 4, READ | WRITE)?, (4, 5));
    assert_eq!(pinning.pinner.try_kept()?, 4);
    assert_eq!((pinning.pinner.pinned()?, locked_pages()), (4, 4));
    pinning.pinner.poke(IOVA, 6)?;
    assert_eq!(memory.read_u64(0), 6);
    Ok(())
}

/// As above, but the device has been removed meanwhile. The driver still refers to it, so its name
/// is in use.
fn removed_device_cannot_use_kept_pages() -> Result<()> {
    leave_pages()?;
    pin::replace()?;
    let (pinning, memory) = mapped(4)?;
    memory.write_u64(0, 5);
    assert_eq!(pinning.pinner.pin(IOVA, 4, READ | WRITE)?, (4, 5));
    assert_eq!(pinning.pinner.try_kept()?, 4);
    assert_eq!(pinning.pinner.try_kept().errno(), Errno::ENOENT);
    assert_eq!((pinning.pinner.pinned()?, locked_pages()), (4, 4));
    assert_eq!(pinning.pinner.pin(IOVA, 4, READ)?, (4, 5));
    Ok(())
}

fn invalid_ranges_are_refused() -> Result<()> {
    let (pinning, _memory) = mapped(4)?;
    let last = u64::MAX - (PAGE - 1);
    for (iova, count, errno) in [
        (IOVA, 0, Errno::EINVAL),
        (IOVA + 1, 1, Errno::EINVAL),
        (u64::MAX, 1, Errno::EINVAL),
        (IOVA, 513, Errno::E2BIG),
        (IOVA, i32::MAX as u32, Errno::E2BIG),
        (IOVA, u32::MAX, Errno::E2BIG),
        (last, 2, Errno::EOVERFLOW),
        (last, 512, Errno::EOVERFLOW),
        (last, u32::MAX, Errno::E2BIG),
        (last, 1, Errno::EINVAL),
        (IOVA, 5, Errno::EINVAL),
    ] {
        let pinner = &pinning.pinner;
        let what = format!("{count} pages from {iova:#x} on");
        assert_eq!(pinner.pin(iova, count, READ).errno(), errno, "{what}");
        assert_eq!(pinner.pin_only(iova, count, READ).errno(), errno, "{what}");
        pinner.unpin(iova, count)?;
    }
    assert_eq!(pinning.pinner.unpin(last, u32::MAX)?, 0);
    assert_eq!(locked_pages(), 0);
    Ok(())
}

/// How long the threads run.
const TIME: Duration = Duration::from_secs(3);
/// The number of threads.
const THREADS: u64 = 3;

/// Threads pin pages, keep, forget and use them, while everything is unmapped and mapped again.
fn threads_pin_while_memory_is_remapped() -> Result<()> {
    let (pinning, memory) = mapped(16)?;
    let end = AtomicBool::new(false);
    let (pins, mut unmaps, mut refusals) = (AtomicUsize::new(0), 0, 0);
    thread::scope(|scope| -> Result<()> {
        for seed in 0..THREADS {
            let (pinning, end, pins) = (&pinning, &end, &pins);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                while !end.load(Relaxed) {
                    // Failures are expected.
                    if pin_somehow(&mut random, pinning).is_ok() {
                        pins.fetch_add(1, Relaxed);
                    }
                }
            });
        }
        let outcome = (|| {
            let start = Instant::now();
            while start.elapsed() < if unmaps > 0 { TIME } else { LIMIT } {
                match pinning.container.unmap(IOVA, 16 * PAGE) {
                    Ok(_) => {
                        unmaps += 1;
                        pinning.container.map(IOVA, &memory, MapFlags::ReadWrite)?;
                    }
                    Err(error) if error.errno() == Errno::EBUSY => refusals += 1,
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        })();
        end.store(true, Relaxed);
        outcome
    })?;
    eprintln!(
        "{} operations, {unmaps} unmaps, {refusals} refused",
        pins.into_inner()
    );
    assert!(unmaps > 0);
    assert_eq!(pinning.container.unmap_all()?, 16 * PAGE);
    assert_eq!(locked_pages(), 0);
    Ok(())
}

fn pin_somehow(random: &mut fastrand::Rng, pinning: &Pinning) -> Result<()> {
    let pinner = &pinning.pinner;
    let iova = IOVA + random.u64(0..16) * PAGE;
    let count = random.u32(1..8);
    match random.u8(0..8) {
        0 => pinner.misbehave([0, KEEP, PIN_AGAIN][random.usize(0..3)])?,
        1 => pinner.write(iova, &[1; 100])?,
        2 => pinner.unpin(iova, count)?,
        3 => pinner.poke(iova, 1)?,
        4 => pinner.pin(iova, count, READ | WRITE)?.0,
        _ => pinner.pin_only(iova, count, READ)?,
    };
    Ok(())
}
