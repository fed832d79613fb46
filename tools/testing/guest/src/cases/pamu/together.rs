// SPDX-License-Identifier: GPL-2.0

//! Several threads send requests to one container. Each request succeeds or fails with an error
//! that the state of the container explains, and nothing is left behind.

use super::{
    LIODN,
    PAGE,
    divided, //
};
use crate::{
    harness::cases,
    leak::locked_kib, //
};
use anyhow::{
    Context,
    Result,
    anyhow,
    ensure, //
};
use fastrand::Rng;
use pamu_dma::Engine;
use std::{
    sync::atomic::{
        AtomicBool,
        AtomicU32,
        Ordering, //
    },
    thread,
    time::{
        Duration,
        Instant, //
    },
};
use vfio_client::{
    Errno,
    Interrupt,
    MapFlags,
    Memory,
    pamu::{
        Content,
        Pamu, //
    }, //
};

cases! {
    concurrent_requests,
}

/// The duration of the case, and the limit if not every request has succeeded once by then.
const TIME: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(60);

/// The number of windows, each of a page.
const WINDOWS: u64 = 16;

/// The number of threads that each use an engine. One more engine joins and leaves.
const WORKERS: u32 = 3;

/// The requests.
#[derive(Clone, Copy, Debug)]
enum Op {
    Map,
    Unmap,
    MapBank,
    UnmapBank,
    SetWindows,
    SetImplicit,
    Read,
    Interrupt,
    Join,
}

const OPS: [Op; 9] = [
    Op::Map,
    Op::Unmap,
    Op::MapBank,
    Op::UnmapBank,
    Op::SetWindows,
    Op::SetImplicit,
    Op::Read,
    Op::Interrupt,
    Op::Join,
];

/// The state shared by the threads.
struct Shared {
    pamu: Pamu,
    pool: Memory,
    start: Instant,
    failed: AtomicBool,
    /// How often each request has succeeded.
    succeeded: [AtomicU32; OPS.len()],
}

impl Shared {
    fn note(&self, op: Op) {
        self.succeeded[op as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Returns a request that has not succeeded yet.
    fn missing(&self) -> Option<Op> {
        let never = |op: &Op| self.succeeded[*op as usize].load(Ordering::Relaxed) == 0;
        OPS.into_iter().find(never)
    }

    fn is_over(&self) -> bool {
        let elapsed = self.start.elapsed();
        let enough = elapsed > TIME && self.missing().is_none();
        enough || elapsed > LONGEST || self.failed.load(Ordering::Relaxed)
    }

    /// Repeats `step` until the time is over or it fails.
    fn repeat(&self, mut step: impl FnMut() -> Result<()>) -> Result<()> {
        while !self.is_over() {
            let result = step();
            if result.is_err() {
                self.failed.store(true, Ordering::Relaxed);
                return result;
            }
        }
        Ok(())
    }
}

/// Returns the first word of the memory of a window.
fn stamp(window: u64) -> u64 {
    window ^ 0x7a7a_0000_0000_0000
}

/// Returns whether a request succeeded. Fails if the errno is not one of `errors`.
fn succeeds<T>(result: vfio_client::Result<T>, errors: &[Errno]) -> Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if errors.contains(&error.errno()) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Makes the engine read the start of a window. Returns whether it could, and fails if the data is
/// wrong.
fn reads(engine: &Engine, window: u64) -> Result<bool> {
    match engine.read(window * PAGE)? {
        Ok(value) => {
            ensure!(value == stamp(window), "{value:#x} is in window {window}");
            Ok(true)
        }
        Err(errno) => {
            ensure!(errno == Errno::EFAULT, "read of window {window}: {errno}");
            Ok(false)
        }
    }
}

/// A thread with an engine that no other thread uses.
struct Worker<'a> {
    shared: &'a Shared,
    engine: &'a Engine,
    liodn: u32,
    random: Rng,
    interrupt: Interrupt,
}

impl Worker<'_> {
    fn step(&mut self) -> Result<()> {
        match self.random.u32(0..100) {
            0..25 => self.map(),
            25..45 => self.unmap(),
            45..55 => self.map_bank(),
            55..60 => self.unmap_bank(),
            60..65 => self.set_windows(),
            65..70 => self.set_implicit(),
            70..85 => self.read(),
            85..95 => self.take_interrupt(),
            _ => self.look(),
        }
    }

