// SPDX-License-Identifier: GPL-2.0

//! Disks: what is mounted, swap, and what block devices are made of others.

use std::{
    collections::{
        BTreeMap,
        BTreeSet, //
    },
    fs::{
        self,
        File, //
    },
    io,
    os::unix::fs::OpenOptionsExt,
    path::{
        Path,
        PathBuf, //
    },
};

use nix::{
    errno::Errno,
    fcntl::OFlag, //
};

use super::HostUse;
use crate::system::{
    System,
    devices::Device,
    names_in,
    processes::OpenNode,
    read_text, //
};

/// Finds the disks of a device that the kernel has opened exclusively, although `known` has no use
/// of them. Opens the disks for reading.
pub fn claimed_disks(system: &System, device: &Device, known: &[HostUse]) -> Vec<HostUse> {
    if !system.is_live() || known.iter().any(HostUse::is_storage) {
        return Vec::new();
    }
    let disks = Disks::read(system, &[]);
    let names = disks.below(&device.path).map(|disk| disk.name.clone());
    names
        .filter(|name| open_exclusively(&node_of(system, name)).is_err_and(|error| is_busy(&error)))
        .map(|disk| HostUse::Claimed { disk })
        .collect()
}

/// Opens the disks of a device exclusively, so that nobody can mount them until the files are closed.
/// Returns the name of a disk instead that somebody else has opened so.
pub fn claim(system: &System, device: &Path) -> Result<Vec<File>, String> {
    if !system.is_live() {
        return Ok(Vec::new());
    }
    let disks = Disks::read(system, &[]);
    let mut files = Vec::new();
    for disk in disks.below(device).filter(|disk| disk.is_whole) {
        match open_exclusively(&node_of(system, &disk.name)) {
            Ok(file) => files.push(file),
            Err(error) if is_busy(&error) => return Err(disk.name.clone()),
            // There is no medium, or the disk is gone.
            Err(_) => {}
        }
    }
    Ok(files)
}

/// Returns the path of a block device's node. Sysfs has `!` in the place of `/`.
fn node_of(system: &System, disk: &str) -> PathBuf {
    system.path("/dev").join(disk.replace('!', "/"))
}

/// Opens a block device for reading. That conflicts with a mount, a swap area and a part of an array.
fn open_exclusively(node: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .custom_flags((OFlag::O_EXCL | OFlag::O_NONBLOCK).bits())
        .open(node)
}

fn is_busy(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EBUSY as i32)
}

/// A block device.
struct Disk {
    name: String,
    /// Whether it is no partition.
    is_whole: bool,
    /// The directories of the devices that it is on; several if the kernel uses several paths.
    paths: Vec<PathBuf>,
    /// The block devices that are made of it.
    holders: Vec<String>,
    uses: Vec<HostUse>,
}

/// All block devices.
pub struct Disks(Vec<Disk>);

impl Disks {
    /// Reads the block devices, with what uses them.
    pub fn read(system: &System, nodes: &[OpenNode]) -> Self {
        let mounts = read_mounts(system);
        let swaps = read_swaps(system);
        let pools = read_pools(system);
        let loops = read_loops(system);
        let resume = system.read("/sys/power/resume").unwrap_or_default();
        let names = system.names("/sys/class/block");
        let disks = names.into_iter().filter_map(|name| {
            let real = fs::canonicalize(system.path("/sys/class/block").join(&name)).ok()?;
            let number = read_text(&real.join("dev")).unwrap_or_default();
            let mut uses = Vec::new();
            let disk = || name.clone();
            let mounted = |at: &String| HostUse::Mounted {
                disk: disk(),
                at: at.clone(),
            };
            uses.extend(mounts.by_number.get(&number).map(mounted));
            if let Some((pool, members)) = pools.get(&name) {
                let mut places = members.iter().filter_map(|m| mounts.by_source.get(m));
                let place = places.next().map(mounted);
                let pool = pool.clone();
                uses.push(place.unwrap_or_else(|| HostUse::Pool { disk: disk(), pool }));
            }
            if swaps.contains(&name) {
                uses.push(HostUse::Swap { disk: disk() });
            }
            if number == resume && number != "0:0" && !number.is_empty() {
                uses.push(HostUse::Hibernation { disk: disk() });
            }
            let opened = nodes
                .iter()
                .filter(|node| node.block.as_ref() == Some(&number));
            let mut pids = BTreeSet::new();
            for node in opened.filter(|node| pids.insert(node.pid)) {
                uses.push(HostUse::OpenDisk {
                    disk: disk(),
                    pid: node.pid,
                    command: node.command.clone(),
                });
            }
            let mut holders = names_in(&real.join("holders"));
            holders.extend(loops.get(&name).into_iter().flatten().cloned());
            Some(Disk {
                is_whole: !real.join("partition").exists(),
                paths: paths_of(system, &real),
                holders,
                uses,
                name,
            })
        });
        Self(disks.collect())
    }

