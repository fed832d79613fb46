// SPDX-License-Identifier: GPL-2.0

//! Devices and IOMMU groups.

use std::{
    collections::BTreeMap,
    fs,
    path::{
        Path,
        PathBuf, //
    },
};

use serde::Serialize;

use super::{
    System,
    access::Node,
    link_name,
    names_in,
    read_text, //
};

/// A device.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Device {
    /// The name on its bus, for example `0000:06:00.0` or a UUID.
    pub name: String,
    /// The bus: `pci`, `mdev`, `platform`, ...
    pub bus: String,
    /// The directory in sysfs, without links.
    pub path: PathBuf,
    /// The number of its IOMMU group.
    pub group: Option<u32>,
    /// The name of its IOMMU.
    pub iommu: Option<String>,
    /// The driver that it is bound to.
    pub driver: Option<String>,
    /// The only driver that may be bound to it.
    pub driver_override: Option<String>,
    /// The name of its VFIO device, for example `vfio0`, if a VFIO driver offers it.
    pub vfio: Option<String>,
    /// What PCI devices have in addition.
    pub pci: Option<Pci>,
    /// What mediated devices have in addition.
    pub mdev: Option<Mdev>,
}

/// What PCI devices have in addition.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Pci {
    /// The vendor's number.
    pub vendor: u16,
    /// The device's number.
    pub device: u16,
    /// The class, with subclass and programming interface.
    pub class: u32,
    /// Whether the machine shows its console on it.
    pub boot_vga: bool,
    /// The vendor's number of the card.
    pub subsystem_vendor: u16,
    /// The device's number of the card.
    pub subsystem_device: u16,
    /// Whether another bus is behind it. The class alone does not tell.
    pub has_bus: bool,
    /// The physical function, if this is a virtual function.
    pub physical_function: Option<String>,
}

/// What mediated devices have in addition.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Mdev {
    /// The name of the parent.
    pub parent: String,
    /// The type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The UUID of its peer-to-peer group, if it can have peers.
    pub peer_uuid: Option<String>,
}

impl Pci {
    /// Returns whether it is a bridge, which forwards requests and cannot be handed out.
    ///
    /// vfio-pci takes no device with the configuration space of a bridge to another bus, of PCI or
    /// CardBus, whatever its class is.
    pub fn is_bridge(&self) -> bool {
        self.class >> 8 == 0x0604 || self.has_bus
    }

    /// Returns `VENDOR:DEVICE` as `lspci -n` prints it.
    pub fn id(&self) -> String {
        format!("{:04x}:{:04x}", self.vendor, self.device)
    }

    /// Returns a short name of the class.
    pub fn class_name(&self) -> &'static str {
        match (self.class >> 16, (self.class >> 8) & 0xff) {
            (0x01, 0x08) => "NVMe disk",
            (0x01, _) => "storage",
            (0x02, _) => "network",
            (0x03, _) => "display",
            (0x04, _) => "multimedia",
            (0x05, _) => "memory",
            (0x06, 0x04) => "PCI bridge",
            (0x06, 0x00) => "host bridge",
            (0x06, 0x01) => "ISA bridge",
            (0x06, _) => "bridge",
            (0x07, _) => "communication",
            (0x08, _) => "system",
            (0x09, _) => "input",
            (0x0c, 0x03) => "USB",
            (0x0c, 0x05) => "SMBus",
            (0x0c, _) => "serial bus",
            (0x0d, _) => "wireless",
            (0x10, _) => "crypto",
            (0x12, _) => "accelerator",
            _ => "other",
        }
    }
}

impl Device {
    fn read(system: &System, path: &Path) -> Option<Self> {
        let real = fs::canonicalize(path).ok()?;
        let name = real.file_name()?.to_string_lossy().into_owned();
        let bus = link_name(&real.join("subsystem")).unwrap_or_default();
        Some(Self {
            group: link_name(&real.join("iommu_group")).and_then(|group| group.parse().ok()),
            iommu: link_name(&real.join("iommu")),
            driver: link_name(&real.join("driver")),
            driver_override: driver_override(&real),
            vfio: names_in(&real.join("vfio-dev")).into_iter().next(),
            pci: (bus == "pci").then(|| Pci::read(&real)),
            mdev: (bus == "mdev").then(|| Mdev::read(&real)),
            path: system.usual(&real),
            name,
            bus,
        })
    }

    /// Returns whether a VFIO driver offers it to programs.
    pub fn is_offered(&self) -> bool {
        self.vfio.is_some()
    }

    /// Returns whether it is a bridge.
    pub fn is_bridge(&self) -> bool {
        self.pci.as_ref().is_some_and(Pci::is_bridge)
    }

    /// Returns whether its driver is one that leaves DMA to programs, or whether it has none. A
    /// device of any other driver prevents the use of its group.
    pub fn lets_group_go(&self) -> bool {
        match self.driver.as_deref() {
            None | Some("pcieport" | "pci-stub") => true,
            Some(_) => self.is_offered(),
        }
    }

