// SPDX-License-Identifier: GPL-2.0

//! Workers that use VFIO at random and concurrently, until their time is over or they are killed.
//!
//! Nearly every operation may fail because of the others. The kernel must survive, and nothing may
//! be left behind.

use crate::{
    env::{
        EDU,
        NVME, //
    },
    modules::{
        load,
        unload, //
    },
};
use anyhow::{
    Context,
    Result,
    bail,
    ensure, //
};
use std::{
    fmt, fs,
    os::fd::{
        AsFd,
        AsRawFd, //
    },
    thread::sleep,
    time::{
        Duration,
        Instant, //
    },
};
use vfio_client::{
    Bytes, Container, Device, Group, Interrupt, Iommu, Iommufd, MapFlags, Memory, PAGE_SIZE, pci,
    raw, request,
    uapi::{
        VFIO_PCI_BAR0_REGION_INDEX,
        VFIO_PCI_MSI_IRQ_INDEX, //
    },
};

/// The maximum number of objects of each kind that a worker keeps.
const KEEP: usize = 3;
/// The size of the memory from which a worker maps pieces.
const POOL: usize = 64 * PAGE_SIZE;
/// Where mappings are placed: this many places at this distance.
const PLACES: u64 = 32;
const PLACE: u64 = 0x4_0000;

/// The devices of the cases: an `edu` and a disk.
pub const DEVICES: [&str; 2] = [EDU, NVME];

/// A process that uses devices at random.
struct User {
    names: [&'static str; 2],
    random: fastrand::Rng,
    memory: Memory,
    containers: Vec<Container>,
    groups: Vec<Group>,
    /// Those that were opened through a group, and those that were opened by their own files.
    devices: Vec<Device>,
    /// Each with the id of an IOAS.
    iommufds: Vec<(Iommufd, u32)>,
    bars: Vec<Memory>,
}

/// The operations of a user, with their weights.
const OPERATIONS: [(&str, usize); 31] = [
    ("set up all", 3),
    ("set up a device file", 3),
    ("open an iommufd", 1),
    ("open a device file", 2),
    ("bind", 2),
    ("attach", 2),
    ("attach a PASID", 1),
    ("detach", 1),
    ("set to an iommufd", 2),
    ("map in an iommufd", 2),
    ("close an iommufd", 1),
    ("open a container", 1),
    ("open a group", 2),
    ("set", 2),
    ("unset", 1),
    ("choose a backend", 2),
    ("get a device", 2),
    ("map", 3),
    ("unmap", 1),
    ("unmap all", 1),
    ("get info", 1),
    ("merge", 1),
    ("unmerge", 1),
    ("get devices", 1),
    ("mmap", 1),
    ("irq", 1),
    ("reset", 1),
    ("close a device", 1),
    ("close a group", 1),
    ("close a container", 1),
    ("munmap", 1),
];

/// The changes made to the machine meanwhile.
const CHANGES: [&str; 5] = [
    "unbind and rebind",
    "module unload",
    "read debugfs",
    "ask for a group",
    "nothing",
];

/// Operations that succeed only by chance, because others interfere nearly always, or only with
/// the Rust core. "set up all" includes choosing a backend and getting a device, "set up a device
/// file" a bind and an attach. No device has PASIDs.
const BY_CHANCE: [&str; 14] = [
    "bind",
    "attach",
    "attach a PASID",
    "detach",
    "choose a backend",
    "get a device",
    "get info",
    "merge",
    "unmerge",
    "get devices",
    "reset",
    "module unload",
    "read debugfs",
    "ask for a group",
];

/// All changes, and those that leave the modules alone.
pub const ALL_CHANGES: [usize; CHANGES.len()] = [0, 1, 2, 3, 4];
pub const CHANGES_OF_DEVICES: [usize; 4] = [0, 2, 3, 4];

/// For each operation, how often it was tried and how often it succeeded.
pub struct Counts(Vec<(u64, u64)>);

impl Counts {
    fn new(operations: usize) -> Self {
        Self(vec![(0, 0); operations])
    }

