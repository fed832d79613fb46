// SPDX-License-Identifier: GPL-2.0

//! A sequential container with a type 1 backend, its groups, and a driver that pins pages.
//!
//! The behaviour is that of `vfio_iommu_type1.c` and `<linux/vfio.h>`.

mod dirty;
mod group;
mod map;
mod pin;
mod unmap;

use crate::{
    checker,
    defects::Rules,
    op::{
        Answer,
        Call,
        GROUPS,
        Group,
        Op,
        PAGE, //
    },
};
use vfio_client::Errno;

/// The properties of the machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The address ranges that the IOMMU can map, as first and last address.
    pub ranges: Vec<(u64, u64)>,
    /// The page sizes that GET_INFO reports with an IOMMU.
    pub page_sizes: u64,
    /// The result of CHECK_EXTENSION for DMA_CC with an IOMMU.
    pub coherent: u64,
    /// The only address range in which the processes have memory.
    pub memory: (u64, u64),
    /// The number of pages that each process can lock.
    pub limits: [Option<u64>; 2],
}

/// A mapping.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Dma {
    /// The first address.
    pub iova: u64,
    /// The size in bytes.
    pub size: u64,
    /// The address in the process.
    pub vaddr: u64,
    /// The access of devices.
    pub prot: u32,
    /// The process that created it.
    pub owner: u8,
    /// The address of the pages that the IOMMU maps; `None` without an IOMMU.
    pub device: Option<u64>,
    /// Whether the address in the process was invalidated.
    pub vaddr_invalid: bool,
    /// The pages that a driver has pinned, sorted.
    pub pins: Vec<u64>,
    /// The bitmap of dirty pages, and one extra word; empty if dirty pages are not tracked.
    pub dirty: Vec<u64>,
}

impl Dma {
    /// Returns the last address.
    pub fn last(&self) -> u64 {
        self.iova + (self.size - 1)
    }

    /// Returns the number of pages.
    pub fn pages(&self) -> u64 {
        self.size / PAGE
    }

    /// Returns the number of pages charged.
    fn charged(&self) -> u64 {
        if self.device.is_some() {
            self.pages()
        } else {
            self.pins.len() as u64
        }
    }
}

/// The address ranges that GET_INFO reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Ranges {
    /// None: there was never an IOMMU.
    #[default]
    Unknown,
    /// The ranges of the IOMMU.
    Physical,
    /// All addresses: the last IOMMU is gone.
    All,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Type1 {
    /// Whether it is version 2.
    pub v2: bool,
    /// The number of mappings that are still available.
    pub avail: u32,
    /// The mappings, sorted by address.
    pub dmas: Vec<Dma>,
    /// Whether dirty pages are tracked.
    pub tracks: bool,
    /// The reported address ranges.
    pub ranges: Ranges,
}

impl Type1 {
    /// Returns the indexes of the mappings that overlap a range.
    pub fn within(&self, first: u64, last: u64) -> std::ops::Range<usize> {
        let start = self.dmas.partition_point(|dma| dma.last() < first);
        let end = self.dmas.partition_point(|dma| dma.iova <= last);
        start..end.max(start)
    }

    /// Returns the index of the mapping at an address.
    fn at(&self, iova: u64) -> Option<usize> {
        let found = self.within(iova, iova);
        (!found.is_empty()).then_some(found.start)
    }

    /// Returns whether a range starts or ends inside of a mapping.
    fn is_cut(&self, first: u64, last: u64) -> bool {
        let begins = self.at(first).is_some_and(|i| self.dmas[i].iova != first);
        begins || self.at(last).is_some_and(|i| self.dmas[i].last() != last)
    }

    /// Returns the number of pages charged to a process.
    pub fn locked(&self, process: u8) -> u64 {
        let own = self.dmas.iter().filter(|dma| dma.owner == process);
        own.map(Dma::charged).sum()
    }
}

