// SPDX-License-Identifier: GPL-2.0

//! Driver for the devices of `samples/vgpu_p2p`: creation, grouping and commands.

#![deny(unsafe_code)]

use anyhow::Result;
use std::time::Duration;
use vfio_client::{
    Device,
    Group,
    Interrupt,
    Memory,
    RegionInfo,
    Register, //
};
use zerocopy::{
    Immutable, IntoBytes,
    little_endian::{
        U32,
        U64, //
    },
};

pub use vfio_client::mdev::{
    Mdev,
    new_uuid, //
};

/// The types of device.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A device that can be a peer, with twice the memory.
    Double,
    /// A device that can be a peer.
    Single,
    /// A device that is never a peer.
    Isolated,
}

impl AsRef<str> for Kind {
    /// Returns the name of the type.
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

const ID: Register<u32> = Register::at(0x00);
const MEMORY_SIZE: Register<u32> = Register::at(0x04);
const PASID: Register<u32> = Register::at(0x08);
/// The number of the link to the peers, or [`NONE`].
pub const LINK: Register<u32> = Register::at(0x0c);
/// The number of devices in the group.
pub const PEERS: Register<u32> = Register::at(0x10);
/// The first of the registers in [`Source`].
const SOURCE: u64 = 0x20;
const OFFSET: Register<u32> = Register::at(0x28);
const PEER: u64 = 0x30;
const PEER_OFFSET: Register<u32> = Register::at(0x40);
const COMMAND: Register<u32> = Register::at(0x50);
const STATUS: Register<u32> = Register::at(0x54);
const COMPLETED: Register<u32> = Register::at(0x58);

/// The registers that one write sets: the address, the offset and the length of a copy.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct Source {
    address: U64,
    offset: U32,
    length: U32,
}

/// The value of registers for something that does not exist.
pub const NONE: u32 = u32::MAX;

/// The commands.
#[derive(Clone, Copy, Debug)]
pub enum Command {
    /// Copies from the program's memory to the device's.
    Load = 1,
    /// Copies from the device's memory to the program's.
    Store = 2,
    /// Copies from a peer's memory to the device's.
    CopyFromPeer = 3,
    /// Copies from the program's memory to the device's, by the mappings of a peer, which is open.
    LoadThroughPeer = 4,
    /// An invalid command.
    Unknown = 5,
}

/// The status of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The command succeeded.
    Done,
    /// The command is invalid or exceeds the memory.
    Invalid,
    /// The memory is not mapped for the device, or for a peer that it names.
    Fault,
    /// The other device is not a peer.
    NoPeer,
    /// Any other value.
    Other(u32),
}

/// The operands of a command.
#[derive(Clone, Copy, Debug, Default)]
pub struct Operands {
    /// The iova of the program's memory.
    pub address: u64,
    /// The offset in the device's memory.
    pub offset: u32,
    /// The number of bytes.
    pub length: u32,
    /// The UUID of the peer, in the order of its text.
    pub peer: [u8; 16],
    /// The offset in the peer's memory.
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
    /// Opens a device of a group that is in a container with a backend.
    pub fn open(group: &Group, mdev: &Mdev) -> Result<Self> {
        Self::new(group.device(mdev.uuid())?)
    }

    /// Takes a device that is open.
    pub fn new(device: Device) -> Result<Self> {
        let interrupt = Interrupt::new()?;
        device.enable_irqs(MSI, &[&interrupt])?;
        Ok(Self {
            registers: device.region(REGISTERS)?,
            memory: device.map_whole(MEMORY)?,
            device,
            interrupt,
        })
    }

    /// Returns the VFIO device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Returns the device's memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Returns the interrupt that signals the end of a command.
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// Returns whether the ID register identifies such a device.
    pub fn identified(&self) -> Result<bool> {
        Ok(self.register(ID)?.to_le_bytes() == *b"VGPU")
    }

    /// Returns the size of the memory that the device reports.
    pub fn memory_size(&self) -> Result<u32> {
        self.register(MEMORY_SIZE)
    }

    /// Returns the PASID, if the device has one.
    pub fn pasid(&self) -> Result<Option<u32>> {
        Ok(Some(self.register(PASID)?).filter(|&pasid| pasid != NONE))
    }

    /// Returns the number of the link to its peers, if it has one.
    pub fn link(&self) -> Result<Option<u32>> {
        Ok(Some(self.register(LINK)?).filter(|&link| link != NONE))
    }

    /// Returns the number of devices in the group.
    pub fn peers(&self) -> Result<u32> {
        self.register(PEERS)
    }

    /// Returns the number of completed commands.
    pub fn completed(&self) -> Result<u32> {
        self.register(COMPLETED)
    }

    /// Runs a command and waits for the interrupt that signals its end.
    pub fn run(&self, command: Command, operands: &Operands) -> Result<Status> {
        self.start(command, operands)?;
        self.interrupt.wait(Duration::from_secs(1))?;
        self.status()
    }

    /// Starts a command. The command stays pending while the device is stopped.
    pub fn start(&self, command: Command, operands: &Operands) -> Result<()> {
        let source = Source {
            address: operands.address.into(),
            offset: operands.offset.into(),
            length: operands.length.into(),
        };
        let (device, registers) = (&self.device, &self.registers);
        device.write(registers, SOURCE, source.as_bytes())?;
        device.write(registers, PEER, &operands.peer)?;
        device.set(registers, PEER_OFFSET, operands.peer_offset)?;
        Ok(device.set(registers, COMMAND, command as u32)?)
    }

    /// Returns the number of the pending command, or 0 if there is none.
    pub fn waiting(&self) -> Result<u32> {
        self.register(COMMAND)
    }

    /// Returns the status of the last command.
    pub fn status(&self) -> Result<Status> {
        Ok(match self.register(STATUS)? {
            0 => Status::Done,
            1 => Status::Invalid,
            2 => Status::Fault,
            3 => Status::NoPeer,
            other => Status::Other(other),
        })
    }

    /// Returns the offset in the device's memory for the next command.
    pub fn offset(&self) -> Result<u32> {
        self.register(OFFSET)
    }

    fn register(&self, register: Register<u32>) -> Result<u32> {
        Ok(self.device.get(&self.registers, register)?)
    }
}
