// SPDX-License-Identifier: GPL-2.0

//! Several threads use the same devices. Whatever the order, the result must be one that
//! sequential execution could produce.

use super::{
    node_exists,
    two, //
};
use crate::{
    harness::{
        Failure,
        cases, //
    },
    slow_sysfs::{
        self,
        MOVE, //
    },
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    fs::{
        self,
        File, //
    },
    mem::ManuallyDrop,
    os::{
        fd::{
            AsFd,
            AsRawFd, //
        },
        unix::fs::FileExt, //
    },
    sync::{
        Barrier,
        atomic::{
            AtomicBool,
            Ordering::Relaxed, //
        },
        mpsc, //
    },
    thread, //
};
use vfio_client::{
    Errno,
    Group,
    mdev::Open, //
};
use vgpu_copy::{
    Kind,
    LINK,
    Mdev,
    NONE,
    PEERS,
    new_uuid, //
};

cases! {
    concurrent_uuid_writes,
    concurrent_uuid_swaps,
    uuid_write_races_open,
    uuid_write_races_remove,
    open_races_create,
    random_requests,
    uuid_is_read_while_a_device_moves,
}

const ROUNDS: usize = 100;

/// Runs two closures concurrently and returns both results.
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

/// Asserts that UUIDs and groups agree: devices are in one group if and only if they have the same
/// UUID.
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

