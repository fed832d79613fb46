// SPDX-License-Identifier: GPL-2.0

//! What the host uses: file systems, swap, network interfaces, the console, and what processes have
//! open.

mod consoles;
mod disks;
mod network;

use std::{
    collections::BTreeMap,
    path::Path, //
};

use serde::Serialize;

use super::{
    Snapshot,
    System,
    devices::Device,
    processes::OpenNode, //
};

pub use disks::{
    claim,
    claimed_disks, //
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
    /// A disk behind the device belongs to a file system on several disks, which is mounted.
    Pool {
        /// The block device.
        disk: String,
        /// The identifier of the file system.
        pool: String,
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
    /// A process has a disk behind the device open.
    OpenDisk {
        /// The block device.
        disk: String,
        /// The process.
        pid: u32,
        /// The name of the process.
        command: String,
    },
    /// A process has a device node of the device open.
    OpenNode {
        /// The path of the node.
        node: String,
        /// The process.
        pid: u32,
        /// The name of the process.
        command: String,
    },
    /// The machine resumes from a disk behind the device after hibernation.
    Hibernation {
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
        /// Whether that is a bridge, a bond or the like, of which the network interface is a port.
        master: bool,
    },
    /// The root file system is mounted over the network, and the network interface is in use.
    NetworkRoot {
        /// The network interface.
        interface: String,
        /// The source of the file system.
        source: String,
    },
    /// Its network interface is in another network namespace.
    OtherNamespace,
    /// It has virtual functions, which would vanish.
    VirtualFunctions {
        /// The device.
        device: String,
        /// Their number.
        number: u32,
    },
    /// It has mediated devices, which would vanish.
    MediatedDevices {
        /// Their number.
        number: usize,
    },
    /// A process has a virtual function or a mediated device of it open.
    InUse {
        /// The virtual function or the mediated device.
        by: String,
        /// The process.
        pid: u32,
        /// The name of the process.
        command: String,
    },
    /// The machine shows its console on the device.
    BootVga,
    /// The kernel shows its console on a frame buffer of the device.
    FrameBuffer {
        /// The frame buffer.
        name: String,
    },
    /// A keyboard is connected to the device.
    Keyboard {
        /// The name of the keyboard.
        name: String,
    },
    /// The console of the kernel is a serial port of the device.
    Console {
        /// The terminal.
        terminal: String,
    },
}

impl HostUse {
    /// Returns whether data would be lost, or a process would lose a device that it uses, so that
    /// `--force` does not apply.
    pub fn resists_force(&self) -> bool {
        self.is_storage() || matches!(self, Self::InUse { .. } | Self::NetworkRoot { .. })
    }

    /// Returns whether a disk is in use.
    pub fn is_storage(&self) -> bool {
        matches!(
            self,
            Self::Mounted { .. }
                | Self::Pool { .. }
                | Self::Swap { .. }
                | Self::Stacked { .. }
                | Self::Claimed { .. }
                | Self::OpenDisk { .. }
        )
    }

    /// Returns the process that uses the device.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::OpenDisk { pid, .. } | Self::OpenNode { pid, .. } | Self::InUse { pid, .. } => {
                Some(*pid)
            }
            _ => None,
        }
    }

    /// Describes the use.
    pub fn describe(&self) -> String {
        match self {
            Self::Mounted { disk, at } => format!("its disk {disk} is mounted at {at}"),
            Self::Pool { disk, pool } => {
                format!("its disk {disk} is part of the mounted file system {pool}")
            }
            Self::Swap { disk } => format!("the host swaps to its disk {disk}"),
            Self::Stacked { disk, by } => format!("{by} is made of its disk {disk}"),
            Self::Claimed { disk } => format!(
                "its disk {disk} is in use, perhaps mounted in a container, or as part of a file \
                 system or an array"
            ),
            Self::OpenDisk { disk, pid, command } => {
                format!("{command} ({pid}) has its disk {disk} open")
            }
            Self::OpenNode { node, pid, command } => {
                format!("{command} ({pid}) has its device node {node} open")
            }
            Self::Hibernation { disk } => {
                format!("the machine resumes from its disk {disk} after hibernation")
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
            Self::Stack { interface, by, .. } => {
                format!("{by} uses its network interface {interface}")
            }
            Self::NetworkRoot { interface, source } => format!(
                "the root file system is mounted over the network from {source}, perhaps by its \
                 network interface {interface}"
            ),
            Self::OtherNamespace => "its network interface is in another network namespace, for \
                                     example that of a container"
                .to_owned(),
            Self::VirtualFunctions { number: 1, .. } => {
                "it has 1 virtual function, which would vanish".to_owned()
            }
            Self::VirtualFunctions { number, .. } => {
                format!("it has {number} virtual functions, which would vanish")
            }
            Self::MediatedDevices { number: 1 } => {
                "it has 1 mediated device, which would vanish".to_owned()
            }
            Self::MediatedDevices { number } => {
                format!("it has {number} mediated devices, which would vanish")
            }
            Self::InUse { by, pid, command } => {
                format!("{command} ({pid}) uses {by}, which would vanish")
            }
            Self::BootVga => "the console is on it (boot_vga)".to_owned(),
            Self::FrameBuffer { name } => format!("the console is on its frame buffer {name}"),
            Self::Keyboard { name } => format!("the keyboard '{name}' is connected to it"),
            Self::Console { terminal } => format!("the console is on its port {terminal}"),
        }
    }

    /// Returns the command that ends the use, if there is one.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Mounted { at, .. } => Some(format!("umount {}", quote(at))),
            Self::Pool { pool, .. } => Some(format!("findmnt UUID={}", quote(pool))),
            Self::Swap { disk } => Some(format!("swapoff {}", node_of(disk))),
            Self::Stacked { by, .. } => Some(format!("lsblk {}", node_of(by))),
            Self::Claimed { disk } => Some(format!("lsblk {}", node_of(disk))),
            Self::OpenDisk { pid, .. } | Self::OpenNode { pid, .. } | Self::InUse { pid, .. } => {
                Some(end_of(*pid))
            }
            Self::Hibernation { .. } => Some("echo 0:0 >/sys/power/resume".to_owned()),
            Self::Address { interface, .. } => {
                Some(format!("ip address flush dev {}", quote(interface)))
            }
            Self::Route {
                interface,
                destination,
            } => {
                let family = if destination.contains("IPv6") {
                    "-6 "
                } else {
                    ""
                };
                Some(format!("ip {family}route flush dev {}", quote(interface)))
            }
            Self::Stack {
                interface, master, ..
            } if *master => Some(format!("ip link set {} nomaster", quote(interface))),
            Self::Stack { by, .. } => Some(format!("ip link delete {}", quote(by))),
            Self::OtherNamespace => Some("lsns --type net    # stop the container".to_owned()),
            Self::VirtualFunctions { device, .. } => Some(format!(
                "echo 0 >/sys/bus/pci/devices/{device}/sriov_numvfs"
            )),
            Self::MediatedDevices { .. } => {
                Some("vfioctl mdev list    # then vfioctl mdev remove".to_owned())
            }
            Self::NetworkRoot { .. }
            | Self::BootVga
            | Self::FrameBuffer { .. }
            | Self::Keyboard { .. }
            | Self::Console { .. } => None,
        }
    }
}

