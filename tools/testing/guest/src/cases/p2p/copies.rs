// SPDX-License-Identifier: GPL-2.0

//! Commands of the accelerators: copies from and to user memory, and from peers.

use super::{
    open,
    peers,
    two, //
};
use crate::harness::{
    Failure,
    cases, //
};
use anyhow::{
    Result,
    ensure, //
};
use std::fs;
use vfio_client::{
    Container, Errno, MapFlags, Memory, PAGE_SIZE, Register,
    mdev::type_folder,
    pci::{
        self,
        Config, //
    },
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
    regions_and_attributes,
    configuration_space,
    load_and_store,
    unaligned_copies,
    unmapped_address_faults,
    store_to_read_only_mapping_faults,
    copy_outside_device_memory,
    unknown_command,
    copy_from_peer,
    copy_from_non_peer_fails,
    copy_from_itself_fails,
    mmap_shows_device_memory,
    close_clears_memory,
    reset_clears_memory,
    open_group_has_link,
    second_open_is_busy,
    unmap_during_copies,
    copy_many_pages,
}

const IOVA: u64 = 0x40_0000;
/// The configuration register of the MSI capability.
const MSI: Register<u16> = Register::at(0x50);

/// Returns bytes that depend on their position.
fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7 * 13 + at + seed) as u8).collect()
}

/// Maps memory with a pattern for devices.
fn mapped(container: &Container, len: usize, flags: MapFlags) -> Result<Memory> {
    let memory = Memory::anonymous(len)?;
    memory.write(0, &pattern(len, 1));
    container.map(IOVA, &memory, flags)?;
    Ok(memory)
}

/// Returns operands for `length` bytes from the start of user memory and of device memory.
fn whole(length: usize) -> Operands {
    Operands {
        address: IOVA,
        length: length as u32,
        ..Operands::default()
    }
}

/// Two peers of one open group. The fields are in the order in which they must be dropped.
struct Pair {
    first: Vgpu,
    second: Vgpu,
    container: Container,
    mdevs: [Mdev; 2],
}

fn pair() -> Result<Pair> {
    let mdevs = peers()?;
    let (container, group) = mdevs[0].attach()?;
    Ok(Pair {
        first: Vgpu::open(&group, &mdevs[0])?,
        second: Vgpu::open(&group, &mdevs[1])?,
        container,
        mdevs,
    })
}

fn regions_and_attributes() -> Result<()> {
    for (kind, size) in [
        (Kind::Single, 64 << 10),
        (Kind::Double, 128 << 10),
        (Kind::Isolated, 64 << 10),
    ] {
        let mdev = Mdev::with_new_uuid(kind)?;
        let api = fs::read_to_string(type_folder(kind.as_ref()).join("device_api"))?;
        assert_eq!(api, "vfio-pci\n");
        let (device, _group, _container) = open(&mdev)?;
        assert!(device.identified()?);
        assert!(device.device().info()?.can_reset());
        assert_eq!(device.memory_size()?, size);
        assert_eq!(device.memory().len(), size as usize);
        let pasid = device.pasid()?;
        ensure!(
            pasid.is_some_and(|pasid| pasid > 0 && pasid < 1 << 20),
            "ioasid.ko is loaded, but the PASID is {pasid:?}"
        );
    }
    Ok(())
}

fn configuration_space() -> Result<()> {
    let mdev = Mdev::with_new_uuid(Kind::Single)?;
    let (device, _group, _container) = open(&mdev)?;
    let config = Config::of(device.device())?;
    let identity = config.get(pci::ID)?;
    config.enable()?;
    assert_eq!(config.get(pci::COMMAND)? & 0x6, 0x6);
    assert_eq!(config.get(pci::ID)?, identity);
    assert_eq!(config.get(MSI)? & 0xff, 0x05, "no MSI capability");
    Ok(())
}

fn load_and_store() -> Result<()> {
    let mdev = Mdev::with_new_uuid(Kind::Isolated)?;
    let (device, _group, container) = open(&mdev)?;
    let len = 16 << 10;
    let memory = mapped(&container, 2 * len, MapFlags::ReadWrite)?;
    assert_eq!(device.run(Command::Load, &whole(len))?, Status::Done);
    let back = Operands {
        address: IOVA + len as u64,
        ..whole(len)
    };
    assert_eq!(device.run(Command::Store, &back)?, Status::Done);
    assert_eq!(memory.to_vec(len, len), pattern(len, 1));
    assert_eq!(device.completed()?, 2);
    Ok(())
}

