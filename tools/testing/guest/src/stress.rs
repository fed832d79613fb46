// SPDX-License-Identifier: GPL-2.0

//! Workers that use VFIO at random, all at once, until their time is over or they are killed.
//!
//! Nearly every operation may fail, as others are in the way; what counts is that the kernel survives
//! and that nothing is left behind.

use crate::env::{
    EDU,
    NVME, //
};
use anyhow::{
    Result,
    bail, //
};
use nix::kmod::{
    DeleteModuleFlags,
    delete_module, //
};
use std::{
    os::fd::{
        AsFd,
        AsRawFd, //
    },
    process::Command,
    thread::sleep,
    time::{
        Duration,
        Instant, //
    },
};
use vfio_client::{
    Bytes,
    Container,
    Device,
    Group,
    Interrupt,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    pci,
    raw,
    request,
    uapi::{
        VFIO_PCI_BAR0_REGION_INDEX,
        VFIO_PCI_MSI_IRQ_INDEX, //
    }, //
};

/// The most that a worker keeps of each kind.
const KEEP: usize = 3;
/// Bytes of the memory that a worker maps pieces of.
const POOL: usize = 64 * PAGE_SIZE;
/// Where mappings go: this many places, each this far from the next.
const PLACES: u64 = 32;
const PLACE: u64 = 0x4_0000;

/// A program that uses devices, at random.
struct User {
    random: fastrand::Rng,
    memory: Memory,
    containers: Vec<Container>,
    groups: Vec<Group>,
    devices: Vec<Device>,
    bars: Vec<Memory>,
}

/// Uses devices until the time is over; returns how many operations that were.
pub fn use_devices(seed: u64, time: Duration) -> Result<u64> {
    let mut user = User {
        random: fastrand::Rng::with_seed(seed),
        memory: Memory::anonymous(POOL)?,
        containers: Vec::new(),
        groups: Vec::new(),
        devices: Vec::new(),
        bars: Vec::new(),
    };
    let end = Instant::now() + time;
    let mut count = 0;
    while Instant::now() < end {
        // Failures are part of it.
        let _ = user.step();
        count += 1;
    }
    Ok(count)
}

/// Takes devices away from the others and gives them back, and unloads the backend when nobody
/// uses it; returns how many times.
pub fn churn(seed: u64, time: Duration) -> Result<u64> {
    let mut random = fastrand::Rng::with_seed(seed);
    let end = Instant::now() + time;
    let mut count = 0;
    while Instant::now() < end {
        let device = if random.bool() { EDU } else { NVME };
        match random.u8(0..3) {
            0 => {
                let _ = pci::unbind(device);
                let _ = pci::bind(device, "vfio-pci");
            }
            1 => {
                let _ = delete_module(c"vfio_iommu_type1", DeleteModuleFlags::O_NONBLOCK);
                restore()?;
            }
            _ => sleep(Duration::from_millis(random.u64(1..50))),
        }
        count += 1;
    }
    restore()?;
    Ok(count)
}

/// Puts the machine back into the state that the cases start from.
pub fn restore() -> Result<()> {
    let status = Command::new("modprobe").arg("vfio_iommu_type1").status()?;
    if !status.success() {
        bail!("modprobe: {status}");
    }
    for device in [EDU, NVME] {
        if pci::driver(device).as_deref() != Some("vfio-pci") {
            pci::bind(device, "vfio-pci")?;
        }
    }
    Ok(())
}

/// Keeps `item`, in the place of another one if there are enough.
fn keep<T>(random: &mut fastrand::Rng, items: &mut Vec<T>, item: T) {
    if items.len() < KEEP {
        items.push(item);
    } else {
        items[random.usize(0..KEEP)] = item;
    }
}

/// Drops one item, if there is one.
fn forget<T>(random: &mut fastrand::Rng, items: &mut Vec<T>) {
    if !items.is_empty() {
        items.swap_remove(random.usize(0..items.len()));
    }
}

