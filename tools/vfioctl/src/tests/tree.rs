// SPDX-License-Identifier: GPL-2.0

//! A tree of files that looks like sysfs and procfs.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{
        Path,
        PathBuf, //
    },
};

use tempfile::TempDir;

use crate::system::{
    Snapshot,
    System, //
};

/// The tree. Dropping it removes the files.
pub struct Tree {
    folder: TempDir,
}

/// A PCI device to create.
#[derive(Clone, Copy, Default)]
pub struct NewPci<'a> {
    /// The address.
    pub name: &'a str,
    /// The number of its group.
    pub group: Option<u32>,
    /// The driver.
    pub driver: Option<&'a str>,
    /// The class.
    pub class: u32,
    /// The name of its VFIO device.
    pub vfio: Option<&'a str>,
}

impl Tree {
    /// A machine with an IOMMU that remaps interrupts, and with all modules loaded.
    pub fn new() -> Self {
        let tree = Self::empty();
        for module in ["vfio", "vfio_iommu_type1"] {
            fs::create_dir_all(tree.path(&format!("sys/module/{module}/parameters"))).unwrap();
        }
        tree.write(
            "sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts",
            "N\n",
        );
        tree.write("proc/interrupts", " 4: 10 IR-IO-APIC 4-edge ttyS0\n");
        fs::create_dir_all(tree.path("sys/class/iommu/dmar0")).unwrap();
        tree
    }

    /// A machine without anything.
    pub fn empty() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Returns the path of a file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the system.
    pub fn system(&self) -> System {
        System::new(Some(self.folder.path()))
    }

    /// Reads the tree.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::read(&self.system())
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Returns the contents of a file.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Makes a link to a path that is given like the link, below the root.
    pub fn link(&self, name: &str, target: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let up = Path::new(name).parent().unwrap().components().map(|_| "..");
        let relative: PathBuf = up.collect::<PathBuf>().join(target);
        symlink(relative, path).unwrap();
    }

    /// Makes a link with exactly this text.
    pub fn raw_link(&self, name: &str, target: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    /// Makes a PCI device; returns its folder.
    pub fn pci(&self, new: NewPci<'_>) -> String {
        let name = new.name;
        let folder = format!("sys/devices/pci0000:00/{name}");
        self.write(&format!("{folder}/vendor"), "0x8086\n");
        self.write(&format!("{folder}/device"), "0x10d3\n");
        self.write(&format!("{folder}/class"), format!("{:#08x}\n", new.class));
        self.write(&format!("{folder}/driver_override"), "(null)\n");
        self.write("sys/bus/pci/drivers_probe", "");
        self.link(&format!("{folder}/subsystem"), "sys/bus/pci");
        self.link(&format!("sys/bus/pci/devices/{name}"), &folder);
        if let Some(group) = new.group {
            let group = format!("sys/kernel/iommu_groups/{group}");
            self.link(&format!("{group}/devices/{name}"), &folder);
            self.link(&format!("{folder}/iommu_group"), &group);
            self.link(&format!("{folder}/iommu"), "sys/class/iommu/dmar0");
        }
        if let Some(driver) = new.driver {
            let driver = format!("sys/bus/pci/drivers/{driver}");
            self.write(&format!("{driver}/unbind"), "");
            self.link(&format!("{folder}/driver"), &driver);
        }
        if let Some(vfio) = new.vfio {
            fs::create_dir_all(self.path(&format!("{folder}/vfio-dev/{vfio}"))).unwrap();
        }
        if let (Some(group), Some(_)) = (new.group, new.vfio) {
            self.write(&format!("dev/vfio/{group}"), "");
        }
        folder
    }

    /// Makes a disk behind a device.
    pub fn disk(&self, device: &str, name: &str, number: &str) {
        let folder = format!("{device}/block/{name}");
        self.write(&format!("{folder}/dev"), number);
        self.link(&format!("sys/class/block/{name}"), &folder);
    }

    /// Makes a process with an open device node. `kind` is `block` or `char`, `device` the folder of
    /// the device.
    pub fn open_node(&self, pid: u32, node: &str, (kind, number): (&str, &str), device: &str) {
        self.write(
            node.trim_start_matches('/'),
            format!("{} {number}\n", &kind[..1]),
        );
        self.link(&format!("sys/dev/{kind}/{number}"), device);
        fs::create_dir_all(self.path(device)).unwrap();
        self.process(pid, "other", node);
    }

    /// Makes a process with a file.
    pub fn process(&self, pid: u32, command: &str, file: &str) {
        self.write(&format!("proc/{pid}/comm"), format!("{command}\n"));
        self.raw_link(&format!("proc/{pid}/fd/5"), file);
    }
}
