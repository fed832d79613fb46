// SPDX-License-Identifier: GPL-2.0

//! Runs several threads in one case. An error in any of them fails the case.

use crate::harness::panic_message;
use anyhow::{
    Context,
    Result,
    anyhow,
    ensure, //
};
use std::{
    fmt,
    io,
    thread, //
};
use vfio_client::Errno;

/// The function of a thread.
pub type Body<'a, T> = Box<dyn FnOnce() -> Result<T> + Send + 'a>;

/// Runs all of `bodies` concurrently. Returns their results in the same order.
///
/// # Errors
///
/// The first error. A panic counts as an error.
pub fn run<T: Send>(bodies: Vec<Body<'_, T>>) -> Result<Vec<T>> {
    let outcomes: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = bodies.into_iter().map(|body| scope.spawn(body)).collect();
        threads.into_iter().map(|thread| thread.join()).collect()
    });
    let outcome = |(number, outcome): (usize, thread::Result<Result<T>>)| {
        outcome
            .unwrap_or_else(|panic| Err(anyhow!("{}", panic_message(panic.as_ref()))))
            .with_context(|| format!("thread {number}"))
    };
    outcomes.into_iter().enumerate().map(outcome).collect()
}

/// Counts an operation with which other threads may interfere.
#[derive(Debug)]
pub struct Tally {
    operation: &'static str,
    /// The errnos with which the operation may fail.
    allowed: &'static [Errno],
    worked: u64,
    failed: u64,
}

impl Tally {
    /// Creates a counter.
    pub fn new(operation: &'static str, allowed: &'static [Errno]) -> Self {
        Self {
            operation,
            allowed,
            worked: 0,
            failed: 0,
        }
    }

    /// Counts one outcome.
    ///
    /// # Errors
    ///
    /// The error of the operation, unless its errno is allowed.
    pub fn note<T>(&mut self, outcome: Result<T>) -> Result<()> {
        match outcome {
            Ok(_) => self.worked += 1,
            Err(error) => {
                let errno = errno_of(&error);
                if !errno.is_some_and(|errno| self.allowed.contains(&errno)) {
                    return Err(error.context(self.operation));
                }
                self.failed += 1;
            }
        }
        Ok(())
    }

    /// Returns whether the operation has succeeded at least once.
    pub fn works(&self) -> bool {
        self.worked > 0
    }

    /// Fails unless the operation has succeeded at least once.
    pub fn check(&self) -> Result<()> {
        ensure!(self.works(), "no operation succeeded: {self}");
        Ok(())
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (operation, worked, failed) = (self.operation, self.worked, self.failed);
        write!(
            f,
            "{operation}: worked {worked} times, failed {failed} times"
        )
    }
}

/// Returns the errno from which an error originates.
pub fn errno_of(error: &anyhow::Error) -> Option<Errno> {
    error
        .downcast_ref::<vfio_client::Error>()
        .map(vfio_client::Error::errno)
        .or(error.downcast_ref::<Errno>().copied())
        .or_else(|| {
            let number = error.downcast_ref::<io::Error>()?.raw_os_error()?;
            Some(Errno::from_raw(number))
        })
}
