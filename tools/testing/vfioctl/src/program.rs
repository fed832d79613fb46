// SPDX-License-Identifier: GPL-2.0

//! Runs `vfioctl` and checks what it prints.

use anyhow::{
    Context,
    Result,
    ensure, //
};
use serde_json::Value;
use std::{
    os::unix::process::CommandExt,
    process::{
        Command,
        Output, //
    },
};

/// What `vfioctl` printed.
pub struct Said {
    command: String,
    /// The exit status.
    pub status: i32,
    /// The standard output.
    pub out: String,
    /// The standard error.
    pub err: String,
}

/// Runs `vfioctl`, with arguments that are separated by spaces.
pub fn vfioctl(arguments: &str) -> Result<Said> {
    let mut command = Command::new("vfioctl");
    command.args(arguments.split_whitespace());
    said(arguments, command.output())
}

/// Runs a command of the shell that ends with `vfioctl`, and returns what it printed.
pub fn shell_said(command: &str) -> Result<Said> {
    said(command, Command::new("sh").args(["-c", command]).output())
}

/// Runs `vfioctl` with an output that nobody reads any more.
pub fn vfioctl_unread(arguments: &str) -> Result<Said> {
    let (reader, writer) = nix::unistd::pipe()?;
    drop(reader);
    let mut command = Command::new("vfioctl");
    command.args(arguments.split_whitespace());
    command.stdout(writer.try_clone()?).stderr(writer);
    said(arguments, command.output())
}

/// Runs `vfioctl` as another user.
pub fn vfioctl_as(uid: u32, arguments: &str) -> Result<Said> {
    let mut command = Command::new("vfioctl");
    command.uid(uid).gid(uid).args(arguments.split_whitespace());
    said(arguments, command.output())
}

fn said(arguments: &str, output: std::io::Result<Output>) -> Result<Said> {
    let output = output.context("vfioctl cannot be started")?;
    Ok(Said {
        command: format!("vfioctl {arguments}"),
        status: output.status.code().context("vfioctl was killed")?,
        out: String::from_utf8(output.stdout).context("the output is not UTF-8")?,
        err: String::from_utf8(output.stderr).context("the errors are not UTF-8")?,
    })
}

impl Said {
    fn everything(&self) -> String {
        format!(
            "$ {}\n{}{}(exit status {})",
            self.command, self.out, self.err, self.status
        )
    }

    /// Expects an exit status.
    pub fn exits(self, expected: i32) -> Result<Self> {
        let everything = self.everything();
        ensure!(
            self.status == expected,
            "expected exit status {expected}:\n{everything}"
        );
        ensure!(
            !self.err.contains("panicked"),
            "expected no panic:\n{everything}"
        );
        Ok(self)
    }

    /// Expects a text on the standard output.
    pub fn says(self, expected: &str) -> Result<Self> {
        let everything = self.everything();
        ensure!(
            self.out.contains(expected),
            "expected '{expected}':\n{everything}"
        );
        Ok(self)
    }

    /// Expects a text on the standard error.
    pub fn complains(self, expected: &str) -> Result<Self> {
        let everything = self.everything();
        ensure!(
            self.err.contains(expected),
            "expected the error '{expected}':\n{everything}"
        );
        Ok(self)
    }

    /// Parses the standard output as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.out)
            .with_context(|| format!("expected JSON:\n{}", self.everything()))
    }
}

/// Expects an obstacle in the answer of `why DEVICE --json`, and returns it.
pub fn obstacle(device: &str, options: &str, reason: &str) -> Result<Value> {
    let said = vfioctl(&format!("why {device} {options} --json"))?.exits(4)?;
    let verdict = said.json()?;
    let obstacles = verdict["obstacles"]
        .as_array()
        .context("expected obstacles")?;
    let found = obstacles
        .iter()
        .find(|obstacle| obstacle["reason"] == reason);
    let found =
        found.with_context(|| format!("expected the reason {reason}:\n{}", said.everything()))?;
    Ok(found.clone())
}

/// Expects a value in JSON.
pub fn expect(value: &Value, field: &str, expected: impl Into<Value>) -> Result<()> {
    let expected = expected.into();
    ensure!(
        value[field] == expected,
        "expected {field} to be {expected} in\n{value:#}"
    );
    Ok(())
}
