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

/// Prints a text to the standard output. A reader that has gone, such as `head`, is no error: what
/// was asked for is still done, and the exit status tells how that went.
pub fn print(text: &str) -> Result<()> {
    match try_print(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Prints a text to the standard output.
pub fn try_print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints a text to the standard error. There is nobody to tell if that fails.
pub fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
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

/// Replaces characters that would change the terminal or the order of the text, and those that XML
/// does not have.
pub fn printable(text: &str) -> String {
    let replace = |c: char| {
        let reorders = matches!(
            c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        );
        let is_none = matches!(c, '\u{fffe}' | '\u{ffff}' | '\u{feff}');
        if c.is_control() || reorders || is_none {
            '?'
        } else {
            c
        }
    };
    text.chars().map(replace).collect()
}

/// Returns a text, or a dash if there is none.
pub fn or_dash(text: Option<impl AsRef<str>>) -> String {
    text.map_or_else(|| "-".to_owned(), |text| text.as_ref().to_owned())
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn text_of_others() {
        assert_eq!(printable("a\x1b[2J\nb\u{9b}c"), "a?[2J?b?c");
        assert_eq!(printable("exe\u{202e}cod.\u{fffe}"), "exe?cod.?");
        assert_eq!(printable("dpdk \u{e9}\u{4e2d}"), "dpdk \u{e9}\u{4e2d}");
    }
}
