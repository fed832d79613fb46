// SPDX-License-Identifier: GPL-2.0

//! Driver for the copy engine of `samples/pamu_dma`.
//!
//! All accesses of the engine go through the PAMU with the engine's LIODN.

#![deny(unsafe_code)]

use anyhow::{
    Context,
    Result, //
};
use std::fs;
use vfio_client::{
    Container,
    Device,
    Errno,
    Group,
    Interrupt,
    RegionInfo,
    pamu::Pamu, //
};

/// The LIODN of the first engine; engine `n` uses `FIRST_LIODN + n`.
pub const FIRST_LIODN: u32 = 16;

const COMMAND: u64 = 0x00;
const STATUS: u64 = 0x04;
const SOURCE: u64 = 0x08;
const DESTINATION: u64 = 0x10;
const LENGTH: u64 = 0x18;
const LIODN: u64 = 0x1c;
const MSI_ADDRESS: u64 = 0x20;
const DATA: u64 = 0x30;

const READ: u32 = 1;
const WRITE: u32 = 2;
const COPY: u32 = 3;
const INTERRUPT: u32 = 4;

/// Opens the group of engine `number`.
pub fn group(number: u32) -> Result<Group> {
    let path = format!("/sys/bus/platform/devices/{}/iommu_group", name(number));
    let link = fs::read_link(&path).with_context(|| format!("{path}: is pamu_dma.ko loaded?"))?;
    let id = link.file_name().and_then(|name| name.to_str());
    let id = id.and_then(|id| id.parse().ok());
    Ok(Group::open(id.context("the group has no number")?)?)
}

/// Returns the name of engine `number`.
pub fn name(number: u32) -> String {
    format!("pamu_dma.{number}")
}

/// An engine.
#[derive(Debug)]
pub struct Engine {
    device: Device,
    region: RegionInfo,
    /// The group of the engine. The group belongs to a container.
    pub group: Group,
}

/// Opens engine `number` in a new container.
pub fn open(number: u32) -> Result<(Pamu, Engine)> {
    let container = Container::open()?;
    let group = group(number)?;
    group.set_container(&container)?;
    let pamu = Pamu::new(container)?;
    let engine = Engine::open(group, number)?;
    Ok((pamu, engine))
}

impl Engine {
    /// Opens engine `number`. Its group must be in a container that has an IOMMU backend.
    pub fn open(group: Group, number: u32) -> Result<Self> {
        let device = group.device(&name(number))?;
        let region = device.region(0)?;
        Ok(Self {
            device,
            region,
            group,
        })
    }

    /// Returns the device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    fn set32(&self, register: u64, value: u32) -> Result<()> {
        Ok(self
            .device
            .write(&self.region, register, &value.to_le_bytes())?)
    }

    fn set64(&self, register: u64, value: u64) -> Result<()> {
        Ok(self
            .device
            .write(&self.region, register, &value.to_le_bytes())?)
    }

    fn get32(&self, register: u64) -> Result<u32> {
        let mut bytes = [0; 4];
        self.device.read(&self.region, register, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn get64(&self, register: u64) -> Result<u64> {
        let mut bytes = [0; 8];
        self.device.read(&self.region, register, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Runs a command. The inner result is the status of the command.
    fn command(&self, command: u32) -> Result<Result<(), Errno>> {
        self.set32(COMMAND, command)?;
        Ok(match self.get32(STATUS)? {
            0 => Ok(()),
            status => Err(Errno::from_raw(status as i32)),
        })
    }

    /// Reads eight bytes at `iova`.
    pub fn read(&self, iova: u64) -> Result<Result<u64, Errno>> {
        self.set64(SOURCE, iova)?;
        match self.command(READ)? {
            Ok(()) => Ok(Ok(self.get64(DATA)?)),
            Err(errno) => Ok(Err(errno)),
        }
    }

    /// Writes eight bytes at `iova`.
    pub fn write(&self, iova: u64, value: u64) -> Result<Result<(), Errno>> {
        self.set64(DESTINATION, iova)?;
        self.set64(DATA, value)?;
        self.command(WRITE)
    }

    /// Copies `length` bytes between two iovas.
    pub fn copy(&self, from: u64, to: u64, length: u32) -> Result<Result<(), Errno>> {
        self.set64(SOURCE, from)?;
        self.set64(DESTINATION, to)?;
        self.set32(LENGTH, length)?;
        self.command(COPY)
    }

    /// Raises the interrupt by a write to the configured MSI address.
    pub fn interrupt(&self) -> Result<Result<(), Errno>> {
        self.command(INTERRUPT)
    }

    /// Makes the engine use another LIODN until it is reset.
    pub fn pretend(&self, liodn: u32) -> Result<()> {
        self.set32(LIODN, liodn)
    }

    /// Returns the address that the engine writes to raise its interrupt.
    pub fn msi_address(&self) -> Result<u64> {
        self.get64(MSI_ADDRESS)
    }

    /// Connects the interrupt to an eventfd.
    pub fn enable_interrupt(&self, interrupt: &Interrupt) -> vfio_client::Result<()> {
        self.device.enable_irqs(0, &[interrupt])
    }

    /// Disables the interrupt.
    pub fn disable_interrupt(&self) -> vfio_client::Result<()> {
        self.device.disable_irqs(0)
    }
}
