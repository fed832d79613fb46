// SPDX-License-Identifier: GPL-2.0

//! The copy engine. It works in the time of the program that writes `COMMAND`, one command after the other.
//!
//! A device's engine is locked while it copies. Inside, the members of its group are looked at; nobody
//! who has those locked takes an engine.

use kernel::{
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        lock::mutex::MutexBackend,
        Mutex, //
    }, //
};

use vfio_mdev::{
    copy,
    pci,
    GuestAccess,
    Instance,
    Uuid,
    MAX_PAGES, //
};

use crate::{
    registers::Operands,
    Vgpu, //
};

/// What `COMMAND` is written with.
#[derive(Clone, Copy)]
pub(crate) enum Command {
    /// 1: from the program's memory to the device's.
    Load,
    /// 2: from the device's memory to the program's.
    Store,
    /// 3: from a peer's memory to the device's.
    CopyFromPeer,
    /// Any other number.
    Unknown,
}

/// What `STATUS` shows.
#[derive(Clone, Copy, Default)]
pub(crate) enum Status {
    /// There was no command yet, or it did what it should.
    #[default]
    Done = 0,
    /// There is no such command, or it is for more than the memory.
    Invalid = 1,
    /// The program has mapped no such memory for the device.
    Fault = 2,
    /// The other device isn't a peer.
    NoPeer = 3,
}

/// The engine of a device.
#[pin_data]
pub(crate) struct Engine {
    #[pin]
    state: Mutex<State>,
}

/// What the engine's registers show.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) operands: Operands,
    pub(crate) status: Status,
    pub(crate) completed: u32,
}

impl Engine {
    /// An engine that has done nothing yet.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self { state <- new_mutex!(State::default(), "vgpu_p2p::Engine") })
    }

    /// Locks the engine.
    pub(crate) fn lock(&self) -> kernel::sync::lock::Guard<'_, State, MutexBackend> {
        self.state.lock()
    }

    /// Waits for the command that runs, and forgets all.
    pub(crate) fn reset(&self) {
        *self.lock() = State::default();
    }
}

impl Command {
    /// The command with a number.
    pub(crate) fn from_register(value: u32) -> Self {
        match value {
            1 => Self::Load,
            2 => Self::Store,
            3 => Self::CopyFromPeer,
            _ => Self::Unknown,
        }
    }

    /// Runs the command, and signals that it has ended.
    pub(crate) fn run(self, device: &Instance<Vgpu>) {
        let mut engine = device.engine.lock();
        engine.status = self
            .copy(device, &engine.operands)
            .map_or_else(|status| status, |()| Status::Done);
        engine.completed = engine.completed.wrapping_add(1);
        drop(engine);
        device.signal(pci::Irq::Msi, 0);
    }

    fn copy(self, device: &Instance<Vgpu>, operands: &Operands) -> Result<(), Status> {
        let (start, size) = (operands.offset(), device.memory.len());
        let inside = start <= size && operands.length() <= size - start;
        match self {
            _ if !inside => Err(Status::Invalid),
            Self::Load => each_piece(device, operands, GuestAccess::Read),
            Self::Store => each_piece(device, operands, GuestAccess::Write),
            Self::CopyFromPeer => copy_from_peer(device, operands),
            Self::Unknown => Err(Status::Invalid),
        }
    }
}

/// Copies between the device's memory and the program's, as many pages at a time as can be pinned.
fn each_piece(
    device: &Instance<Vgpu>,
    operands: &Operands,
    access: GuestAccess,
) -> Result<(), Status> {
    let mut done = 0;
    while done < operands.length() {
        let iova = operands.address().checked_add(done as u64);
        let iova = iova.ok_or(Status::Fault)?;
        let first = iova as usize % PAGE_SIZE;
        let len = (MAX_PAGES * PAGE_SIZE - first).min(operands.length() - done);
        let pages = device
            .pin(
                iova - first as u64,
                (first + len).div_ceil(PAGE_SIZE),
                access,
            )
            .map_err(|_| Status::Fault)?;
        let (memory, at) = (&device.memory, operands.offset() + done);
        match access {
            GuestAccess::Read => copy(memory, at, &pages, first, len),
            _ => copy(&pages, first, memory, at, len),
        }
        .map_err(|_| Status::Fault)?;
        done += len;
    }
    Ok(())
}

/// Copies from the memory of a device in the same group.
fn copy_from_peer(device: &Instance<Vgpu>, operands: &Operands) -> Result<(), Status> {
    device.members(|members| {
        let peer = members
            .find(Uuid::from_bytes(operands.peer()))
            .filter(|peer| peer.uuid() != device.uuid())
            .ok_or(Status::NoPeer)?;
        copy(
            &device.memory,
            operands.offset(),
            &peer.memory,
            operands.peer_offset(),
            operands.length(),
        )
        .map_err(|_| Status::Invalid)
    })
}
