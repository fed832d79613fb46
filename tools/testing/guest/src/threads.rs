// SPDX-License-Identifier: GPL-2.0

//! Several threads in one case: what goes wrong in any of them fails the case.

use crate::harness::panic_message;
use anyhow::{
    Context,
    Result,
    anyhow, //
};
use std::thread;

/// What a thread does.
pub type Body<'a, T> = Box<dyn FnOnce() -> Result<T> + Send + 'a>;

/// Runs all of `bodies` at once, and returns what they returned, in their order.
///
/// # Errors
///
/// The first failure; a thread that panicked has failed.
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
