// SPDX-License-Identifier: GPL-2.0

//! Every allocation of a request fails once, and every copy from and to the program's memory.
//!
//! A request that fails leaves everything as it was, and works when it is sent again. That needs a kernel
//! with fault injection.
//!
//! Code of the kernel's own that warns, or ends, for want of memory is spared: nothing fails below it. What
//! it is stands beside each case.

mod attributes;
mod devices;
mod drivers;
mod groups;
mod mappings;

use crate::{
    fail_nth::{
        Below,
        Failing,
        Operation,
        each_failure, //
    },
    leak::{
        locked_kib,
        pinned_pages, //
    },
};
use anyhow::{
    Result,
    ensure, //
};
use libtest_mimic::Trial;
use vfio_client::Container;

/// All cases.
pub fn cases() -> Vec<Trial> {
    [
        mappings::cases(),
        groups::cases(),
        drivers::cases(),
        devices::cases(),
        attributes::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Below which code a request's failures come, whatever the request.
const VFIO: Below = Below::module("vfio");

/// What a request must not change when it fails: pages that are charged and pinned, and how many mappings
/// there may yet be.
type State = (u64, i64, Option<u32>);

fn state(container: &Container) -> Result<State> {
    Ok((locked_kib(), pinned_pages()?, container.info()?.dma_avail()))
}

/// Fails a request that needs memory, with and without copies.
fn everything(below: Below, operation: &impl Operation) -> Result<()> {
    let failures = each_failure(Failing::Allocations, below, operation)?;
    ensure!(failures.passed_on != 0, "it needs no memory");
    each_failure(Failing::Copies, below, operation)?;
    Ok(())
}

/// Fails a request that may need no memory, but copies.
fn copies(below: Below, operation: &impl Operation) -> Result<()> {
    each_failure(Failing::Allocations, below, operation)?;
    let failures = each_failure(Failing::Copies, below, operation)?;
    ensure!(failures.passed_on != 0, "it copies nothing");
    Ok(())
}

/// Fails what does not fail for want of memory.
fn endures(below: Below, operation: &impl Operation) -> Result<()> {
    let failures = each_failure(Failing::Allocations, below, operation)?;
    ensure!(failures.passed_on == 0, "it fails");
    ensure!(failures.endured != 0, "nothing failed");
    Ok(())
}

/// An operation by functions.
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