    fn note<T>(&mut self, operation: usize, outcome: &Result<T>) {
        let (tries, successes) = &mut self.0[operation];
        *tries += 1;
        *successes += u64::from(outcome.is_ok());
    }

    /// Parses the output of [`Counts::fmt`] and adds it.
    pub fn add(&mut self, text: &str) -> Result<()> {
        for (sum, pair) in self.0.iter_mut().zip(text.split(' ')) {
            let (tries, successes) = pair.split_once('/').context("expected TRIES/SUCCESSES")?;
            sum.0 += tries.parse::<u64>()?;
            sum.1 += successes.parse::<u64>()?;
        }
        Ok(())
    }

    /// Creates counts for the operations of users.
    pub fn of_users() -> Self {
        Self::new(OPERATIONS.len())
    }

    /// Creates counts for the changes to the machine.
    pub fn of_changes() -> Self {
        Self::new(CHANGES.len())
    }

    /// Returns the name of each operation, and how often it was tried and succeeded.
    fn each(&self) -> impl Iterator<Item = (&'static str, u64, u64)> {
        let users = self.0.len() == OPERATIONS.len();
        let names = if users {
            OPERATIONS.map(|(name, _)| name).to_vec()
        } else {
            CHANGES.to_vec()
        };
        let counts = self.0.iter();
        names
            .into_iter()
            .zip(counts)
            .map(|(name, &(tries, worked))| (name, tries, worked))
    }

    /// Returns a line for each operation.
    pub fn lines(&self) -> Vec<String> {
        let line = |(name, tries, worked)| format!("{name}: {tries} tries, {worked} succeeded");
        self.each().map(line).collect()
    }

    /// Fails unless each operation was tried and has succeeded at least once. Operations that
    /// succeed only by chance need not have succeeded.
    pub fn check(&self) -> Result<()> {
        for (name, tries, worked) in self.each() {
            let enough = worked > 0 || BY_CHANCE.contains(&name);
            ensure!(
                tries > 0 && enough,
                "{name}: {tries} tries, {worked} succeeded"
            );
        }
        Ok(())
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self
            .0
            .iter()
            .map(|(tries, worked)| format!("{tries}/{worked}"));
        f.write_str(&pairs.collect::<Vec<_>>().join(" "))
    }
}

/// Uses devices until the time is over. Reports the counts from time to time.
pub fn use_devices(
    names: [&'static str; 2],
    seed: u64,
    time: Duration,
    mut say: impl FnMut(&Counts),
) -> Result<()> {
    let mut user = User {
        names,
        random: fastrand::Rng::with_seed(seed),
        memory: Memory::anonymous(POOL)?,
        containers: Vec::new(),
        groups: Vec::new(),
        devices: Vec::new(),
        iommufds: Vec::new(),
        bars: Vec::new(),
    };
    let end = Instant::now() + time;
    let mut counts = Counts::of_users();
    while Instant::now() < end {
        for _ in 0..20 {
            let operation = user.operation();
            // Failures are expected.
            let outcome = user.step(operation);
            counts.note(operation, &outcome);
        }
        say(&counts);
        counts = Counts::of_users();
    }
    Ok(())
}

/// Unbinds devices from the others and binds them again, reads files, and unloads the backend when
/// it is unused, if this is one of the `changes`. Returns the counts.
pub fn churn(names: [&str; 2], changes: &[usize], seed: u64, time: Duration) -> Result<Counts> {
    let mut random = fastrand::Rng::with_seed(seed);
    let end = Instant::now() + time;
    let mut counts = Counts::of_changes();
    while Instant::now() < end {
        let device = *random.choice(&names).context("no device")?;
        let change = *random.choice(changes).context("no change")?;
        let outcome = match change {
            0 => pci::unbind(device)
                .and_then(|()| pci::bind(device, "vfio-pci"))
                .map_err(anyhow::Error::from),
            1 => {
                let gone = unload(c"vfio_iommu_type1");
                restore(names)?;
                gone.map_err(anyhow::Error::from)
            }
            2 => read_debugfs(),
            3 => pci::group_of(device)
                .and_then(Group::open)
                .map(drop)
                .map_err(anyhow::Error::from),
            _ => {
                sleep(Duration::from_millis(random.u64(1..50)));
                Ok(())
            }
        };
        counts.note(change, &outcome);
    }
    restore(names)?;
    Ok(counts)
}

/// Reads the debugfs files of all groups, if the core has them.
fn read_debugfs() -> Result<()> {
    for entry in fs::read_dir("/sys/kernel/debug/vfio/groups")? {
        // Groups may be removed meanwhile.
        let _ = fs::read_to_string(entry?.path());
    }
    Ok(())
}

/// Restores the state of the machine from which cases start.
pub fn restore(names: [&str; 2]) -> Result<()> {
    load(&["vfio_iommu_type1"])?;
    bind(names)
}

/// Binds the devices to `vfio-pci`.
pub fn bind(names: [&str; 2]) -> Result<()> {
    for device in names {
        if pci::driver(device).as_deref() != Some("vfio-pci") {
            pci::bind(device, "vfio-pci")?;
        }
    }
    Ok(())
}

/// Keeps `item`. Replaces another item if there are enough.
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

/// Returns a random item.
fn pick<'a, T>(random: &mut fastrand::Rng, items: &'a [T]) -> Result<&'a T> {
    match items.len() {
        0 => bail!("there is none"),
        count => Ok(&items[random.usize(0..count)]),
    }
}