    /// Returns the VFIO driver for devices on its bus, if drivers can be chosen there.
    pub fn vfio_driver(&self) -> Option<&'static str> {
        match self.bus.as_str() {
            "pci" => Some("vfio-pci"),
            "platform" => Some("vfio-platform"),
            "amba" => Some("vfio-amba"),
            "fsl-mc" => Some("vfio-fsl-mc"),
            "cdx" => Some("vfio-cdx"),
            _ => None,
        }
    }

    /// Returns what kind of device it is, in a word or two.
    pub fn kind(&self) -> &str {
        match (&self.pci, &self.mdev) {
            (Some(pci), _) => pci.class_name(),
            (_, Some(mdev)) => &mdev.kind,
            _ => &self.bus,
        }
    }

    /// Returns what identifies its model, to notice that another device has taken its address.
    pub fn model(&self) -> Option<String> {
        self.pci.as_ref().map(Pci::id)
    }
}

/// Returns the contents of `driver_override`. The kernel prints `(null)` if there is none.
pub fn driver_override(device: &Path) -> Option<String> {
    let text = read_text(&device.join("driver_override"))?;
    (!text.is_empty() && text != "(null)").then_some(text)
}

impl Pci {
    fn read(path: &Path) -> Self {
        Self {
            // CAST: The kernel prints 16 bits.
            vendor: hex(path, "vendor") as u16,
            device: hex(path, "device") as u16,
            subsystem_vendor: hex(path, "subsystem_vendor") as u16,
            subsystem_device: hex(path, "subsystem_device") as u16,
            has_bus: path.join("secondary_bus_number").exists(),
            class: hex(path, "class"),
            boot_vga: read_text(&path.join("boot_vga")).as_deref() == Some("1"),
            physical_function: link_name(&path.join("physfn")),
        }
    }
}

/// Returns the hexadecimal number in a file; 0 if there is none.
fn hex(path: &Path, name: &str) -> u32 {
    let text = read_text(&path.join(name)).unwrap_or_default();
    u32::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or(0)
}

impl Mdev {
    fn read(path: &Path) -> Self {
        let parent = path.parent().and_then(Path::file_name).unwrap_or_default();
        Self {
            parent: parent.to_string_lossy().into_owned(),
            kind: link_name(&path.join("mdev_type")).unwrap_or_default(),
            peer_uuid: read_text(&path.join("peer_to_peer_resource_uuid")),
        }
    }
}

/// Reads all devices that are in an IOMMU group, all PCI devices and all mediated devices.
pub fn read_devices(system: &System) -> BTreeMap<String, Device> {
    let groups = "/sys/kernel/iommu_groups";
    let of_groups = system
        .names(groups)
        .into_iter()
        .map(|group| Path::new(groups).join(group).join("devices"));
    let of_buses = ["pci", "mdev"].map(|bus| Path::new("/sys/bus").join(bus).join("devices"));
    let mut devices = BTreeMap::new();
    for folder in of_groups.chain(of_buses) {
        for name in system.names(&folder) {
            if let Some(device) = Device::read(system, &system.path(folder.join(&name))) {
                devices.insert(device.name.clone(), device);
            }
        }
    }
    devices
}

/// An IOMMU group.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Group {
    /// The number.
    pub id: u32,
    /// The name, which only groups that VFIO has made have: for devices without an IOMMU, and for
    /// mediated devices.
    pub name: Option<String>,
    /// Whether its devices do DMA that no IOMMU confines.
    pub noiommu: bool,
    /// The type of its default domain, for example `DMA-FQ` or `identity`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The names of its devices.
    pub devices: Vec<String>,
    /// The addresses that the firmware needs mapped one to one, which rules out VFIO.
    pub direct_regions: Vec<String>,
    /// Its device node, if it exists.
    pub node: Option<Node>,
    /// The device files of its devices.
    pub files: Vec<Node>,
    /// What the modules of this project tell in debugfs.
    pub debug: Option<DebugGroup>,
}

/// What the modules of this project tell about a group in debugfs.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct DebugGroup {
    /// Whether a program may own all its devices.
    pub viable: Option<bool>,
    /// Whether it is in a container or an iommufd.
    pub in_container: bool,
    /// The processes that have opened it or one of its devices.
    pub openers: Vec<Opener>,
    /// The devices that prevent its use.
    pub blocking: Vec<String>,
}

/// A process that opened a group, as the kernel remembers it.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Opener {
    /// The device, or `None` for the group itself.
    pub device: Option<String>,
    /// The process; 0 if it is not known.
    pub pid: u32,
    /// The name of the process.
    pub command: String,
    /// Seconds since it opened it.
    pub seconds: u64,
}

impl DebugGroup {
    /// Parses a file of `vfio/groups/` in debugfs.
    pub fn parse(text: &str) -> Self {
        let mut group = Self::default();
        for line in text.lines() {
            match line.split_once(": ") {
                Some(("viable", answer)) => group.viable = Some(answer == "yes"),
                Some(("in a container", answer)) => group.in_container = answer == "yes",
                Some(("open", by)) => group.openers.extend(Opener::parse(None, by)),
                Some((device, rest)) => {
                    let name = device.split(" [").next().unwrap_or(device);
                    if rest.starts_with("blocks the group") {
                        group.blocking.push(name.to_owned());
                    }
                    if let Some((_, by)) = rest.split_once(", open ") {
                        group.openers.extend(Opener::parse(Some(name), by));
                    }
                }
                None => {}
            }
        }
        group
    }
}

