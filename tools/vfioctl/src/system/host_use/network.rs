// SPDX-License-Identifier: GPL-2.0

//! Network interfaces: addresses, routes, and what is on top of them.

use std::{
    collections::{
        BTreeMap,
        BTreeSet, //
    },
    fs,
    net::IpAddr,
    path::{
        Path,
        PathBuf, //
    },
};

use super::HostUse;
use crate::system::{
    System,
    devices::Device,
    link_name,
    names_in,
    read_text, //
};

/// A network interface.
struct Interface {
    /// The directory of the interface.
    path: PathBuf,
    uses: Vec<HostUse>,
}

/// The network interfaces that sysfs shows: those of the network namespace in which it was mounted.
pub struct Interfaces {
    all: Vec<Interface>,
    /// Whether this process is in another network namespace than the first process, so that it does
    /// not see the addresses of the host.
    is_foreign: bool,
}

impl Interfaces {
    /// Reads the interfaces.
    pub fn read(system: &System) -> Self {
        let addresses = read_addresses(system);
        let routes = read_routes(system);
        let root = read_network_root(system);
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
            for by in uppers(&real) {
                uses.push(HostUse::Stack {
                    interface: interface.clone(),
                    master: master.as_ref() == Some(&by),
                    by,
                });
            }
            let mut all = BTreeSet::new();
            with_uppers(system, &interface, &mut all);
            let used = |name: &String| addresses.contains_key(name) || routes.contains_key(name);
            if let Some(source) = root.clone().filter(|_| all.iter().any(used)) {
                uses.push(HostUse::NetworkRoot { interface, source });
            }
            found.push(Interface {
                path: system.usual(&real),
                uses,
            });
        }
        let namespace = |pid: &str| link_name(&system.path(format!("/proc/{pid}/ns/net")));
        let is_foreign = match (namespace("self"), namespace("1")) {
            (Some(own), Some(first)) => own != first,
            _ => false,
        };
        Self {
            all: found,
            is_foreign,
        }
    }

    /// Returns the uses of the interfaces of a device.
    pub fn uses_of(&self, system: &System, device: &Device) -> Vec<HostUse> {
        let below = |interface: &&Interface| interface.path.starts_with(&device.path);
        let own: Vec<&Interface> = self.all.iter().filter(below).collect();
        let unknown = match own[..] {
            [] => is_elsewhere(system, device),
            _ => self.is_foreign,
        };
        let uses = own.into_iter().flat_map(|interface| &interface.uses);
        let unknown = unknown.then_some(HostUse::OtherNamespace);
        uses.cloned().chain(unknown).collect()
    }
}

/// Returns whether a device has network interfaces that this process does not see: the directory
/// `net` is there as long as the device has an interface, but shows those of one namespace only.
fn is_elsewhere(system: &System, device: &Device) -> bool {
    let is_network = device.pci.as_ref().is_some_and(|pci| pci.class >> 16 == 2);
    if !is_network || device.driver.is_none() {
        return false;
    }
    // That of a virtio device is one level further down.
    let below = system.names(&device.path).into_iter();
    let mut folders = below
        .filter(|name| name.starts_with("virtio"))
        .map(|name| device.path.join(name))
        .chain([device.path.clone()]);
    folders.any(|folder| {
        let folder = system.path(folder.join("net"));
        folder.is_dir() && names_in(&folder).is_empty()
    })
}

/// Returns the interfaces that are directly on top of an interface. A master comes last.
fn uppers(real: &Path) -> Vec<String> {
    let master = link_name(&real.join("master"));
    let names = names_in(real);
    let upper = names.iter().filter_map(|name| name.strip_prefix("upper_"));
    let upper = upper.filter(|name| Some(*name) != master.as_deref());
    upper.map(str::to_owned).chain(master.clone()).collect()
}

/// Adds an interface, and all that are on top of it.
fn with_uppers(system: &System, interface: &str, found: &mut BTreeSet<String>) {
    if found.insert(interface.to_owned()) {
        let link = system.path("/sys/class/net").join(interface);
        for upper in uppers(&link) {
            with_uppers(system, &upper, found);
        }
    }
}

/// Returns the source of the root file system, or of that of the programs, if it is mounted over the
/// network: a file server, or a disk of another machine.
fn read_network_root(system: &System) -> Option<String> {
    let text = system.read("/proc/1/mountinfo")?;
    ["/", "/usr"].into_iter().find_map(|point| {
        let mounts = text.lines().filter_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let words: Vec<&str> = mount.split(' ').collect();
            (*words.get(4)? == point).then_some((*words.get(2)?, file_system))
        });
        // The last one hides those before.
        let (number, file_system) = mounts.last()?;
        let mut words = file_system.split(' ');
        let (kind, source) = (words.next()?, words.next()?);
        let over_network = ["nfs", "nfs4", "cifs", "smb3", "ceph", "afs"];
        let disk = || {
            let by_number = fs::canonicalize(system.path("/sys/dev/block").join(number));
            // File systems on several disks have numbers of their own.
            let by_name = || {
                let node = fs::canonicalize(system.path(source)).ok()?;
                let name = node.file_name()?.to_owned();
                fs::canonicalize(system.path("/sys/class/block").join(name)).ok()
            };
            by_number.ok().or_else(by_name)
        };
        let is_remote =
            over_network.contains(&kind) || disk().is_some_and(|disk| is_remote_disk(&disk));
        is_remote.then(|| source.to_owned())
    })
}

/// Returns whether a block device is a disk of another machine (iSCSI, NVMe over fabrics, NBD, RBD), or
/// made of one.
fn is_remote_disk(disk: &Path) -> bool {
    let slaves = disk.join("slaves");
    let below = names_in(&slaves);
    let mut below = below
        .iter()
        .filter_map(|name| fs::canonicalize(slaves.join(name)).ok());
    below.any(|disk| is_remote_disk(&disk)) || disk.ancestors().any(is_of_remote_disk)
}

/// Returns whether a folder of sysfs is a disk of another machine, or the connection to it.
fn is_of_remote_disk(folder: &Path) -> bool {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let numbered = |prefix: &str| {
        let number = name.strip_prefix(prefix);
        number.is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()))
    };
    let is_fabric = |controller: &Path| {
        let transport = read_text(&controller.join("transport")).unwrap_or_default();
        ["tcp", "rdma", "fc"].contains(&transport.as_str())
    };
    if numbered("nvme-subsys") {
        // A disk with several paths.
        let names = names_in(folder);
        return names.iter().any(|name| is_fabric(&folder.join(name)));
    }
    numbered("session") || numbered("nbd") || numbered("rbd") || is_fabric(folder)
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
