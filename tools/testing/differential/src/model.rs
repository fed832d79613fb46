// SPDX-License-Identifier: GPL-2.0

//! The known state of the kernel, derived from the results of the steps.
//!
//! The model guides the generator and reports unexpected results: see [`Twins`].

use crate::{
    expect::{
        Twins,
        model, //
    },
    machine::{
        DEVICES,
        EDU,
        PIN, //
    },
    memory::{
        Change,
        PIECES, //
    },
    request::{
        Argument,
        Request,
        pin, //
    },
    step::{
        AGENTS,
        CONTAINERS,
        COPIES,
        File,
        Step, //
    },
    trace::Outcome,
};
use linear::{
    defects::Rules,
    model::Container,
    op::unmap, //
};
use support::pin::Pages;
use vfio_client::{
    Errno,
    request, //
};

/// A container that is open, or kept alive by its groups.
#[derive(Debug, Default)]
pub struct Space {
    /// The backend.
    pub iommu: Option<u64>,
    /// The groups in the container.
    pub groups: Vec<usize>,
    /// The mappings and the expected behaviour.
    pub twins: Twins,
}

impl Space {
    /// Returns whether the container has a group with an IOMMU.
    pub fn has_physical(&self) -> bool {
        self.groups.iter().any(|group| *group != PIN)
    }

    fn leave(&mut self, group: usize) {
        self.groups.retain(|member| *member != group);
        if self.groups.is_empty() {
            *self = Self::default();
        }
    }
}

/// The known state.
#[derive(Debug)]
pub struct Model {
    /// The reference model of a container.
    reference: Container,
    /// The mapping limit of new containers.
    limit: u32,
    /// All containers that were ever opened.
    spaces: Vec<Space>,
    /// The open containers.
    containers: [Option<usize>; CONTAINERS],
    /// The open groups.
    groups: [bool; DEVICES.len()],
    /// The containers that the groups are in. A closed group stays in its container while one of
    /// its devices is open.
    joined: [Option<usize>; DEVICES.len()],
    /// The open devices.
    pub devices: [[bool; COPIES]; DEVICES.len()],
    /// The pieces of memory that map device registers and keep the device open.
    registers: [bool; PIECES as usize],
    /// The containers that the agents have.
    agents: [Option<[Option<usize>; CONTAINERS]>; AGENTS],
}

impl Model {
    /// Returns the initial model. `rules` are those of the modules.
    pub fn new(rules: Rules) -> Self {
        Self {
            reference: model(rules),
            limit: u16::MAX.into(),
            spaces: Vec::new(),
            containers: Default::default(),
            groups: Default::default(),
            joined: Default::default(),
            devices: Default::default(),
            registers: Default::default(),
            agents: Default::default(),
        }
    }

    /// Returns the container in a slot.
    pub fn container(&self, slot: usize) -> Option<&Space> {
        self.containers[slot].map(|space| &self.spaces[space])
    }

    /// Returns whether a group is open.
    pub fn group_open(&self, group: usize) -> bool {
        self.groups[group]
    }

    /// Returns whether a device of a group is open or its registers are mapped.
    pub fn device_open(&self, group: usize) -> bool {
        self.devices[group].contains(&true) || group == EDU && self.registers.contains(&true)
    }

    /// Returns whether a group is in a container.
    pub fn group_joined(&self, group: usize) -> bool {
        self.joined[group].is_some()
    }

    /// Returns the container that a group is in.
    pub fn container_of(&self, group: usize) -> Option<&Space> {
        self.joined[group].map(|space| &self.spaces[space])
    }

    /// Returns whether an agent runs.
    pub fn agent_runs(&self, agent: usize) -> bool {
        self.agents[agent].is_some()
    }

    /// Returns the container that an agent has in a slot.
    pub fn agents_container(&self, agent: usize, slot: usize) -> Option<&Space> {
        let space = self.agents[agent].as_ref()?[slot]?;
        Some(&self.spaces[space])
    }

    /// Updates the model after a step. Adds unexpected results and a description of the bitmap page
    /// to the outcome.
    pub fn learn(&mut self, step: &Step, outcome: &mut Outcome) {
        let asked = match step {
            Step::Send {
                file: File::Container(slot),
                request,
                bitmap,
            } => Some((self.containers[*slot], request, false, *bitmap)),
            Step::Delegate(agent, slot, request) => {
                let containers = self.agents[*agent].as_ref();
                Some((
                    containers.and_then(|slots| slots[*slot]),
                    request,
                    true,
                    None,
                ))
            }
            Step::Send {
                file: File::Device(PIN, _),
                request,
                ..
            } => {
                self.driver_asked(request, outcome);
                None
            }
            _ => None,
        };
        let mut fields = Vec::new();
        if let Some((Some(space), request, foreign, bitmap)) = asked {
            let fill = bitmap.map(|bitmap| bitmap.fill);
            let twins = &mut self.spaces[space].twins;
            fields = twins.judge(&self.reference, foreign, request, outcome, fill);
            let was_doubtful = twins.doubtful;
            self.requested(space, request, outcome);
            if was_doubtful || self.spaces[space].twins.doubtful {
                // The number of bytes that C has unmapped is unknown; Rust unmaps nothing.
                outcome.bytes.clear();
                outcome.fields.retain(|(name, _)| *name != "locked");
            }
        }
        outcome.fields.extend(fields);
        if let Step::Parameter("dma_entry_limit", _) = step {
            let is = outcome.fields.iter().find(|(name, _)| *name == "is");
            self.limit = is
                .and_then(|(_, value)| value.parse().ok())
                .unwrap_or(self.limit);
        }
        if outcome.is_ok() {
            self.succeeded(step);
        }
    }

