// SPDX-License-Identifier: GPL-2.0

//! Sends a random sequence of requests to VFIO and prints the results.
//!
//! The sequence depends only on the seed and on the results: all addresses are fixed. On two
//! implementations of the interface, the outputs are therefore identical up to the first difference
//! in behaviour. `run`, beside this crate, executes the program in a guest with the C modules and
//! in a guest with the Rust modules, and compares the outputs.
//!
//! Each line is a step: its number, the request, `=` and its result, then fields such as `out=` for
//! the bytes of the request afterwards, and `locked=` for the locked memory of the process.
//! `unexpected=` shows the expectation of a sequential model of a container where the result
//! differs. `bitmap=` tells whether the dirty pages match the model; if not, it shows them.

#![deny(unsafe_code)]

use anyhow::{
    Result,
    ensure, //
};
use clap::Parser;
use differential::{
    agent,
    choices::Choices,
    generator::Generator,
    model::Model,
    world::World, //
};
use linear::defects::Rules;
use std::time::Instant;

/// The options.
#[derive(Parser)]
struct Options {
    /// Seed of the sequence.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of steps.
    #[arg(long, default_value_t = 10_000)]
    steps: u64,
    /// Stop after this number of seconds.
    #[arg(long, default_value_t = u64::MAX)]
    seconds: u64,
    /// The modules are the C modules: expect their known defects.
    #[arg(long)]
    c: bool,
    /// Fail at the first result that the model does not expect.
    #[arg(long)]
    check: bool,
}

fn main() -> Result<()> {
    if let Some(done) = agent::main_if_asked() {
        return done;
    }
    let options = Options::parse();
    let before = differential::left();
    let mut world = World::new()?;
    let rules = if options.c { Rules::C } else { Rules::Strict };
    let mut model = Model::new(rules);
    let mut generator = Generator::new(Choices::of_seed(options.seed));
    let start = Instant::now();
    for number in 1..=options.steps {
        if start.elapsed().as_secs() >= options.seconds {
            break;
        }
        let Some(step) = generator.next(&model) else {
            break;
        };
        let mut outcome = world.perform(&step)?;
        model.learn(&step, &mut outcome);
        println!("{number} {step} = {outcome}");
        ensure!(
            !options.check || outcome.is_expected(),
            "the model does not expect the result of step {number}"
        );
    }
    world.finish()?;
    println!("end {}", differential::settle(&before));
    Ok(())
}
