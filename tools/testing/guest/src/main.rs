// SPDX-License-Identifier: GPL-2.0

//! Tests of the userspace interface of VFIO. They run in a virtual machine.
//!
//! Each case must pass with the C modules before its result with the Rust modules counts. After
//! each case, [`leak`] checks that nothing is left behind. `#[rows("T-U8")]` in the lists of
//! [`cases`] refers to a row of `Documentation/features.rst`; see [`harness::cases`].
//!
//! The machine has an `edu` device at 00:03.0, an NVMe disk at 00:04.0, and a second `edu` at
//! 00:05.0 that shares its group with a device of another driver at 00:05.1. See `run` beside this
//! crate.

#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod abi;
mod cases;
mod core_test;
mod dma_logging;
mod env;
mod fail_nth;
mod feature;
mod harness;
mod helper;
mod leak;
mod mdev;
mod migration;
mod modules;
mod pin;
mod plug;
mod qmp;
mod requires;
mod slow_sysfs;
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

/// The sets of cases, by the machine that they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Set {
    /// A machine whose IOMMU isolates interrupts.
    Main,
    /// A machine without interrupt remapping.
    Nointremap,
    /// As `main`, with the kernel's sample drivers of mediated devices.
    Mdev,
    /// As `main`, with a driver that pins pages.
    Pinning,
    /// As `main`, with a driver that calls the functions exported by the core, and with KVM.
    Exports,
    /// As `main`, with network controllers, one of which has virtual functions.
    Nic,
    /// A machine without an IOMMU.
    Noiommu,
    /// As `main`, with a software PAMU and devices behind it.
    Pamu,
    /// A machine with a PAMU that the module drives by its registers.
    PamuHardware,
    /// As `main`, with accelerators that support peer-to-peer groups.
    P2p,
    /// As `p2p`, with a driver in C.
    P2pC,
    /// As `main`, on a kernel with device files and IOMMUFD, with network controllers, the
    /// kernel's sample drivers of mediated devices and a driver that pins pages.
    Iommufd,
    /// As `main`, with slots for hotplug.
    Hotplug,
    /// As `pinning`, with requests that stop halfway.
    Stalls,
    /// As `pinning`, with a sample driver of mediated devices, and with injected failures.
    Failing,
    /// As `main`, for as long as it takes to find races.
    Stress,
}

/// The arguments of libtest and of this program.
#[derive(Parser)]
struct Options {
    /// The set of cases to run.
    #[arg(long, value_enum, default_value = "main")]
    set: Set,
    #[command(flatten)]
    test: Arguments,
}

fn main() -> ExitCode {
    if let Some(words) = support::helper::command() {
        return helper::main(&words);
    }
    let mut options = Options::parse();
    // Groups are exclusive and counters are global, so cases cannot run concurrently.
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
        Set::PamuHardware => cases::pamu_hardware_set(),
        Set::P2p => cases::p2p_set(),
        Set::P2pC => cases::p2p_c_set(),
        Set::Iommufd => cases::iommufd_set(),
        Set::Hotplug => cases::hotplug_set(),
        Set::Stalls => cases::stalls_set(),
        Set::Failing => cases::failing_set(),
        Set::Stress => cases::stress_set(),
    };
    run(&options.test, trials).exit_code()
}
