// SPDX-License-Identifier: GPL-2.0

//! The QEMU monitor of the machine in which this program runs.
//!
//! C header: none; see `docs/interop/qmp-spec.rst` of QEMU, and `--qmp` of `tools/testing/vm/run`.

use crate::plug::until;
use anyhow::{
    Context,
    Result,
    bail, //
};
use nix::libc::O_NONBLOCK;
use std::{
    fs::File,
    io::{
        ErrorKind,
        Read,
        Write, //
    },
    os::unix::fs::OpenOptionsExt,
    sync::atomic::{
        AtomicU32,
        Ordering, //
    },
    time::Duration,
};

/// The path of the monitor in the guest.
const PATH: &str = "/dev/qmp";

/// The time limit for a reply. The operation that a command starts may take longer.
const ANSWER: Duration = Duration::from_secs(20);

/// An open monitor.
#[derive(Debug)]
pub struct Qmp {
    port: File,
    /// The data received after the last complete line.
    rest: Vec<u8>,
    /// The names of removed devices.
    gone: Vec<String>,
}

impl Qmp {
    /// Opens the monitor.
    pub fn open() -> Result<Self> {
        let port = File::options()
            .read(true)
            .write(true)
            .custom_flags(O_NONBLOCK)
            .open(PATH)
            .context(PATH)?;
        let mut qmp = Self {
            port,
            rest: Vec::new(),
            gone: Vec::new(),
        };
        // The session lasts as long as the machine. Only the first user must send this, and only
        // once.
        let _ = qmp.call("qmp_capabilities", "{}");
        Ok(qmp)
    }

    /// Plugs in a device.
    pub fn add(&mut self, driver: &str, id: &str, more: &str) -> Result<()> {
        self.gone.retain(|name| name != id);
        let arguments = format!(r#"{{"driver": "{driver}", "id": "{id}", {more}}}"#);
        self.call("device_add", &arguments)
    }

    /// Presses the attention button of a device.
    pub fn delete(&mut self, id: &str) -> Result<()> {
        self.call("device_del", &format!(r#"{{"id": "{id}"}}"#))
    }

    /// Waits until a device has left the machine.
    pub fn wait_gone(&mut self, id: &str, limit: Duration) -> Result<()> {
        until(&format!("{id} to leave the machine"), limit, || {
            self.receive()?;
            Ok(self.gone.iter().any(|name| name == id))
        })
    }

    /// Returns whether a device has left the machine since it was added.
    pub fn is_gone(&mut self, id: &str) -> Result<bool> {
        self.receive()?;
        Ok(self.gone.iter().any(|name| name == id))
    }

    /// Sends a command and waits for its reply.
    fn call(&mut self, command: &str, arguments: &str) -> Result<()> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // A reply for which a former user did not wait must not be mistaken for the reply to this
        // command.
        let id = format!("\"call {}\"", COUNT.fetch_add(1, Ordering::Relaxed));
        let line =
            format!("{{\"execute\": \"{command}\", \"arguments\": {arguments}, \"id\": {id}}}\n");
        self.port.write_all(line.as_bytes()).context(PATH)?;
        let mut answer = None;
        until(&format!("an answer to {command}"), ANSWER, || {
            answer = self.receive()?.into_iter().find(|line| line.contains(&id));
            Ok(answer.is_some())
        })?;
        match answer {
            Some(line) if line.contains("\"error\"") => bail!("{command} {arguments}: {line}"),
            _ => Ok(()),
        }
    }

    /// Receives available data and returns the complete lines.
    fn receive(&mut self) -> Result<Vec<String>> {
        let mut buffer = [0; 4096];
        match self.port.read(&mut buffer) {
            Ok(len) => self.rest.extend_from_slice(&buffer[..len]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context(PATH),
        }
        let Some(last) = self.rest.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(Vec::new());
        };
        let whole: Vec<u8> = self.rest.drain(..=last).collect();
        let lines: Vec<String> = String::from_utf8_lossy(&whole)
            .lines()
            .map(str::to_owned)
            .collect();
        self.gone
            .extend(lines.iter().filter_map(|line| deleted(line)));
        Ok(lines)
    }
}

/// Returns the name of the device whose removal a line reports.
fn deleted(line: &str) -> Option<String> {
    let (_, data) = line.split_once("\"DEVICE_DELETED\"")?;
    let (_, name) = data.split_once("\"device\": \"")?;
    Some(name.split_once('"')?.0.to_owned())
}
