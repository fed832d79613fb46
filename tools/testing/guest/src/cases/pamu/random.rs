// SPDX-License-Identifier: GPL-2.0

//! Random requests, compared with a model of what each device must be able to access. The devices
//! check this through the software PAMU.

use super::{
    HUGE,
    HUGE_ORDER,
    LIODN, //
};
use crate::harness::cases;
use anyhow::{
    Context,
    Result,
    ensure, //
};
use fastrand::Rng;
use pamu_dma::{
    Engine,
    open, //
};
use std::time::{
    Duration,
    Instant, //
};
use vfio_client::{
    Errno,
    MapFlags,
    Memory,
    pamu::{
        Content,
        Pamu, //
    }, //
};

cases! {
    devices_reach_exactly_what_is_mapped,
}

/// How long each case runs.
const TIME: Duration = Duration::from_secs(10);

/// The minimum number of steps of the random sequence, even on a slow machine.
const FEWEST: u32 = 10;

/// The size of the memory from which pieces are mapped.
const POOL: u64 = 4 * HUGE;

/// The address of the aperture, the order of the window size, and the number of windows.
const LAYOUTS: [(u64, u32, u32); 6] = [
    (0, 12, 16),
    (0, 12, 2),
    (1 << 32, 14, 8),
    (0, 16, 16),
    (1 << 24, 21, 4),
    (0, 15, 1),
];

/// The contents of a window.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mapped {
    /// A number of bytes of the pool, from an offset on.
    Memory {
        offset: u64,
        size: u64,
        flags: MapFlags,
    },
    /// A bank, mapped for writing.
    Bank(u32),
}

/// The expected state.
#[derive(Debug)]
struct Model {
    base: u64,
    order: u32,
    windows: Vec<Option<Mapped>>,
}

impl Model {
    fn size(&self) -> u64 {
        1 << self.order
    }

    fn start(&self, window: usize) -> u64 {
        self.base + window as u64 * self.size()
    }

    fn in_use(&self) -> bool {
        self.windows.iter().any(Option::is_some)
    }

    fn bank_window(&self, bank: u32) -> Option<usize> {
        self.windows
            .iter()
            .position(|w| *w == Some(Mapped::Bank(bank)))
    }
}

/// The state of the process.
struct World {
    random: Rng,
    pamu: Pamu,
    engine: Engine,
    /// The second device, while it is in the container.
    other: Option<Engine>,
    /// Whether each device is shut off.
    shut: [bool; 2],
    pool: Memory,
    model: Model,
}

/// Returns the value stored at an offset of the pool.
fn stamp(offset: u64) -> u64 {
    offset ^ 0x5a5a_0000_0000_0000
}

/// Returns offsets in a window of `size` bytes, of which `mapped` are mapped, at which errors are
/// likely.
fn places(size: u64, mapped: u64) -> Vec<u64> {
    let mut places = vec![0, size - 8, size / 2];
    if mapped != 0 {
        places.extend([mapped - 8, mapped, mapped / 2]);
    }
    places.sort_unstable();
    places.dedup();
    places.retain(|&place| place <= size - 8);
    places
}

impl World {
    fn new(seed: u64) -> Result<Self> {
        let pool = Memory::huge(POOL as usize, HUGE_ORDER)?;
        for offset in (0..POOL).step_by(8) {
            pool.write_u64(offset as usize, stamp(offset));
        }
        let (pamu, engine) = open(0)?;
        let mut world = Self {
            random: Rng::with_seed(seed),
            pamu,
            engine,
            other: None,
            shut: [false; 2],
            pool,
            model: Model {
                base: 0,
                order: 12,
                windows: Vec::new(),
            },
        };
        world.divide()?;
        Ok(world)
    }

    /// Does a random step.
    fn step(&mut self) -> Result<()> {
        match self.random.u32(0..100) {
            0..35 => self.map(),
            35..60 => self.unmap(),
            60..70 => self.map_bank(),
            70..78 => self.unmap_bank(),
            78..84 => self.divide(),
            84..92 => self.come_or_go(),
            _ => self.step_outside(),
        }
    }

    fn map(&mut self) -> Result<()> {
        let random = &mut self.random;
        let count = self.model.windows.len();
        let first = random.usize(0..count);
        let most = (count - first)
            .min(3)
            .min((POOL >> self.model.order) as usize);
        let whole = random.usize(0..=most.saturating_sub(1));
        let part = 1u64 << random.u32(12..=self.model.order);
        let size = whole as u64 * self.model.size() + part;
        let offset = random.u64(0..=(POOL - size) >> self.model.order) << self.model.order;
        let flags = *random
            .choice(&[MapFlags::Read, MapFlags::Write, MapFlags::ReadWrite])
            .unwrap_or(&MapFlags::Read);
        let free = self.model.windows[first..=first + whole]
            .iter()
            .all(Option::is_none);
        let iova = self.model.start(first);
        let result = self
            .pamu
            .map_part(iova, &self.pool, offset as usize, size as usize, flags);
        match result {
            Err(error) if error.errno() == Errno::EEXIST && !free => {}
            // Hugepages are not always adjacent, but a window has only one of them.
            other => {
                other?;
                ensure!(free, "mapped over something at {iova:#x}");
                for nth in 0..=whole {
                    let size = if nth < whole { self.model.size() } else { part };
                    self.model.windows[first + nth] = Some(Mapped::Memory {
                        offset: offset + nth as u64 * self.model.size(),
                        size,
                        flags,
                    });
                }
            }
        }
        Ok(())
    }

