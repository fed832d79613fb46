// SPDX-License-Identifier: GPL-2.0

//! What the host uses: file systems, swap, network interfaces and the console.

use std::{
    collections::{
        BTreeMap,
        BTreeSet, //
    },
    fs::{
        self,
        File, //
    },
    net::IpAddr,
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
use serde::Serialize;

use super::{
    System,
    devices::Device,
    link_name,
    names_in,
    read_text, //
};

/// A use of a device by the host.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(tag = "use", rename_all = "kebab-case")]
pub enum HostUse {
    /// A file system on a disk behind the device is mounted.
    Mounted {
        /// The block device.
        disk: String,
        /// Where it is mounted.
        at: String,
    },
    /// The host swaps to a disk behind the device.
    Swap {
        /// The block device.
        disk: String,
    },
    /// Another block device, such as an LVM volume or a RAID array, is made of the disk.
    Stacked {
        /// The block device.
        disk: String,
        /// The block device that is made of it.
        by: String,
    },
    /// The kernel has opened the disk exclusively, for example as part of a file system.
    Claimed {
        /// The block device.
        disk: String,
    },
    /// A network interface has an address.
    Address {
        /// The network interface.
        interface: String,
        /// The address.
        address: String,
    },
    /// Packets are routed to a network interface.
    Route {
        /// The network interface.
        interface: String,
        /// Where to.
        destination: String,
    },
    /// Another network interface, such as a bridge, a bond or a VLAN, uses a network interface.
    Stack {
        /// The network interface.
        interface: String,
        /// The one that uses it.
        by: String,
    },
    /// It has virtual functions, which would vanish.
    VirtualFunctions {
        /// The device.
        device: String,
        /// Their number.
        number: u32,
    },
    /// The machine shows its console on the device.
    BootVga,
    /// The console of the kernel is a serial port of the device.
    Console {
        /// The terminal.
        terminal: String,
    },
}

impl HostUse {
    /// Returns whether data would be lost if the device were taken away, so that `--force` does
    /// not apply.
    pub fn is_storage(&self) -> bool {
        matches!(
            self,
            Self::Mounted { .. } | Self::Swap { .. } | Self::Stacked { .. } | Self::Claimed { .. }
        )
    }

    /// Describes the use.
    pub fn describe(&self) -> String {
        match self {
            Self::Mounted { disk, at } => format!("its disk {disk} is mounted at {at}"),
            Self::Swap { disk } => format!("the host swaps to its disk {disk}"),
            Self::Stacked { disk, by } => format!("{by} is made of its disk {disk}"),
            Self::Claimed { disk } => {
                format!("its disk {disk} is in use, perhaps as part of a file system or an array")
            }
            Self::Address { interface, address } => {
                format!("its network interface {interface} has the address {address}")
            }
            Self::Route {
                interface,
                destination,
            } => {
                format!("packets to {destination} are routed to its network interface {interface}")
            }
            Self::Stack { interface, by } => format!("{by} uses its network interface {interface}"),
            Self::VirtualFunctions { number, .. } => {
                format!("it has {number} virtual functions, which would vanish")
            }
            Self::BootVga => "the console is on it (boot_vga)".to_owned(),
            Self::Console { terminal } => format!("the console is on its port {terminal}"),
        }
    }

    /// Returns the command that ends the use, if there is one.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Mounted { at, .. } => Some(format!("umount {}", quote(at))),
            Self::Swap { disk } => Some(format!("swapoff /dev/{disk}")),
            Self::Stacked { by, .. } => Some(format!("lsblk -s /dev/{by}")),
            Self::Claimed { disk } => Some(format!("lsblk /dev/{disk}")),
            Self::Address { interface, .. } => Some(format!("ip address flush dev {interface}")),
            Self::Route { interface, .. } => Some(format!("ip route flush dev {interface}")),
            Self::Stack { interface, .. } => Some(format!("ip link set {interface} nomaster")),
            Self::VirtualFunctions { device, .. } => Some(format!(
                "echo 0 >/sys/bus/pci/devices/{device}/sriov_numvfs"
            )),
            Self::BootVga | Self::Console { .. } => None,
        }
    }
}

