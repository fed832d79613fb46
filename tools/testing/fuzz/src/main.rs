// SPDX-License-Identifier: GPL-2.0

//! Looks for sequences of requests that reach new code of VFIO's modules, and for answers that the
//! model of a container doesn't expect.
//!
//! An input is bytes. The generator of the differential test makes its choices by them, so that each
//! input is a sequence of requests, and a change of a byte is a change of some choice. KCOV tells what
//! the kernel did in each of them, LibAFL changes the inputs that reached something new.
//!
//! What happens is told as lines of words to the port `--events`: `run INPUT` before each run, `keep INPUT`,
//! `found INPUT WORDS...`, `runs COUNT`, and `reached MODULE FUNCTION POINTS`.

#![deny(unsafe_code)]

mod abi;
mod corpus;
mod coverage;
#[cfg(feature = "engine")]
mod engine;
mod events;
#[cfg(feature = "engine")]
mod kernel;
mod sequence;

use anyhow::{
    Result,
    anyhow,
    ensure, //
};
use clap::{
    Parser,
    Subcommand, //
};
use coverage::Coverage;
use differential::{
    agent,
    left, //
};
use events::Events;
use linear::defects::Rules;
use sequence::Sequence;
use std::{
    collections::HashSet,
    path::PathBuf,
    thread,
    time::Duration, //
};

/// Looks for sequences of requests that reach new code, and for wrong answers.
#[derive(Parser)]
struct Options {
    /// The modules are those of C: their known defects are expected.
    #[arg(long, global = true)]
    c: bool,
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// Changes the inputs of a file, and what comes of them, for some time.
    #[cfg(feature = "engine")]
    Search {
        /// Inputs, one a line, as hexadecimal digits.
        corpus: PathBuf,
        /// Where to tell what happens.
        #[arg(long)]
        events: String,
        /// For how many seconds.
        #[arg(long)]
        seconds: u64,
        /// What the random choices depend on.
        #[arg(long)]
        seed: u64,
    },
    /// Says which inputs of a file are enough to reach what all of them reach.
    Minimize {
        /// Inputs, one a line, as hexadecimal digits.
        corpus: PathBuf,
        /// Where to tell what happens.
        #[arg(long)]
        events: String,
    },
    /// Runs all inputs of a file.
    Replay {
        /// Inputs, one a line, as hexadecimal digits.
        corpus: PathBuf,
    },
    /// Runs the inputs of a file, up to one with a defect, and prints each step.
    Show {
        /// Inputs, one a line, as hexadecimal digits.
        corpus: PathBuf,
    },
}

fn main() -> Result<()> {
    if let Some(done) = agent::main_if_asked() {
        return done;
    }
    let options = Options::parse();
    let rules = if options.c { Rules::C } else { Rules::Strict };
    match options.work {
        #[cfg(feature = "engine")]
        Work::Search {
            corpus,
            events,
            seconds,
            seed,
        } => {
            let mut events = Events::open(&events)?;
            let inputs = corpus::read(&corpus)?;
            let time = Duration::from_secs(seconds);
            engine::search(inputs, rules, seed, time, &mut events)
        }
        Work::Minimize { corpus, events } => {
            minimize(corpus::read(&corpus)?, rules, &mut Events::open(&events)?)
        }
        Work::Replay { corpus } => replay(&corpus::read(&corpus)?, rules),
        Work::Show { corpus } => corpus::read(&corpus)?
            .iter()
            .try_for_each(|input| show(input, rules)),
    }
}

/// Keeps the inputs that reach what no shorter one has reached.
fn minimize(mut inputs: Vec<Vec<u8>>, rules: Rules, events: &mut Events) -> Result<()> {
    inputs.sort_by_key(Vec::len);
    let mut coverage = Coverage::new()?;
    let mut seen = HashSet::new();
    for input in &inputs {
        events.run(input)?;
        let mut is_new = false;
        let ran = sequence::run(input, rules, |world, step| {
            coverage.trace(|| world.perform(step), |point| is_new |= seen.insert(point))
        })?;
        if is_new && ran.strange.is_none() {
            events.keep(input)?;
        }
    }
    events.coverage(&coverage)
}

/// Runs all inputs; what is wrong with one is printed, and is an error.
fn replay(inputs: &[Vec<u8>], rules: Rules) -> Result<()> {
    let before = left();
    let (mut steps, mut strange) = (0, 0);
    for input in inputs {
        let ran = sequence::run(input, rules, |world, step| world.perform(step))?;
        steps += ran.steps;
        if let Some(words) = ran.strange {
            strange += 1;
            println!("{} {words}", corpus::hex(input));
        }
    }
    // The kernel ends some things a moment after the last close.
    thread::sleep(Duration::from_millis(500));
    println!("{} sequences of {steps} steps in all", inputs.len());
    ensure!(strange == 0, "{strange} answers were not expected");
    ensure!(left() == before, "{before} was there before, {} is", left());
    Ok(())
}

/// Runs an input and prints each step.
fn show(input: &[u8], rules: Rules) -> Result<()> {
    let Sequence { strange, .. } = sequence::run(input, rules, |world, step| {
        let outcome = world.perform(step)?;
        println!("{step} = {outcome}");
        Ok(outcome)
    })?;
    strange.map_or(Ok(()), |words| Err(anyhow!(words)))
}
