// SPDX-License-Identifier: GPL-2.0

//! `vfioctl generate`: man pages and completions, from the description of the command line.

use std::{
    fs,
    path::Path, //
};

use anyhow::{
    Context,
    Result, //
};
use clap::{
    Command,
    CommandFactory, //
};
use clap_complete::{
    Shell,
    generate_to, //
};

use crate::cli::{
    Command as Public,
    Options, //
};

/// Writes the man pages and the completions for bash, zsh and fish to a folder.
pub fn generate(folder: &Path) -> Result<()> {
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut command = Options::<Public>::command();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            generate_to(shell, &mut command, "vfioctl", folder)?;
        }
        // One page for each command, with all names in full. None is for `help`, which the
        // completions have added.
        let mut command = Options::<Public>::command().disable_help_subcommand(true);
        command.build();
        man_pages(&command, folder)
    };
    write().with_context(|| format!("writing to {}", folder.display()))
}

/// The end of the page of each command.
const SEE_ALSO: &str = "\
.SH \"SEE ALSO\"
.BR vfioctl (8)
has the names of devices and the exit statuses.
";

fn man_pages(command: &Command, folder: &Path) -> std::io::Result<()> {
    let name = command
        .get_display_name()
        .unwrap_or(command.get_name())
        .to_owned();
    let page = clap_mangen::Man::new(command.clone())
        .section("8")
        .source(concat!("vfioctl ", env!("CARGO_PKG_VERSION")))
        .manual("VFIO in Rust");
    let mut text = Vec::new();
    page.render(&mut text)?;
    // The library has no title for the text at the end of `--help`.
    let text = String::from_utf8_lossy(&text);
    let text = text.replace(".SH EXTRA\nExit status: ", ".SH \"EXIT STATUS\"\n");
    let more = if name == "vfioctl" { "" } else { SEE_ALSO };
    fs::write(folder.join(format!("{name}.8")), text + more)?;
    let shown = command
        .get_subcommands()
        .filter(|c| !c.is_hide_set() && c.get_name() != "help");
    shown
        .into_iter()
        .try_for_each(|command| man_pages(command, folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_pages_and_completions() {
        let folder = tempfile::tempdir().unwrap();
        generate(folder.path()).unwrap();
        for name in [
            "vfioctl.8",
            "vfioctl-why.8",
            "vfioctl-mdev-create.8",
            "vfioctl.bash",
            "_vfioctl",
            "vfioctl.fish",
        ] {
            let text = fs::read_to_string(folder.path().join(name)).expect(name);
            assert!(text.contains("vfioctl"), "{name}");
            assert!(!text.contains("generate"), "{name} has the hidden command");
            assert!(
                !text.contains("help(8)"),
                "{name} names a page that is not there"
            );
        }
    }
}