impl Opener {
    /// Parses `by COMMAND (PID), for N s`. The command may contain anything.
    fn parse(device: Option<&str>, text: &str) -> Option<Self> {
        let (command, rest) = text.strip_prefix("by ")?.rsplit_once(" (")?;
        let (pid, rest) = rest.split_once(')')?;
        let seconds = rest
            .strip_prefix(", for ")
            .and_then(|s| s.strip_suffix(" s"));
        Some(Self {
            device: device.map(str::to_owned),
            pid: pid.parse().ok()?,
            command: command.to_owned(),
            seconds: seconds.and_then(|s| s.parse().ok()).unwrap_or(0),
        })
    }
}

impl Group {
    /// Returns the name of its device node in `/dev/vfio`.
    pub fn node_name(&self) -> String {
        if self.noiommu {
            format!("noiommu-{}", self.id)
        } else {
            self.id.to_string()
        }
    }

    fn read(system: &System, id: u32, devices: &BTreeMap<String, Device>) -> Self {
        let folder = Path::new("/sys/kernel/iommu_groups").join(id.to_string());
        let text = |name: &str| system.read(folder.join(name)).filter(|t| !t.is_empty());
        let mut group = Self {
            id,
            name: text("name"),
            noiommu: system.exists(format!("/sys/class/vfio/noiommu-{id}")),
            kind: text("type"),
            devices: devices
                .values()
                .filter(|device| device.group == Some(id))
                .map(|device| device.name.clone())
                .collect(),
            direct_regions: direct_regions(&text("reserved_regions").unwrap_or_default()),
            ..Self::default()
        };
        let name = group.node_name();
        group.node = Node::read(system, &Path::new("/dev/vfio").join(&name));
        let files = devices.values().filter(|device| device.group == Some(id));
        let files = files.filter_map(|device| device.vfio.as_ref());
        group.files = files
            .filter_map(|file| Node::read(system, &Path::new("/dev/vfio/devices").join(file)))
            .collect();
        let debug = Path::new("/sys/kernel/debug/vfio/groups").join(name);
        group.debug = system.read(debug).map(|text| DebugGroup::parse(&text));
        group
    }
}

/// Returns the ranges of kind `direct` in `reserved_regions`.
fn direct_regions(text: &str) -> Vec<String> {
    let ranges = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (first, last) = (words.next()?, words.next()?);
        (words.next()? == "direct").then(|| format!("{first}-{last}"))
    });
    ranges.collect()
}

/// Reads all IOMMU groups.
pub fn read_groups(system: &System, devices: &BTreeMap<String, Device>) -> BTreeMap<u32, Group> {
    let names = system.names("/sys/kernel/iommu_groups");
    let ids = names.iter().filter_map(|name| name.parse().ok());
    ids.map(|id| (id, Group::read(system, id, devices)))
        .filter(|(_, group)| !group.devices.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debugfs_of_a_group_that_is_used() {
        let text = "viable: yes\nin a container: yes\nopen: by nvme_read (135), for 3 s\n\
                    0000:00:04.0 [vfio-pci]: available to userspace, open by a (b) (7), for 2 s\n";
        let group = DebugGroup::parse(text);
        assert_eq!(group.viable, Some(true));
        assert!(group.in_container);
        assert_eq!(group.openers[0].command, "nvme_read");
        assert_eq!(group.openers[1].command, "a (b)");
        assert_eq!(group.openers[1].device.as_deref(), Some("0000:00:04.0"));
        assert_eq!((group.openers[1].pid, group.openers[1].seconds), (7, 2));
    }

    #[test]
    fn debugfs_of_a_group_that_is_blocked() {
        let text = "viable: no\nin a container: no\nopen: no\n\
                    0000:00:05.1 [virtio-pci]: blocks the group: unbind it, or bind it to vfio-pci\n";
        let group = DebugGroup::parse(text);
        assert_eq!(group.viable, Some(false));
        assert_eq!(group.blocking, ["0000:00:05.1"]);
        assert!(group.openers.is_empty());
    }

    #[test]
    fn debugfs_with_odd_text_is_no_error() {
        assert_eq!(DebugGroup::parse("removed\n"), DebugGroup::default());
        assert_eq!(
            DebugGroup::parse("open: by (\nx: y, open by ()\n\n"),
            DebugGroup::default()
        );
    }

    #[test]
    fn only_direct_regions_count() {
        let text = "0x00000000fee00000 0x00000000feefffff msi\n\
                    0x000000007d800000 0x000000007fffffff direct\n\
                    0x0000000000000000 0x0000000000ffffff direct-relaxable\nodd";
        assert_eq!(
            direct_regions(text),
            ["0x000000007d800000-0x000000007fffffff"]
        );
    }
}