/// One of the items, at random.
fn pick<'a, T>(random: &mut fastrand::Rng, items: &'a [T]) -> Result<&'a T> {
    match items.len() {
        0 => bail!("there is none"),
        count => Ok(&items[random.usize(0..count)]),
    }
}

impl User {
    fn step(&mut self) -> Result<()> {
        let random = &mut self.random;
        match random.u8(0..24) {
            0 => keep(random, &mut self.containers, Container::open()?),
            1 | 2 => {
                let device = if random.bool() { EDU } else { NVME };
                let group = Group::open(pci::group_of(device)?)?;
                keep(random, &mut self.groups, group);
            }
            3 | 4 => {
                let container = pick(random, &self.containers)?;
                pick(random, &self.groups)?.set_container(container)?;
            }
            5 => pick(random, &self.groups)?.unset_container()?,
            6 | 7 => {
                let iommu = if random.bool() {
                    Iommu::Type1v2
                } else {
                    Iommu::Type1
                };
                pick(random, &self.containers)?.set_iommu(iommu)?;
            }
            8 | 9 => {
                let device = if random.bool() { EDU } else { NVME };
                let device = pick(random, &self.groups)?.device(device)?;
                keep(random, &mut self.devices, device);
            }
            10..=12 => self.map()?,
            13 => {
                let iova = random.u64(0..PLACES) * PLACE;
                let places = random.u64(1..4);
                pick(random, &self.containers)?.unmap(iova, places * PLACE)?;
            }
            14 => {
                pick(random, &self.containers)?.unmap_all()?;
            }
            15 => {
                pick(random, &self.containers)?.info()?;
            }
            16 => self.merge()?,
            17 => self.map_bar()?,
            18 => self.interrupt()?,
            19 => pick(random, &self.devices)?.reset()?,
            20 => forget(random, &mut self.devices),
            21 => forget(random, &mut self.groups),
            22 => forget(random, &mut self.containers),
            _ => forget(random, &mut self.bars),
        }
        Ok(())
    }

    fn map(&mut self) -> Result<()> {
        let random = &mut self.random;
        let pages = random.usize(1..POOL / PAGE_SIZE);
        let first = random.usize(0..POOL / PAGE_SIZE - pages);
        let iova = random.u64(0..PLACES) * PLACE;
        pick(random, &self.containers)?.map_part(
            iova,
            &self.memory,
            first * PAGE_SIZE,
            pages * PAGE_SIZE,
            MapFlags::ReadWrite,
        )?;
        Ok(())
    }

    /// Requests that only our core has; the kernel's own refuses them.
    fn merge(&mut self) -> Result<()> {
        let random = &mut self.random;
        let group = pick(random, &self.groups)?;
        if random.bool() {
            raw::none(group, request::number(66))?;
        } else {
            let other = pick(random, &self.groups)?.as_fd().as_raw_fd();
            let mut argument = Bytes::new().raw(&other.to_ne_bytes());
            raw::bytes(group, request::number(65), &mut argument)?;
        }
        Ok(())
    }

    fn map_bar(&mut self) -> Result<()> {
        let random = &mut self.random;
        let device = pick(random, &self.devices)?;
        let bar = device.region(VFIO_PCI_BAR0_REGION_INDEX)?;
        let bar = device.map_region(&bar, 0, PAGE_SIZE)?;
        keep(random, &mut self.bars, bar);
        Ok(())
    }

    fn interrupt(&mut self) -> Result<()> {
        let device = pick(&mut self.random, &self.devices)?;
        let interrupt = Interrupt::new()?;
        device.enable_irqs(VFIO_PCI_MSI_IRQ_INDEX, &[&interrupt])?;
        // Half of the time the eventfd goes first.
        if self.random.bool() {
            device.disable_irqs(VFIO_PCI_MSI_IRQ_INDEX)?;
        }
        Ok(())
    }
}
