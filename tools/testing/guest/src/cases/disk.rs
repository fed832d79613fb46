// SPDX-License-Identifier: GPL-2.0

//! A disk that reads into memory while groups are added and removed and its memory is unmapped.

use crate::{
    env::{
        EDU,
        NVME,
        group, //
    },
    harness::cases,
    stall::LIMIT, //
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use nvme_read::{
    command::Command,
    controller::{
        Controller,
        NAMESPACE, //
    },
    prp::{
        self,
        Prp, //
    },
    session::Session, //
};
use vfio_client::{
    MapFlags,
    Memory, //
};

cases! {
    #[rows("T-G4")] second_group_joins_during_reads,
    #[rows("T-U16")] unmap_during_reads,
}

/// The number of commands in flight.
const COMMANDS: u16 = 16;
/// The number of bytes read by a command.
const PIECE: usize = 2 * prp::PAGE_SIZE;
const LEN: usize = COMMANDS as usize * PIECE;

/// Returns the contents of the disk; see `tools/testing/guest/run`.
fn contents() -> Vec<u8> {
    let numbers = 0..LEN / 8;
    numbers
        .flat_map(|nth| format!("{nth:07}\n").into_bytes())
        .collect()
}

/// Starts reading from the beginning of the disk to `iova` with all commands, without waiting for
/// them.
fn start(controller: &mut Controller<'_>, iova: u64) -> Result<()> {
    let blocks = PIECE / controller.block_size();
    for nth in 0..COMMANDS {
        let piece = iova + u64::from(nth) * PIECE as u64;
        let prp = Prp::new(piece, PIECE, 0).context("two pages")?;
        let first = u64::from(nth) * blocks as u64;
        let command = Command::read(NAMESPACE, first, u16::try_from(blocks)?, &prp);
        controller.submit(&command, nth)?;
    }
    Ok(())
}

/// Waits for all commands. Returns how many failed.
fn finish(controller: &mut Controller<'_>) -> Result<usize> {
    let (mut done, mut failed) = (0, 0);
    while done < usize::from(COMMANDS) {
        let completions = controller.wait(LIMIT)?;
        ensure!(
            !completions.is_empty(),
            "no further command completed after {done}"
        );
        done += completions.len();
        failed += completions.iter().filter(|c| c.status() != 0).count();
    }
    Ok(failed)
}

/// Reads to `memory`, which is mapped at `iova`, and compares the data.
fn check(controller: &mut Controller<'_>, iova: u64, memory: &Memory) -> Result<()> {
    memory.fill(0, LEN, 0xa5);
    start(controller, iova)?;
    assert_eq!(finish(controller)?, 0, "number of failed reads");
    ensure!(
        memory.to_vec(0, LEN) == contents(),
        "the data read differs from the disk"
    );
    Ok(())
}

fn second_group_joins_during_reads() -> Result<()> {
    let session = Session::open(NVME)?;
    let mut controller = Controller::new(&session)?;
    let container = session.container();
    let (before, during) = (Memory::anonymous(LEN)?, Memory::anonymous(LEN)?);
    let one = session.unmapped_iova(LEN as u64)?;
    let two = session.unmapped_iova(LEN as u64)?;
    container.map(one, &before, MapFlags::ReadWrite)?;
    check(&mut controller, one, &before)?;
    let other = group(EDU)?;
    other.set_container(container)?;
    check(&mut controller, one, &before)?;
    container.map(two, &during, MapFlags::ReadWrite)?;
    check(&mut controller, two, &during)?;
    other.unset_container()?;
    check(&mut controller, one, &before)?;
    check(&mut controller, two, &during)
}

fn unmap_during_reads() -> Result<()> {
    let session = Session::open(NVME)?;
    let mut controller = Controller::new(&session)?;
    let container = session.container();
    let (gone, stays) = (Memory::anonymous(LEN)?, Memory::anonymous(LEN)?);
    let one = session.unmapped_iova(LEN as u64)?;
    let two = session.unmapped_iova(LEN as u64)?;
    container.map(one, &gone, MapFlags::ReadWrite)?;
    container.map(two, &stays, MapFlags::ReadWrite)?;
    check(&mut controller, one, &gone)?;
    start(&mut controller, one)?;
    container.unmap(one, LEN as u64)?;
    // Some commands may have completed before.
    finish(&mut controller)?;
    gone.fill(0, LEN, 0x77);
    // QEMU's disk reports success even if its data could not be written.
    start(&mut controller, one)?;
    finish(&mut controller)?;
    assert!(gone.to_vec(0, LEN).iter().all(|byte| *byte == 0x77));
    check(&mut controller, two, &stays)
}