    fn window(&mut self) -> u64 {
        self.random.u64(0..WINDOWS)
    }

    fn map(&mut self) -> Result<()> {
        let window = self.window();
        let count = self.random.u64(1..=3).min(WINDOWS - window);
        let (iova, size) = (window * PAGE, (count * PAGE) as usize);
        let Shared { pamu, pool, .. } = self.shared;
        let mapped = pamu.map_part(iova, pool, iova as usize, size, MapFlags::Read);
        if succeeds(mapped, &[Errno::EEXIST]).context("map")? {
            self.shared.note(Op::Map);
        }
        Ok(())
    }

    fn unmap(&mut self) -> Result<()> {
        let window = self.window();
        let size = self.random.u64(1..=3) * PAGE;
        match self.shared.pamu.unmap(window * PAGE, size) {
            Err(error) if error.errno() == Errno::EBUSY => {}
            result => {
                let bytes = result?;
                ensure!(bytes <= size && bytes % PAGE == 0, "{bytes:#x} bytes went");
                if bytes != 0 {
                    self.shared.note(Op::Unmap);
                }
            }
        }
        Ok(())
    }

    fn map_bank(&mut self) -> Result<()> {
        let iova = self.window() * PAGE;
        let bank = self.random.u32(0..3);
        let mapped = self.shared.pamu.map_bank(bank, iova, MapFlags::Write);
        // EINVAL while the kernel maps the banks.
        if succeeds(mapped, &[Errno::EEXIST, Errno::EINVAL]).context("map a bank")? {
            self.shared.note(Op::MapBank);
        }
        Ok(())
    }

    fn unmap_bank(&mut self) -> Result<()> {
        let first = self.window();
        // Few windows have a bank.
        for nth in 0..WINDOWS {
            let iova = (first + nth) % WINDOWS * PAGE;
            let unmapped = self.shared.pamu.unmap_bank(iova);
            if succeeds(unmapped, &[Errno::EINVAL, Errno::EBUSY]).context("unmap a bank")? {
                self.shared.note(Op::UnmapBank);
                break;
            }
        }
        Ok(())
    }

    /// Unmaps everything, for requests that need this. Another thread may map something right
    /// after.
    fn clear(&self) -> Result<()> {
        succeeds(self.shared.pamu.unmap(0, u64::MAX), &[Errno::EBUSY])
            .context("unmap everything")?;
        Ok(())
    }

    fn set_windows(&mut self) -> Result<()> {
        self.clear()?;
        let set = self.shared.pamu.set_windows(WINDOWS as u32);
        if succeeds(set, &[Errno::EBUSY]).context("set the windows")? {
            self.shared.note(Op::SetWindows);
        }
        Ok(())
    }

    fn set_implicit(&mut self) -> Result<()> {
        self.clear()?;
        let set = self.shared.pamu.set_implicit(self.random.bool());
        if succeeds(set, &[Errno::EBUSY]).context("set who maps the banks")? {
            self.shared.note(Op::SetImplicit);
        }
        Ok(())
    }

    fn read(&mut self) -> Result<()> {
        if reads(self.engine, self.window())? {
            self.shared.note(Op::Read);
            return Ok(());
        }
        // The engine is not shut off if nothing was mapped, or if its PAMU had already recorded
        // another violation.
        succeeds(self.shared.pamu.revive(self.liodn), &[Errno::EINVAL]).context("revive")?;
        Ok(())
    }