/// Quotes a word for the shell, if that is necessary.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// Finds what the host uses, by device.
pub fn read(system: &System, devices: &BTreeMap<String, Device>) -> BTreeMap<String, Vec<HostUse>> {
    let disks = Disks::read(system);
    let interfaces = read_interfaces(system);
    let terminals = read_terminals(system);
    let mut uses = BTreeMap::new();
    for device in devices.values().filter(|device| !device.is_bridge()) {
        let mut found = disks.uses_below(&device.path);
        for (path, uses) in &interfaces {
            if path.starts_with(&device.path) {
                found.extend(uses.iter().cloned());
            }
        }
        for (path, terminal) in &terminals {
            if path.starts_with(&device.path) {
                let terminal = terminal.clone();
                found.push(HostUse::Console { terminal });
            }
        }
        let number = system.read(device.path.join("sriov_numvfs"));
        match number.and_then(|number| number.parse().ok()) {
            None | Some(0) => {}
            Some(number) => found.push(HostUse::VirtualFunctions {
                device: device.name.clone(),
                number,
            }),
        }
        if device.pci.as_ref().is_some_and(|pci| pci.boot_vga) {
            found.push(HostUse::BootVga);
        }
        if !found.is_empty() {
            uses.insert(device.name.clone(), found);
        }
    }
    uses
}

/// Finds the disks of a device that the kernel has opened exclusively, although `known` has no use
/// of them. Opens the disks for reading.
pub fn claimed_disks(system: &System, device: &Device, known: &[HostUse]) -> Vec<HostUse> {
    if !system.is_live() || known.iter().any(HostUse::is_storage) {
        return Vec::new();
    }
    let disks = Disks::read(system);
    let names = disks.below(&device.path).map(|disk| disk.name.clone());
    names
        .filter(|name| is_claimed(&system.path("/dev").join(name)))
        .map(|disk| HostUse::Claimed { disk })
        .collect()
}

/// Returns whether a block device cannot be opened exclusively. Such an open conflicts with a
/// mount, a swap area and a part of an array.
fn is_claimed(node: &Path) -> bool {
    let opened = File::options()
        .read(true)
        .custom_flags((OFlag::O_EXCL | OFlag::O_NONBLOCK).bits())
        .open(node);
    opened.is_err_and(|error| error.raw_os_error() == Some(Errno::EBUSY as i32))
}

/// A block device.
struct Disk {
    name: String,
    /// The directories of the devices that it is on; several if the kernel uses several paths.
    paths: Vec<PathBuf>,
    /// The block devices that are made of it.
    holders: Vec<String>,
    uses: Vec<HostUse>,
}

/// All block devices.
struct Disks(Vec<Disk>);