fn concurrent_uuid_writes() -> Result<()> {
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

fn concurrent_uuid_swaps() -> Result<()> {
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

fn uuid_write_races_open() -> Result<()> {
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
        // A device can be opened only from the file of its current group.
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

/// Returns the number of an open group.
fn number_of(group: &Group) -> Result<u32> {
    let path = fs::read_link(format!("/proc/self/fd/{}", group.as_fd().as_raw_fd()))?;
    let name = path.file_name().and_then(|name| name.to_str());
    let number = name.and_then(|name| name.split(' ').next()?.parse().ok());
    number.with_context(|| path.display().to_string())
}

fn uuid_write_races_remove() -> Result<()> {
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

/// A device that is opened as soon as it exists is a member of its group.
///
/// Other threads keep the lock of all groups busy. A new device must wait for it.
fn open_races_create() -> Result<()> {
    let busy = [two()?, two()?];
    let over = AtomicBool::new(false);
    let (uuids, wanted) = mpsc::channel::<String>();
    let (outcomes, opened) = mpsc::channel();
    thread::scope(|scope| -> Result<()> {
        let _over = Over(&over);
        for pair in &busy {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    let moved = pair[1]
                        .peer_uuid()
                        .and_then(|uuid| pair[0].set_peer_uuid(&uuid));
                    moved.expect("nobody has the devices open");
                    let apart = pair[0].set_peer_uuid(&new_uuid().expect("no UUID"));
                    apart.expect("nobody has the devices open");
                }
            });
        }
        let over = &over;
        scope.spawn(move || {
            while let Ok(uuid) = wanted.recv() {
                let outcome = look_at_new(&uuid, over);
                if outcomes.send(outcome).is_err() {
                    return;
                }
            }
        });
        for _ in 0..ROUNDS {
            let uuid = new_uuid()?;
            uuids.send(uuid.clone())?;
            let _mdev = Mdev::new(Kind::Single, &uuid)?;
            opened.recv()??;
        }
        drop(uuids);
        Ok(())
    })
}

/// Signals the end of a case when dropped, even if the case has failed.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Opens a device as soon as it exists and checks what it reports about its group.
fn look_at_new(uuid: &str, over: &AtomicBool) -> Result<()> {
    let open = || -> Result<Open> {
        let mdev = ManuallyDrop::new(Mdev::existing(uuid)?);
        Ok(mdev.open()?)
    };
    let open = loop {
        match open() {
            Ok(open) => break open,
            Err(error) => ensure!(!over.load(Relaxed), error),
        }
    };
    let registers = open.device.region(0)?;
    let register = |register| open.device.get(&registers, register);
    ensure!(register(LINK)? != NONE, "the group had no member");
    ensure!(register(PEERS)? == 1, "not the only member of its group");
    Ok(())
}

/// A thread that moves a device keeps the lock of all groups while it waits for sysfs. The file is
/// open before, because opening a file of sysfs waits as well.
fn uuid_is_read_while_a_device_moves() -> Result<()> {
    let [a, b] = two()?;
    let (file, uuid) = (File::open(b.peer_file())?, b.peer_uuid()?);
    let read = || {
        let mut text = [0; 37];
        file.read_exact_at(&mut text, 0)?;
        ensure!(text == *format!("{uuid}\n").as_bytes(), "{text:?}");
        Ok(())
    };
    slow_sysfs::during(&MOVE, || a.set_peer_uuid(&uuid), &read)??;
    assert_consistent(&[&a, &b])
}

/// How often random operations of several threads have succeeded.
#[derive(Debug, Default)]
pub struct Counts {
    made: usize,
    removed: usize,
    opened: usize,
    grouped: usize,
}

fn random_requests() -> Result<()> {
    let all = at_random(0, |steps| steps < 4 * ROUNDS)?;
    println!("{all:?}");
    ensure!(all.made > 0 && all.removed > 0, "{all:?}");
    ensure!(all.opened > 0 && all.grouped > 0, "{all:?}");
    Ok(())
}

/// Runs random operations in four threads while `go_on` returns true for the number of steps.
pub fn at_random(seed: u64, go_on: impl Fn(usize) -> bool + Sync) -> Result<Counts> {
    const DEVICES: usize = 4;
    let names = (0..DEVICES)
        .map(|_| new_uuid())
        .collect::<vfio_client::Result<Vec<_>>>()?;
    let values = (0..2)
        .map(|_| new_uuid())
        .collect::<vfio_client::Result<Vec<_>>>()?;
    let mut all = Counts::default();
    thread::scope(|scope| {
        let workers = [0, 1, 2, 3].map(|nth| {
            let (names, values, go_on) = (&names, &values, &go_on);
            scope.spawn(move || worker(seed.wrapping_add(nth), names, values, go_on))
        });
        for worker in workers {
            let counts = worker.join().expect("the thread has panicked");
            all.made += counts.made;
            all.removed += counts.removed;
            all.opened += counts.opened;
            all.grouped += counts.grouped;
        }
    });
    let left = names
        .iter()
        .filter_map(|name| Mdev::existing(name).ok())
        .collect::<Vec<_>>();
    assert_consistent(&left.iter().collect::<Vec<_>>())?;
    for mdev in &left {
        drop(mdev.open()?);
        mdev.remove()?;
    }
    Ok(all)
}

/// Creates, groups, opens and removes devices. Any of this may fail because of the other threads.
fn worker(
    seed: u64,
    names: &[String],
    values: &[String],
    go_on: &impl Fn(usize) -> bool,
) -> Counts {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut counts = Counts::default();
    for _ in (0..).take_while(|steps| go_on(*steps)) {
        let name = &names[random.usize(..names.len())];
        let what = random.u8(..5);
        if what < 2 {
            let made = Mdev::new(Kind::Single, name).map(Mdev::keep);
            counts.made += worked(made, &[Errno::EEXIST]);
            continue;
        }
        let Ok(mdev) = Mdev::existing(name).map(ManuallyDrop::new) else {
            continue;
        };
        match what {
            2 => {
                // The device is gone or is still being created.
                let errors = [Errno::ENOENT, Errno::ENODEV, Errno::EAGAIN];
                counts.removed += worked(mdev.remove(), &errors);
            }
            3 => {
                // A group whose last device is removed leaves its container, which then has no
                // backend.
                let gone = [Errno::ENOENT, Errno::ENXIO, Errno::ENODEV, Errno::EINVAL];
                let errors = [&gone[..], &[Errno::EBUSY]].concat();
                counts.opened += worked(mdev.open(), &errors);
            }
            _ => {
                let value = &values[random.usize(..values.len())];
                let errors = [Errno::ENOENT, Errno::ENODEV, Errno::EBUSY];
                counts.grouped += worked(mdev.set_peer_uuid(value), &errors);
            }
        }
    }
    counts
}

/// Returns 1 on success. Panics if the errno is not one of `errors`, otherwise returns 0.
#[track_caller]
fn worked<T, E>(outcome: std::result::Result<T, E>, errors: &[Errno]) -> usize
where
    std::result::Result<T, E>: Failure,
{
    if outcome.is_ok() {
        return 1;
    }
    let errno = outcome.errno();
    assert!(errors.contains(&errno), "{errno}");
    0
}
