// SPDX-License-Identifier: GPL-2.0

//! The programs that a soak test runs concurrently. They work at random until their time is over.
//! `tools/testing/soak` starts and kills them. Each kind of program has devices of its own.

use crate::{
    cases::{
        races,
        random,
        together, //
    },
    helper::say,
    pin,
    stress,
    threads::errno_of, //
};
use anyhow::{
    Result,
    bail,
    ensure, //
};
use fastrand::Rng;
use std::time::{
    Duration,
    Instant, //
};
use support::machine::locked_kib;
use vfio_client::{
    Errno,
    MapFlags,
    Memory,
    PAGE_SIZE,
    mdev::{
        Mdev,
        Open, //
    },
    raw,
    request, //
};
use vgpu_copy::{
    Command,
    Kind,
    Operands,
    Status,
    Vgpu, //
};

/// The `edu` and the disk that are used, bound and unbound.
const DEVICES: [&str; 2] = ["0000:00:06.0", "0000:00:07.0"];

/// Errnos with which a program gives up: others have the memory or the mappings.
const GIVES_UP: [Errno; 2] = [Errno::ENOMEM, Errno::ENOSPC];

/// Further ones of a program whose device others use, too.
const HAS_NO_DEVICE: [Errno; 4] = [Errno::EBUSY, Errno::ENODEV, Errno::ENOENT, Errno::ENXIO];

/// Runs a program for `time`. It prints a line when it has begun to work, and others later.
///
/// # Errors
///
/// One of [`GIVES_UP`] or, from "pin", of [`HAS_NO_DEVICE`].
///
/// # Panics
///
/// With any other error, which includes failed checks.
pub fn work(kind: &str, seed: u64, time: Duration) -> Result<()> {
    let outcome = run(kind, seed, time);
    if let Err(error) = &outcome {
        let errno = errno_of(error);
        assert!(
            errno.is_some_and(|errno| GIVES_UP.contains(&errno)
                || kind == "pin" && HAS_NO_DEVICE.contains(&errno)),
            "{error:?}"
        );
    }
    let locked = locked_kib();
    assert_eq!(locked, 0, "KiB locked at the end");
    outcome
}

fn run(kind: &str, seed: u64, time: Duration) -> Result<()> {
    match kind {
        "use" => stress::use_devices(DEVICES, seed, time, |counts| say(counts))?,
        "rebind" => {
            let changes = &stress::CHANGES_OF_DEVICES;
            say(stress::churn(DEVICES, changes, seed, time)?);
        }
        "pin" => {
            pin::prepare()?;
            together(DEVICES[0], seed, time)?;
        }
        "pamu" => say(random::at_random(seed, time)?),
        "peers" => {
            let end = Instant::now() + time;
            let counts = races::at_random(seed, |_| Instant::now() < end)?;
            say(format!("{counts:?}"));
        }
        "copies" => say(copies(seed, time)?),
        "mdevs" => say(mdevs(seed, time)?),
        other => bail!("there is no program {other:?}"),
    }
    Ok(())
}

/// The IOVA at which [`copies`] maps its memory.
const IOVA: u64 = 0x40_0000;
/// The size of that memory.
const LENGTH: usize = 8 * PAGE_SIZE;

/// Copies data from memory through two peers and back. Returns the number of successful copies.
fn copies(seed: u64, time: Duration) -> Result<u64> {
    let end = Instant::now() + time;
    let mut random = Rng::with_seed(seed);
    let mut rounds = 0;
    while Instant::now() < end {
        let [first, second] = [Kind::Single, Kind::Double].map(Mdev::with_new_uuid);
        let (first, second) = (first?, second?);
        second.set_peer_uuid(&first.peer_uuid()?)?;
        let (container, group) = first.attach()?;
        let memory = Memory::anonymous(2 * LENGTH)?;
        container.map(IOVA, &memory, MapFlags::ReadWrite)?;
        let peers = (Vgpu::open(&group, &first)?, Vgpu::open(&group, &second)?);
        for _ in 0..random.usize(1..20) {
            let mut data = vec![0; LENGTH];
            random.fill(&mut data);
            memory.write(0, &data);
            memory.fill(LENGTH, LENGTH, 0);
            copy(&peers, first.uuid_bytes())?;
            ensure!(
                memory.to_vec(LENGTH, LENGTH) == data,
                "the data changed on its way in round {rounds}"
            );
            rounds += 1;
        }
    }
    Ok(rounds)
}

/// Copies the first half of the memory to one device, from there to the other, and from there to
/// the second half.
fn copy((first, second): &(Vgpu, Vgpu), peer: [u8; 16]) -> Result<()> {
    let there = Operands {
        address: IOVA,
        length: LENGTH as u32,
        peer,
        ..Operands::default()
    };
    let back = Operands {
        address: IOVA + LENGTH as u64,
        ..there
    };
    for (device, command, operands) in [
        (first, Command::Load, &there),
        (second, Command::CopyFromPeer, &there),
        (second, Command::Store, &back),
    ] {
        device.start(command, operands)?;
        // The timeout is long because the machine may be busy.
        device.interrupt().wait(Duration::from_secs(60))?;
        let status = device.status()?;
        ensure!(
            status == Status::Done,
            "{command:?}: expected Done, got {status:?}"
        );
    }
    Ok(())
}

/// Device types of the kernel's samples.
const TYPES: [&str; 3] = ["mtty-1", "mdpy-vga", "mbochs-small"];

/// The UUIDs of the devices. A killed program leaves its devices to the next one.
const NAMES: [&str; 4] = [
    "7c0b5a46-0e30-4fa5-90d4-2d8c6f5e2b01",
    "7c0b5a46-0e30-4fa5-90d4-2d8c6f5e2b02",
    "7c0b5a46-0e30-4fa5-90d4-2d8c6f5e2b03",
    "7c0b5a46-0e30-4fa5-90d4-2d8c6f5e2b04",
];

/// Creates, opens, resets, closes and removes mediated devices. Returns how often a device was
/// open.
fn mdevs(seed: u64, time: Duration) -> Result<u64> {
    let end = Instant::now() + time;
    let mut random = Rng::with_seed(seed);
    let mut slots = NAMES.map(|name| (Mdev::existing(name).ok(), None::<Open>));
    let mut opened = 0;
    while Instant::now() < end {
        let nth = random.usize(0..NAMES.len());
        match (&mut slots[nth], random.u8(0..4)) {
            ((mdev @ None, _), _) => {
                let name = TYPES[random.usize(0..TYPES.len())];
                *mdev = Some(Mdev::new(name, NAMES[nth])?);
            }
            // Removing an open device would wait for this program.
            ((mdev, None), 0) => *mdev = None,
            ((Some(mdev), open @ None), _) => {
                *open = Some(mdev.open()?);
                if opened == 0 {
                    say("begun");
                }
                opened += 1;
            }
            // Not every device supports a reset.
            ((_, Some(open)), 0) => {
                raw::none(&open.device, request::DEVICE_RESET).unwrap_or_default();
            }
            ((_, open), _) => *open = None,
        }
    }
    for (_, open) in &mut slots {
        *open = None;
    }
    Ok(opened)
}
