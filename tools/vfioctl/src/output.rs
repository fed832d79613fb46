// SPDX-License-Identifier: GPL-2.0

//! Prints what was found and decided.

pub mod generate;
pub mod graph;
pub mod holders;
pub mod list;
pub mod mdev;
pub mod memlock;
pub mod top;
pub mod why;

use std::io::{
    self,
    Write, //
};

use anyhow::Result;
use comfy_table::{
    Table,
    presets, //
};
use serde::Serialize;

/// Prints a text to the standard output.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Prints a line to the standard output.
pub fn print_line(text: impl AsRef<str>) -> Result<()> {
    print(&format!("{}\n", text.as_ref()))
}

/// Prints a value as JSON.
pub fn print_json(value: &impl Serialize) -> Result<()> {
    print_line(serde_json::to_string_pretty(value)?)
}

/// Formats a table without lines, which scripts can split at white space.
pub fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(head);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for row in rows {
        // A name of a process may have line breaks.
        let cells = row.into_iter().map(|cell| printable(&cell));
        table.add_row(cells.collect::<Vec<_>>());
    }
    table
        .lines()
        .fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

/// Replaces characters that would change the terminal.
pub fn printable(text: &str) -> String {
    let replace = |c: char| if c.is_control() { '?' } else { c };
    text.chars().map(replace).collect()
}

/// Returns a text, or a dash if there is none.
pub fn or_dash(text: Option<impl AsRef<str>>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.as_ref().to_owned())
}
