// SPDX-License-Identifier: GPL-2.0

//! A process that has a device open.

use anyhow::{
    Context,
    Result,
    bail,
    ensure, //
};
use nix::unistd::{
    Gid,
    Uid,
    setgid,
    setuid, //
};
use std::process::ExitCode;
use support::{
    devices::Setup,
    helper::{
        Helper,
        without_ipc_lock, //
    },
};
use vfio_client::{
    AddressSpace,
    Device,
    Iommu,
    Iommufd,
    MapFlags,
    Memory,
    pci, //
};

/// By which file a device is opened.
#[derive(Clone, Copy)]
pub enum Door {
    /// The file of its group, with a container.
    Group,
    /// Its own file, with an iommufd.
    File,
}

/// Starts a process that opens a device and maps memory for it.
pub struct Hold<'a> {
    /// The device.
    pub device: &'a str,
    /// How it is opened.
    pub door: Door,
    /// The user.
    pub uid: u32,
    /// The size of the memory to map, in bytes.
    pub map: usize,
    /// The limit of locked memory in bytes; 0 for none.
    pub limit: u64,
}

impl Hold<'_> {
    /// Starts the process, and returns it with what it achieved.
    pub fn start(&self) -> Result<(Helper, String)> {
        let (uid, map, limit) = (
            self.uid.to_string(),
            self.map.to_string(),
            self.limit.to_string(),
        );
        let door = match self.door {
            Door::Group => "group",
            Door::File => "file",
        };
        let mut helper = Helper::spawn(&[self.device, door, &uid, &map, &limit], &[])?;
        let line = helper.line()?;
        ensure!(
            !line.is_empty(),
            "the process that opens the device has ended"
        );
        Ok((helper, line))
    }
}

/// Starts a process of root that has a device open by its group.
pub fn hold(device: &str) -> Result<Helper> {
    hold_by(device, Door::Group)
}

/// Starts a process of root that has a device open.
pub fn hold_by(device: &str, door: Door) -> Result<Helper> {
    let hold = Hold {
        device,
        door,
        uid: 0,
        map: 1 << 20,
        limit: 0,
    };
    let (helper, line) = hold.start()?;
    ensure!(
        line == "mapped",
        "expected that {device} can be used: {line}"
    );
    Ok(helper)
}

/// The process: prints how far it came, and waits for the end of its input.
pub fn main(words: &[String]) -> ExitCode {
    match start(words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(words: &[String]) -> Result<()> {
    let [device, door, uid, map, limit] = words else {
        bail!("expected 5 words");
    };
    let (uid, map, limit): (u32, usize, u64) = (uid.parse()?, map.parse()?, limit.parse()?);
    if limit != 0 {
        without_ipc_lock(limit)?;
    }
    if uid != 0 {
        setgid(Gid::from_raw(uid))?;
        setuid(Uid::from_raw(uid))?;
    }
    let memory = Memory::anonymous(map)?;
    if door == "file" {
        let iommufd = Iommufd::open()?;
        let device = Device::open_file(&pci::sysfs(device)).context("opening")?;
        device.bind(&iommufd)?;
        let ioas = iommufd.ioas()?;
        device.attach(ioas)?;
        map_and_wait(&iommufd.address_space(ioas), &memory)
    } else {
        let setup = Setup::with(device, Iommu::Type1v2).context("opening")?;
        map_and_wait(&setup.container, &memory)
    }
}

fn map_and_wait(space: &dyn AddressSpace, memory: &Memory) -> Result<()> {
    match space.map(0x1000_0000, memory, MapFlags::ReadWrite) {
        Ok(()) => println!("mapped"),
        Err(error) => println!("not mapped: {error}"),
    }
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}
