// SPDX-License-Identifier: GPL-2.0

//! A driver for Intel's 82574 network controller. It can only send a frame to itself.

use anyhow::{
    Result,
    ensure, //
};
use std::{
    mem::offset_of,
    time::Duration, //
};
use vfio_client::{
    Device,
    Memory,
    PAGE_SIZE,
    Register,
    pci::Config,
    uapi::VFIO_PCI_BAR0_REGION_INDEX,
    wait::until, //
};
use zerocopy::{
    FromBytes, Immutable, IntoBytes,
    little_endian::{
        U16,
        U64, //
    },
};

const CTRL: Register<u32> = Register::at(0x0000);
/// The state of the link.
pub const STATUS: Register<u32> = Register::at(0x0008);
const INTERRUPT_CAUSE: Register<u32> = Register::at(0x00c0);
const INTERRUPT_SET: Register<u32> = Register::at(0x00c8);
const INTERRUPT_MASK: Register<u32> = Register::at(0x00d0);
const RECEIVE_CONTROL: Register<u32> = Register::at(0x0100);
const TRANSMIT_CONTROL: Register<u32> = Register::at(0x0400);
const RECEIVE_RING: RingRegisters = RingRegisters::at(0x2800);
const TRANSMIT_RING: RingRegisters = RingRegisters::at(0x3800);

/// The registers of a ring.
struct RingRegisters {
    /// The address of the descriptors.
    low: Register<u32>,
    high: Register<u32>,
    /// The size of the descriptors in bytes.
    length: Register<u32>,
    head: Register<u32>,
    tail: Register<u32>,
}

impl RingRegisters {
    const fn at(start: usize) -> Self {
        Self {
            low: Register::at(start),
            high: Register::at(start + 0x04),
            length: Register::at(start + 0x08),
            head: Register::at(start + 0x10),
            tail: Register::at(start + 0x18),
        }
    }
}

const LINK_UP: u32 = 1 << 1;
const RESET: u32 = 1 << 26;
/// Enable the receiver, accept all addresses, loop back, and strip the checksum.
const RECEIVE: u32 = (1 << 1) | (1 << 3) | (1 << 4) | (1 << 6) | (1 << 15) | (1 << 26);
const TRANSMIT: u32 = 1 << 1;

/// A descriptor of either ring.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Descriptor {
    /// The IOVA of the frame.
    address: U64,
    /// The size of the frame in bytes.
    length: U16,
    /// Of a frame to transmit: the start of its checksum. Of a received frame: half of its
    /// checksum.
    checksum: u8,
    /// Of a frame to transmit: [`SEND`]. Of a received frame: half of its checksum.
    command: u8,
    /// [`DONE`].
    status: u8,
    errors: u8,
    special: U16,
}

/// In the command: end of frame, insert the checksum, report completion.
const SEND: u8 = 1 | 2 | 8;
/// In the status: the controller has completed the descriptor.
const DONE: u8 = 1;

/// The time that a frame may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The number of descriptors of a ring. The hardware requires a multiple of 8.
const RING: usize = 8;

/// The memory that the controller accesses, one page each.
const TRANSMIT_AT: usize = 0;
const RECEIVE_AT: usize = PAGE_SIZE;
const FRAME_AT: usize = 2 * PAGE_SIZE;
const BUFFER_AT: usize = 3 * PAGE_SIZE;
/// The size of the memory that [`Nic::echo`] needs.
pub const MEMORY: usize = 4 * PAGE_SIZE;

/// An open controller.
#[derive(Debug)]
pub struct Nic(Memory);

impl Nic {
    /// Resets the controller, enables DMA, and maps its registers.
    pub fn new(device: &Device) -> Result<Self> {
        Config::of(device)?.enable()?;
        let nic = Self(device.map_whole(VFIO_PCI_BAR0_REGION_INDEX)?);
        nic.0.set(CTRL, nic.0.get(CTRL) | RESET);
        Ok(nic)
    }

    /// Returns whether registers can be read.
    pub fn is_alive(&self) -> bool {
        self.0.get(STATUS) & LINK_UP != 0
    }

    /// Sets up a ring, which is lost on a reset.
    pub fn set_up(&self) {
        self.ring(&TRANSMIT_RING, 0x1000);
    }

    /// Returns whether a ring is set up.
    pub fn is_set_up(&self) -> bool {
        self.0.get(TRANSMIT_RING.low) != 0
    }

    /// Makes the controller raise an interrupt.
    pub fn interrupt(&self) {
        self.0.set(INTERRUPT_MASK, 1);
        self.0.set(INTERRUPT_SET, 1);
    }

    /// Acknowledges interrupts and returns their causes.
    pub fn causes(&self) -> u32 {
        self.0.get(INTERRUPT_CAUSE)
    }

    fn ring(&self, ring: &RingRegisters, iova: u64) {
        // CAST: The halves of the address.
        self.0.set(ring.low, iova as u32);
        self.0.set(ring.high, (iova >> 32) as u32);
        self.0
            .set(ring.length, (RING * size_of::<Descriptor>()) as u32);
        self.0.set(ring.head, 0);
        self.0.set(ring.tail, 0);
    }

    /// Sends a frame to itself through `memory`, which is mapped at `iova`. Returns the received
    /// frame.
    pub fn echo(&self, memory: &Memory, iova: u64, frame: &[u8]) -> Result<Vec<u8>> {
        memory.fill(0, MEMORY, 0);
        memory.write(FRAME_AT, frame);
        let transmit = Descriptor {
            address: (iova + FRAME_AT as u64).into(),
            length: u16::try_from(frame.len())?.into(),
            command: SEND,
            ..Descriptor::default()
        };
        let receive = Descriptor {
            address: (iova + BUFFER_AT as u64).into(),
            ..Descriptor::default()
        };
        memory.write(TRANSMIT_AT, transmit.as_bytes());
        memory.write(RECEIVE_AT, receive.as_bytes());
        self.ring(&RECEIVE_RING, iova + RECEIVE_AT as u64);
        self.ring(&TRANSMIT_RING, iova + TRANSMIT_AT as u64);
        self.0.set(RECEIVE_CONTROL, RECEIVE);
        self.0.set(RECEIVE_RING.tail, 1);
        self.0.set(TRANSMIT_CONTROL, TRANSMIT);
        self.0.set(TRANSMIT_RING.tail, 1);
        wait(memory, TRANSMIT_AT)?;
        wait(memory, RECEIVE_AT)?;
        let received: Descriptor = memory.read_value(RECEIVE_AT);
        Ok(memory.to_vec(BUFFER_AT, received.length.get().into()))
    }
}

/// Waits until the controller has completed a descriptor.
fn wait(memory: &Memory, descriptor: usize) -> Result<()> {
    let status = Register::<u8>::at(descriptor + offset_of!(Descriptor, status));
    let done = until(LIMIT, || anyhow::Ok(memory.get(status) & DONE != 0))?;
    ensure!(done, "the controller did no DMA in time");
    Ok(())
}
