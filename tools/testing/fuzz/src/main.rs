// SPDX-License-Identifier: GPL-2.0

//! Searches for sequences of requests that reach new code of the VFIO modules, and for answers that
//! the model of a container, or that of device files, does not expect.
//!
//! An input is a sequence of bytes. The generator of the differential test, or the one of requests
//! to device files, derives its choices from them, so each input is a sequence of requests, and changing a byte changes a choice. KCOV
//! reports the code reached in the kernel; LibAFL mutates the inputs that reached new code.
//!
//! Events are written as lines to the port `--events`: `run INPUT` before each run, `keep INPUT`,
//! `found INPUT WORDS...`, `runs COUNT`, and `reached MODULE FUNCTION POINTS`.

#![deny(unsafe_code)]

mod abi;
mod corpus;
mod coverage;
mod device_files;
#[cfg(feature = "engine")]
mod engine;
mod events;
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
    left,
    settle, //
};
use events::Events;
use linear::defects::Rules;
use sequence::{
    Sequence,
    Subject, //
};
use std::{
    collections::HashSet,
    path::PathBuf, //
};

/// Search for sequences of requests that reach new code, and for wrong answers.
#[derive(Parser)]
struct Options {
    /// The modules are the C modules: expect their known defects.
    #[arg(long, global = true)]
    c: bool,
    /// Send requests to device files and groups instead of containers.
    #[arg(long, global = true)]
    device_files: bool,
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// Mutate the inputs of a file for some time.
    #[cfg(feature = "engine")]
    Search {
        /// Inputs, one per line, as hexadecimal digits.
        corpus: PathBuf,
        /// Port for the events.
        #[arg(long)]
        events: String,
        /// Duration in seconds.
        #[arg(long)]
        seconds: u64,
        /// Seed of the random choices.
        #[arg(long)]
        seed: u64,
    },
    /// Select a subset of the inputs of a file with the same coverage.
    Minimize {
        /// Inputs, one per line, as hexadecimal digits.
        corpus: PathBuf,
        /// Port for the events.
        #[arg(long)]
        events: String,
    },
    /// Run all inputs of a file.
    Replay {
        /// Inputs, one per line, as hexadecimal digits.
        corpus: PathBuf,
    },
    /// Run the inputs of a file up to the first defect, and print each step.
    Show {
        /// Inputs, one per line, as hexadecimal digits.
        corpus: PathBuf,
    },
}

fn main() -> Result<()> {
    if let Some(done) = agent::main_if_asked() {
        return done;
    }
    let options = Options::parse();
    let rules = if options.c { Rules::C } else { Rules::Strict };
    let subject = Subject::new(rules, options.device_files)?;
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
            let time = std::time::Duration::from_secs(seconds);
            engine::search(inputs, &subject, seed, time, &mut events)
        }
        Work::Minimize { corpus, events } => {
            let mut events = Events::open(&events)?;
            minimize(corpus::read(&corpus)?, &subject, &mut events)
        }
        Work::Replay { corpus } => replay(&corpus::read(&corpus)?, &subject),
        Work::Show { corpus } => corpus::read(&corpus)?
            .iter()
            .try_for_each(|input| show(input, &subject)),
    }
}

/// Keeps the inputs that reach points that no shorter input reached.
fn minimize(mut inputs: Vec<Vec<u8>>, subject: &Subject, events: &mut Events) -> Result<()> {
    inputs.sort_by_key(Vec::len);
    let mut coverage = Coverage::new()?;
    let mut seen = HashSet::new();
    for input in &inputs {
        events.run(input)?;
        let mut is_new = false;
        let ran = subject.run(input, &mut |_, work| {
            coverage.trace(work, |point| is_new |= seen.insert(point))
        })?;
        if is_new && ran.strange.is_none() {
            events.keep(input)?;
        }
    }
    events.coverage(&coverage)
}

/// Runs all inputs. Prints unexpected answers and fails if there are any.
fn replay(inputs: &[Vec<u8>], subject: &Subject) -> Result<()> {
    let before = left();
    let (mut steps, mut strange) = (0, 0);
    for input in inputs {
        let ran = subject.run(input, &mut |_, work| work())?;
        steps += ran.steps;
        if let Some(words) = ran.strange {
            strange += 1;
            println!("{} {words}", corpus::hex(input));
        }
    }
    let after = settle(&before);
    println!("{} sequences of {steps} steps in all", inputs.len());
    ensure!(
        strange == 0,
        "{strange} inputs had answers that the model does not expect"
    );
    ensure!(after == before, "state before: {before}; after: {after}");
    Ok(())
}

/// Runs an input and prints each step.
fn show(input: &[u8], subject: &Subject) -> Result<()> {
    let Sequence { strange, .. } = subject.run(input, &mut |step, work| {
        let outcome = work()?;
        println!("{step} = {outcome}");
        Ok(outcome)
    })?;
    strange.map_or(Ok(()), |words| Err(anyhow!(words)))
}
