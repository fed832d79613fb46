// SPDX-License-Identifier: GPL-2.0

//! A driver for QEMU's `edu` device, for tests. The device has one DMA engine with a buffer of 4
//! KiB, and one interrupt.
//!
//! See `docs/specs/edu.rst` in QEMU. A transfer takes a tenth of a second. The registers have the byte
//! order of the machine's processor.

use crate::{
    Device,
    Errno,
    Error,
    Memory,
    Register,
    Result,
    pci::Config,
    uapi::VFIO_PCI_BAR0_REGION_INDEX,
    wait::until, //
};
use std::time::Duration;

/// Identifies the device: [`IDENTITY`].
pub const ID: Register<u32> = Register::at(0x00);
/// Returns the complement of the value that was written.
pub const LIVENESS: Register<u32> = Register::at(0x04);
const IRQ_STATUS: Register<u32> = Register::at(0x24);
const IRQ_RAISE: Register<u32> = Register::at(0x60);
const IRQ_ACK: Register<u32> = Register::at(0x64);
const DMA_SOURCE: Register<u64> = Register::at(0x80);
const DMA_TARGET: Register<u64> = Register::at(0x88);
const DMA_COUNT: Register<u64> = Register::at(0x90);
const DMA_COMMAND: Register<u64> = Register::at(0x98);

const START: u64 = 1;
const TO_MEMORY: u64 = 2;
const INTERRUPT: u64 = 4;

/// The address of the buffer in the DMA engine's own address space.
const BUFFER: u64 = 0x4_0000;

/// The size of the device's memory for DMA, which is the maximum of one transfer.
pub const MEMORY: usize = 4096;

/// The value of [`ID`].
pub const IDENTITY: u32 = 0x0100_00ed;

/// The registers of an `edu` device.
#[derive(Debug)]
pub struct Edu(Memory);

impl Edu {
    /// Enables DMA and maps the registers.
    pub fn new(device: &Device) -> Result<Self> {
        Config::of(device)?.enable()?;
        let edu = Self(device.map_whole(VFIO_PCI_BAR0_REGION_INDEX)?);
        // A previous user may have left a transfer running.
        edu.wait()?;
        Ok(edu)
    }

    /// Returns the mapped registers.
    pub fn registers(&self) -> &Memory {
        &self.0
    }

    /// Returns the value of the identification register.
    pub fn id(&self) -> u32 {
        self.get(ID)
    }

    /// Checks that the device responds: it inverts the value written.
    pub fn is_alive(&self) -> bool {
        self.set(LIVENESS, 0x1234_5678);
        self.get(LIVENESS) == !0x1234_5678
    }

    /// Raises an interrupt.
    pub fn raise(&self, bits: u32) {
        self.set(IRQ_RAISE, bits);
    }

    /// Returns the raised interrupts and acknowledges them.
    pub fn acknowledge(&self) -> u32 {
        let bits = self.get(IRQ_STATUS);
        self.set(IRQ_ACK, bits);
        bits
    }

    /// Starts a transfer from memory to the buffer.
    pub fn start_load(&self, iova: u64, len: u64) {
        self.start(iova, BUFFER, len, START);
    }

    /// Starts a transfer from the buffer to memory.
    pub fn start_store(&self, iova: u64, len: u64) {
        self.start(BUFFER, iova, len, START | TO_MEMORY);
    }

    /// Starts a transfer from the buffer to memory that raises an interrupt when it completes.
    pub fn start_store_irq(&self, iova: u64, len: u64) {
        self.start(BUFFER, iova, len, START | TO_MEMORY | INTERRUPT);
    }

    /// # Panics
    ///
    /// If a number has more bits than the processor.
    fn start(&self, source: u64, target: u64, len: u64, command: u64) {
        self.set_wide(DMA_SOURCE, source);
        self.set_wide(DMA_TARGET, target);
        self.set_wide(DMA_COUNT, len);
        self.set_wide(DMA_COMMAND, command);
    }

    fn get(&self, register: Register<u32>) -> u32 {
        self.0.read_u32(register.offset())
    }

    fn set(&self, register: Register<u32>, value: u32) {
        self.0.write_u32(register.offset(), value);
    }

    /// Writes a register of 64 bits. It also takes 32 bits, and a processor with 32 bits can't write
    /// more by one access.
    fn set_wide(&self, register: Register<u64>, value: u64) {
        if cfg!(target_pointer_width = "64") {
            self.0.write_u64(register.offset(), value);
        } else {
            assert!(value <= u32::MAX.into(), "{value:#x} has more than 32 bits");
            // CAST: By the assertion it fits.
            self.0.write_u32(register.offset(), value as u32);
        }
    }

    /// Waits until the transfer completes.
    pub fn wait(&self) -> Result {
        let done = until(Duration::from_secs(10), || {
            Ok::<_, Error>(self.0.read_u32(DMA_COMMAND.offset()) & START as u32 == 0)
        })?;
        if done {
            Ok(())
        } else {
            Err(Error::new("DMA never ends", Errno::ETIMEDOUT))
        }
    }

    /// Copies from memory to the buffer.
    pub fn load(&self, iova: u64, len: u64) -> Result {
        self.start_load(iova, len);
        self.wait()
    }

    /// Copies from the buffer to memory.
    pub fn store(&self, iova: u64, len: u64) -> Result {
        self.start_store(iova, len);
        self.wait()
    }
}