impl User {
    /// Chooses what to do next.
    fn operation(&mut self) -> usize {
        let sum = OPERATIONS.iter().map(|(_, weight)| weight).sum();
        let mut ticket = self.random.usize(0..sum);
        let drawn = OPERATIONS.iter().position(|(_, weight)| {
            let hit = ticket < *weight;
            ticket = ticket.saturating_sub(*weight);
            hit
        });
        drawn.unwrap_or(0)
    }

    /// Runs one of the [`OPERATIONS`].
    fn step(&mut self, operation: usize) -> Result<()> {
        let random = &mut self.random;
        match OPERATIONS[operation].0 {
            "set up all" => self.set_up()?,
            "set up a device file" => self.set_up_file()?,
            "open an iommufd" => {
                let iommufd = Iommufd::open()?;
                let ioas = iommufd.ioas()?;
                keep(random, &mut self.iommufds, (iommufd, ioas));
            }
            "open a device file" => {
                let name = self.names[random.usize(0..2)];
                let device = Device::open_file(&pci::sysfs(name))?;
                keep(random, &mut self.devices, device);
            }
            "bind" => {
                let (iommufd, _) = pick(random, &self.iommufds)?;
                pick(random, &self.devices)?.bind(iommufd)?;
            }
            "attach" => {
                let (_, ioas) = pick(random, &self.iommufds)?;
                pick(random, &self.devices)?.attach(*ioas)?;
            }
            "attach a PASID" => {
                let (_, ioas) = pick(random, &self.iommufds)?;
                pick(random, &self.devices)?.attach_pasid(1, *ioas)?;
            }
            "detach" => pick(random, &self.devices)?.detach()?,
            "set to an iommufd" => {
                let (iommufd, _) = pick(random, &self.iommufds)?;
                let fd = iommufd.as_fd().as_raw_fd();
                pick(random, &self.groups)?.set_container_fd(fd)?;
            }
            "map in an iommufd" => {
                let pages = random.usize(1..POOL / PAGE_SIZE);
                let iova = random.u64(0..PLACES) * PLACE;
                let (iommufd, ioas) = pick(random, &self.iommufds)?;
                let len = pages * PAGE_SIZE;
                iommufd.map_part(*ioas, iova, &self.memory, 0, len, MapFlags::ReadWrite)?;
            }
            "close an iommufd" => forget(random, &mut self.iommufds),
            "open a container" => keep(random, &mut self.containers, Container::open()?),
            "open a group" => {
                let name = self.names[random.usize(0..2)];
                let group = Group::open(pci::group_of(name)?)?;
                keep(random, &mut self.groups, group);
            }
            "set" => {
                let container = pick(random, &self.containers)?;
                pick(random, &self.groups)?.set_container(container)?;
            }
            "unset" => pick(random, &self.groups)?.unset_container()?,
            "choose a backend" => {
                let iommu = if random.bool() {
                    Iommu::Type1v2
                } else {
                    Iommu::Type1
                };
                pick(random, &self.containers)?.set_iommu(iommu)?;
            }
            "get a device" => {
                let name = self.names[random.usize(0..2)];
                let device = pick(random, &self.groups)?.device(name)?;
                keep(random, &mut self.devices, device);
            }
            "map" => self.map()?,
            "unmap" => {
                let iova = random.u64(0..PLACES) * PLACE;
                let places = random.u64(1..4);
                pick(random, &self.containers)?.unmap(iova, places * PLACE)?;
            }
            "unmap all" => {
                pick(random, &self.containers)?.unmap_all()?;
            }
            "get info" => {
                pick(random, &self.containers)?.info()?;
            }
            "merge" => self.merge()?,
            "unmerge" => {
                raw::none(pick(random, &self.groups)?, request::GROUP_UNMERGE)?;
            }
            "get devices" => {
                let mut argument = Bytes::new().u32(4096).fill(0, 4092);
                raw::bytes(
                    pick(random, &self.groups)?,
                    request::GROUP_GET_DEVICES,
                    &mut argument,
                )?;
            }
            "mmap" => self.map_bar()?,
            "irq" => self.interrupt()?,
            "reset" => pick(random, &self.devices)?.reset()?,
            "close a device" => forget(random, &mut self.devices),
            "close a group" => forget(random, &mut self.groups),
            "close a container" => forget(random, &mut self.containers),
            _ => forget(random, &mut self.bars),
        }
        Ok(())
    }