    fn below<'a>(&'a self, device: &'a Path) -> impl Iterator<Item = &'a Disk> {
        let is_below = move |disk: &&Disk| disk.paths.iter().any(|path| path.starts_with(device));
        self.0.iter().filter(is_below)
    }

    /// Returns the uses of the disks of a device, and of the block devices that are made of them.
    pub fn uses_below(&self, device: &Path) -> Vec<HostUse> {
        let mut found = Vec::new();
        for disk in self.below(device) {
            found.extend(disk.uses.iter().cloned());
            let mut seen = BTreeSet::new();
            self.add_stacked(disk, &disk.name, &mut seen, &mut found);
        }
        found
    }

    fn add_stacked<'a>(
        &'a self,
        disk: &'a Disk,
        name: &str,
        seen: &mut BTreeSet<&'a str>,
        found: &mut Vec<HostUse>,
    ) {
        for by in &disk.holders {
            if !seen.insert(by) {
                continue;
            }
            found.push(HostUse::Stacked {
                disk: name.to_owned(),
                by: by.clone(),
            });
            if let Some(upper) = self.0.iter().find(|disk| &disk.name == by) {
                found.extend(upper.uses.iter().cloned());
                self.add_stacked(upper, name, seen, found);
            }
        }
    }
}

/// Returns the directories of the devices that a block device is on. A disk of NVMe with several
/// paths is below the subsystem, which has a link to each controller.
fn paths_of(system: &System, real: &Path) -> Vec<PathBuf> {
    let mut paths = vec![system.usual(real)];
    let subsystem = real.ancestors().find(|path| {
        let parent = path.parent().and_then(Path::file_name);
        parent.is_some_and(|name| name == "nvme-subsystem")
    });
    if let Some(subsystem) = subsystem {
        for name in names_in(subsystem) {
            let link = subsystem.join(name);
            if link.is_symlink() {
                paths.extend(fs::canonicalize(link).map(|path| system.usual(&path)));
            }
        }
    }
    paths
}

/// The mounts that this process sees.
#[derive(Default)]
struct Mounts {
    /// Where a block device is mounted, by `MAJOR:MINOR`.
    by_number: BTreeMap<String, String>,
    /// Where a block device is mounted, by its name. Some file systems have a number of their own.
    by_source: BTreeMap<String, String>,
}

fn read_mounts(system: &System) -> Mounts {
    let mut mounts = Mounts::default();
    // That of the first process, since a caller may be in a namespace of its own.
    let text = system.read("/proc/1/mountinfo").unwrap_or_default();
    let own = system.read("/proc/self/mountinfo").unwrap_or_default();
    for line in own.lines().chain(text.lines()) {
        let mut words = line.split(' ');
        let (Some(number), Some(at)) = (words.nth(2), words.nth(1)) else {
            continue;
        };
        let at = unescape(at);
        let number = number.to_owned();
        mounts.by_number.entry(number).or_insert_with(|| at.clone());
        let source = line
            .split(" - ")
            .nth(1)
            .and_then(|rest| rest.split(' ').nth(1));
        if let Some(name) = source.and_then(|source| source.strip_prefix("/dev/")) {
            mounts.by_source.entry(unescape(name)).or_insert(at);
        }
    }
    mounts
}

/// Replaces the octal escapes of the kernel, for example `\040` for a space.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after
            .get(..3)
            .and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn read_swaps(system: &System) -> BTreeSet<String> {
    let text = system.read("/proc/swaps").unwrap_or_default();
    let paths = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next());
    paths
        .filter_map(|path| path.strip_prefix("/dev/"))
        .map(unescape)
        .collect()
}

/// Returns the identifier and the members of each mounted btrfs, by member. It can be on several
/// block devices.
fn read_pools(system: &System) -> BTreeMap<String, (String, Vec<String>)> {
    let mut pools = BTreeMap::new();
    for pool in system.names("/sys/fs/btrfs") {
        let members = system.names(format!("/sys/fs/btrfs/{pool}/devices"));
        for member in &members {
            pools.insert(member.clone(), (pool.clone(), members.clone()));
        }
    }
    pools
}

/// Returns the loop devices that have a block device behind them, by that device. The kernel neither
/// links these nor claims the block device.
fn read_loops(system: &System) -> BTreeMap<String, Vec<String>> {
    let mut loops: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in system.names("/sys/class/block") {
        let file = system.read(format!("/sys/class/block/{name}/loop/backing_file"));
        if let Some(disk) = file.as_deref().and_then(|file| file.strip_prefix("/dev/")) {
            loops.entry(disk.replace('/', "!")).or_default().push(name);
        }
    }
    loops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_the_kernel() {
        assert_eq!(unescape(r"/mnt/a\040b"), "/mnt/a b");
        assert_eq!(unescape(r"\"), r"\");
        assert_eq!(unescape(r"a\9zz"), r"a\9zz");
        assert_eq!(unescape(r"\777"), r"\777");
    }
}