impl Disks {
    fn read(system: &System) -> Self {
        let mounts = read_mounts(system);
        let swaps = read_swaps(system);
        let pools = read_pools(system);
        let names = system.names("/sys/class/block");
        let disks = names.into_iter().filter_map(|name| {
            let real = fs::canonicalize(system.path("/sys/class/block").join(&name)).ok()?;
            let number = read_text(&real.join("dev")).unwrap_or_default();
            let mut uses = Vec::new();
            let mut add = |at: &String| {
                uses.push(HostUse::Mounted {
                    disk: name.clone(),
                    at: at.clone(),
                });
            };
            mounts.by_number.get(&number).into_iter().for_each(&mut add);
            if let Some(members) = pools.get(&name) {
                let mut mounted = members.iter().filter_map(|m| mounts.by_source.get(m));
                mounted.next().into_iter().for_each(&mut add);
            }
            if swaps.contains(&name) {
                let disk = name.clone();
                uses.push(HostUse::Swap { disk });
            }
            Some(Disk {
                paths: paths_of(system, &real),
                holders: names_in(&real.join("holders")),
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
    fn uses_below(&self, device: &Path) -> Vec<HostUse> {
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

/// Returns the members of each file system on several block devices (btrfs), by member.
fn read_pools(system: &System) -> BTreeMap<String, Vec<String>> {
    let mut pools = BTreeMap::new();
    for pool in system.names("/sys/fs/btrfs") {
        let members = system.names(format!("/sys/fs/btrfs/{pool}/devices"));
        for member in &members {
            pools.insert(member.clone(), members.clone());
        }
    }
    pools
}

/// Returns the uses of each network interface that has a device, with its directory.
fn read_interfaces(system: &System) -> Vec<(PathBuf, Vec<HostUse>)> {
    let addresses = read_addresses(system);
    let routes = read_routes(system);
    let mut found = Vec::new();
    for interface in system.names("/sys/class/net") {
        let Ok(real) = fs::canonicalize(system.path("/sys/class/net").join(&interface)) else {
            continue;
        };
        let mut uses = Vec::new();
        for address in addresses.get(&interface).into_iter().flatten() {
            uses.push(HostUse::Address {
                interface: interface.clone(),
                address: address.clone(),
            });
        }
        for destination in routes.get(&interface).into_iter().flatten() {
            uses.push(HostUse::Route {
                interface: interface.clone(),
                destination: destination.clone(),
            });
        }
        let master = link_name(&real.join("master"));
        let names = names_in(&real);
        let upper = names.iter().filter_map(|name| name.strip_prefix("upper_"));
        let upper = upper.filter(|name| Some(*name) != master.as_deref());
        for by in upper.map(str::to_owned).chain(master.clone()) {
            let interface = interface.clone();
            uses.push(HostUse::Stack { interface, by });
        }
        found.push((system.usual(&real), uses));
    }
    found
}

/// Returns the addresses of interfaces, without link-local ones, which each interface has.
fn read_addresses(system: &System) -> BTreeMap<String, Vec<String>> {
    let mut addresses: BTreeMap<String, Vec<String>> = BTreeMap::new();
    if system.is_live() {
        for interface in nix::ifaddrs::getifaddrs().into_iter().flatten() {
            let Some(address) = interface.address else {
                continue;
            };
            let address = address
                .as_sockaddr_in()
                .map(|v4| IpAddr::V4(v4.ip()))
                .or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())));
            if let Some(address) = address.filter(|address| !is_link_local(address)) {
                let of_interface = addresses.entry(interface.interface_name).or_default();
                of_interface.push(address.to_string());
            }
        }
    } else {
        // A copy of a system has only the addresses of IPv6, as files.
        for line in system
            .read("/proc/net/if_inet6")
            .unwrap_or_default()
            .lines()
        {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (Some(number), Some(name)) = (words.first(), words.get(5)) else {
                continue;
            };
            let Ok(number) = u128::from_str_radix(number, 16) else {
                continue;
            };
            let address = IpAddr::V6(number.into());
            if !is_link_local(&address) {
                let of_interface = addresses.entry((*name).to_owned()).or_default();
                of_interface.push(address.to_string());
            }
        }
    }
    addresses
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    }
}

/// Returns the destinations that are routed to each interface: those of IPv4, and the default route
/// of IPv6.
fn read_routes(system: &System) -> BTreeMap<String, Vec<String>> {
    let mut routes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in system
        .read("/proc/net/route")
        .unwrap_or_default()
        .lines()
        .skip(1)
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(name), Some(to), Some(mask)) = (words.first(), words.get(1), words.get(7)) else {
            continue;
        };
        let number = |text: &str| u32::from_str_radix(text, 16).map(u32::swap_bytes);
        if let (Ok(to), Ok(mask)) = (number(to), number(mask)) {
            let address = std::net::Ipv4Addr::from(to);
            let destination = match mask {
                0 => "everywhere (default route)".to_owned(),
                mask => format!("{address}/{}", mask.count_ones()),
            };
            routes
                .entry((*name).to_owned())
                .or_default()
                .push(destination);
        }
    }
    for line in system
        .read("/proc/net/ipv6_route")
        .unwrap_or_default()
        .lines()
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (Some(to), Some(length), Some(name)) = (words.first(), words.get(1), words.get(9))
        else {
            continue;
        };
        let is_default = *length == "00" && to.chars().all(|c| c == '0');
        // The kernel has an entry on `lo` that rejects everything.
        if is_default && *name != "lo" {
            let destination = "everywhere (default route of IPv6)".to_owned();
            routes
                .entry((*name).to_owned())
                .or_default()
                .push(destination);
        }
    }
    routes
}

/// Returns the directories and names of the terminals that are consoles.
fn read_terminals(system: &System) -> Vec<(PathBuf, String)> {
    let active = system
        .read("/sys/class/tty/console/active")
        .unwrap_or_default();
    let terminals = active.split_whitespace().filter_map(|terminal| {
        let real = fs::canonicalize(system.path("/sys/class/tty").join(terminal)).ok()?;
        Some((system.usual(&real), terminal.to_owned()))
    });
    terminals.collect()
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

    #[test]
    fn words_for_the_shell() {
        assert_eq!(quote("/mnt"), "/mnt");
        assert_eq!(quote("/mnt/a b'c"), r"'/mnt/a b'\''c'");
        assert_eq!(quote(""), "''");
    }
}