/// Returns the command that ends a process which uses a device.
pub fn end_of(pid: u32) -> String {
    match pid {
        1 => {
            "systemctl    # process 1 must close it; it may hold it for one of its units".to_owned()
        }
        pid => format!("kill {pid}    # or close it in that process"),
    }
}

/// Returns the path of a block device's node, for the shell. Sysfs has `!` in the place of `/`.
fn node_of(disk: &str) -> String {
    quote(&format!("/dev/{}", disk.replace('!', "/")))
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
pub fn read(
    system: &System,
    devices: &BTreeMap<String, Device>,
    nodes: &[OpenNode],
) -> BTreeMap<String, Vec<HostUse>> {
    let disks = disks::Disks::read(system, nodes);
    let interfaces = network::Interfaces::read(system);
    let consoles = consoles::read(system);
    let mut uses = BTreeMap::new();
    for device in devices.values().filter(|device| !device.is_bridge()) {
        let mut found = disks.uses_below(&device.path);
        found.extend(interfaces.uses_of(system, device));
        for (path, used) in &consoles {
            if is_below(path, &device.path) {
                found.push(used.clone());
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
        match mediated(devices, device).count() {
            0 => {}
            number => found.push(HostUse::MediatedDevices { number }),
        }
        if device.pci.as_ref().is_some_and(|pci| pci.boot_vga) {
            found.push(HostUse::BootVga);
        }
        found.extend(open_nodes(nodes, device));
        if !found.is_empty() {
            uses.insert(device.name.clone(), found);
        }
    }
    uses
}

fn is_below(path: &Path, device: &Path) -> bool {
    path.starts_with(device)
}

/// Returns the mediated devices of a parent.
fn mediated<'a>(
    devices: &'a BTreeMap<String, Device>,
    parent: &'a Device,
) -> impl Iterator<Item = &'a Device> {
    devices.values().filter(|device| {
        device.mdev.is_some() && device.name != parent.name && is_below(&device.path, &parent.path)
    })
}

/// Returns a use for each process that has a character device of a device open.
fn open_nodes(nodes: &[OpenNode], device: &Device) -> Vec<HostUse> {
    let mut found: Vec<HostUse> = Vec::new();
    for node in nodes {
        let counts = node.block.is_none() && is_below(&node.path, &device.path);
        if counts && found.iter().all(|used| used.pid() != Some(node.pid)) {
            found.push(HostUse::OpenNode {
                node: node.node.clone(),
                pid: node.pid,
                command: node.command.clone(),
            });
        }
    }
    found
}

/// Returns what depends on each device and would vanish with it: the uses of its virtual functions,
/// and the processes that have one of these or a mediated device of it open.
pub fn read_dependents(snapshot: &Snapshot) -> BTreeMap<String, Vec<HostUse>> {
    let mut uses: BTreeMap<String, Vec<HostUse>> = BTreeMap::new();
    for device in snapshot.devices.values() {
        let functions = snapshot.devices.values().filter(|other| {
            let pci = other.pci.as_ref();
            pci.is_some_and(|pci| pci.physical_function.as_ref() == Some(&device.name))
        });
        let mut found = Vec::new();
        for other in functions.chain(mediated(&snapshot.devices, device)) {
            found.extend(snapshot.uses_of(&other.name).iter().cloned());
            let group = snapshot.group_of(other);
            let holders = group.map(|group| snapshot.holders_of(group));
            for holder in holders.into_iter().flatten() {
                let used = HostUse::InUse {
                    by: other.name.clone(),
                    pid: holder.pid,
                    command: holder.command.clone(),
                };
                if !found.contains(&used) {
                    found.push(used);
                }
            }
        }
        if !found.is_empty() {
            uses.insert(device.name.clone(), found);
        }
    }
    uses
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The end of the first process is the end of the system.
    #[test]
    fn nobody_is_told_to_kill_init() {
        assert!(end_of(11).starts_with("kill 11 "));
        assert!(!end_of(1).contains("kill"));
    }

    #[test]
    fn words_for_the_shell() {
        assert_eq!(quote("/mnt"), "/mnt");
        assert_eq!(quote("/mnt/a b'c"), r"'/mnt/a b'\''c'");
        assert_eq!(quote(""), "''");
        assert_eq!(node_of("cciss!c0d0"), "/dev/cciss/c0d0");
    }
}