/// A container and the groups of the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// The backend.
    pub type1: Option<Type1>,
    /// The groups that are in the container.
    pub joined: [bool; GROUPS],
    /// The number of times that the driver's device is open.
    pub open: u32,
}

impl State {
    /// Returns the number of joined groups with an IOMMU.
    fn physical(&self) -> usize {
        let physical = [Group::Physical, Group::Second];
        physical
            .iter()
            .filter(|group| self.joined[**group as usize])
            .count()
    }

    /// Returns the number of pages pinned by a driver.
    fn pinned(&self) -> u64 {
        let dmas = self.type1.iter().flat_map(|type1| &type1.dmas);
        dmas.map(|dma| dma.pins.len() as u64).sum()
    }

    fn has_emulated(&self) -> bool {
        self.joined[Group::Emulated as usize]
    }
}

/// The progress of an unmap that takes several steps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Local {
    /// Whether it has passed the first checks.
    pub begun: bool,
    /// The number of bytes unmapped.
    pub unmapped: u64,
    /// The bitmap.
    pub words: Vec<u64>,
    /// The range in which a driver is unpinning pages.
    pub notified: Option<(u64, u64)>,
}

/// The expected outcome of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// This answer.
    Is(Answer),
    /// An error, which is one of these.
    Fails(Vec<Errno>),
}

impl Outcome {
    fn ok() -> Self {
        Self::Is(Ok(Vec::new()))
    }

    fn value(value: u64) -> Self {
        Self::Is(Ok(vec![value]))
    }

    fn error(errno: Errno) -> Self {
        Self::Is(Err(errno))
    }

    /// Returns whether an answer matches.
    pub fn allows(&self, answer: &Answer) -> bool {
        match self {
            Self::Is(expected) => expected == answer,
            Self::Fails(reasons) => answer.as_ref().is_err_and(|errno| reasons.contains(errno)),
        }
    }

    /// Returns whether the request fails.
    pub fn is_err(&self) -> bool {
        !matches!(self, Self::Is(Ok(_)))
    }
}

/// The model.
#[derive(Clone, Debug)]
pub struct Container {
    /// The machine.
    pub machine: Machine,
    /// The rules of the modules.
    pub rules: Rules,
}

impl Container {
    /// Executes a request in one step. The outcome may be that it failed and changed nothing.
    ///
    /// An unmap takes one step if no driver has to unpin pages.
    pub fn apply(&self, state: &mut State, call: &Call) -> Outcome {
        let process = call.process;
        match call.op {
            Op::SetIommu { version, limit } => self.set_iommu(state, version, limit),
            Op::Join(group) => self.join(state, process, group),
            Op::Leave(group) => self.leave(state, group),
            Op::Status(group) if state.joined[group as usize] => Outcome::value(3),
            Op::Status(_) => Outcome::value(1),
            Op::Open => self.open(state),
            Op::Close => self.close(state),
            Op::Extension(nr) => Outcome::value(self.extension(state, nr)),
            Op::Locked(process) => {
                let locked = state.type1.as_ref().map(|type1| type1.locked(process));
                Outcome::value(locked.unwrap_or(0))
            }
            Op::Pinned => Outcome::value(state.pinned()),
            Op::Listed => {
                let type1 = state.type1.as_ref();
                let mappings = type1.map_or(0, |type1| type1.dmas.len() as u64);
                let charged = type1.map_or(0, |type1| type1.locked(0) + type1.locked(1));
                let containers = type1.is_some().into();
                Outcome::Is(Ok(vec![containers, mappings, charged, state.pinned()]))
            }
            Op::Unpin(iova) => self.unpin(state, iova),
            Op::Pin { iova, count, prot } => self.pin(state, iova, count, prot),
            Op::Read { iova, count } => self.read(state, process, iova, count),
            Op::Write { iova, count } => self.write(state, process, iova, count),
            Op::Dma(iova) => self.dma(state, iova),
            Op::MapMany {
                iova,
                count,
                stride,
            } => {
                let mut outcomes = Op::singles(iova, count, stride)
                    .map(|op| self.apply(state, &Call { op, ..*call }));
                outcomes.find(Outcome::is_err).unwrap_or_else(Outcome::ok)
            }
            Op::Map { .. } | Op::Unmap { .. } | Op::Track(_) | Op::Dirty { .. } | Op::Info => {
                self.ioctl(state, call)
            }
        }
    }