fn unaligned_copies() -> Result<()> {
    let mdev = Mdev::with_new_uuid(Kind::Single)?;
    let (device, _group, container) = open(&mdev)?;
    let _memory = mapped(&container, 8 * PAGE_SIZE, MapFlags::ReadWrite)?;
    for (from, to, len) in [
        (1, 3, 1),
        (4095, 17, 2),
        (100, 9, 3 * PAGE_SIZE),
        (4097, 0, 4095),
    ] {
        let operands = Operands {
            address: IOVA + from as u64,
            offset: to as u32,
            ..whole(len)
        };
        assert_eq!(device.run(Command::Load, &operands)?, Status::Done);
        let wanted = &pattern(8 * PAGE_SIZE, 1)[from..from + len];
        assert_eq!(device.memory().to_vec(to, len), wanted);
    }
    Ok(())
}

fn unmapped_address_faults() -> Result<()> {
    let mdev = Mdev::with_new_uuid(Kind::Single)?;
    let (device, _group, container) = open(&mdev)?;
    let memory = mapped(&container, PAGE_SIZE, MapFlags::ReadWrite)?;
    let before = memory.to_vec(0, PAGE_SIZE);
    for address in [0, IOVA - 1, IOVA + 1, IOVA + PAGE_SIZE as u64, u64::MAX] {
        let operands = Operands {
            address,
            ..whole(PAGE_SIZE)
        };
        for command in [Command::Load, Command::Store] {
            let status = device.run(command, &operands)?;
            assert_eq!(status, Status::Fault, "{command:?} at {address:#x}");
        }
    }
    assert_eq!(memory.to_vec(0, PAGE_SIZE), before);
    Ok(())
}

fn store_to_read_only_mapping_faults() -> Result<()> {
    let mdev = Mdev::with_new_uuid(Kind::Single)?;
    let (device, _group, container) = open(&mdev)?;
    let _memory = mapped(&container, PAGE_SIZE, MapFlags::Read)?;
    let operands = whole(PAGE_SIZE);
    assert_eq!(device.run(Command::Load, &operands)?, Status::Done);
    assert_eq!(device.run(Command::Store, &operands)?, Status::Fault);
    Ok(())
}

fn copy_outside_device_memory() -> Result<()> {
    let pair = pair()?;
    let (first, mdevs) = (&pair.first, &pair.mdevs);
    let _memory = mapped(&pair.container, PAGE_SIZE, MapFlags::ReadWrite)?;
    let size = first.memory_size()?;
    for (offset, length) in [
        (size, 1),
        (size - 1, 2),
        (0, size + 1),
        (u32::MAX, u32::MAX),
    ] {
        let operands = Operands {
            offset,
            length,
            peer: mdevs[1].uuid_bytes(),
            ..whole(0)
        };
        for command in [Command::Load, Command::Store, Command::CopyFromPeer] {
            assert_eq!(first.run(command, &operands)?, Status::Invalid);
        }
    }
    let beyond_the_peer = Operands {
        peer: mdevs[1].uuid_bytes(),
        peer_offset: 2 * size - 1,
        ..whole(2)
    };
    let status = first.run(Command::CopyFromPeer, &beyond_the_peer)?;
    assert_eq!(status, Status::Invalid);
    Ok(())
}

fn unknown_command() -> Result<()> {
    let mdev = Mdev::with_new_uuid(Kind::Single)?;
    let (device, _group, _container) = open(&mdev)?;
    let status = device.run(Command::Unknown, &Operands::default())?;
    assert_eq!(status, Status::Invalid);
    Ok(())
}

fn copy_from_peer() -> Result<()> {
    let pair = pair()?;
    let len = pair.first.memory_size()? as usize;
    pair.second.memory().write(len, &pattern(len, 5));
    let operands = Operands {
        peer: pair.mdevs[1].uuid_bytes(),
        peer_offset: len as u32,
        ..whole(len)
    };
    assert_eq!(
        pair.first.run(Command::CopyFromPeer, &operands)?,
        Status::Done
    );
    assert_eq!(pair.first.memory().to_vec(0, len), pattern(len, 5));
    Ok(())
}

fn copy_from_non_peer_fails() -> Result<()> {
    let [a, b] = two()?;
    let (device, _group, container) = open(&a)?;
    let other = b.group()?;
    other.set_container(&container)?;
    let stranger = Vgpu::open(&other, &b)?;
    stranger.memory().write(0, &pattern(64, 5));
    for peer in [b.uuid_bytes(), [0; 16], [0xff; 16]] {
        let operands = Operands { peer, ..whole(64) };
        let status = device.run(Command::CopyFromPeer, &operands)?;
        assert_eq!(status, Status::NoPeer);
    }
    assert_eq!(device.memory().to_vec(0, 64), [0; 64]);
    Ok(())
}

