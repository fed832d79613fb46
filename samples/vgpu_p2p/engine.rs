// SPDX-License-Identifier: GPL-2.0

//! The copy engine. The thread that writes `COMMAND` runs the command; an engine runs one command
//! at a time. While the device is stopped or quiescent, a command may stay pending. It then runs in
//! the thread that changes the device's activity.
//!
//! The engine is locked while it copies, so no command runs while another thread holds the lock.
//! Lock order: an engine's lock is taken before the lock of the group's members.

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

/// The values of `COMMAND`.
#[derive(Clone, Copy)]
pub(crate) enum Command {
    /// 1: copies from the program's memory to the device's.
    Load,
    /// 2: copies from the device's memory to the program's.
    Store,
    /// 3: copies from a peer's memory to the device's.
    CopyFromPeer,
    /// 4: copies from the program's memory to the device's, by the mappings of a peer, which is open.
    LoadThroughPeer,
    /// Any other number except zero, which means no command.
    Unknown(u32),
}

/// The values of `STATUS`.
#[derive(Clone, Copy, Default)]
pub(crate) enum Status {
    /// No command has run yet, or the last one succeeded.
    #[default]
    Done = 0,
    /// The command is invalid or exceeds the memory.
    Invalid = 1,
    /// The program has not mapped the memory for the device, or for a peer that it names.
    Fault = 2,
    /// The other device is not a peer.
    NoPeer = 3,
}

/// The engine of a device.
#[pin_data]
pub(crate) struct Engine {
    #[pin]
    state: Mutex<EngineState>,
}

/// The engine's registers and activity.
#[derive(Default)]
pub(crate) struct EngineState {
    pub(crate) operands: Operands,
    pub(crate) status: Status,
    pub(crate) completed: u32,
    /// The pending command, which waits until the device is active.
    pub(crate) pending: Option<Command>,
    activity: Activity,
}

impl Engine {
    /// Creates an idle engine.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self { state <- new_mutex!(EngineState::default(), "vgpu_p2p::Engine") })
    }

    /// Locks the engine.
    pub(crate) fn lock(&self) -> Guard<'_, EngineState, MutexBackend> {
        self.state.lock()
    }

    /// Waits for the running command, then clears the state.
    pub(crate) fn reset(&self) {
        *self.lock() = EngineState::default();
    }

    /// Runs a command now, or later when the device's activity permits it. It replaces a pending
    /// command.
    pub(crate) fn start(device: &Instance<Vgpu>, command: Option<Command>) {
        let mut engine = device.engine.lock();
        engine.pending = command;
        Self::run(device, engine);
    }

    /// Waits for the running command, then sets the activity. A pending command runs if the new
    /// activity permits it.
    pub(crate) fn set_activity(device: &Instance<Vgpu>, activity: Activity) {
        let mut engine = device.engine.lock();
        engine.activity = activity;
        Self::run(device, engine);
    }

    /// Runs the pending command if the activity permits it, and signals its end.
    fn run(device: &Instance<Vgpu>, mut engine: Guard<'_, EngineState, MutexBackend>) {
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
    /// Returns the status for a value of `STATUS`, if it is valid.
    pub(crate) fn from_register(value: u32) -> Option<Self> {
        [Self::Done, Self::Invalid, Self::Fault, Self::NoPeer]
            .get(value as usize)
            .copied()
    }
}

impl Command {
    /// Returns the command for a value of `COMMAND`, or `None` for zero.
    pub(crate) fn from_register(value: u32) -> Option<Self> {
        Some(match value {
            0 => return None,
            1 => Self::Load,
            2 => Self::Store,
            3 => Self::CopyFromPeer,
            4 => Self::LoadThroughPeer,
            _ => Self::Unknown(value),
        })
    }

    /// Returns the number of the command.
    pub(crate) fn as_register(self) -> u32 {
        match self {
            Self::Load => 1,
            Self::Store => 2,
            Self::CopyFromPeer => 3,
            Self::LoadThroughPeer => 4,
            Self::Unknown(value) => value,
        }
    }

    fn goes_with(self, activity: Activity) -> bool {
        match activity {
            Activity::Running => true,
            Activity::Quiescent => !matches!(self, Self::CopyFromPeer | Self::LoadThroughPeer),
            Activity::Stopped => false,
        }
    }

    fn copy(self, device: &Instance<Vgpu>, operands: &Operands) -> Result<(), Status> {
        let (start, size) = (operands.offset(), device.memory.len());
        let inside = start <= size && operands.length() <= size - start;
        match self {
            _ if !inside => Err(Status::Invalid),
            Self::Load => each_piece(device, device, operands, GuestAccess::Read),
            Self::Store => each_piece(device, device, operands, GuestAccess::Write),
            Self::CopyFromPeer => with_peer(device, operands, |peer| {
                copy(
                    &device.memory,
                    operands.offset(),
                    &peer.memory,
                    operands.peer_offset(),
                    operands.length(),
                )
                .map_err(|_| Status::Invalid)
            }),
            Self::LoadThroughPeer => with_peer(device, operands, |peer| {
                each_piece(device, peer, operands, GuestAccess::Read)
            }),
            Self::Unknown(_) => Err(Status::Invalid),
        }
    }
}

/// Copies between the device's memory and that which the program has mapped for `mapped`. Pins up to
/// `MAX_PAGES` pages at a time.
fn each_piece(
    device: &Instance<Vgpu>,
    mapped: &Instance<Vgpu>,
    operands: &Operands,
    access: GuestAccess,
) -> Result<(), Status> {
    let mut done = 0;
    while done < operands.length() {
        let iova = operands.address().checked_add(done as u64);
        let iova = iova.ok_or(Status::Fault)?;
        let first = iova as usize % PAGE_SIZE;
        let len = (MAX_PAGES * PAGE_SIZE - first).min(operands.length() - done);
        let pages = mapped
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

/// Calls `f` with the peer that the operands name.
fn with_peer(
    device: &Instance<Vgpu>,
    operands: &Operands,
    f: impl FnOnce(&Instance<Vgpu>) -> Result<(), Status>,
) -> Result<(), Status> {
    device.members(|members| {
        let peer = members
            .find(Uuid::from_bytes(operands.peer()))
            .filter(|peer| peer.uuid() != device.uuid())
            .ok_or(Status::NoPeer)?;
        f(peer)
    })
}
