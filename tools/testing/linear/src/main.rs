// SPDX-License-Identifier: GPL-2.0

//! Sends concurrent requests to a container, or to device files and groups, round by round, and
//! checks the answers.
//!
//! Each round of the first kind has its own backend: groups join, all threads of both processes send
//! their requests, then one thread reads and removes the remaining state, and the groups leave. Each
//! round of the second kind has its own iommufds and container, and in its end nothing is in use.
//! The library of this crate contains the models and the checker. `run`, beside this crate, executes
//! the program in a guest with the C modules or the Rust modules.

#![deny(unsafe_code)]

mod agent;
mod container;
mod device_file;
mod machine;
mod round;
mod session;
mod show;
mod target;

use anyhow::Result;
use clap::Parser;
use container::OneContainer;
use device_file::DeviceFiles;
use linear::defects::{
    DEFECTS,
    DEVICE_FILE_DEFECTS,
    Rules, //
};
use round::Sync;
use session::{
    Session,
    Tally, //
};
use std::time::Instant;
use target::{
    Settings,
    Target, //
};

/// The options.
#[derive(Debug, Parser)]
struct Options {
    /// Seed of all rounds.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The first round.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Maximum number of rounds.
    #[arg(long, default_value_t = u64::MAX)]
    rounds: u64,
    /// Stop after this number of requests.
    #[arg(long, default_value_t = 20_000)]
    requests: u64,
    /// Stop after this number of seconds.
    #[arg(long, default_value_t = u64::MAX)]
    seconds: u64,
    /// Other programs use VFIO at the same time: skip checks that cover all containers.
    #[arg(long)]
    shared: bool,
    /// Number of times to repeat each round.
    #[arg(long, default_value_t = 1)]
    repeat: u64,
    /// Stop after this number of rounds without an explanation.
    #[arg(long, default_value_t = 1)]
    violations: u64,
    /// Send requests to device files and groups instead of a container.
    #[arg(long)]
    device_files: bool,
    /// The modules are the C modules: accept their known defects.
    #[arg(long)]
    c: bool,
    /// Avoid requests that hang or crash C, but judge its answers by the strict model.
    #[arg(long)]
    strict: bool,
    /// Send requests that may hang or crash C.
    #[arg(long)]
    unspared: bool,
    /// Timeout of a round in seconds.
    #[arg(long, default_value_t = 100)]
    patience: u64,
    /// Print the plan of the first round and exit.
    #[arg(long)]
    plan: bool,
}

impl Options {
    /// Returns the rules by which requests are chosen.
    fn choice(&self) -> Rules {
        match self.c && !self.unspared {
            true => Rules::C,
            false => Rules::Strict,
        }
    }

    /// Returns the rules by which answers are judged.
    fn judgement(&self) -> Rules {
        match self.c && !self.strict {
            true => Rules::C,
            false => Rules::Strict,
        }
    }

    fn settings(&self) -> Result<Settings> {
        Ok(Settings {
            seed: self.seed,
            choice: self.choice(),
            judgement: self.judgement(),
            patience: self.patience,
            sync: Sync::create()?,
        })
    }
}

fn run<T: Target>(options: &Options) -> Result<Tally> {
    let mut session = Session::<T>::start(options.settings()?, options.shared)?;
    let start = Instant::now();
    let mut tally = Tally::default();
    'all: for number in options.first..options.first.saturating_add(options.rounds) {
        for _ in 0..options.repeat {
            session.round(number, &mut tally)?;
            let is_late = start.elapsed().as_secs() >= options.seconds;
            let is_enough = tally.requests >= options.requests;
            if is_late || is_enough || tally.violations >= options.violations {
                break 'all;
            }
        }
    }
    session.end()?;
    Ok(tally)
}

fn main() -> Result<()> {
    if let Some(words) = support::helper::command() {
        return agent::main(&words);
    }
    let options = Options::parse();
    let (settings, first) = (options.settings()?, options.first);
    if options.plan {
        print!(
            "{}",
            match options.device_files {
                true => show::plan(&DeviceFiles::plan(&settings, first)),
                false => show::plan(&OneContainer::plan(&settings, first)),
            }
        );
        return Ok(());
    }
    let tally = match options.device_files {
        true => run::<DeviceFiles>(&options)?,
        false => run::<OneContainer>(&options)?,
    };
    println!(
        "{} requests ({} of them overlapping) in {} rounds: {} without an explanation, {} undecided",
        tally.requests, tally.overlapping, tally.rounds, tally.violations, tally.undecided
    );
    if options.judgement() == Rules::C {
        println!("Known of C:");
        let defects: &[_] = match options.device_files {
            true => &DEVICE_FILE_DEFECTS,
            false => &DEFECTS,
        };
        for defect in defects {
            println!(
                "  {}: {}\n    Here: {}.",
                defect.name, defect.reason, defect.here
            );
        }
    }
    // Few searches exceed their budget. If many do, the run shows nothing.
    let is_decided = tally.undecided * 100 <= tally.rounds;
    std::process::exit(i32::from(tally.violations > 0 || !is_decided));
}
