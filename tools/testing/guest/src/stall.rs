// SPDX-License-Identifier: GPL-2.0

//! Requests in threads of their own, to find out which of them wait for others.

use crate::harness::hangs;
use anyhow::Result;
use nix::unistd::{
    Pid,
    gettid, //
};
use std::{
    fs,
    ops::Deref,
    panic::resume_unwind,
    sync::mpsc::channel,
    thread::{
        Scope,
        ScopedJoinHandle,
        sleep, //
    },
    time::{
        Duration,
        Instant, //
    },
};
use vfio_client::{
    Userfault,
    wait, //
};

/// The time limit of an unblocked request on the slowest kernel.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The interval at which a thread is observed.
const INTERVAL: Duration = Duration::from_millis(4);
/// A thread found asleep this many times in a row waits for another one.
const STEADY: u32 = 12;

/// A request in a thread of its own.
#[derive(Debug)]
pub struct Request<'scope, T> {
    thread: ScopedJoinHandle<'scope, T>,
    tid: Pid,
}

/// The progress of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The request has ended.
    Done,
    /// The request sleeps.
    Waits,
}

impl<'scope, T: Send + 'scope> Request<'scope, T> {
    /// Sends a request.
    pub fn send(
        scope: &'scope Scope<'scope, '_>,
        request: impl FnOnce() -> T + Send + 'scope,
    ) -> Result<Self> {
        let (sender, receiver) = channel();
        let thread = scope.spawn(move || {
            sender.send(gettid()).expect("the receiver waits for it");
            request()
        });
        let tid = receiver.recv()?;
        Ok(Self { thread, tid })
    }

    /// Returns whether the request has ended.
    pub fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits up to `time` for the request to end. Returns whether it has ended.
    pub fn done_within(&self, time: Duration) -> Result<bool> {
        wait::until(time, || Ok(self.is_done()))
    }

    /// Waits until the request has ended or sleeps.
    pub fn settle(&self) -> Progress {
        let task = format!("/proc/self/task/{}", self.tid);
        observe(&task, || self.is_done()).unwrap_or_else(|| hangs(LIMIT))
    }

    /// Returns the functions on the kernel stack of the request, the innermost one first. Returns
    /// none while the request does not sleep.
    pub fn stack(&self) -> Vec<String> {
        let task = format!("/proc/self/task/{}", self.tid);
        if !sleeps(&task) {
            return Vec::new();
        }
        // A line: [<0>] do_sys_poll+0x4d6/0x660
        let stack = fs::read_to_string(format!("{task}/stack")).unwrap_or_default();
        let functions = stack.lines().filter_map(|line| {
            let place = line.split_whitespace().nth(1)?;
            Some(place.split('+').next()?.to_owned())
        });
        let functions = functions.collect();
        if sleeps(&task) { functions } else { Vec::new() }
    }

    /// Returns the result of the request. The request must not be blocked any more: if it does not
    /// end, the program exits.
    pub fn finish(self) -> Result<T> {
        if !self.done_within(LIMIT)? {
            hangs(LIMIT);
        }
        Ok(self
            .thread
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic)))
    }
}

/// Waits until a thread is `done`, or until it sleeps and does not continue for a while. Returns
/// `None` after [`LIMIT`].
fn observe(task: &str, done: impl Fn() -> bool) -> Option<Progress> {
    let start = Instant::now();
    let mut asleep = 0;
    while asleep < STEADY {
        if done() {
            return Some(Progress::Done);
        }
        asleep = if sleeps(task) { asleep + 1 } else { 0 };
        if start.elapsed() > LIMIT {
            return None;
        }
        sleep(INTERVAL);
    }
    Some(Progress::Waits)
}

/// Returns whether the thread with the directory `task` in `/proc` sleeps.
fn sleeps(task: &str) -> bool {
    let stat = fs::read_to_string(format!("{task}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest.trim_start());
    state.starts_with(['S', 'D'])
}

/// Waits until a process with one thread sleeps and does not continue for a while. Returns whether
/// it does.
pub fn falls_asleep(process: u32) -> bool {
    observe(&format!("/proc/{process}"), || false).is_some()
}

/// Resumes the threads stopped at a userfault when dropped, even if the thread that holds this
/// fails.
#[derive(Debug)]
pub struct Release<F: Deref<Target = Userfault>>(pub F);

impl<F: Deref<Target = Userfault>> Drop for Release<F> {
    fn drop(&mut self) {
        if let Err(error) = self.0.release() {
            eprintln!("a thread may have stopped for ever: {error}");
        }
    }
}

/// Waits until a request has stopped at a userfault. Returns false if the request has ended
/// without stopping.
pub fn stops<T: Send>(request: &Request<'_, T>, fault: &Userfault) -> Result<bool> {
    let start = Instant::now();
    loop {
        if fault.wait(INTERVAL)?.is_some() {
            return Ok(true);
        }
        if request.is_done() {
            return Ok(false);
        }
        if start.elapsed() > LIMIT {
            hangs(LIMIT);
        }
    }
}
