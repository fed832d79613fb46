// SPDX-License-Identifier: GPL-2.0

//! Inputs as text: one line of hexadecimal digits each.

use anyhow::{
    Context,
    Result, //
};
use differential::trace;
use std::{
    fs,
    path::Path, //
};

pub use trace::hex;

/// Reads the inputs of a file. Lines that start with `#` are comments.
pub fn read(path: &Path) -> Result<Vec<Vec<u8>>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(parse).collect()
}

/// Parses one input.
fn parse(text: &str) -> Result<Vec<u8>> {
    trace::unhex(text).with_context(|| format!("{text:.40} is no input"))
}
