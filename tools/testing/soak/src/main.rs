// SPDX-License-Identifier: GPL-2.0

//! Runs all kinds of VFIO users concurrently for a given time, on a machine that is disturbed
//! meanwhile.
//!
//! The run consists of rounds. In a round, each kind of program works on its own devices
//! ([`workers`]), while memory runs low, processors go offline and online, and programs are killed
//! ([`disturb`]). After a round all programs have ended, the modules are unloaded, and the machine
//! must be in the state before the first round ([`machine`]). `run`, beside this crate, executes
//! the program in a guest.

#![forbid(unsafe_code)]

mod disturb;
mod machine;
mod report;
mod workers;

use anyhow::Result;
use clap::Parser;
use machine::Machine;
use report::Report;
use std::{
    process::ExitCode,
    thread,
    time::{
        Duration,
        Instant, //
    },
};
use workers::Kinds;

/// The options.
#[derive(Debug, Parser)]
struct Options {
    /// Seed of all random choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Total duration in seconds.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Duration of the programs' work in a round, in seconds.
    #[arg(long, default_value_t = 60)]
    round: u64,
    /// The modules are the C modules: skip programs that they do not survive.
    #[arg(long)]
    c: bool,
    /// The expected SHA-256 of the disk.
    #[arg(long)]
    disk: String,
}

/// Executes one round: work, then the checks. Returns false if the machine cannot be used any more.
fn round(
    number: u64,
    options: &Options,
    kinds: &mut Kinds,
    machine: &Machine,
    report: &mut Report,
) -> Result<bool> {
    let seed = options.seed.wrapping_mul(1_000_003).wrapping_add(number);
    let end = Instant::now() + Duration::from_secs(options.round);
    let cgroup = &kinds.cgroup;
    let outcomes = thread::scope(|scope| {
        let disturbances = [
            scope.spawn(move || disturb::memory(seed, end)),
            scope.spawn(move || disturb::limit(cgroup, seed, end)),
            scope.spawn(move || disturb::processors(seed, end)),
        ];
        let outcomes = kinds.work(seed, end);
        for disturbance in disturbances {
            let done = disturbance.join().unwrap_or_else(|panic| {
                std::panic::resume_unwind(panic);
            });
            report.check("the machine could be disturbed", done);
        }
        outcomes
    })?;
    let hangs = outcomes.hang;
    kinds.judge(outcomes, report);
    if hangs {
        machine::blocked_tasks()?;
        return Ok(false);
    }
    report.check("no page stays pinned", machine.check_pins());
    let unloaded = machine.unload();
    let goes_on = unloaded.is_ok();
    report.check("the modules can be unloaded", unloaded);
    if goes_on {
        report.check("the machine is as it was", machine.check());
        report.check("kmemleak finds nothing", machine::check_leaks());
        machine.load()?;
    }
    report.check("the kernel warns of nothing", machine::check_taint());
    Ok(goes_on)
}

fn main() -> Result<ExitCode> {
    let options = Options::parse();
    println!("seed {}", options.seed);
    let start = Instant::now();
    let cgroup = disturb::prepare()?;
    let machine = Machine::new()?;
    let mut kinds = Kinds::new(&options.disk, options.c, cgroup);
    let mut report = Report::default();
    for number in 1.. {
        report.begin(number);
        let began = Instant::now();
        let goes_on = round(number, &options, &mut kinds, &machine, &mut report)?;
        println!(
            "round {number}: {} s, {} s left: {}",
            began.elapsed().as_secs(),
            options.seconds.saturating_sub(start.elapsed().as_secs()),
            kinds.summary()
        );
        // Stop if the remaining time is too short for another round.
        if !goes_on || (start.elapsed() + began.elapsed()).as_secs() > options.seconds {
            break;
        }
    }
    kinds.all_have_worked(&mut report);
    Ok(report.finish())
}