    fn unmap(&mut self) -> Result<()> {
        let count = self.model.windows.len();
        let first = self.random.usize(0..count);
        let last = self.random.usize(first..count);
        let range = &mut self.model.windows[first..=last];
        let expected: u64 = range
            .iter()
            .flatten()
            .map(|mapped| match mapped {
                Mapped::Memory { size, .. } => *size,
                Mapped::Bank(_) => 4096,
            })
            .sum();
        range.fill(None);
        let (iova, size) = (
            self.model.start(first),
            (last - first + 1) as u64 * self.model.size(),
        );
        let bytes = self.pamu.unmap(iova, size)?;
        ensure!(bytes == expected, "unmapped {bytes:#x}, not {expected:#x}");
        Ok(())
    }

    fn map_bank(&mut self) -> Result<()> {
        let window = self.random.usize(0..self.model.windows.len());
        let bank = self.random.u32(0..4);
        let free = self.model.windows[window].is_none() && self.model.bank_window(bank).is_none();
        let expected = match (bank, free) {
            (3, _) => Some(Errno::ENODEV),
            (_, false) => Some(Errno::EEXIST),
            _ => None,
        };
        let result = self
            .pamu
            .map_bank(bank, self.model.start(window), MapFlags::Write);
        ensure!(
            result.as_ref().err().map(|error| error.errno()) == expected,
            "bank {bank} at window {window}: {result:?}, not {expected:?}"
        );
        if expected.is_none() {
            self.model.windows[window] = Some(Mapped::Bank(bank));
        }
        Ok(())
    }

    fn unmap_bank(&mut self) -> Result<()> {
        let window = self.random.usize(0..self.model.windows.len());
        let is_bank = matches!(self.model.windows[window], Some(Mapped::Bank(_)));
        let result = self.pamu.unmap_bank(self.model.start(window));
        match result {
            Err(error) if error.errno() == Errno::EINVAL && !is_bank => {}
            other => {
                other?;
                ensure!(is_bank, "no bank was at window {window}");
                self.model.windows[window] = None;
            }
        }
        Ok(())
    }

    /// Sets another aperture and divides it into windows. Fails while something is mapped.
    fn divide(&mut self) -> Result<()> {
        let (base, order, count) = LAYOUTS[self.random.usize(0..LAYOUTS.len())];
        let end = base + (u64::from(count) << order) - 1;
        let result = self.pamu.set_geometry(base, end);
        if self.model.in_use() {
            let errno = result.as_ref().err().map(|error| error.errno());
            ensure!(errno == Some(Errno::EBUSY), "geometry in use: {result:?}");
            return Ok(());
        }
        result?;
        self.pamu.set_windows(count)?;
        self.model = Model {
            base,
            order,
            windows: vec![None; count as usize],
        };
        Ok(())
    }

    /// Adds the second device to the container, or removes it.
    fn come_or_go(&mut self) -> Result<()> {
        self.shut[1] = false;
        if self.other.take().is_none() {
            let group = pamu_dma::group(1)?;
            group.set_container(self.pamu.container())?;
            self.other = Some(Engine::open(group, 1)?);
        }
        Ok(())
    }

    /// Makes a device access an unmapped address and leaves it shut off, or revives it.
    fn step_outside(&mut self) -> Result<()> {
        let which = self.random.usize(0..2);
        let Some(engine) = [Some(&self.engine), self.other.as_ref()][which] else {
            return Ok(());
        };
        if self.shut[which] {
            self.pamu.revive(LIODN + which as u32)?;
            self.shut[which] = false;
            return Ok(());
        }
        let outside = self.model.start(self.model.windows.len());
        ensure!(engine.read(outside)?.is_err(), "{outside:#x} was read");
        if self.model.in_use() {
            self.reported(which, outside, false)?;
            self.shut[which] = true;
        }
        Ok(())
    }

    /// Checks that a rejected access is reported.
    ///
    /// While a device that is shut off continues to access memory, the interrupt of the hardware
    /// is disabled. Violations of other devices are then not noticed until somebody asks for them.
    /// In that case the access must be repeated.
    fn reported(&self, which: usize, iova: u64, write: bool) -> Result<()> {
        let liodn = LIODN + which as u32;
        let report = || -> Result<_> {
            let found = self.pamu.violation(liodn)?;
            Ok(found.filter(|violation| violation.liodn == liodn))
        };
        let violation = match report()? {
            Some(violation) => violation,
            None => {
                let engine = if which == 0 {
                    Some(&self.engine)
                } else {
                    self.other.as_ref()
                };
                let engine = engine.context("the device is gone")?;
                let again = if write {
                    engine.write(iova, 0)?
                } else {
                    engine.read(iova)?.map(drop)
                };
                ensure!(again == Err(Errno::EFAULT), "{iova:#x} was reached");
                report()?.context("no violation")?
            }
        };
        ensure!(
            violation.iova == iova,
            "reported is {violation:x?}, not {iova:#x}"
        );
        Ok(())
    }

