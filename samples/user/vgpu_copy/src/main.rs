// SPDX-License-Identifier: GPL-2.0

//! Two virtual accelerators that copy from each other, and the access rules for them.
//!
//! The program creates two devices of `samples/vgpu_p2p`. In one group, one device copies from the
//! other's memory; meanwhile another process cannot open either of them. In separate groups, the
//! copy is rejected. Finally the state of one device is migrated to a third device, which continues
//! its work.

#![deny(unsafe_code)]

mod migrate;

use anyhow::{
    Result,
    ensure, //
};
use clap::Parser;
use std::{
    fs::File,
    process::{
        Command as Process,
        Stdio, //
    },
};
use vfio_client::{
    MapFlags,
    Memory, //
};
use vgpu_copy::{
    Command,
    Kind,
    Mdev,
    Operands,
    Status,
    Vgpu,
    new_uuid, //
};

/// The number of bytes to copy.
const LENGTH: usize = 16 << 10;

/// The iova of the program's memory.
const IOVA: u64 = 0x10_0000;

/// Drives two virtual accelerators that copy from each other.
#[derive(Parser)]
struct Options {
    /// Only try to open this group; the exit status tells whether that works.
    #[arg(long, hide = true)]
    open: Option<u32>,
}

fn main() -> Result<()> {
    if let Some(number) = Options::parse().open {
        File::options()
            .read(true)
            .write(true)
            .open(format!("/dev/vfio/{number}"))?;
        return Ok(());
    }
    let a = Mdev::with_new_uuid(Kind::Single)?;
    let b = Mdev::with_new_uuid(Kind::Double)?;

    println!("each in a group of its own: {}", groups(&a, &b)?);
    ensure!(copy(&a, &b)? == Status::NoPeer, "the copy was not refused");
    println!("  the copy is refused");

    b.set_peer_uuid(&a.peer_uuid()?)?;
    println!("peers, in one group: {}", groups(&a, &b)?);
    ensure!(copy(&a, &b)? == Status::Done, "the copy failed");
    println!("  copied {LENGTH} bytes from one device to the other");

    b.set_peer_uuid(&new_uuid()?)?;
    println!("split again: {}", groups(&a, &b)?);
    ensure!(copy(&a, &b)? == Status::NoPeer, "the copy was not refused");
    println!("  the copy is refused");

    let bytes = migrate::migrate(&a)?;
    println!("moved: {bytes} bytes of state, and a command that waited");
    println!("  the new device has done it");
    Ok(())
}

fn groups(a: &Mdev, b: &Mdev) -> Result<String> {
    Ok(format!("{} and {}", a.group_number()?, b.group_number()?))
}

/// Loads a pattern into the memory of `b`, lets `a` copy it, and stores it in the program's memory
/// again.
fn copy(a: &Mdev, b: &Mdev) -> Result<Status> {
    let memory = Memory::anonymous(2 * LENGTH)?;
    let pattern: Vec<u8> = (0..LENGTH).map(|at| (at / 8 * 31 + at) as u8).collect();
    memory.write(0, &pattern);

    let (container, group) = a.attach()?;
    let other = (a.group_number()? != b.group_number()?)
        .then(|| b.group())
        .transpose()?;
    if let Some(other) = &other {
        other.set_container(&container)?;
    }
    container.map(IOVA, &memory, MapFlags::ReadWrite)?;
    let first = Vgpu::open(&group, a)?;
    let second = Vgpu::open(other.as_ref().unwrap_or(&group), b)?;
    nobody_else(a)?;
    nobody_else(b)?;

    let operands = Operands {
        address: IOVA,
        length: LENGTH as u32,
        peer: b.uuid_bytes(),
        ..Operands::default()
    };
    ensure!(second.run(Command::Load, &operands)? == Status::Done);
    let status = first.run(Command::CopyFromPeer, &operands)?;
    let back = Operands {
        address: IOVA + LENGTH as u64,
        ..operands
    };
    ensure!(first.run(Command::Store, &back)? == Status::Done);
    let copied = memory.to_vec(LENGTH, LENGTH) == pattern;
    ensure!(
        copied == (status == Status::Done),
        "what was copied isn't what the device says"
    );
    Ok(status)
}

/// Checks that another process cannot open the group of a device in use.
fn nobody_else(mdev: &Mdev) -> Result<()> {
    let status = Process::new(std::env::current_exe()?)
        .args(["--open", &mdev.group_number()?.to_string()])
        .stderr(Stdio::null())
        .status()?;
    ensure!(
        !status.success(),
        "another process could open the group of {}",
        mdev.uuid()
    );
    Ok(())
}
