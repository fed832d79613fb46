// SPDX-License-Identifier: GPL-2.0

//! Fault injection: each allocation of a request fails once, and each copy from and to user
//! memory.
//!
//! A request that fails must leave everything unchanged, and must succeed when it is sent again.
//! The cases need a kernel with fault injection.
//!
//! No failure is injected below kernel functions that warn about a failed allocation or do not
//! survive it. They are listed with each case.

mod attributes;
mod device_files;
mod devices;
mod drivers;
mod groups;
mod mappings;

use crate::fail_nth::{
    Below,
    Failing,
    Operation,
    each_failure, //
};
use anyhow::{
    Result,
    ensure, //
};
use libtest_mimic::Trial;
use support::machine::{
    locked_kib,
    pinned_pages, //
};
use vfio_client::Container;

/// Returns all cases.
pub fn cases() -> Vec<Trial> {
    [
        mappings::cases(),
        groups::cases(),
        drivers::cases(),
        devices::cases(),
        device_files::cases(),
        attributes::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The code below which failures are injected by default.
const VFIO: Below = Below::module("vfio");

/// The state that a failing request must not change: the charged and pinned pages, and how many
/// more mappings are possible.
type State = (u64, i64, Option<u32>);

fn state(container: &Container) -> Result<State> {
    Ok((locked_kib(), pinned_pages()?, container.info()?.dma_avail()))
}

/// Injects failures into a request that allocates memory and may copy user memory.
fn everything(below: Below, operation: &impl Operation) -> Result<()> {
    let failures = each_failure(Failing::Allocations, below, operation)?;
    ensure!(
        failures.passed_on != 0,
        "no allocation failed: the request allocates nothing"
    );
    each_failure(Failing::Copies, below, operation)?;
    Ok(())
}

/// Injects failures into a request that copies user memory and may allocate memory.
fn copies(below: Below, operation: &impl Operation) -> Result<()> {
    each_failure(Failing::Allocations, below, operation)?;
    let failures = each_failure(Failing::Copies, below, operation)?;
    ensure!(
        failures.passed_on != 0,
        "no copy failed: the request copies nothing"
    );
    Ok(())
}

/// Injects allocation failures into a request that must not fail because of them.
fn endures(below: Below, operation: &impl Operation) -> Result<()> {
    let failures = each_failure(Failing::Allocations, below, operation)?;
    ensure!(
        failures.passed_on == 0,
        "the request failed because of an allocation"
    );
    ensure!(failures.endured != 0, "no allocation failed");
    Ok(())
}

/// An operation built from closures.
struct By<P, R, S, A> {
    before: P,
    request: R,
    state: S,
    after: A,
}

impl<B, T, V, P, R, S, A> Operation for By<P, R, S, A>
where
    T: std::fmt::Debug,
    V: PartialEq + std::fmt::Debug,
    P: Fn() -> Result<B>,
    R: Fn(&B) -> Result<T>,
    S: Fn(&B) -> Result<V>,
    A: Fn(B, T) -> Result<()>,
{
    type Before = B;
    type Answer = T;
    type State = V;

    fn before(&self) -> Result<B> {
        (self.before)()
    }

    fn request(&self, before: &B) -> Result<T> {
        (self.request)(before)
    }

    fn state(&self, before: &B) -> Result<V> {
        (self.state)(before)
    }

    fn after(&self, before: B, answer: T) -> Result<()> {
        (self.after)(before, answer)
    }
}
