// SPDX-License-Identifier: GPL-2.0

//! The devices of `samples/vgpu_p2p`: how they are made, grouped and told to copy.

#![deny(unsafe_code)]

use anyhow::Result;
use std::time::Duration;
use vfio_client::{
    Device,
    Group,
    Interrupt,
    Memory,
    RegionInfo, //
};

pub use vfio_client::mdev::{
    Mdev,
    new_uuid, //
};

/// The types of device.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A peer with twice the memory.
    Double,
    /// A peer.
    Single,
    /// Never a peer.
    Isolated,
}

impl AsRef<str> for Kind {
    /// The type's name.
    fn as_ref(&self) -> &str {
        match self {
            Self::Double => "vgpu_p2p-p2p-2x",
            Self::Single => "vgpu_p2p-p2p-1x",
            Self::Isolated => "vgpu_p2p-isolated",
        }
    }
}

const REGISTERS: u32 = 0;
const MEMORY: u32 = 2;
const MSI: u32 = 1;

const ID: u64 = 0x00;
const MEMORY_SIZE: u64 = 0x04;
const PASID: u64 = 0x08;
const LINK: u64 = 0x0c;
const PEERS: u64 = 0x10;
const ADDRESS: u64 = 0x20;
const OFFSET: u64 = 0x28;
const PEER: u64 = 0x30;
const PEER_OFFSET: u64 = 0x40;
const COMMAND: u64 = 0x50;
const STATUS: u64 = 0x54;
const COMPLETED: u64 = 0x58;

/// What registers show of something that isn't there.
const NONE: u32 = u32::MAX;

/// What a command is.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    /// From the program's memory to the device's.
    Load = 1,
    /// From the device's memory to the program's.
    Store = 2,
    /// From a peer's memory to the device's.
    CopyFromPeer = 3,
    /// There is no such command.
    Unknown = 4,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It did what it should.
    Done,
    /// There is no such command, or it is for more than the memory.
    Invalid,
    /// No such memory is mapped for the device.
    Fault,
    /// The other device isn't a peer.
    NoPeer,
    /// The device shows something else.
    Other(u32),
}

/// What a command works on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Operands {
    /// The iova in the program's memory.
    pub address: u64,
    /// Where in the device's memory.
    pub offset: u32,
    /// How many bytes.
    pub length: u32,
    /// The peer's UUID, in the order of its text.
    pub peer: [u8; 16],
    /// Where in the peer's memory.
    pub peer_offset: u32,
}

/// An open device.
#[derive(Debug)]
pub struct Vgpu {
    device: Device,
    registers: RegionInfo,
    memory: Memory,
    interrupt: Interrupt,
}

impl Vgpu {
    /// Opens a device by its group, which is in a container with a backend.
    pub fn open(group: &Group, mdev: &Mdev) -> Result<Self> {
        let device = group.device(mdev.uuid())?;
        let interrupt = Interrupt::new()?;
        device.enable_irqs(MSI, &[&interrupt])?;
        Ok(Self {
            registers: device.region(REGISTERS)?,
            memory: device.map_whole(MEMORY)?,
            device,
            interrupt,
        })
    }

    /// The file.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The device's memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// What tells that a command has ended.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// Whether it says that it is such a device.
    pub fn identified(&self) -> Result<bool> {
        Ok(self.register(ID)?.to_le_bytes() == *b"VGPU")
    }

    /// How much memory it says that it has.
    pub fn memory_size(&self) -> Result<u32> {
        self.register(MEMORY_SIZE)
    }

    /// Its PASID, if it has one.
    pub fn pasid(&self) -> Result<Option<u32>> {
        Ok(Some(self.register(PASID)?).filter(|&pasid| pasid != NONE))
    }

    /// The number of the way to its peers, if it has one.
    pub fn link(&self) -> Result<Option<u32>> {
        Ok(Some(self.register(LINK)?).filter(|&link| link != NONE))
    }

    /// How many devices are in its group.
    pub fn peers(&self) -> Result<u32> {
        self.register(PEERS)
    }

    /// How many commands have ended.
    pub fn completed(&self) -> Result<u32> {
        self.register(COMPLETED)
    }

    /// Runs a command and waits for the interrupt which tells that it has ended.
    pub fn run(&self, command: Command, operands: &Operands) -> Result<Status> {
        self.start(command, operands)?;
        self.interrupt.wait(Duration::from_secs(1))?;
        self.status()
    }

    /// Starts a command, which waits if the device is stopped.
    pub fn start(&self, command: Command, operands: &Operands) -> Result<()> {
        let [low, high] = [operands.address as u32, (operands.address >> 32) as u32];
        let words = [low, high, operands.offset, operands.length];
        self.set_registers(ADDRESS, &words)?;
        self.device.write(&self.registers, PEER, &operands.peer)?;
        self.set_registers(PEER_OFFSET, &[operands.peer_offset])?;
        self.set_registers(COMMAND, &[command as u32])
    }

    /// The number of the command that waits for the device to be set going; 0: none.
    pub fn waiting(&self) -> Result<u32> {
        self.register(COMMAND)
    }

    /// How the last command ended.
    pub fn status(&self) -> Result<Status> {
        Ok(match self.register(STATUS)? {
            0 => Status::Done,
            1 => Status::Invalid,
            2 => Status::Fault,
            3 => Status::NoPeer,
            other => Status::Other(other),
        })
    }

    /// Reads back where in its memory the next command will work.
    pub fn offset(&self) -> Result<u32> {
        self.register(OFFSET)
    }

    fn register(&self, at: u64) -> Result<u32> {
        let mut bytes = [0; 4];
        self.device.read(&self.registers, at, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn set_registers(&self, at: u64, values: &[u32]) -> Result<()> {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        Ok(self.device.write(&self.registers, at, &bytes)?)
    }
}
