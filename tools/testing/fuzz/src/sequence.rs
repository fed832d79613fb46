// SPDX-License-Identifier: GPL-2.0

//! Execution of one input.

use crate::device_files;
use anyhow::Result;
use differential::{
    choices::Choices,
    generator::Generator,
    model::Model,
    trace::Outcome,
    world::World, //
};
use linear::{
    defects::Rules,
    device_files::files::Machine, //
};
use std::fmt::Display;

/// The result of an input.
#[derive(Debug, Default)]
pub struct Sequence {
    /// The number of steps.
    pub steps: usize,
    /// A description of the first unexpected answer.
    pub strange: Option<String>,
}

impl Sequence {
    /// Adds a step. Returns whether its outcome is unexpected.
    pub fn add(&mut self, step: &dyn Display, outcome: &Outcome) -> bool {
        self.steps += 1;
        let is_strange = !outcome.is_expected();
        if is_strange {
            self.strange = Some(format!("step {}: {step} = {outcome}", self.steps));
        }
        is_strange
    }
}

/// Executes a step, which the second argument does.
pub type Perform<'a> =
    dyn FnMut(&dyn Display, &mut dyn FnMut() -> Result<Outcome>) -> Result<Outcome> + 'a;

/// What the requests of all inputs are sent to.
#[derive(Debug)]
pub struct Subject {
    /// The rules of the modules.
    rules: Rules,
    /// Device files and groups, instead of containers and their backend.
    device_files: Option<Machine>,
}

impl Subject {
    /// Prepares the machine.
    pub fn new(rules: Rules, device_files: bool) -> Result<Self> {
        Ok(Self {
            rules,
            device_files: device_files.then(Machine::new).transpose()?,
        })
    }

    /// Runs an input with nothing open at its start, up to the first unexpected answer. `perform`
    /// executes each step.
    pub fn run(&self, input: &[u8], perform: &mut Perform<'_>) -> Result<Sequence> {
        match &self.device_files {
            Some(machine) => device_files::run(machine, self.rules, input, perform),
            None => run(self.rules, input, perform),
        }
    }
}

/// Runs an input in a new world.
fn run(rules: Rules, input: &[u8], perform: &mut Perform<'_>) -> Result<Sequence> {
    let mut world = World::new()?;
    let mut model = Model::new(rules);
    let mut generator = Generator::new(Choices::of_bytes(input));
    let mut sequence = Sequence::default();
    while let Some(step) = generator.next(&model) {
        let mut outcome = perform(&step, &mut || world.perform(&step))?;
        model.learn(&step, &mut outcome);
        if sequence.add(&step, &outcome) {
            break;
        }
    }
    world.finish()?;
    Ok(sequence)
}