    /// Records a request to the driver that pins pages.
    fn driver_asked(&mut self, request: &Request, outcome: &Outcome) {
        let Pages { iova, count, .. } = request.structure().get(0);
        let count = u64::from(count);
        let Some(space) = self.joined[PIN].map(|space| &mut self.spaces[space]) else {
            return;
        };
        let is_ok = outcome.is_ok();
        match pin::ask_of(request.nr) {
            Some(pin::Ask::Pin) => space.twins.pin(iova, count, is_ok),
            Some(pin::Ask::Unpin) if is_ok => {
                // The driver counts pages, from that of the first byte to that of the last byte.
                let last = iova.wrapping_add((count * 4096).wrapping_sub(1)) >> 12;
                let pages = (last + 1).saturating_sub(iova >> 12);
                if pages > 0 {
                    space.twins.unpin(iova & !4095, pages.saturating_mul(4096));
                }
            }
            Some(pin::Ask::Write) if count > 0 => space.twins.write(iova, count, is_ok),
            _ => (),
        }
    }

    fn succeeded(&mut self, step: &Step) {
        match step {
            Step::Open(File::Container(slot)) => {
                self.spaces.push(Space::default());
                self.containers[*slot] = Some(self.spaces.len() - 1);
            }
            Step::Open(File::Group(group)) => self.groups[*group] = true,
            Step::Close(File::Container(slot)) => self.containers[*slot] = None,
            Step::Close(File::Group(group)) => self.groups[*group] = false,
            Step::Close(File::Device(group, copy)) => {
                self.devices[*group][*copy] = false;
                self.device_closed(*group);
            }
            Step::Memory(piece, Change::Registers) => {
                self.registers[*piece as usize] |= self.devices[EDU].contains(&true);
            }
            Step::Memory(piece, Change::Fill(_) | Change::File) => {
                self.registers[*piece as usize] = false;
            }
            Step::OpenDevice { group, copy, .. } => self.devices[*group][*copy] = true,
            Step::Join(group, Some(File::Container(slot))) => {
                self.joined[*group] = self.containers[*slot];
                if let Some(space) = self.containers[*slot] {
                    self.spaces[space].groups.push(*group);
                    self.spaces[space].twins.join(*group);
                }
            }
            Step::Send {
                file: File::Group(group),
                request,
                ..
            } if request.nr == request::GROUP_UNSET_CONTAINER => self.leave(*group),
            Step::Hire(agent, _) => self.agents[*agent] = Some(self.containers),
            Step::Dismiss(agent) => self.agents[*agent] = None,
            _ => (),
        }
        for group in 0..DEVICES.len() {
            if !self.groups[group] && !self.device_open(group) {
                self.leave(group);
            }
        }
    }

    /// The driver unpins all pages when its device is closed.
    fn device_closed(&mut self, group: usize) {
        let is_last = group == PIN && !self.devices[PIN].contains(&true);
        if let Some(space) = self.joined[PIN].filter(|_| is_last) {
            self.spaces[space].twins.unpin(0, u64::MAX);
        }
    }

    /// Records that a group left its container.
    fn leave(&mut self, group: usize) {
        if let Some(space) = self.joined[group].take() {
            let space = &mut self.spaces[space];
            space.twins.leave(&self.reference, group);
            space.leave(group);
        }
    }

    fn requested(&mut self, space: usize, request: &Request, outcome: &Outcome) {
        let space = &mut self.spaces[space];
        let flags = request.structure().get_u32(4);
        match (request.nr, &request.argument) {
            (request::SET_IOMMU, Argument::Value(iommu)) if outcome.is_ok() => {
                space.iommu = Some(*iommu);
                space.twins.set_iommu(&self.reference, *iommu, self.limit);
            }
            (request::IOMMU_UNMAP_DMA, _) if outcome.is_ok() && flags & unmap::ALL != 0 => {
                space.twins.doubtful = false;
            }
            // The unmap stops half-way if its bitmap cannot be written.
            (request::IOMMU_UNMAP_DMA, _) => {
                let is_bad = outcome.result == Err(Errno::EFAULT);
                space.twins.doubtful |= flags & unmap::DIRTY != 0 && is_bad;
            }
            _ => (),
        }
    }
}
