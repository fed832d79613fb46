// SPDX-License-Identifier: GPL-2.0

//! Execution of one input.

use anyhow::Result;
use differential::{
    choices::Choices,
    generator::Generator,
    model::Model,
    step::Step,
    trace::Outcome,
    world::World, //
};
use linear::defects::Rules;

/// The result of an input.
#[derive(Debug)]
pub struct Sequence {
    /// The number of steps.
    pub steps: usize,
    /// A description of the first unexpected answer.
    pub strange: Option<String>,
}

/// Runs an input in a new world, up to the first unexpected answer. `perform` executes each step.
pub fn run(
    input: &[u8],
    rules: Rules,
    mut perform: impl FnMut(&mut World, &Step) -> Result<Outcome>,
) -> Result<Sequence> {
    let mut world = World::new()?;
    let mut model = Model::new(rules);
    let mut generator = Generator::new(Choices::of_bytes(input));
    let mut sequence = Sequence {
        steps: 0,
        strange: None,
    };
    while let Some(step) = generator.next(&model) {
        let mut outcome = perform(&mut world, &step)?;
        model.learn(&step, &mut outcome);
        sequence.steps += 1;
        if !outcome.is_expected() {
            sequence.strange = Some(format!("step {}: {step} = {outcome}", sequence.steps));
            break;
        }
    }
    world.finish()?;
    Ok(sequence)
}
