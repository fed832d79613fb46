// SPDX-License-Identifier: GPL-2.0

//! Chooses the steps.

mod backend;
mod device;
mod structure;

use crate::{
    choices::Choices,
    model::Model,
    step::{
        AGENTS,
        CONTAINERS,
        File,
        Step, //
    },
};
use support::requests::UnmapDma;

/// The generator of steps.
#[derive(Debug)]
pub struct Generator<'a> {
    choices: Choices<'a>,
}

impl<'a> Generator<'a> {
    /// Creates a generator.
    pub fn new(choices: Choices<'a>) -> Self {
        Self { choices }
    }

    /// Returns a step that can be executed, or `None` when the choices are used up.
    pub fn next(&mut self, model: &Model) -> Option<Step> {
        while !self.choices.is_over() {
            if let Some(step) = self.clear_doubts(model) {
                return Some(step);
            }
            let step = match self.choices.u32(0..100) {
                0..60 => self.backend_step(model),
                60..72 => self.device_step(model),
                72..84 => self.structure_step(model),
                84..90 => Some(self.memory_step()),
                90..97 => self.agent_step(model),
                97 => Some(self.parameter_step()),
                _ => self.group_step(model),
            };
            if step.is_some() {
                return step;
            }
        }
        None
    }

    /// If an unmap stopped half-way, the remaining mappings are unknown. Returns a step that unmaps
    /// everything.
    fn clear_doubts(&mut self, model: &Model) -> Option<Step> {
        let doubtful = |slot: &usize| {
            model
                .container(*slot)
                .is_some_and(|space| space.twins.doubtful)
        };
        let slot = (0..CONTAINERS).find(doubtful)?;
        Some(Step::Send {
            file: File::Container(slot),
            request: UnmapDma::all().into(),
            bitmap: None,
        })
    }

    /// Returns one of several values.
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.choices.usize(0..from.len())]
    }

    /// Returns true with a probability of `chance` percent.
    fn percent(&mut self, chance: u32) -> bool {
        self.choices.u32(0..100) < chance
    }

    /// Returns the usual value with a probability of `chance` percent, otherwise one of the others.
    fn mostly<T: Copy>(&mut self, usual: T, chance: u32, others: &[T]) -> T {
        if self.percent(chance) {
            usual
        } else {
            self.pick(others)
        }
    }

    fn agent_step(&mut self, model: &Model) -> Option<Step> {
        let agent = self.choices.usize(0..AGENTS);
        if !model.agent_runs(agent) {
            let limit = self.pick(&[None, Some(0), Some(2), Some(20), Some(600)]);
            return self.percent(50).then_some(Step::Hire(agent, limit));
        }
        if self.percent(6) {
            return Some(Step::Dismiss(agent));
        }
        let slot = self.choices.usize(0..CONTAINERS);
        let space = model.agents_container(agent, slot)?;
        if space.iommu.is_none() && self.percent(90) {
            return None;
        }
        let request = self.agents_request(space);
        crate::agent::can_send(&request).then_some(Step::Delegate(agent, slot, request))
    }

    fn parameter_step(&mut self) -> Step {
        match self.choices.u32(0..3) {
            0 => {
                let limits = [
                    "65535",
                    "65535",
                    "65535",
                    "3",
                    "12",
                    "40",
                    "0",
                    "-1",
                    "x",
                    "4294967296",
                ];
                Step::Parameter("dma_entry_limit", self.pick(&limits))
            }
            1 => Step::Parameter("disable_hugepages", self.pick(&["Y", "N", "2"])),
            _ => Step::Parameter("allow_unsafe_interrupts", self.pick(&["1", "0", ""])),
        }
    }
}
