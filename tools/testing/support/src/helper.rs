// SPDX-License-Identifier: GPL-2.0

//! Helper processes: the program that is running, started again with a command.
//!
//! A helper inherits descriptors. It writes lines to its standard output and reads lines from its
//! standard input, so the first process can inspect the system at a known point of the helper's
//! execution.

use anyhow::{
    Context,
    Result,
    ensure, //
};
use nix::{
    fcntl::{
        FcntlArg,
        FdFlag,
        fcntl, //
    },
    sys::resource::{
        Resource,
        rlim_t,
        setrlimit, //
    },
};
use std::{
    io::{
        BufRead,
        BufReader,
        Write, //
    },
    os::fd::{
        AsFd,
        OwnedFd, //
    },
    process::{
        Child,
        ChildStdin,
        ChildStdout,
        Command,
        Stdio, //
    },
    sync::mpsc::{
        Receiver,
        channel, //
    },
    thread, //
};
use vfio_client::raw;

/// The first argument of a helper.
const FLAG: &str = "--helper";

/// A running helper. It is killed when dropped.
#[derive(Debug)]
pub struct Helper {
    child: Child,
    input: Option<ChildStdin>,
    output: Option<BufReader<ChildStdout>>,
}

impl Helper {
    /// Starts a helper that inherits the given descriptors.
    pub fn spawn(words: &[&str], inherited: &[&dyn AsFd]) -> Result<Self> {
        let set_flags = |flags| -> Result<()> {
            for fd in inherited {
                fcntl(fd.as_fd(), FcntlArg::F_SETFD(flags)).context("F_SETFD")?;
            }
            Ok(())
        };
        set_flags(FdFlag::empty())?;
        let child = Command::new("/proc/self/exe")
            .arg(FLAG)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let helper = child.map(|mut child| Self {
            input: child.stdin.take(),
            output: child.stdout.take().map(BufReader::new),
            child,
        });
        set_flags(FdFlag::FD_CLOEXEC)?;
        helper.context("cannot start the helper process")
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the next line of the helper's output, or an empty string if the helper has ended.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let output = self.output.as_mut();
        let output = output.context("the output of the helper is read elsewhere")?;
        output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    /// Returns a receiver of the lines that [`line`](Self::line) would return from now on.
    pub fn lines(&mut self) -> Result<Receiver<String>> {
        let output = self.output.take();
        let output = output.context("the output of the helper is read elsewhere")?;
        let (sender, lines) = channel();
        // This thread ends with the helper, or when the receiver is dropped.
        thread::spawn(move || {
            let mut lines = output.lines().map_while(Result::ok);
            while lines.next().is_some_and(|line| sender.send(line).is_ok()) {}
        });
        Ok(lines)
    }

    /// Writes a line to the input of the helper.
    pub fn write(&mut self, line: impl std::fmt::Display) -> Result<()> {
        let input = self.input.as_mut().context("the helper has no input")?;
        writeln!(input, "{line}").context("the helper has ended")
    }

    /// Lets the helper continue.
    pub fn proceed(&mut self) -> Result<()> {
        self.write("")
    }

    /// Sends SIGKILL to the helper. It ends when it leaves the kernel.
    pub fn kill_later(&mut self) -> Result<()> {
        Ok(self.child.kill()?)
    }

    /// Kills the helper with SIGKILL and waits for its end.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Closes the input of the helper and waits for its end. Fails if the helper failed.
    pub fn finish(mut self) -> Result<()> {
        drop(self.input.take());
        let status = self.child.wait()?;
        ensure!(status.success(), "the helper process failed: {status}");
        Ok(())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // These fail if the helper has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the command of this process, if it is a helper.
pub fn command() -> Option<Vec<String>> {
    let mut words = std::env::args().skip(1);
    (words.next().as_deref() == Some(FLAG)).then(|| words.collect())
}

/// Takes ownership of an inherited descriptor, given by its number.
pub fn inherited(number: &str) -> Result<OwnedFd> {
    let number = number.parse()?;
    let fd = raw::duplicate(number)?;
    nix::unistd::close(number)?;
    Ok(fd)
}

/// Drops CAP_IPC_LOCK and sets RLIMIT_MEMLOCK to `limit` bytes.
pub fn without_ipc_lock(limit: u64) -> Result<()> {
    // CAST: The limits of the tests fit into the 32 bits that machines with 32 bits have.
    let limit = limit as rlim_t;
    setrlimit(Resource::RLIMIT_MEMLOCK, limit, limit)?;
    for set in [
        caps::CapSet::Effective,
        caps::CapSet::Permitted,
        caps::CapSet::Inheritable,
    ] {
        caps::drop(None, set, caps::Capability::CAP_IPC_LOCK)?;
    }
    Ok(())
}
