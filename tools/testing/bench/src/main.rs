// SPDX-License-Identifier: GPL-2.0

//! Measures the cost of VFIO requests in a virtual machine.
//!
//! Each line of output has the name of a figure, a tab, and its samples separated by spaces.
//! `tools/testing/bench/report.py` knows the units.
//!
//! Requests are prepared in advance. The measured part is the system call and the address check of
//! [`vfio_client::raw`], which is the same for all modules.

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
mod ways;

use anyhow::Result;
use base::Base;
use clap::{
    Parser,
    ValueEnum, //
};

/// Measures the cost of VFIO requests.
#[derive(Parser)]
struct Args {
    /// The part to measure.
    what: What,
    /// The edu device whose group is used, for example 0000:00:03.0.
    device: String,
    /// The way to a DMA address space, for the part `ways`.
    #[arg(long, value_enum, default_value = "type1")]
    way: ways::Way,
    /// In the part `ways`, leave out the requests for memory that an iommufd takes without vfio.ko.
    #[arg(long)]
    only_devices: bool,
    /// Measure only figures whose names contain this text; can be repeated.
    #[arg(long)]
    only: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum, PartialEq, Eq)]
enum What {
    /// Instructions, on a machine that executes one per nanosecond; and memory.
    Costs,
    /// Part of costs: containers, groups, devices.
    Core,
    /// Part of costs: mappings of one page.
    Small,
    /// Part of costs: pages that drivers pin.
    Pins,
    /// Part of costs: mappings of 1 GiB.
    Large,
    /// Instructions for windows behind a PAMU, and for the same memory in page tables.
    Pamu,
    /// Instructions for mediated devices.
    Mdev,
    /// Instructions and memory of the same work in one of the ways to a DMA address space.
    Ways,
    /// Concurrent requests, on a machine with two processors.
    Parallel,
}

/// A function that measures a part with the group of a device.
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
        What::Ways => ways::measure(args.way, &args.device, args.only_devices)?,
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
