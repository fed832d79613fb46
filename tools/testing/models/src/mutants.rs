// SPDX-License-Identifier: GPL-2.0

//! Copies of the address space and of the requests with one fault each; see `build.rs`.

#![allow(clippy::all, dead_code, unused, reason = "that is what faults bring")]

use std::{
    env,
    process::Command, //
};

/// Set for the process in which a model is to fail.
const FAILING: &str = "MODELS_FAILING";

/// Checks that `model` fails in the test of module `module`, and says `message`. In a process of
/// its own, since a thread that panics with locks held may take the whole process with it.
fn must_fail(module: &str, message: &str, model: fn()) {
    if env::var_os(FAILING).is_some() {
        return model();
    }
    let (_, module) = module.split_once("::").expect("it is in this crate");
    let program = env::current_exe().expect("this program has a path");
    let output = Command::new(program)
        .args([&format!("{module}::is_found"), "--exact", "--nocapture"])
        .env(FAILING, "")
        .output()
        .expect("this program can be started again");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "the fault is not found");
    assert!(
        said.contains(message),
        "it is found in another way:\n{said}"
    );
    let found = said.lines().find(|line| line.contains(message));
    println!("{}", found.unwrap_or_default());
}

include!(concat!(env!("OUT_DIR"), "/mutants.rs"));
