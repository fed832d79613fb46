// SPDX-License-Identifier: GPL-2.0

//! A device accesses the memory of the process by the mappings of a peer, which other threads close
//! and open.

use super::{
    device_files::{
        attached,
        filled, //
    },
    open,
    peers,
    two, //
};
use crate::{
    harness::cases,
    stall::{
        Progress,
        Release,
        Request,
        stops, //
    },
};
use anyhow::{
    Result,
    bail,
    ensure, //
};
use std::{
    thread,
    time::{
        Duration,
        Instant, //
    },
};
use support::requests::MapDma;
use vfio_client::{
    FaultOn,
    Iommufd,
    MapFlags,
    Memory,
    PAGE_SIZE,
    Userfault, //
};
use vgpu_copy::{
    Command,
    Mdev,
    Operands,
    Status,
    Vgpu, //
};

cases! {
    load_through_peer,
    closed_peer_faults,
    close_waits_for_accesses_of_peers,
    loads_race_close,
    #[requires(device_files)] device_files_load_by_mappings_of_peer,
    #[requires(device_files)] loads_race_close_of_device_files,
}

const IOVA: u64 = 0x40_0000;
const LENGTH: usize = PAGE_SIZE;
/// How often a case that looks for a race closes the peer.
const ROUNDS: usize = 200;
/// After this time, a case that looks for a race ends. The debug kernel does fewer rounds.
const PATIENCE: Duration = Duration::from_secs(30);

fn through(peer: &Mdev) -> Operands {
    Operands {
        address: IOVA,
        length: LENGTH as u32,
        peer: peer.uuid_bytes(),
        ..Operands::default()
    }
}

fn load_through_peer() -> Result<()> {
    let [a, b] = peers()?;
    let (first, group, container) = open(&a)?;
    let _second = Vgpu::open(&group, &b)?;
    let memory = Memory::anonymous(LENGTH)?;
    memory.fill(0, LENGTH, 0x5a);
    let load = |peer| first.run(Command::LoadThroughPeer, &through(peer));
    assert_eq!(load(&b)?, Status::Fault);
    container.map(IOVA, &memory, MapFlags::ReadWrite)?;
    assert_eq!(load(&b)?, Status::Done);
    assert_eq!(first.memory().to_vec(0, LENGTH), [0x5a; LENGTH]);
    assert_eq!(load(&a)?, Status::NoPeer);
    // A device that is open in the same container, but is no peer.
    let [stranger, _] = two()?;
    let others = stranger.group()?;
    others.set_container(&container)?;
    let _stranger = Vgpu::open(&others, &stranger)?;
    assert_eq!(load(&stranger)?, Status::NoPeer);
    Ok(())
}

fn closed_peer_faults() -> Result<()> {
    let [a, b] = peers()?;
    let (first, group, container) = open(&a)?;
    let memory = Memory::anonymous(LENGTH)?;
    container.map(IOVA, &memory, MapFlags::ReadWrite)?;
    let load = || first.run(Command::LoadThroughPeer, &through(&b));
    for _ in 0..3 {
        assert_eq!(load()?, Status::Fault);
        let second = Vgpu::open(&group, &b)?;
        assert_eq!(load()?, Status::Done);
        // The peer is still open through the other file.
        drop(group.device(b.uuid())?);
        assert_eq!(load()?, Status::Done);
        drop(second);
    }
    Ok(())
}

fn close_waits_for_accesses_of_peers() -> Result<()> {
    let [a, b] = peers()?;
    let (first, group, container) = open(&a)?;
    let second = group.device(b.uuid())?;
    let mut memory = Userfault::new(1)?;
    let map = MapDma {
        vaddr: memory.addr(),
        iova: IOVA,
        size: LENGTH as u64,
        ..MapDma::default()
    };
    map.send(&container)?;
    memory.arm(0..1, FaultOn::Access)?;
    thread::scope(|scope| {
        let release = Release(&memory);
        let load = Request::send(scope, || {
            first.start(Command::LoadThroughPeer, &through(&b))
        })?;
        ensure!(stops(&load, &memory)?, "the load does not stop");
        let close = Request::send(scope, || drop(second))?;
        assert_eq!(close.settle(), Progress::Waits);
        drop(release);
        load.finish()??;
        close.finish()
    })?;
    assert_eq!(first.status()?, Status::Done);
    let load = first.run(Command::LoadThroughPeer, &through(&b))?;
    assert_eq!(load, Status::Fault);
    Ok(())
}

/// A device loads through its peer, while another thread closes and opens the peer with `reopen`.
fn race(device: &Vgpu, peer: &Mdev, reopen: impl Fn() -> Result<Vgpu> + Sync) -> Result<()> {
    let (mut done, mut faults) = (0, 0);
    thread::scope(|scope| -> Result<()> {
        let opener = scope.spawn(|| -> Result<usize> {
            let start = Instant::now();
            for round in 0..ROUNDS {
                drop(reopen()?);
                if start.elapsed() > PATIENCE {
                    return Ok(round + 1);
                }
            }
            Ok(ROUNDS)
        });
        while !opener.is_finished() {
            match device.run(Command::LoadThroughPeer, &through(peer))? {
                Status::Done => done += 1,
                Status::Fault => faults += 1,
                other => bail!("{other:?}"),
            }
        }
        let rounds = opener.join().expect("the thread has panicked")?;
        println!("{rounds} rounds: {done} loads, {faults} faults");
        Ok(())
    })?;
    ensure!(done > 0 && faults > 0, "{done} loads, {faults} faults");
    Ok(())
}

fn loads_race_close() -> Result<()> {
    let [a, b] = peers()?;
    let (first, group, container) = open(&a)?;
    let memory = Memory::anonymous(LENGTH)?;
    container.map(IOVA, &memory, MapFlags::ReadWrite)?;
    race(&first, &b, || Vgpu::open(&group, &b))
}

/// The address space is that of the peer, not that of the device which runs the command.
fn device_files_load_by_mappings_of_peer() -> Result<()> {
    let [a, b] = peers()?;
    let iommufd = Iommufd::open()?;
    let (one, _memory) = filled(&iommufd, 1)?;
    let (two, _memory) = filled(&iommufd, 2)?;
    let first = attached(&a, &iommufd, one)?;
    let load = || first.run(Command::LoadThroughPeer, &through(&b));
    assert_eq!(load()?, Status::Fault);
    let second = attached(&b, &iommufd, two)?;
    assert_eq!(load()?, Status::Done);
    assert_eq!(first.memory().to_vec(0, LENGTH), [2; LENGTH]);
    second.device().detach()?;
    assert_eq!(load()?, Status::Fault);
    Ok(())
}

fn loads_race_close_of_device_files() -> Result<()> {
    let [a, b] = peers()?;
    let iommufd = Iommufd::open()?;
    let (ioas, _memory) = filled(&iommufd, 0x5a)?;
    let first = attached(&a, &iommufd, ioas)?;
    race(&first, &b, || attached(&b, &iommufd, ioas))
}