    /// If the interrupt can be enabled, it arrives, since its bank then cannot be unmapped.
    fn take_interrupt(&mut self) -> Result<()> {
        let enabled = self.engine.enable_interrupt(&self.interrupt);
        if !succeeds(enabled, &[Errno::EINVAL]).context("enable the interrupt")? {
            return Ok(());
        }
        let raised = self.engine.interrupt()?;
        ensure!(raised == Ok(()), "no write to the doorbell: {raised:?}");
        let count = self.interrupt.take()?;
        ensure!(count == 1, "{count} interrupts");
        self.engine.disable_interrupt()?;
        self.shared.note(Op::Interrupt);
        Ok(())
    }

    fn look(&self) -> Result<()> {
        self.shared.pamu.violation(0)?;
        for (number, window) in (0..).zip(self.shared.pamu.all_windows()?) {
            let size = if window.content == Content::Free {
                0
            } else {
                PAGE
            };
            let expected = (number * PAGE, size);
            ensure!((window.iova, window.size) == expected, "{window:?}");
        }
        Ok(())
    }
}

/// Adds an engine to the container of the others.
fn join(pamu: &Pamu, number: u32) -> Result<Engine> {
    let group = pamu_dma::group(number)?;
    group.set_container(pamu.container())?;
    Engine::open(group, number)
}

fn concurrent_requests() -> Result<()> {
    let (pamu, first) = divided(WINDOWS as u32, PAGE)?;
    let mut engines = vec![first];
    for number in 1..WORKERS {
        engines.push(join(&pamu, number)?);
    }
    let pool = Memory::anonymous((WINDOWS * PAGE) as usize)?;
    for window in 0..WINDOWS {
        pool.write_u64((window * PAGE) as usize, stamp(window));
    }
    let shared = Shared {
        pamu,
        pool,
        start: Instant::now(),
        failed: AtomicBool::new(false),
        succeeded: Default::default(),
    };
    let seed = fastrand::u64(..);
    disturb(&shared, &engines, seed).with_context(|| format!("seed {seed}"))?;
    if let Some(op) = shared.missing() {
        return Err(anyhow!("{op:?} never succeeded"));
    }
    tidy(&shared, &engines)
}

/// Runs all threads until the time is over.
fn disturb(shared: &Shared, engines: &[Engine], seed: u64) -> Result<()> {
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for (number, engine) in (0..).zip(engines) {
            let mut worker = Worker {
                shared,
                engine,
                liodn: LIODN + number,
                random: Rng::with_seed(seed.wrapping_add(u64::from(number))),
                interrupt: Interrupt::new()?,
            };
            threads.push(scope.spawn(move || shared.repeat(|| worker.step())));
        }
        threads.push(scope.spawn(|| {
            let mut random = Rng::with_seed(seed);
            shared.repeat(|| {
                let guest = join(&shared.pamu, WORKERS).context("join")?;
                reads(&guest, random.u64(0..WINDOWS))?;
                shared.note(Op::Join);
                Ok(())
            })
        }));
        threads.into_iter().try_for_each(|thread| {
            let result = thread.join();
            result.map_err(|_| anyhow!("a thread panicked"))?
        })
    })
}

/// Unmaps everything. Checks that nothing is left and that everything works.
fn tidy(shared: &Shared, engines: &[Engine]) -> Result<()> {
    let Shared { pamu, pool, .. } = shared;
    pamu.unmap(0, u64::MAX)?;
    let windows = pamu.all_windows()?;
    ensure!(
        windows.iter().all(|window| window.content == Content::Free),
        "left are {windows:?}"
    );
    ensure!(locked_kib() == 0, "{} KiB are locked", locked_kib());
    pamu.set_implicit(false)?;
    pamu.set_geometry(0, PAGE - 1)?;
    pamu.set_windows(1)?;
    pamu.map_part(0, pool, 0, PAGE as usize, MapFlags::Read)?;
    for (liodn, engine) in (LIODN..).zip(engines) {
        succeeds(pamu.revive(liodn), &[Errno::EINVAL])?;
        ensure!(reads(engine, 0)?, "LIODN {liodn} reaches nothing");
    }
    Ok(())
}
