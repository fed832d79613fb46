// SPDX-License-Identifier: GPL-2.0

//! `top`.

use anyhow::{
    Context,
    Result,
    ensure, //
};
use nix::pty::{
    Winsize,
    openpty, //
};
use std::{
    fs::File,
    io::{
        Read,
        Write, //
    },
    process::Command, //
};

use super::{
    Case,
    HELPER, //
};
use crate::{
    Stack,
    hold::hold,
    machine::{
        EDU,
        group, //
    },
    program::{
        expect,
        vfioctl, //
    }, //
};

/// Returns the cases.
pub fn cases(stack: Stack) -> Vec<Case> {
    vec![
        ("top::containers", Box::new(move || top(stack))),
        ("top::live_view", Box::new(live)),
    ]
}

fn top(stack: Stack) -> Result<()> {
    vfioctl("top --batch --count 1")?
        .exits(0)?
        .says("No container")?;
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let helper = hold(EDU)?;
    let said = vfioctl("top --json --count 2 --delay 0.1")?.exits(0)?;
    let looks: Vec<&str> = said.out.lines().collect();
    ensure!(looks.len() == 2, "expected two lines:\n{}", said.out);
    let look: serde_json::Value = serde_json::from_str(looks[1]).context("expected JSON")?;
    expect(&look, "from_debugfs", stack == Stack::Rust)?;
    let container = &look["containers"][0];
    expect(container, "pid", helper.id())?;
    expect(container, "groups", vec![group(EDU)?])?;
    expect(container, "locked", 1 << 20)?;
    if stack == Stack::Rust {
        expect(&container["detail"], "mappings", 1)?;
        expect(&container["detail"], "mapped", 1 << 20)?;
        expect(&container["detail"], "maps", 1)?;
    }
    vfioctl("top --batch -n 1")?
        .exits(0)?
        .says(HELPER)?
        .says("1 MiB")?;
    for delay in ["-1", "0", "1e19"] {
        vfioctl(&format!("top --count 1 --delay={delay}"))?.exits(2)?;
    }
    helper.finish()?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    Ok(())
}

/// Runs the live view of `top` on a terminal, presses keys, and returns what it has drawn.
fn draw(arguments: &[&str], keys: &[u8]) -> Result<String> {
    let size = Winsize {
        ws_row: 24,
        ws_col: 120,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    let terminal = openpty(&size, None)?;
    let mut child = Command::new("vfioctl")
        .arg("top")
        .args(arguments)
        .env("TERM", "xterm")
        .stdin(terminal.slave.try_clone()?)
        .stdout(terminal.slave)
        .spawn()?;
    let mut terminal = File::from(terminal.master);
    terminal.write_all(keys)?;
    // The end is an error, since the other side of the terminal is closed.
    let mut drawn = Vec::new();
    let _ = terminal.read_to_end(&mut drawn);
    let drawn = String::from_utf8_lossy(&drawn).into_owned();
    let status = child.wait()?;
    ensure!(
        status.success(),
        "expected that 'top' succeeds: {status}\n{drawn:?}"
    );
    for sequence in ["\x1b[?1049h", "\x1b[?1049l"] {
        ensure!(drawn.contains(sequence), "expected {sequence:?}: {drawn:?}");
    }
    Ok(drawn)
}

fn live() -> Result<()> {
    vfioctl(&format!("bind {EDU}"))?.exits(0)?;
    let helper = hold(EDU)?;
    let drawn = draw(&["--count", "2", "--delay", "0.1"], b"")?;
    // Blanks are not drawn: the cursor jumps over them.
    for text in ["container", "COMMAND", HELPER, "MiB", "quit,"] {
        ensure!(drawn.contains(text), "expected '{text}': {drawn:?}");
    }
    // A key ends it long before the next look.
    draw(&["--delay", "1000"], b"q")?;
    helper.finish()?;
    vfioctl(&format!("restore {EDU}"))?.exits(0)?;
    Ok(())
}
