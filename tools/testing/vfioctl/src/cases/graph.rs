// SPDX-License-Identifier: GPL-2.0

//! `graph`.

use anyhow::{
    Result,
    ensure, //
};
use std::fs;

use super::Case;
use crate::{
    machine::{
        DISK,
        SHARED,
        group, //
    },
    program::vfioctl, //
};

/// Returns the cases.
pub fn cases() -> Vec<Case> {
    vec![("graph::text_and_picture", Box::new(graph))]
}

fn graph() -> Result<()> {
    let said = vfioctl("graph")?.exits(0)?;
    said.says("dmar0\n")?
        .says(&format!("group {}", group(SHARED)?))?
        .says("─ 0000:00:05.1")?;
    vfioctl("graph --only-vfio")?
        .exits(0)?
        .says("There are no groups to show")?;
    vfioctl("graph --svg /tmp/graph.svg")?.exits(0)?;
    let picture = fs::read_to_string("/tmp/graph.svg")?;
    for part in ["<svg", DISK, "[nvme]", "</svg>"] {
        ensure!(picture.contains(part), "expected '{part}':\n{picture}");
    }
    Ok(())
}