fn copy_from_itself_fails() -> Result<()> {
    let mdev = Mdev::with_new_uuid(Kind::Single)?;
    let (device, _group, _container) = open(&mdev)?;
    let operands = Operands {
        peer: mdev.uuid_bytes(),
        ..whole(64)
    };
    let status = device.run(Command::CopyFromPeer, &operands)?;
    assert_eq!(status, Status::NoPeer);
    Ok(())
}

fn mmap_shows_device_memory() -> Result<()> {
    let mdev = Mdev::with_new_uuid(Kind::Single)?;
    let (device, _group, _container) = open(&mdev)?;
    device.memory().write(100, &pattern(100, 3));
    let region = device.device().region(2)?;
    let mut bytes = [0; 100];
    device.device().read(&region, 100, &mut bytes)?;
    assert_eq!(bytes.as_slice(), pattern(100, 3));
    device.device().write(&region, 0, &pattern(50, 4))?;
    assert_eq!(device.memory().to_vec(0, 50), pattern(50, 4));
    Ok(())
}

fn close_clears_memory() -> Result<()> {
    let mdev = Mdev::with_new_uuid(Kind::Single)?;
    let (device, group, container) = open(&mdev)?;
    device.memory().write(0, &pattern(4096, 3));
    drop((device, group, container));
    let (device, _group, _container) = open(&mdev)?;
    assert_eq!(device.memory().to_vec(0, 4096), [0; 4096]);
    Ok(())
}

fn reset_clears_memory() -> Result<()> {
    let mdev = Mdev::with_new_uuid(Kind::Single)?;
    let (device, _group, _container) = open(&mdev)?;
    device.memory().write(0, &pattern(4096, 3));
    let operands = Operands {
        offset: 12,
        ..Operands::default()
    };
    device.run(Command::Unknown, &operands)?;
    assert_eq!(device.offset()?, 12);
    device.device().reset()?;
    assert_eq!(device.memory().to_vec(0, 4096), [0; 4096]);
    assert_eq!((device.offset()?, device.completed()?), (0, 0));
    assert_eq!(device.status()?, Status::Done);
    Ok(())
}

fn open_group_has_link() -> Result<()> {
    let pair = pair()?;
    let link = pair.first.link()?;
    assert!(link.is_some());
    assert_eq!(pair.second.link()?, link);
    assert_eq!(pair.first.peers()?, 2);

    // Another group has another link.
    let other = Mdev::with_new_uuid(Kind::Single)?;
    let (device, group, container) = open(&other)?;
    assert!(device.link()?.is_some_and(|other| Some(other) != link));
    drop((device, group, container));

    // The link stays until the last member is closed.
    drop(pair.first);
    assert_eq!(pair.second.link()?, link);
    Ok(())
}

fn second_open_is_busy() -> Result<()> {
    let [a, b] = peers()?;
    let _open = open(&a)?;
    assert_eq!(b.group().errno(), Errno::EBUSY);
    Ok(())
}

fn unmap_during_copies() -> Result<()> {
    let mdev = Mdev::with_new_uuid(Kind::Single)?;
    let (device, _group, container) = open(&mdev)?;
    let len = 8 * PAGE_SIZE;
    let memory = mapped(&container, len, MapFlags::ReadWrite)?;
    std::thread::scope(|scope| -> Result<()> {
        let runner = scope.spawn(|| -> Result<usize> {
            let mut faults = 0;
            for _ in 0..200 {
                match device.run(Command::Load, &whole(len))? {
                    Status::Done => {}
                    Status::Fault => faults += 1,
                    other => anyhow::bail!("{other:?}"),
                }
            }
            Ok(faults)
        });
        for _ in 0..200 {
            container.unmap(IOVA, len as u64)?;
            container.map(IOVA, &memory, MapFlags::ReadWrite)?;
        }
        runner.join().expect("the thread has panicked")?;
        Ok(())
    })?;
    container.unmap(IOVA, len as u64)?;
    assert_eq!(device.run(Command::Load, &whole(len))?, Status::Fault);
    Ok(())
}

fn copy_many_pages() -> Result<()> {
    let mdev = Mdev::with_new_uuid(Kind::Double)?;
    let (device, _group, container) = open(&mdev)?;
    let len = device.memory_size()? as usize;
    let _memory = mapped(&container, len + PAGE_SIZE, MapFlags::ReadWrite)?;
    let operands = Operands {
        address: IOVA + 123,
        ..whole(len)
    };
    assert_eq!(device.run(Command::Load, &operands)?, Status::Done);
    let wanted = &pattern(len + PAGE_SIZE, 1)[123..123 + len];
    assert_eq!(device.memory().to_vec(0, len), wanted);
    Ok(())
}