    /// Checks everything that both devices can access.
    fn judge(&self) -> Result<()> {
        self.judge_engine(&self.engine, 0)?;
        if let Some(other) = &self.other {
            self.judge_engine(other, 1)?;
        }
        self.judge_report()
    }

    fn judge_engine(&self, engine: &Engine, which: usize) -> Result<()> {
        let size = self.model.size();
        for (number, mapped) in self.model.windows.iter().enumerate() {
            let start = self.model.start(number);
            let reach = match mapped {
                Some(Mapped::Memory { size, .. }) => *size,
                Some(Mapped::Bank(_)) => 4096,
                None => 0,
            };
            for place in places(size, reach) {
                let inside = place < reach;
                let (read, write) = match mapped {
                    Some(Mapped::Memory { flags, .. }) if inside => {
                        (*flags != MapFlags::Write, *flags != MapFlags::Read)
                    }
                    Some(Mapped::Bank(_)) if inside => (false, true),
                    _ => (false, false),
                };
                self.probe_read(engine, which, start + place, read, *mapped, place)
                    .with_context(|| format!("read of window {number} + {place:#x}"))?;
                self.probe_write(engine, which, start + place, write, *mapped, place)
                    .with_context(|| format!("write of window {number} + {place:#x}"))?;
            }
        }
        for outside in [
            self.model.base.wrapping_sub(8),
            self.model.start(self.model.windows.len()),
        ] {
            self.probe_read(engine, which, outside, false, None, 0)?;
        }
        Ok(())
    }

    fn probe_read(
        &self,
        engine: &Engine,
        which: usize,
        iova: u64,
        allowed: bool,
        mapped: Option<Mapped>,
        place: u64,
    ) -> Result<()> {
        let result = engine.read(iova)?;
        if !allowed || self.shut[which] {
            return self.denied(which, iova, false, result.map(drop));
        }
        if let Some(Mapped::Memory { offset, .. }) = mapped {
            let expected = stamp(offset + place);
            ensure!(result == Ok(expected), "{result:x?}, not {expected:x}");
        }
        Ok(())
    }

    fn probe_write(
        &self,
        engine: &Engine,
        which: usize,
        iova: u64,
        allowed: bool,
        mapped: Option<Mapped>,
        place: u64,
    ) -> Result<()> {
        let result = engine.write(iova, 0xd0d0)?;
        let at = match mapped {
            Some(Mapped::Memory { offset, size, .. }) if place < size => Some(offset + place),
            _ => None,
        };
        let found = at.map(|at| self.pool.read_u64(at as usize));
        if let Some(at) = at {
            self.pool.write_u64(at as usize, stamp(at));
        }
        if !allowed || self.shut[which] {
            ensure!(found == at.map(stamp), "{iova:#x} was written after all");
            return self.denied(which, iova, true, result);
        }
        ensure!(result == Ok(()), "{result:?}");
        ensure!(found.is_none_or(|found| found == 0xd0d0), "it isn't there");
        Ok(())
    }

    /// Checks that an access failed and was reported, and revives the device.
    fn denied(
        &self,
        which: usize,
        iova: u64,
        write: bool,
        result: Result<(), Errno>,
    ) -> Result<()> {
        ensure!(
            result == Err(Errno::EFAULT),
            "{iova:#x} was reached: {result:?}"
        );
        if self.shut[which] || !self.model.in_use() {
            return Ok(());
        }
        self.reported(which, iova, write)?;
        self.pamu.revive(LIODN + which as u32)?;
        Ok(())
    }

    /// Checks what the kernel reports about the windows.
    fn judge_report(&self) -> Result<()> {
        for (number, mapped) in self.model.windows.iter().enumerate() {
            let window = self.pamu.window(number as u32)?;
            let expected = match mapped {
                None => (Content::Free, 0),
                Some(Mapped::Memory { size, .. }) => (Content::Memory, *size),
                Some(Mapped::Bank(bank)) => (Content::Bank(*bank), 4096),
            };
            ensure!(
                (window.content, window.size, window.iova)
                    == (expected.0, expected.1, self.model.start(number)),
                "{window:?}, not {expected:?}"
            );
        }
        Ok(())
    }
}

fn devices_reach_exactly_what_is_mapped() -> Result<()> {
    println!("{} steps", at_random(fastrand::u64(..), TIME)?);
    Ok(())
}

/// Runs random steps for `time`. Returns the number of steps.
pub fn at_random(seed: u64, time: Duration) -> Result<u32> {
    let mut world = World::new(seed)?;
    let end = Instant::now() + time;
    let mut steps = 0;
    while steps < FEWEST || Instant::now() < end {
        world
            .step()
            .and_then(|()| world.judge())
            .with_context(|| format!("step {steps} of seed {seed}, {:x?}", world.model))?;
        steps += 1;
    }
    Ok(steps)
}
