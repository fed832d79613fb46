// SPDX-License-Identifier: GPL-2.0

//! A driver for Intel's 82574 network controller. It can only send a frame to itself.

use crate::stall::LIMIT;
use anyhow::{
    Result,
    ensure, //
};
use vfio_client::{
    Device,
    Memory,
    PAGE_SIZE,
    pci::Config,
    uapi::VFIO_PCI_BAR0_REGION_INDEX,
    wait::until, //
};

const CTRL: usize = 0x0000;
const STATUS: usize = 0x0008;
const INTERRUPT_CAUSE: usize = 0x00c0;
const INTERRUPT_SET: usize = 0x00c8;
const INTERRUPT_MASK: usize = 0x00d0;
const RECEIVE_CONTROL: usize = 0x0100;
const TRANSMIT_CONTROL: usize = 0x0400;
const RECEIVE_RING: usize = 0x2800;
const TRANSMIT_RING: usize = 0x3800;
/// Register offsets from the address of a ring: length in bytes, head and tail.
const LENGTH: usize = 0x08;
const HEAD: usize = 0x10;
const TAIL: usize = 0x18;

const LINK_UP: u32 = 1 << 1;
const RESET: u32 = 1 << 26;
/// Enable the receiver, accept all addresses, loop back, and strip the checksum.
const RECEIVE: u32 = (1 << 1) | (1 << 3) | (1 << 4) | (1 << 6) | (1 << 15) | (1 << 26);
const TRANSMIT: u32 = 1 << 1;
/// In a descriptor: end of frame, insert the checksum, report completion.
const SEND: u64 = (1 | 2 | 8) << 24;
/// In the second half of a descriptor: the controller has completed it.
const SENT: u64 = 1 << 32;
const RECEIVED: u64 = 1 << 32;

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
        nic.0.write_u32(CTRL, nic.0.read_u32(CTRL) | RESET);
        Ok(nic)
    }

    /// Returns whether registers can be read.
    pub fn is_alive(&self) -> bool {
        self.0.read_u32(STATUS) & LINK_UP != 0
    }

    /// Sets up a ring, which is lost on a reset.
    pub fn set_up(&self) {
        self.ring(TRANSMIT_RING, 0x1000);
    }

    /// Returns whether a ring is set up.
    pub fn is_set_up(&self) -> bool {
        self.0.read_u32(TRANSMIT_RING) != 0
    }

    /// Makes the controller raise an interrupt.
    pub fn interrupt(&self) {
        self.0.write_u32(INTERRUPT_MASK, 1);
        self.0.write_u32(INTERRUPT_SET, 1);
    }

    /// Acknowledges interrupts and returns their causes.
    pub fn causes(&self) -> u32 {
        self.0.read_u32(INTERRUPT_CAUSE)
    }

    fn ring(&self, registers: usize, iova: u64) {
        // CAST: The halves of the address.
        self.0.write_u32(registers, iova as u32);
        self.0.write_u32(registers + 4, (iova >> 32) as u32);
        self.0.write_u32(registers + LENGTH, (RING * 16) as u32);
        self.0.write_u32(registers + HEAD, 0);
        self.0.write_u32(registers + TAIL, 0);
    }

    /// Sends a frame to itself through `memory`, which is mapped at `iova`. Returns the received
    /// frame.
    pub fn echo(&self, memory: &Memory, iova: u64, frame: &[u8]) -> Result<Vec<u8>> {
        memory.fill(0, MEMORY, 0);
        memory.write(FRAME_AT, frame);
        memory.write_u64(TRANSMIT_AT, iova + FRAME_AT as u64);
        memory.write_u64(TRANSMIT_AT + 8, frame.len() as u64 | SEND);
        memory.write_u64(RECEIVE_AT, iova + BUFFER_AT as u64);
        self.ring(RECEIVE_RING, iova + RECEIVE_AT as u64);
        self.ring(TRANSMIT_RING, iova + TRANSMIT_AT as u64);
        self.0.write_u32(RECEIVE_CONTROL, RECEIVE);
        self.0.write_u32(RECEIVE_RING + TAIL, 1);
        self.0.write_u32(TRANSMIT_CONTROL, TRANSMIT);
        self.0.write_u32(TRANSMIT_RING + TAIL, 1);
        wait(memory, TRANSMIT_AT, SENT)?;
        wait(memory, RECEIVE_AT, RECEIVED)?;
        let length = memory.read_u16(RECEIVE_AT + 8);
        Ok(memory.to_vec(BUFFER_AT, length.into()))
    }
}

/// Waits until a bit is set in the second half of a descriptor.
fn wait(memory: &Memory, descriptor: usize, bit: u64) -> Result<()> {
    let done = until(LIMIT, || {
        anyhow::Ok(memory.read_u64(descriptor + 8) & bit != 0)
    })?;
    ensure!(done, "the controller did no DMA in time");
    Ok(())
}
