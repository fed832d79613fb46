// SPDX-License-Identifier: GPL-2.0

//! Migrates a device's state to another device while a command is pending.

use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    io::{
        Read,
        Write, //
    },
    time::Duration,
};
use vfio_client::{
    MapFlags,
    Memory,
    MigrationState, //
};
use vgpu_copy::{
    Command,
    Kind,
    Mdev,
    Operands,
    Status,
    Vgpu, //
};

use crate::{
    IOVA,
    LENGTH, //
};

/// Stops a device, gives it a command, and lets a new device run it. Returns the size of the state
/// in bytes.
pub(crate) fn migrate(source: &Mdev) -> Result<usize> {
    let memory = Memory::anonymous(LENGTH)?;
    let (container, group) = source.attach()?;
    container.map(IOVA, &memory, MapFlags::ReadWrite)?;
    let from = Vgpu::open(&group, source)?;
    let pattern: Vec<u8> = (0..LENGTH).map(|at| (at / 3 * 7 + at) as u8).collect();
    from.memory().write(0, &pattern);

    from.device().set_migration_state(MigrationState::Stop)?;
    let store = Operands {
        address: IOVA,
        length: LENGTH as u32,
        ..Operands::default()
    };
    from.start(Command::Store, &store)?;
    let file = from
        .device()
        .set_migration_state(MigrationState::StopCopy)?;
    let mut state = Vec::new();
    file.context("STOP_COPY has no file")?
        .read_to_end(&mut state)?;

    let target = Mdev::with_new_uuid(Kind::Single)?;
    let group = target.group()?;
    group.set_container(&container)?;
    let to = Vgpu::open(&group, &target)?;
    let file = to.device().set_migration_state(MigrationState::Resuming)?;
    file.context("RESUMING has no file")?.write_all(&state)?;
    to.device().set_migration_state(MigrationState::Running)?;

    to.interrupt().wait(Duration::from_secs(1))?;
    ensure!(to.status()? == Status::Done, "the command has failed");
    ensure!(from.completed()? == 0, "the former device has run it");
    ensure!(to.completed()? == 1, "the new device hasn't run it");
    let stored = memory.to_vec(0, LENGTH);
    ensure!(stored == pattern, "the device's memory didn't come along");
    Ok(state.len())
}
