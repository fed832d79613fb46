// SPDX-License-Identifier: GPL-2.0

//! Keeps all kinds of users of VFIO at work at once, for as long as it is told, on a machine that is disturbed
//! meanwhile.
//!
//! Time is divided into rounds. In a round each kind of program works on devices of its own
//! ([`workers`]), while memory runs short, processors come and go, and programs are killed ([`disturb`]).
//! After a round all programs end, the modules are unloaded, and the machine must be as it was before the
//! first one ([`machine`]). `run`, beside this crate, does it in a guest.

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

/// What to do.
#[derive(Debug, Parser)]
struct Options {
    /// What all random choices depend on.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// For how many seconds rounds begin.
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// How many seconds programs work in a round.
    #[arg(long, default_value_t = 60)]
    round: u64,
    /// The modules are those of C: spare them what they don't survive.
    #[arg(long)]
    c: bool,
    /// The SHA-256 of the disk that is read.
    #[arg(long)]
    disk: String,
}

/// One round: work, then what is left of it. False means that the machine is of no more use.
fn round(
    number: u64,
    options: &Options,
    kinds: &mut Kinds,
    machine: &Machine,
    report: &mut Report,
) -> Result<bool> {
    let seed = options.seed.wrapping_mul(1_000_003).wrapping_add(number);
    let end = Instant::now() + Duration::from_secs(options.round);
    let outcomes = thread::scope(|scope| {
        let disturbances = [
            scope.spawn(move || disturb::memory(seed, end)),
            scope.spawn(move || disturb::limit(seed, end)),
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
    disturb::prepare()?;
    let machine = Machine::new()?;
    let mut kinds = Kinds::new(&options.disk, options.c);
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
        // Another one must fit in.
        if !goes_on || (start.elapsed() + began.elapsed()).as_secs() > options.seconds {
            break;
        }
    }
    kinds.all_have_worked(&mut report);
    Ok(report.finish())
}
