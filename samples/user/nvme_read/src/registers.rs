// SPDX-License-Identifier: GPL-2.0

//! Controller registers (section 3.1 of the specification).

use crate::prp::PAGE_SIZE;
use anyhow::{
    Result,
    ensure, //
};
use std::time::Duration;
use vfio_client::{
    Device,
    Memory,
    Register,
    uapi::VFIO_PCI_BAR0_REGION_INDEX,
    wait::until, //
};

const CAP: Register<u64> = Register::at(0x00);
const VERSION: Register<u32> = Register::at(0x08);
const CC: Register<u32> = Register::at(0x14);
const CSTS: Register<u32> = Register::at(0x1c);
const AQA: Register<u32> = Register::at(0x24);
const ASQ: Register<u64> = Register::at(0x28);
const ACQ: Register<u64> = Register::at(0x30);
/// The offset of the first doorbell.
const DOORBELLS: usize = 0x1000;

const CC_ENABLE: u32 = 1;
/// Submission queue entries have 64 bytes, completion queue entries 16 bytes.
const CC_ENTRY_SIZES: u32 = (6 << 16) | (4 << 20);
const CSTS_READY: u32 = 1;
const CSTS_FATAL: u32 = 2;

/// The registers in BAR 0.
#[derive(Debug)]
pub struct Registers(Memory);

impl Registers {
    /// Maps the registers and the doorbells of the first queues.
    pub fn map(device: &Device) -> Result<Self> {
        let bar = device.region(VFIO_PCI_BAR0_REGION_INDEX)?;
        ensure!(bar.size >= 2 * PAGE_SIZE as u64, "BAR 0 is too small");
        let registers = Self(device.map_region(&bar, 0, 2 * PAGE_SIZE)?);
        ensure!(
            registers.doorbell(1, true).offset() + 4 <= 2 * PAGE_SIZE,
            "the doorbells are too far apart"
        );
        ensure!(
            (registers.0.get(CAP) >> 48) & 0xf == 0,
            "the controller does not know pages of 4 KiB"
        );
        Ok(registers)
    }

    /// Returns the version of the specification, such as `1.4.0`.
    pub fn version(&self) -> String {
        let version = self.0.get(VERSION);
        let (major, minor, patch) = (version >> 16, (version >> 8) & 0xff, version & 0xff);
        format!("{major}.{minor}.{patch}")
    }

    /// Returns the maximum number of entries of a queue.
    pub fn max_queue_entries(&self) -> usize {
        (self.0.get(CAP) & 0xffff) as usize + 1
    }

    /// Returns the timeout for starting or stopping the controller.
    fn patience(&self) -> Duration {
        let units = (self.0.get(CAP) >> 24) & 0xff;
        Duration::from_millis(500 * units.max(2))
    }

    /// Stops the controller, which then drops its queues and does no more DMA.
    pub fn disable(&self) -> Result<()> {
        let cc = self.0.get(CC);
        self.0.set(CC, cc & !CC_ENABLE);
        self.wait_ready(false)
    }

    /// Starts the controller. `submission` and `completion` are the addresses of the admin queues.
    pub fn enable(&self, entries: usize, submission: u64, completion: u64) -> Result<()> {
        let last = entries as u32 - 1;
        self.0.set(AQA, (last << 16) | last);
        self.0.set(ASQ, submission);
        self.0.set(ACQ, completion);
        self.0.set(CC, CC_ENTRY_SIZES | CC_ENABLE);
        self.wait_ready(true)
    }

    fn wait_ready(&self, ready: bool) -> Result<()> {
        let done = until(self.patience(), || {
            let status = self.0.get(CSTS);
            ensure!(
                !ready || status & CSTS_FATAL == 0,
                "the controller reports a fatal error"
            );
            Ok((status & CSTS_READY != 0) == ready)
        })?;
        let verb = if ready { "start" } else { "stop" };
        ensure!(done, "the controller does not {verb}");
        Ok(())
    }

    /// Returns a doorbell register.
    fn doorbell(&self, queue: usize, completion: bool) -> Register<u32> {
        let stride = 4usize << ((self.0.get(CAP) >> 32) & 0xf);
        Register::at(DOORBELLS + (2 * queue + usize::from(completion)) * stride)
    }

    /// Notifies the controller of new commands.
    pub fn ring_submission(&self, queue: usize, tail: usize) {
        self.0.set(self.doorbell(queue, false), tail as u32);
    }

    /// Notifies the controller that completions were consumed.
    pub fn ring_completion(&self, queue: usize, head: usize) {
        self.0.set(self.doorbell(queue, true), head as u32);
    }
}
