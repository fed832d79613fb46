// SPDX-License-Identifier: GPL-2.0

//! Containers behind a PAMU in software, with copy engines whose every access goes through it.

mod attributes;
mod devices;
mod map;
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

/// All cases.
pub fn cases() -> Vec<Trial> {
    [
        attributes::cases(),
        map::cases(),
        msi::cases(),
        devices::cases(),
        violations::cases(),
        random::cases(),
        together::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The smallest window.
const PAGE: u64 = 4096;
/// What is mapped in one window of a hugepage.
const HUGE: u64 = 2 << 20;
/// The base-2 logarithm of that.
const HUGE_ORDER: u32 = 21;
/// The LIODNs of the two engines.
const LIODN: u32 = FIRST_LIODN;
const OTHER_LIODN: u32 = FIRST_LIODN + 1;

/// The bits of AVS1 that say what was violated.
const STATUS: u32 = 0xffff;

/// An aperture from 0 on with `count` windows of `size` bytes, and the first engine.
fn divided(count: u32, size: u64) -> Result<(Pamu, Engine)> {
    let (pamu, engine) = open(0)?;
    pamu.set_geometry(0, u64::from(count) * size - 1)?;
    pamu.set_windows(count)?;
    Ok((pamu, engine))
}

/// Brings engine 1 into the container of engine 0.
fn join(pamu: &Pamu) -> Result<Engine> {
    let group = pamu_dma::group(1)?;
    group.set_container(pamu.container())?;
    Engine::open(group, 1)
}

/// Checks that reading at `iova` shuts the engine off and is reported, and revives it.
#[track_caller]
fn refused(pamu: &Pamu, engine: &Engine, iova: u64) {
    check_refused(pamu, engine.read(iova).unwrap().map(drop), iova);
}

/// Checks that writing at `iova` shuts the engine off and is reported, and revives it.
#[track_caller]
fn refused_write(pamu: &Pamu, engine: &Engine, iova: u64) {
    check_refused(pamu, engine.write(iova, 0).unwrap(), iova);
}

/// Checks that the engine reaches nothing at `iova`, which isn't reported, as nothing is mapped at all.
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
