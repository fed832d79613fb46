// SPDX-License-Identifier: GPL-2.0

//! Tests of the userspace interface of VFIO, run inside of a virtual machine.
//!
//! Every case must pass on the kernel's own C modules before it says anything about ours. A case is
//! named after what it shows; ids such as `c07` or `t_u08` are those of the table of features in the
//! ABI documentation. After each case [`leak`] checks that nothing stayed behind.
//!
//! The machine: an `edu` device at 00:03.0, an NVMe disk at 00:04.0, a second `edu` at 00:05.0 which
//! shares its group with a device of another driver at 00:05.1. See `run` beside this crate.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod abi;
mod cases;
mod cgroup;
mod core_test;
mod e1000e;
mod env;
mod fail_nth;
mod harness;
mod helper;
mod kmsg;
mod leak;
mod mdev;
mod migration;
mod modules;
mod pin;
mod plug;
mod qmp;
mod soak;
mod stall;
mod stress;
mod threads;
mod tracing;
mod uevent;

use clap::Parser;
use libtest_mimic::{
    Arguments,
    run, //
};
use std::process::ExitCode;

/// Which cases fit the machine that they run in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Set {
    /// A machine whose IOMMU isolates interrupts.
    Main,
    /// A machine without interrupt remapping.
    Nointremap,
    /// The first, with the kernel's sample drivers of mediated devices.
    Mdev,
    /// The first, with a driver that pins pages.
    Pinning,
    /// The first, with a driver that calls what the core offers to modules, and with KVM.
    Exports,
    /// The first, with network controllers, one of them with virtual functions.
    Nic,
    /// A machine without an IOMMU.
    Noiommu,
    /// The first, with a PAMU in software and devices behind it.
    Pamu,
    /// The first, with accelerators that can be peers.
    P2p,
    /// The first, with places where devices are plugged in and pulled out.
    Hotplug,
    /// As `pinning`, to stop requests halfway.
    Stalls,
    /// As `pinning`, with a sample driver of mediated devices, to have requests fail.
    Failing,
    /// As the first, for as long as it takes to find races.
    Stress,
}

/// The arguments of libtest, and ours.
#[derive(Parser)]
struct Options {
    /// Which set of cases to run.
    #[arg(long, value_enum, default_value = "main")]
    set: Set,
    #[command(flatten)]
    test: Arguments,
}

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    if words.next().as_deref() == Some(helper::FLAG) {
        return helper::main(&words.collect::<Vec<_>>());
    }
    let mut options = Options::parse();
    // Groups are exclusive and counters are global, so cases can't run side by side.
    options.test.test_threads = Some(1);
    let trials = match options.set {
        Set::Main => cases::main_set(),
        Set::Nointremap => cases::nointremap_set(),
        Set::Mdev => cases::mdev_set(),
        Set::Pinning => cases::pinning_set(),
        Set::Exports => cases::exports_set(),
        Set::Nic => cases::nic_set(),
        Set::Noiommu => cases::noiommu_set(),
        Set::Pamu => cases::pamu_set(),
        Set::P2p => cases::p2p_set(),
        Set::Hotplug => cases::hotplug_set(),
        Set::Stalls => cases::stalls_set(),
        Set::Failing => cases::failing_set(),
        Set::Stress => cases::stress_set(),
    };
    run(&options.test, trials).exit_code()
}
