// SPDX-License-Identifier: GPL-2.0

//! Reads the state of the machine: sysfs, procfs, debugfs and the device nodes.
//!
//! Everything may change or vanish while it is read. What is gone is left out; what cannot be read
//! is treated as absent. No function here fails because of a device that vanishes.

pub mod access;
pub mod containers;
pub mod devices;
pub mod host_use;
pub mod limits;
pub mod log;
pub mod modules;
pub mod processes;

use std::{
    collections::BTreeMap,
    fs,
    path::{
        Path,
        PathBuf, //
    },
};

use access::Node;
use devices::{
    Device,
    Group, //
};
use host_use::HostUse;
use modules::Modules;
use processes::Holder;

/// Where the system's file systems are: at their usual places, or in a copy of them.
#[derive(Clone, Debug)]
pub struct System {
    root: PathBuf,
}

impl System {
    /// The running system, or a copy of one below `root`.
    pub fn new(root: Option<&Path>) -> Self {
        let root = root.unwrap_or(Path::new("/"));
        // Paths without links are compared with it.
        let root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
        Self { root }
    }

    /// Returns whether this is the running system. A copy has no processes and no devices behind
    /// its files.
    pub fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Returns the number of this process, if it is one of this system.
    pub fn own_pid(&self) -> Option<u32> {
        self.is_live().then(std::process::id)
    }

    /// Returns the path of a file that is given by its usual path.
    pub fn path(&self, usual: impl AsRef<Path>) -> PathBuf {
        let usual = usual.as_ref();
        self.root.join(usual.strip_prefix("/").unwrap_or(usual))
    }

    /// Returns the usual path of a file that is given by its path here.
    pub fn usual(&self, path: &Path) -> PathBuf {
        match path.strip_prefix(&self.root) {
            Ok(below) => Path::new("/").join(below),
            Err(_) => path.to_owned(),
        }
    }

    /// Returns the contents of a file without white space at its end, if it can be read.
    pub fn read(&self, usual: impl AsRef<Path>) -> Option<String> {
        read_text(&self.path(usual))
    }

    /// Returns whether a file exists.
    pub fn exists(&self, usual: impl AsRef<Path>) -> bool {
        self.path(usual).exists()
    }

    /// Returns the sorted names in a directory; none if it cannot be read.
    pub fn names(&self, usual: impl AsRef<Path>) -> Vec<String> {
        names_in(&self.path(usual))
    }
}

/// Returns the contents of a file without white space at its end, if it can be read.
///
/// Files of the kernel need not be UTF-8: a process can give itself any name.
pub fn read_text(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

/// Returns the sorted names in a directory; none if it cannot be read.
pub fn names_in(path: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(path) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Returns the last component of the target of a link, if there is one.
pub fn link_name(path: &Path) -> Option<String> {
    let target = fs::read_link(path).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

/// The state of the machine at one time.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// All devices that are in a group, and all PCI devices, by name.
    pub devices: BTreeMap<String, Device>,
    /// The IOMMU groups, by number.
    pub groups: BTreeMap<u32, Group>,
    /// The processes that have files of VFIO open.
    pub holders: Vec<Holder>,
    /// What the host uses, by device.
    pub uses: BTreeMap<String, Vec<HostUse>>,
    /// The modules.
    pub modules: Modules,
    /// The names of the IOMMUs.
    pub iommus: Vec<String>,
    /// `/dev/vfio/vfio`, if it exists.
    pub container: Option<Node>,
    /// `/dev/iommu`, if it exists.
    pub iommufd: Option<Node>,
}

impl Snapshot {
    /// Reads the state of the machine.
    pub fn read(system: &System) -> Self {
        let devices = devices::read_devices(system);
        let groups = devices::read_groups(system, &devices);
        let processes = processes::read_all(system);
        let uses = host_use::read(system, &devices, &processes.nodes);
        let mut snapshot = Self {
            holders: processes.holders,
            uses,
            modules: Modules::read(system),
            iommus: system.names("/sys/class/iommu"),
            container: Node::read(system, "/dev/vfio/vfio".as_ref()),
            iommufd: Node::read(system, "/dev/iommu".as_ref()),
            devices,
            groups,
        };
        snapshot.add_holders_of_debugfs(system.own_pid());
        for (device, uses) in host_use::read_dependents(&snapshot) {
            snapshot.uses.entry(device).or_default().extend(uses);
        }
        snapshot
    }

    /// Looks for uses of disks that only an attempt to open them shows, for the devices of a group.
    pub fn probe_disks(&mut self, system: &System, names: &[String]) {
        for name in names {
            let Some(device) = self.devices.get(name) else {
                continue;
            };
            let found = host_use::claimed_disks(system, device, self.uses_of(name));
            if !found.is_empty() {
                self.uses.entry(name.clone()).or_default().extend(found);
            }
        }
    }

    /// Returns the group of a device.
    pub fn group_of(&self, device: &Device) -> Option<&Group> {
        self.groups.get(&device.group?)
    }

    /// Returns the devices of a group.
    pub fn members<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = &'a Device> {
        group
            .devices
            .iter()
            .filter_map(|name| self.devices.get(name))
    }

    /// Returns what the host uses of a device.
    pub fn uses_of(&self, device: &str) -> &[HostUse] {
        self.uses.get(device).map_or(&[], Vec::as_slice)
    }

    /// Returns the processes that have the group or one of its devices open.
    pub fn holders_of(&self, group: &Group) -> Vec<&Holder> {
        self.holders
            .iter()
            .filter(|holder| self.group_of_holder(holder) == Some(group.id))
            .collect()
    }

    /// Returns the group that a process has open, or whose device it has open.
    pub fn group_of_holder(&self, holder: &Holder) -> Option<u32> {
        match &holder.file {
            processes::File::Group { group, .. } => Some(*group),
            processes::File::Cdev { name } => {
                let mut devices = self.devices.values();
                let device = devices.find(|device| device.vfio.as_ref() == Some(name))?;
                device.group
            }
            processes::File::Device { device } => self.devices.get(device.as_ref()?)?.group,
            processes::File::Container | processes::File::Iommufd => None,
        }
    }

    /// Adds the processes that only debugfs shows: those whose file is in flight between
    /// processes, or belongs to another process by now.
    fn add_holders_of_debugfs(&mut self, own_pid: Option<u32>) {
        let mut found = Vec::new();
        for group in self.groups.values() {
            let Some(state) = &group.debug else { continue };
            for opener in &state.openers {
                let is_other = opener.pid != 0 && Some(opener.pid) != own_pid;
                if is_other && self.holders_of(group).is_empty() {
                    found.push(Holder {
                        pid: opener.pid,
                        command: opener.command.clone(),
                        uid: None,
                        fd: None,
                        file: processes::File::Group {
                            group: group.id,
                            noiommu: false,
                        },
                    });
                }
            }
        }
        self.holders.extend(found);
    }
}
