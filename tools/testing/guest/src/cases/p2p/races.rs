// SPDX-License-Identifier: GPL-2.0

//! Several threads at the same devices. Whoever comes first, the outcome is one of those that there would
//! be if they had come one after the other.

use super::{
    node_exists,
    two, //
};
use crate::harness::{
    Failure,
    cases, //
};
use anyhow::{
    Context,
    Result, //
};
use std::{
    fs,
    os::fd::{
        AsFd,
        AsRawFd, //
    },
    sync::Barrier,
    thread, //
};
use vfio_client::{
    Errno,
    Group, //
};
use vgpu_copy::{
    Kind,
    Mdev,
    new_uuid, //
};

cases! {
    two_writers,
    two_writers_cross_over,
    writer_against_opener,
    writer_against_remove,
    all_at_random,
}

const ROUNDS: usize = 100;

/// Runs two closures at once and returns what both say.
fn at_once<A: Send, B: Send>(a: impl FnOnce() -> A + Send, b: impl FnOnce() -> B + Send) -> (A, B) {
    let barrier = Barrier::new(2);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            barrier.wait();
            b()
        });
        barrier.wait();
        let first = a();
        (first, other.join().expect("the thread has panicked"))
    })
}

/// That UUIDs and groups tell the same: devices with one UUID, and only those, are in one group.
#[track_caller]
fn assert_consistent(devices: &[&Mdev]) -> Result<()> {
    for a in devices {
        assert!(node_exists(a.group_number()?));
        for b in devices {
            let peers = a.peer_uuid()? == b.peer_uuid()?;
            assert_eq!(peers, a.group_number()? == b.group_number()?);
        }
    }
    Ok(())
}

fn two_writers() -> Result<()> {
    let [a, b] = two()?;
    for _ in 0..ROUNDS {
        let (x, y) = (new_uuid()?, b.peer_uuid()?);
        let (first, second) = at_once(|| a.set_peer_uuid(&x), || a.set_peer_uuid(&y));
        first?;
        second?;
        assert!([&x, &y].contains(&&a.peer_uuid()?));
        assert_consistent(&[&a, &b])?;
    }
    Ok(())
}

fn two_writers_cross_over() -> Result<()> {
    let [a, b] = two()?;
    for _ in 0..ROUNDS {
        let (x, y) = (new_uuid()?, new_uuid()?);
        a.set_peer_uuid(&x)?;
        b.set_peer_uuid(&y)?;
        let (first, second) = at_once(|| a.set_peer_uuid(&y), || b.set_peer_uuid(&x));
        first?;
        second?;
        assert_consistent(&[&a, &b])?;
    }
    Ok(())
}

fn writer_against_opener() -> Result<()> {
    let [a, b] = two()?;
    let mut refused = 0;
    for _ in 0..ROUNDS {
        let uuid = b.peer_uuid()?;
        let (written, opened) = at_once(
            || a.set_peer_uuid(&uuid),
            || -> Result<_> {
                let (container, group) = a.attach()?;
                let device = group.device(a.uuid());
                Ok((device, group, container))
            },
        );
        let moved = a.group_number()? == b.group_number()?;
        assert_eq!(moved, written.is_ok());
        if !moved {
            assert_eq!(written.errno(), Errno::EBUSY);
            refused += 1;
        }
        // A device is to be had only from the file of the group that it is in.
        if let Ok((Ok(_), group, _)) = &opened {
            assert_eq!(a.group_number()?, number_of(group)?);
        }
        drop(opened);
        a.set_peer_uuid(&new_uuid()?)?;
        assert_consistent(&[&a, &b])?;
    }
    println!("{refused} of {ROUNDS} writes came too late");
    Ok(())
}

/// The number of a group that is open.
fn number_of(group: &Group) -> Result<u32> {
    let path = fs::read_link(format!("/proc/self/fd/{}", group.as_fd().as_raw_fd()))?;
    let name = path.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.split(' ').next()?.parse().ok());
    number.with_context(|| path.display().to_string())
}

fn writer_against_remove() -> Result<()> {
    let stays = Mdev::with_new_uuid(Kind::Single)?;
    for _ in 0..ROUNDS {
        let goes = Mdev::with_new_uuid(Kind::Single)?;
        let uuid = stays.peer_uuid()?;
        let (written, removed) = at_once(|| goes.set_peer_uuid(&uuid), || goes.remove());
        removed?;
        if written.is_err() {
            assert!([Errno::ENODEV, Errno::ENOENT].contains(&written.errno()));
        }
        assert!(!goes.folder().exists());
        assert_consistent(&[&stays])?;
        let (_container, group) = stays.attach()?;
        group.device(stays.uuid())?;
    }
    Ok(())
}

fn all_at_random() -> Result<()> {
    const DEVICES: usize = 4;
    let names = (0..DEVICES)
        .map(|_| new_uuid())
        .collect::<vfio_client::Result<Vec<_>>>()?;
    let values = (0..2)
        .map(|_| new_uuid())
        .collect::<vfio_client::Result<Vec<_>>>()?;
    thread::scope(|scope| {
        for seed in 0..4 {
            let (names, values) = (&names, &values);
            scope.spawn(move || worker(seed, names, values));
        }
    });
    Ok(())
}

/// Makes, groups, opens and removes devices; all of it may fail because of the others.
fn worker(seed: u64, names: &[String], values: &[String]) {
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..4 * ROUNDS {
        let name = &names[random.usize(..names.len())];
        let Ok(mdev) = Mdev::new(Kind::Single, name).or_else(|_| Mdev::existing(name)) else {
            continue;
        };
        match random.u8(..4) {
            0 => drop(mdev),
            1 => {
                let _ = mdev.attach().map(|(container, group)| {
                    let device = group.device(mdev.uuid());
                    (device.is_ok(), container)
                });
                mdev.keep();
            }
            _ => {
                let _ = mdev.set_peer_uuid(&values[random.usize(..values.len())]);
                mdev.keep();
            }
        }
    }
    for name in names {
        let _ = Mdev::existing(name);
    }
}
