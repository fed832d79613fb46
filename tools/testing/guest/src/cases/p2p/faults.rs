// SPDX-License-Identifier: GPL-2.0

//! Memory runs out while devices are created, change groups, are opened and are removed.
//!
//! The cases need a kernel with fault injection.

use super::{
    node_exists,
    peers,
    two, //
};
use crate::{
    cases::faults::{
        Injector,
        MOST,
        unchanged_by_failures, //
    },
    harness::cases, //
};
use anyhow::{
    Result,
    ensure, //
};
use vfio_client::mdev::{
    Mdev,
    new_uuid, //
};
use vgpu_copy::Kind;

cases! {
    #[requires(fault_injection)] join,
    #[requires(fault_injection)] split,
    #[requires(fault_injection)] create,
    #[requires(fault_injection)] open,
    #[requires(fault_injection)] remove,
}

/// Operations on a whole device make many allocations. One in this many fails; failing each would
/// take minutes.
const STRIDE: usize = 11;

/// Returns the numbers of the failing allocations. `first` is one of the first [`STRIDE`]. Each
/// case uses another number, so code that several cases run fails at more places.
fn some_allocations(first: usize) -> impl Iterator<Item = usize> {
    assert!((1..=STRIDE).contains(&first));
    (first..10 * MOST).step_by(STRIDE)
}

/// Returns where a device is: its UUID as a peer, and its group.
fn place(mdev: &Mdev) -> Result<(String, u32)> {
    let group = mdev.group_number()?;
    assert!(node_exists(group));
    Ok((mdev.peer_uuid()?, group))
}

/// Returns the first device to its former group when dropped.
struct Moved<'a>(&'a Mdev, &'a str);

impl Drop for Moved<'_> {
    fn drop(&mut self) {
        self.0
            .set_peer_uuid(self.1)
            .expect("the way back is as free as the way there");
    }
}

/// Moves the first of two devices to `target` and back.
fn moves(devices: &[Mdev; 2], target: &str) -> Result<()> {
    let before = [place(&devices[0])?, place(&devices[1])?];
    let home = &before[0].0;
    unchanged_by_failures(
        1..MOST,
        || {
            let moved = devices[0].set_peer_uuid(target);
            moved.map(|()| Moved(&devices[0], home))
        },
        || {
            for (mdev, (uuid, _)) in devices.iter().zip(&before) {
                assert_eq!(&place(mdev)?.0, uuid);
            }
            let together = place(&devices[0])?.1 == place(&devices[1])?.1;
            assert_eq!(together, before[0].1 == before[1].1);
            Ok(())
        },
    )
}

fn join() -> Result<()> {
    let devices = two()?;
    moves(&devices, &devices[1].peer_uuid()?)
}

fn split() -> Result<()> {
    moves(&peers()?, &new_uuid()?)
}

fn create() -> Result<()> {
    let uuid = new_uuid()?;
    unchanged_by_failures(
        some_allocations(1),
        || Mdev::new(Kind::Single, &uuid),
        || {
            ensure!(Mdev::existing(&uuid).is_err(), "the device is there");
            Ok(())
        },
    )
}

fn open() -> Result<()> {
    let [a, b] = peers()?;
    unchanged_by_failures(
        some_allocations(5),
        || a.open(),
        || {
            // The group that was not opened is not held.
            drop(b.open()?);
            Ok(())
        },
    )
}

/// A removal may fail, but not halfway.
fn remove() -> Result<()> {
    let stays = Mdev::with_new_uuid(Kind::Single)?;
    let uuid = new_uuid()?;
    let injector = Injector::new()?;
    for nth in some_allocations(9) {
        let mdev = Mdev::new(Kind::Single, &uuid)?;
        mdev.set_peer_uuid(&stays.peer_uuid()?)?;
        let (outcome, injected) = injector.run(nth, || mdev.remove())?;
        if outcome.is_err() {
            ensure!(injected, "{outcome:?} without a failure");
            mdev.remove()?;
        }
        ensure!(
            !mdev.folder().exists(),
            "after a failure of allocation {nth}"
        );
        drop(stays.open()?);
        if !injected {
            eprintln!("fewer than {nth} allocations");
            return Ok(());
        }
    }
    ensure!(false, "no end of allocations");
    Ok(())
}
