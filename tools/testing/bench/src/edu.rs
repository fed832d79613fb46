// SPDX-License-Identifier: GPL-2.0

//! That DMA goes where it should: QEMU's `edu` device, see `docs/specs/edu.rst` there.

use crate::{
    memory::Filled,
    request::{
        Attached,
        Request, //
    },
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    thread::sleep,
    time::{
        Duration,
        Instant, //
    },
};
use vfio_client::{
    Device,
    Group,
    MapFlags,
    Memory,
    PAGE_SIZE,
    pci::Config,
    uapi::VFIO_PCI_BAR0_REGION_INDEX, //
};

/// Registers.
const SOURCE: usize = 0x80;
const TARGET: usize = 0x88;
const COUNT: usize = 0x90;
const COMMAND: usize = 0x98;
/// Commands: start, to memory.
const START: u64 = 1;
const TO_MEMORY: u64 = 2;
/// Where the buffer is in the engine's own address space.
const BUFFER: u64 = 0x4_0000;

const PATIENCE: Duration = Duration::from_secs(10);
const PAGE: u64 = PAGE_SIZE as u64;
/// Where the memory to be checked is mapped, and two pages for comparison.
const IOVA: u64 = 1 << 32;
const OURS: u64 = 0x10_0000;

struct Edu {
    _device: Device,
    registers: Memory,
}

impl Edu {
    fn open(group: &Group, name: &str) -> Result<Self> {
        let device = group.device(name)?;
        Config::of(&device)?.enable()?;
        let bar = device.region(VFIO_PCI_BAR0_REGION_INDEX)?;
        let registers = device.map_region(&bar, 0, PAGE_SIZE)?;
        Ok(Self {
            _device: device,
            registers,
        })
    }

    /// Copies a page.
    fn copy(&self, from: u64, to: u64) -> Result<()> {
        self.command(from, BUFFER, START)?;
        self.command(BUFFER, to, START | TO_MEMORY)
    }

    fn command(&self, source: u64, target: u64, command: u64) -> Result<()> {
        self.registers.write_u64(SOURCE, source);
        self.registers.write_u64(TARGET, target);
        self.registers.write_u64(COUNT, PAGE);
        self.registers.write_u64(COMMAND, command);
        let start = Instant::now();
        while self.registers.read_u64(COMMAND) & START != 0 {
            ensure!(start.elapsed() < PATIENCE, "DMA never ends");
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// Has the device copy random numbers into the first and the last page of `size` bytes of memory, and
/// from there back. Fails unless they arrive at both places.
pub fn check(name: &str, memory: &Filled, size: u64) -> Result<()> {
    let attached = Attached::new(name)?;
    let edu = Edu::open(&attached.group, name)?;
    let ours = Memory::anonymous(2 * PAGE_SIZE)?;
    attached.container.map(OURS, &ours, MapFlags::ReadWrite)?;
    Request::map(memory.addr, IOVA, size)?.send(&attached.container)?;
    for at in [0, size - PAGE] {
        for word in (0..PAGE_SIZE).step_by(8) {
            ours.write_u64(word, fastrand::u64(1..));
        }
        edu.copy(OURS, IOVA + at)?;
        edu.copy(IOVA + at, OURS + PAGE)?;
        let sent = ours.to_vec(0, PAGE_SIZE);
        ensure!(memory.page(at)? == sent, "at {at:#x} is something else");
        let back = ours.to_vec(PAGE_SIZE, PAGE_SIZE);
        ensure!(back == sent, "something else came from {at:#x}");
    }
    Request::unmap(IOVA, size)?
        .send_unmap(&attached.container, size)
        .context("unmap after DMA")
}
