// SPDX-License-Identifier: GPL-2.0

//! The cases, by command.

mod bind;
mod device_files;
mod graph;
mod list;
mod mdev;
mod nodes;
mod persist;
mod restore;
mod top;
mod why;

use anyhow::Result;

use crate::Stack;

/// A case with its name.
type Case = (&'static str, Box<dyn FnOnce() -> Result<()> + Send>);

/// The name of a helper process: it is started as `/proc/self/exe`.
const HELPER: &str = "exe";

/// Returns all cases.
pub fn all(stack: Stack) -> Vec<Case> {
    let mut cases = list::cases(stack);
    cases.extend(why::cases(stack));
    cases.extend(bind::cases());
    cases.extend(restore::cases());
    cases.extend(nodes::cases());
    cases.extend(persist::cases());
    cases.extend(mdev::cases(stack));
    cases.extend(top::cases(stack));
    cases.extend(graph::cases());
    cases.extend(device_files::cases());
    cases
}