    /// Executes a request that the core forwards to the backend.
    fn ioctl(&self, state: &mut State, call: &Call) -> Outcome {
        if state.type1.is_none() {
            return Outcome::error(Errno::EINVAL);
        }
        match call.op {
            Op::Map {
                flags,
                vaddr,
                iova,
                size,
            } => self.map(state, call.process, flags, vaddr, iova, size),
            Op::Unmap { .. } => self.unmap(state, call),
            Op::Track(flags) => self.track(state, flags),
            Op::Dirty { iova, size, bitmap } => self.get_bitmap(state, iova, size, bitmap),
            _ => self.info(state),
        }
    }

    fn info(&self, state: &State) -> Outcome {
        let Some(type1) = &state.type1 else {
            return Outcome::error(Errno::EINVAL);
        };
        let page_sizes = match state.physical() {
            0 => !(PAGE - 1),
            _ => self.machine.page_sizes,
        };
        let mut numbers = vec![type1.avail.into(), page_sizes];
        match type1.ranges {
            Ranges::Unknown => (),
            Ranges::All => numbers.extend([0, u64::MAX]),
            Ranges::Physical => {
                numbers.extend(
                    self.machine
                        .ranges
                        .iter()
                        .flat_map(|(start, end)| [*start, *end]),
                );
            }
        }
        Outcome::Is(Ok(numbers))
    }

    fn extension(&self, state: &State, nr: u32) -> u64 {
        match nr {
            1 | 3 | 9 => 1,
            4 if state.type1.is_some() && state.physical() > 0 => self.machine.coherent,
            4 => state.type1.is_some().into(),
            10 => (state.type1.is_some() && !state.has_emulated()).into(),
            _ => 0,
        }
    }
}

impl checker::Model for Container {
    type State = State;
    type Call = Call;
    type Answer = Answer;
    type Local = Local;

    fn steps(
        &self,
        state: &State,
        call: &Call,
        local: &Local,
        answer: Option<&Answer>,
    ) -> Vec<(State, Option<Local>)> {
        if matches!(call.op, Op::Unmap { .. }) {
            return self.unmap_steps(state, call, local, answer);
        }
        let mut steps = Vec::new();
        if call.op == Op::Close {
            steps.extend(
                self.close_step(state)
                    .map(|next| (next, Some(local.clone()))),
            );
        }
        let mut next = state.clone();
        let outcome = self.apply(&mut next, call);
        if answer.is_none_or(|answer| outcome.allows(answer)) {
            // An implementation that checks all pages before it pins any marks none on failure.
            let may_be_unmarked = matches!(call.op, Op::Pin { .. }) && outcome.is_err();
            if may_be_unmarked && self.rules == Rules::Strict && next != *state {
                steps.push((state.clone(), None));
            }
            steps.push((next, None));
        }
        steps
    }

    fn is_observer(&self, call: &Call, answer: Option<&Answer>) -> bool {
        match call.op {
            Op::Info | Op::Extension(_) | Op::Status(_) | Op::Pinned => true,
            Op::Read { .. } | Op::Locked(_) | Op::Listed | Op::Dma(_) => true,
            // These requests change nothing when they fail.
            Op::Map { .. } | Op::Track(_) | Op::Open => answer.is_some_and(Result::is_err),
            Op::Join(_) | Op::Leave(_) | Op::SetIommu { .. } => answer.is_some_and(Result::is_err),
            _ => false,
        }
    }
}
