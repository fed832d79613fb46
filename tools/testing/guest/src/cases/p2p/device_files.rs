// SPDX-License-Identifier: GPL-2.0

//! Peers that are opened by their own files and bound to an iommufd.

use super::{
    peers,
    two, //
};
use crate::harness::{
    Failure,
    cases, //
};
use anyhow::Result;
use vfio_client::{
    Device,
    Errno,
    Group,
    Iommufd,
    MapFlags,
    Memory,
    PAGE_SIZE,
    mdev::new_uuid, //
};
use vgpu_copy::{
    Command,
    Kind,
    Mdev,
    Operands,
    Status,
    Vgpu, //
};

cases! {
    #[requires(device_files)] two_peers_in_one_iommufd,
    #[requires(device_files)] peers_with_address_spaces_of_their_own,
    #[requires(device_files)] peers_cannot_be_in_two_iommufds,
    #[requires(device_files)] busy_while_a_device_file_is_bound,
    #[requires(device_files)] strangers_in_one_iommufd,
    #[requires(device_files)] file_and_group_exclude_each_other,
}

const IOVA: u64 = 0x40_0000;
/// The number of bytes that the commands copy.
const LENGTH: usize = PAGE_SIZE;

/// Opens the file of a device, and binds it.
fn bound(mdev: &Mdev, iommufd: &Iommufd) -> vfio_client::Result<Device> {
    let device = Device::open_file(&mdev.folder())?;
    device.bind(iommufd)?;
    Ok(device)
}

/// The same, and attaches the device to an IOAS.
pub(super) fn attached(mdev: &Mdev, iommufd: &Iommufd, ioas: u32) -> Result<Vgpu> {
    let device = bound(mdev, iommufd)?;
    device.attach(ioas)?;
    Vgpu::new(device)
}

/// Creates an IOAS with a page at [`IOVA`] whose bytes are all `byte`.
pub(super) fn filled(iommufd: &Iommufd, byte: u8) -> Result<(u32, Memory)> {
    let memory = Memory::anonymous(LENGTH)?;
    memory.fill(0, LENGTH, byte);
    let ioas = iommufd.ioas()?;
    iommufd.map(ioas, IOVA, &memory, MapFlags::ReadWrite)?;
    Ok((ioas, memory))
}

/// Returns the operands of a command on all bytes, for a peer or another device.
fn operands(peer: &Mdev) -> Operands {
    Operands {
        address: IOVA,
        length: LENGTH as u32,
        peer: peer.uuid_bytes(),
        ..Operands::default()
    }
}

/// Copies from the memory to the first device, from there to its peer, and back to the memory.
fn two_peers_in_one_iommufd() -> Result<()> {
    let [a, b] = peers()?;
    let iommufd = Iommufd::open()?;
    let (ioas, memory) = filled(&iommufd, 0x5a)?;
    let first = attached(&a, &iommufd, ioas)?;
    let second = attached(&b, &iommufd, ioas)?;
    assert_eq!(first.run(Command::Load, &operands(&b))?, Status::Done);
    let answer = second.run(Command::CopyFromPeer, &operands(&a))?;
    assert_eq!(answer, Status::Done);
    memory.fill(0, LENGTH, 0);
    assert_eq!(second.run(Command::Store, &operands(&a))?, Status::Done);
    assert_eq!(memory.to_vec(0, LENGTH), [0x5a; LENGTH]);
    // The other one stays attached.
    first.device().detach()?;
    assert_eq!(first.run(Command::Load, &operands(&b))?, Status::Fault);
    assert_eq!(second.run(Command::Load, &operands(&a))?, Status::Done);
    Ok(())
}

/// Peers of one group share an address space. With an iommufd, each can have its own.
fn peers_with_address_spaces_of_their_own() -> Result<()> {
    let [a, b] = peers()?;
    let iommufd = Iommufd::open()?;
    let (one, _first_memory) = filled(&iommufd, 1)?;
    let (two, memory) = filled(&iommufd, 2)?;
    let first = attached(&a, &iommufd, one)?;
    let second = attached(&b, &iommufd, two)?;
    for device in [&first, &second] {
        assert_eq!(device.run(Command::Load, &operands(&a))?, Status::Done);
    }
    assert_eq!(first.memory().to_vec(0, LENGTH), [1; LENGTH]);
    assert_eq!(second.memory().to_vec(0, LENGTH), [2; LENGTH]);
    let answer = second.run(Command::CopyFromPeer, &operands(&a))?;
    assert_eq!(answer, Status::Done);
    assert_eq!(second.run(Command::Store, &operands(&a))?, Status::Done);
    assert_eq!(memory.to_vec(0, LENGTH), [1; LENGTH]);
    Ok(())
}

fn peers_cannot_be_in_two_iommufds() -> Result<()> {
    let [a, b] = peers()?;
    let (one, two) = (Iommufd::open()?, Iommufd::open()?);
    let first = bound(&a, &one)?;
    assert_eq!(bound(&b, &two).errno(), Errno::EPERM);
    let second = bound(&b, &one)?;
    drop(first);
    assert_eq!(bound(&a, &two).errno(), Errno::EPERM);
    drop(second);
    bound(&a, &two)?;
    Ok(())
}

fn busy_while_a_device_file_is_bound() -> Result<()> {
    let [a, b] = peers()?;
    let c = Mdev::with_new_uuid(Kind::Single)?;
    let iommufd = Iommufd::open()?;
    let device = bound(&a, &iommufd)?;
    let (uuid, group) = (a.peer_uuid()?, a.group_number()?);
    for (mdev, value) in [(&a, new_uuid()?), (&b, new_uuid()?), (&c, uuid.clone())] {
        assert_eq!(mdev.set_peer_uuid(&value).errno(), Errno::EBUSY);
    }
    assert_eq!((a.peer_uuid()?, a.group_number()?), (uuid.clone(), group));
    drop(device);
    c.set_peer_uuid(&uuid)?;
    assert_eq!(c.group_number()?, group);
    Ok(())
}

/// Devices that are no peers do not become peers by a common iommufd.
fn strangers_in_one_iommufd() -> Result<()> {
    let [a, b] = two()?;
    let iommufd = Iommufd::open()?;
    let (ioas, _memory) = filled(&iommufd, 0x5a)?;
    let first = attached(&a, &iommufd, ioas)?;
    let second = attached(&b, &iommufd, ioas)?;
    assert_eq!(first.run(Command::Load, &operands(&b))?, Status::Done);
    let answer = second.run(Command::CopyFromPeer, &operands(&a))?;
    assert_eq!(answer, Status::NoPeer);
    // They may also be in different iommufds.
    drop(second);
    bound(&b, &Iommufd::open()?)?;
    Ok(())
}

fn file_and_group_exclude_each_other() -> Result<()> {
    let [a, b] = peers()?;
    let iommufd = Iommufd::open()?;
    let device = bound(&a, &iommufd)?;
    assert_eq!(Group::open(b.group_number()?).errno(), Errno::EBUSY);
    drop(device);
    let group = b.group()?;
    assert_eq!(bound(&a, &iommufd).errno(), Errno::EBUSY);
    drop(group);
    bound(&a, &iommufd)?;
    Ok(())
}
