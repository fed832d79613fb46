// SPDX-License-Identifier: GPL-2.0

//! The behaviour of an accelerator in states that restrict it.

use super::{
    Open,
    RESUMING,
    RUNNING,
    RUNNING_P2P,
    STOP,
    STOP_COPY,
    go_plainly,
    go_with_file,
    save, //
};
use crate::{cases::p2p::peers, harness::cases};
use anyhow::Result;
use std::{
    io::Write,
    sync::atomic::{
        AtomicBool,
        Ordering::Relaxed, //
    },
};
use vfio_client::{
    MapFlags,
    Memory,
    PAGE_SIZE, //
};
use vgpu_copy::{
    Command,
    Kind,
    Operands,
    Status,
    Vgpu, //
};

cases! {
    #[rows("D10")] commands_wait_until_running,
    #[rows("D10")] waiting_command_migrates,
    #[rows("D10")] reset_drops_waiting_command,
    #[rows("D10")] stopped_device_accesses_no_peer,
    #[rows("D10")] stop_waits_for_running_copy,
}

const IOVA: u64 = 0x40_0000;
const LENGTH: usize = 4 * PAGE_SIZE;

/// Maps memory filled with a byte.
fn mapped(open: &Open, byte: u8) -> Result<Memory> {
    let memory = Memory::anonymous(LENGTH)?;
    memory.write(0, &[byte; LENGTH]);
    open.container.map(IOVA, &memory, MapFlags::ReadWrite)?;
    Ok(memory)
}

fn operands() -> Operands {
    Operands {
        address: IOVA,
        length: LENGTH as u32,
        ..Operands::default()
    }
}

/// Returns whether the device is idle: no command has completed, and no interrupt has arrived.
fn idle(vgpu: &Vgpu) -> Result<bool> {
    Ok(vgpu.completed()? == 0 && vgpu.interrupt().take()? == 0)
}

/// Checks that the waiting command has ended. Returns its status.
fn ended(vgpu: &Vgpu) -> Result<Status> {
    assert_eq!(vgpu.interrupt().take()?, 1);
    assert_eq!((vgpu.waiting()?, vgpu.completed()?), (0, 1));
    vgpu.status()
}

fn commands_wait_until_running() -> Result<()> {
    let open = Open::new(Kind::Single)?;
    let memory = mapped(&open, 5)?;
    let vgpu = &open.vgpu;
    go_plainly(open.device(), STOP);
    vgpu.start(Command::Store, &operands())?;
    assert!(idle(vgpu)?);
    assert_eq!(vgpu.waiting()?, Command::Store as u32);
    drop(go_with_file(open.device(), STOP_COPY)?);
    assert!(idle(vgpu)?);
    assert_eq!(memory.to_vec(0, LENGTH), [5; LENGTH]);
    // In this state the device leaves its peers alone, but it runs.
    go_plainly(open.device(), RUNNING_P2P);
    assert_eq!(ended(vgpu)?, Status::Done);
    assert_eq!(memory.to_vec(0, LENGTH), [0; LENGTH]);
    go_plainly(open.device(), RUNNING);
    assert_eq!(vgpu.completed()?, 1, "only once");
    Ok(())
}

fn waiting_command_migrates() -> Result<()> {
    let (from, to) = (Open::new(Kind::Single)?, Open::new(Kind::Single)?);
    let (_first, _second) = (mapped(&from, 1)?, mapped(&to, 2)?);
    go_plainly(from.device(), STOP);
    from.vgpu.start(Command::Load, &operands())?;
    let data = save(from.device())?;
    go_with_file(to.device(), RESUMING)?.write_all(&data)?;
    assert!(idle(&to.vgpu)?);
    go_plainly(to.device(), STOP);
    assert!(idle(&to.vgpu)?);
    assert_eq!(to.vgpu.waiting()?, Command::Load as u32);
    go_plainly(to.device(), RUNNING);
    assert_eq!(ended(&to.vgpu)?, Status::Done);
    assert_eq!(to.vgpu.memory().to_vec(0, LENGTH), [2; LENGTH]);
    assert!(idle(&from.vgpu)?);
    Ok(())
}

fn reset_drops_waiting_command() -> Result<()> {
    let open = Open::new(Kind::Single)?;
    let _memory = mapped(&open, 1)?;
    go_plainly(open.device(), STOP);
    open.vgpu.start(Command::Load, &operands())?;
    open.device().reset()?;
    assert_eq!(open.vgpu.waiting()?, 0);
    assert!(idle(&open.vgpu)?);
    assert_eq!(open.vgpu.run(Command::Load, &operands())?, Status::Done);
    // Closing the device also leaves nothing behind.
    go_plainly(open.device(), STOP);
    open.vgpu.start(Command::Load, &operands())?;
    drop(open.vgpu);
    let again = Vgpu::open(&open.group, &open.mdev)?;
    assert_eq!((again.waiting()?, again.completed()?), (0, 0));
    assert_eq!(again.memory().to_vec(0, LENGTH), [0; LENGTH]);
    Ok(())
}

fn stopped_device_accesses_no_peer() -> Result<()> {
    let mdevs = peers()?;
    let (_container, group) = mdevs[0].attach()?;
    let first = Vgpu::open(&group, &mdevs[0])?;
    let second = Vgpu::open(&group, &mdevs[1])?;
    second.memory().write(0, &[9; LENGTH]);
    let operands = Operands {
        peer: mdevs[1].uuid_bytes(),
        ..operands()
    };
    go_plainly(first.device(), RUNNING_P2P);
    first.start(Command::CopyFromPeer, &operands)?;
    assert!(idle(&first)?);
    // Copying from a stopped device is allowed.
    go_plainly(second.device(), STOP);
    go_plainly(first.device(), RUNNING);
    assert_eq!(ended(&first)?, Status::Done);
    assert_eq!(first.memory().to_vec(0, LENGTH), [9; LENGTH]);
    Ok(())
}

/// A process stops a device while another of its threads keeps it busy.
fn stop_waits_for_running_copy() -> Result<()> {
    let open = Open::new(Kind::Single)?;
    let memory = mapped(&open, 3)?;
    let (vgpu, done) = (&open.vgpu, AtomicBool::new(false));
    std::thread::scope(|scope| -> Result<()> {
        let writer = scope.spawn(|| -> Result<()> {
            while !done.load(Relaxed) {
                vgpu.start(Command::Store, &operands())?;
            }
            Ok(())
        });
        let mut busy = 0;
        for round in 0..30_u8 {
            go_plainly(open.device(), STOP);
            let completed = vgpu.completed()?;
            // The device must not change the new contents of user memory.
            memory.write(0, &[round; LENGTH]);
            std::thread::yield_now();
            assert_eq!(memory.to_vec(0, LENGTH), [round; LENGTH]);
            assert_eq!(vgpu.completed()?, completed);
            go_plainly(open.device(), RUNNING);
            busy += usize::from(vgpu.completed()? > completed);
        }
        done.store(true, Relaxed);
        writer.join().expect("the thread has panicked")?;
        assert!(busy > 0, "nothing ran");
        Ok(())
    })
}
