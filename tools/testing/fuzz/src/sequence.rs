// SPDX-License-Identifier: GPL-2.0

//! Runs one input.

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

/// What came of an input.
#[derive(Debug)]
pub struct Sequence {
    /// How many steps it had.
    pub steps: usize,
    /// The first answer that was not expected, in words.
    pub strange: Option<String>,
}

/// Runs an input in a world of its own, up to the first answer that is not expected. Each step is done by
/// `perform`.
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
