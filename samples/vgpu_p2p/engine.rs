// SPDX-License-Identifier: GPL-2.0

//! The copy engine. It works in the time of the program that writes `COMMAND`, one command after the other.
//! On the way to another device a command may have to wait; then whoever sets the device going runs it.
//!
//! A device's engine is locked while it copies, so who has locked it knows that no command runs. Inside, the members of its group are looked at; nobody
//! who has those locked takes an engine.

use kernel::{
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        lock::{
            mutex::MutexBackend,
            Guard, //
        },
        Mutex, //
    }, //
};

use vfio_mdev::{
    copy,
    pci,
    Activity,
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
    /// Any other number but zero, which is none.
    Unknown(u32),
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
    /// What waits for the device to be set going.
    pub(crate) pending: Option<Command>,
    activity: Activity,
}

impl Engine {
    /// An engine that has done nothing yet.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self { state <- new_mutex!(State::default(), "vgpu_p2p::Engine") })
    }

    /// Locks the engine.
    pub(crate) fn lock(&self) -> Guard<'_, State, MutexBackend> {
        self.state.lock()
    }

    /// Waits for the command that runs, and forgets all.
    pub(crate) fn reset(&self) {
        *self.lock() = State::default();
    }

    /// Does a command, now or when it may be done. It takes the place of one that waits.
    pub(crate) fn start(device: &Instance<Vgpu>, command: Option<Command>) {
        let mut engine = device.engine.lock();
        engine.pending = command;
        Self::run(device, engine);
    }

    /// Waits for the command that runs, and does from now on what goes with `activity`.
    pub(crate) fn set_activity(device: &Instance<Vgpu>, activity: Activity) {
        let mut engine = device.engine.lock();
        engine.activity = activity;
        Self::run(device, engine);
    }

    /// Runs the command that waits, if it may run now, and signals that it has ended.
    fn run(device: &Instance<Vgpu>, mut engine: Guard<'_, State, MutexBackend>) {
        let activity = engine.activity;
        let Some(command) = engine
            .pending
            .take_if(|command| command.goes_with(activity))
        else {
            return;
        };
        engine.status = command
            .copy(device, &engine.operands)
            .map_or_else(|status| status, |()| Status::Done);
        engine.completed = engine.completed.wrapping_add(1);
        drop(engine);
        device.signal(pci::Irq::Msi, 0);
    }
}

impl Status {
    /// The status that `STATUS` shows as `value`, if there is one.
    pub(crate) fn from_register(value: u32) -> Option<Self> {
        [Self::Done, Self::Invalid, Self::Fault, Self::NoPeer]
            .get(value as usize)
            .copied()
    }
}

impl Command {
    /// The command with a number.
    pub(crate) fn from_register(value: u32) -> Option<Self> {
        Some(match value {
            0 => return None,
            1 => Self::Load,
            2 => Self::Store,
            3 => Self::CopyFromPeer,
            _ => Self::Unknown(value),
        })
    }

    /// The command's number.
    pub(crate) fn as_register(self) -> u32 {
        match self {
            Self::Load => 1,
            Self::Store => 2,
            Self::CopyFromPeer => 3,
            Self::Unknown(value) => value,
        }
    }

    fn goes_with(self, activity: Activity) -> bool {
        match activity {
            Activity::Running => true,
            Activity::Quiescent => !matches!(self, Self::CopyFromPeer),
            Activity::Stopped => false,
        }
    }

    fn copy(self, device: &Instance<Vgpu>, operands: &Operands) -> Result<(), Status> {
        let (start, size) = (operands.offset(), device.memory.len());
        let inside = start <= size && operands.length() <= size - start;
        match self {
            _ if !inside => Err(Status::Invalid),
            Self::Load => each_piece(device, operands, GuestAccess::Read),
            Self::Store => each_piece(device, operands, GuestAccess::Write),
            Self::CopyFromPeer => copy_from_peer(device, operands),
            Self::Unknown(_) => Err(Status::Invalid),
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
