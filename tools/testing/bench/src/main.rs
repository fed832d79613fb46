// SPDX-License-Identifier: GPL-2.0

//! Measures what requests of VFIO cost, inside of a virtual machine.
//!
//! Each line of output is the name of a figure, a tab, and the figure. `tools/testing/bench/report.py`
//! knows the units.
//!
//! Requests are prepared beforehand: what is measured is the system call, with the look of
//! [`vfio_client::raw`] at its addresses, which is the same for all modules.

#![forbid(unsafe_code)]

mod base;
mod core;
mod large;
mod measure;
mod memory;
mod parallel;
mod pins;
mod request;
mod small;

use anyhow::Result;
use base::Base;
use clap::{
    Parser,
    ValueEnum, //
};

/// Measures what requests of VFIO cost.
#[derive(Parser)]
struct Args {
    /// What to measure.
    what: What,
    /// The edu device whose group is used, as in 0000:00:03.0.
    device: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Instructions, on a machine that executes one a nanosecond; and memory.
    Costs,
    /// What goes on at the same time, on a machine with two processors.
    Parallel,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let base = Base::take(&args.device)?;
    match args.what {
        What::Costs => {
            core::measure(&args.device)?;
            small::measure(&args.device)?;
            pins::measure(&args.device)?;
            large::measure(&args.device)?;
        }
        What::Parallel => parallel::measure(&args.device)?,
    }
    base.check()
}
