// SPDX-License-Identifier: GPL-2.0

//! Sends a random sequence of requests to VFIO and writes down what comes back.
//!
//! The sequence depends on the seed and on what came back, on nothing else: all addresses are fixed.
//! So on two implementations of the same interface it is the same, line by line, until the first
//! difference between them. `run`, beside this crate, has it go through a guest with the C modules and
//! one with ours, and compares.
//!
//! Each line is a step: its number, what was done, `=` and what that returned, then fields such as
//! `out=` for the bytes of the request afterwards, and `locked=` for the process's locked memory. What a
//! sequential model of a container expects otherwise is there as `unexpected=`; `bitmap=` says whether
//! the dirty pages are those of the model, or which there are.

#![deny(unsafe_code)]

use anyhow::Result;
use clap::Parser;
use differential::{
    agent,
    choices::Choices,
    generator::Generator,
    model::Model,
    world::World, //
};
use linear::defects::Rules;
use std::{
    thread,
    time::{
        Duration,
        Instant, //
    },
};

/// What to do.
#[derive(Parser)]
struct Options {
    /// Where the sequence begins.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many steps there are.
    #[arg(long, default_value_t = 10_000)]
    steps: u64,
    /// End after so many seconds.
    #[arg(long, default_value_t = u64::MAX)]
    seconds: u64,
    /// The modules are those of C: their known defects are expected.
    #[arg(long)]
    c: bool,
}

fn main() -> Result<()> {
    if let Some(done) = agent::main_if_asked() {
        return done;
    }
    let options = Options::parse();
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
    }
    world.finish()?;
    // The kernel ends some things a moment after the last close.
    thread::sleep(Duration::from_millis(500));
    println!("end {}", differential::left());
    Ok(())
}