    /// Does all steps from a group to an open device.
    fn set_up(&mut self) -> Result<()> {
        let random = &mut self.random;
        let name = self.names[random.usize(0..2)];
        let group = Group::open(pci::group_of(name)?)?;
        let container = Container::open()?;
        group.set_container(&container)?;
        container.set_iommu(Iommu::Type1v2)?;
        let device = group.device(name)?;
        keep(random, &mut self.containers, container);
        keep(random, &mut self.groups, group);
        keep(random, &mut self.devices, device);
        Ok(())
    }

    /// Does all steps from a device file to an attached device.
    fn set_up_file(&mut self) -> Result<()> {
        let random = &mut self.random;
        let name = self.names[random.usize(0..2)];
        let device = Device::open_file(&pci::sysfs(name))?;
        let iommufd = Iommufd::open()?;
        let ioas = iommufd.ioas()?;
        device.bind(&iommufd)?;
        device.attach(ioas)?;
        keep(random, &mut self.iommufds, (iommufd, ioas));
        keep(random, &mut self.devices, device);
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

    /// A request that only the Rust core supports. The C core rejects it.
    fn merge(&mut self) -> Result<()> {
        let group = pick(&mut self.random, &self.groups)?;
        let other = pick(&mut self.random, &self.groups)?;
        let mut argument = Bytes::of(&other.as_fd().as_raw_fd());
        raw::bytes(group, request::GROUP_MERGE, &mut argument)?;
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
        // In half of the cases the eventfd is removed first.
        if self.random.bool() {
            device.disable_irqs(VFIO_PCI_MSI_IRQ_INDEX)?;
        }
        Ok(())
    }
}
