// SPDX-License-Identifier: GPL-2.0

//! Signals that end the program, between the steps of a plan instead of amid them.

use anyhow::{
    Context,
    Result,
    bail, //
};
use nix::sys::{
    signal::{
        SigSet,
        Signal, //
    },
    signalfd::{
        SfdFlags,
        SignalFd, //
    },
};

/// Holds back the signals of a terminal and of `kill` until this is dropped.
pub struct Interrupt {
    before: SigSet,
    file: SignalFd,
}

impl Interrupt {
    /// Holds the signals back.
    pub fn new() -> Result<Self> {
        let signals = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM];
        let signals: SigSet = signals.into_iter().collect();
        let begin = || {
            let before = SigSet::thread_get_mask()?;
            signals.thread_block()?;
            let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
            let file = SignalFd::with_flags(&signals, flags)?;
            Ok::<_, nix::Error>(Self { before, file })
        };
        begin().context("holding back signals")
    }

    /// Fails if a signal has arrived.
    pub fn check(&self) -> Result<()> {
        match self.file.read_signal().context("reading signals")? {
            None => Ok(()),
            Some(_) => bail!("interrupted by a signal"),
        }
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        // It can only fail for a mask that is not one of the kernel's.
        let _ = self.before.thread_set_mask();
    }
}
