// SPDX-License-Identifier: GPL-2.0

//! Containers behind a software PAMU, with copy engines whose accesses all go through it.

mod attributes;
mod devices;
mod map;
mod modules;
mod msi;
pub(crate) mod random;
mod together;
mod violations;

use anyhow::Result;
use libtest_mimic::Trial;
use pamu_dma::{
    Engine,
    FIRST_LIODN,
    open, //
};
use vfio_client::{
    Errno,
    pamu::Pamu, //
};

/// Returns all cases.
pub fn cases() -> Vec<Trial> {
    [
        attributes::cases(),
        map::cases(),
        msi::cases(),
        modules::cases(),
        devices::cases(),
        violations::cases(),
        random::cases(),
        together::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The smallest window size.
const PAGE: u64 = 4096;
/// The size of a hugepage, mapped in one window.
const HUGE: u64 = 2 << 20;
/// The base-2 logarithm of [`HUGE`].
const HUGE_ORDER: u32 = 21;
/// The LIODNs of the two engines.
const LIODN: u32 = FIRST_LIODN;
const OTHER_LIODN: u32 = FIRST_LIODN + 1;

/// The bits of AVS1 that give the type of violation.
const STATUS: u32 = 0xffff;

/// Sets an aperture starting at 0 with `count` windows of `size` bytes. Returns it with the first
/// engine.
fn divided(count: u32, size: u64) -> Result<(Pamu, Engine)> {
    let (pamu, engine) = open(0)?;
    pamu.set_geometry(0, u64::from(count) * size - 1)?;
    pamu.set_windows(count)?;
    Ok((pamu, engine))
}

/// Adds engine 1 to the container of engine 0.
fn join(pamu: &Pamu) -> Result<Engine> {
    let group = pamu_dma::group(1)?;
    group.set_container(pamu.container())?;
    Engine::open(group, 1)
}

/// Checks that reading at `iova` shuts the engine off and is reported. Revives the engine.
#[track_caller]
fn refused(pamu: &Pamu, engine: &Engine, iova: u64) {
    check_refused(pamu, engine.read(iova).unwrap().map(drop), iova);
}

/// Checks that writing at `iova` shuts the engine off and is reported. Revives the engine.
#[track_caller]
fn refused_write(pamu: &Pamu, engine: &Engine, iova: u64) {
    check_refused(pamu, engine.write(iova, 0).unwrap(), iova);
}

/// Checks that the engine cannot access `iova`. No violation is reported, because nothing at all
/// is mapped.
#[track_caller]
fn unreached(pamu: &Pamu, engine: &Engine, iova: u64) {
    assert_eq!(engine.read(iova).unwrap(), Err(Errno::EFAULT));
    assert_eq!(engine.write(iova, 0).unwrap(), Err(Errno::EFAULT));
    assert_eq!(pamu.violation(0).unwrap(), None);
}

#[track_caller]
fn check_refused(pamu: &Pamu, result: Result<(), Errno>, iova: u64) {
    assert_eq!(result, Err(Errno::EFAULT), "access at {iova:#x}");
    let violation = pamu.violation(0).unwrap().expect("a violation");
    assert_eq!((violation.liodn, violation.iova), (LIODN, iova));
    assert_ne!(violation.status & STATUS, 0);
    pamu.revive(LIODN).unwrap();
}
