// SPDX-License-Identifier: GPL-2.0

//! Measures what requests of VFIO cost, inside of a virtual machine.
//!
//! Each line of output is the name of a figure, a tab, and the samples of it with spaces between them.
//! `tools/testing/bench/report.py` knows the units.
//!
//! Requests are prepared beforehand: what is measured is the system call, with the look of
//! [`vfio_client::raw`] at its addresses, which is the same for all modules.

#![forbid(unsafe_code)]

mod base;
mod core;
mod edu;
mod large;
mod mdev;
mod measure;
mod memory;
mod pamu;
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
    /// Only figures whose names have this in them; may be given more than once.
    #[arg(long)]
    only: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
enum What {
    /// Instructions, on a machine that executes one a nanosecond; and memory.
    Costs,
    /// Of these: containers, groups, devices.
    Core,
    /// Of these: mappings of one page.
    Small,
    /// Of these: pages that drivers ask for.
    Pins,
    /// Of these: mappings of 1 GiB.
    Large,
    /// Instructions of windows behind a PAMU, and of the same by page tables.
    Pamu,
    /// Instructions of mediated devices.
    Mdev,
    /// What goes on at the same time, on a machine with two processors.
    Parallel,
}

/// Measures a part with the group of a device.
type Measure = fn(&str) -> Result<()>;

/// The parts of [`What::Costs`].
const COSTS: [(What, Measure); 4] = [
    (What::Core, core::measure),
    (What::Small, small::measure),
    (What::Pins, pins::measure),
    (What::Large, large::measure),
];

fn main() -> Result<()> {
    let args = Args::parse();
    measure::want(args.only);
    let base = Base::take(&args.device)?;
    match args.what {
        What::Parallel => parallel::measure(&args.device)?,
        What::Pamu => pamu::measure(&args.device)?,
        What::Mdev => mdev::measure()?,
        _ => {}
    }
    for (part, measure) in COSTS {
        if args.what == part || args.what == What::Costs {
            measure(&args.device)?;
        }
    }
    base.check()
}
