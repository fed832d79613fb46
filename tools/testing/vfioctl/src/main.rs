// SPDX-License-Identifier: GPL-2.0

//! Runs `vfioctl` in a virtual machine, on devices in every state.
//!
//! See `run` beside this crate for the machine. Each case finds the devices with the drivers of the
//! host, and leaves them so. It passes on the modules in C and on those in Rust, except where
//! [`Stack`] says that they differ.

#![forbid(unsafe_code)]

mod cases;
mod hold;
mod machine;
mod program;

use clap::{
    Parser,
    ValueEnum, //
};
use libtest_mimic::{
    Arguments,
    Trial,
    run, //
};
use std::process::ExitCode;

/// The modules that are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stack {
    /// Those of the kernel.
    C,
    /// Those of this project.
    Rust,
}

/// The arguments of libtest and of this program.
#[derive(Parser)]
struct Options {
    /// The modules that are loaded.
    #[arg(long, value_enum)]
    stack: Stack,
    #[command(flatten)]
    test: Arguments,
}

fn main() -> ExitCode {
    if let Some(words) = support::helper::command() {
        return hold::main(&words);
    }
    let mut options = Options::parse();
    options.test.test_threads = Some(1);
    let trials = cases::all(options.stack).into_iter().map(|(name, case)| {
        Trial::test(name, move || {
            let outcome = case();
            let left = machine::restore();
            let outcome = outcome.and(left);
            outcome.map_err(|error| format!("{error:?}").into())
        })
    });
    run(&options.test, trials.collect()).exit_code()
}
