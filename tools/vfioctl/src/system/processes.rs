// SPDX-License-Identifier: GPL-2.0

//! The processes that have files of VFIO open.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{
        Path,
        PathBuf, //
    },
};

use rustix::fs::{
    AtFlags,
    FileType,
    StatxFlags, //
};
use serde::Serialize;

use super::{
    System,
    names_in,
    read_text, //
};

/// A process that has a file of VFIO open.
#[derive(Clone, Debug, Serialize)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// The name of the process.
    pub command: String,
    /// Its user, if that is known.
    pub uid: Option<u32>,
    /// The file descriptor; `None` if only a mapping keeps the file open, or if only debugfs
    /// shows it.
    pub fd: Option<u32>,
    /// The file.
    #[serde(flatten)]
    pub file: File,
}

/// A file of VFIO.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(tag = "file", rename_all = "kebab-case")]
pub enum File {
    /// A group, `/dev/vfio/N` or `/dev/vfio/noiommu-N`.
    Group {
        /// The number of the group.
        group: u32,
        /// Whether it has no IOMMU.
        noiommu: bool,
    },
    /// A device file, `/dev/vfio/devices/vfioN`.
    Cdev {
        /// Its name.
        name: String,
    },
    /// A device that was opened through its group.
    Device {
        /// The name of the device, if the kernel shows it.
        device: Option<String>,
    },
    /// A container, `/dev/vfio/vfio`.
    Container,
    /// `/dev/iommu`.
    Iommufd,
}

impl File {
    /// Returns the file that a link in `/proc/PID/fd` points at.
    ///
    /// The path may be that of another mount namespace, in which `/dev` is mounted elsewhere or is
    /// not visible from here.
    fn from_link(target: &str) -> Option<Self> {
        if target == "anon_inode:[vfio-device]" {
            return Some(Self::Device { device: None });
        }
        if target.ends_with("/dev/iommu") || target == "/iommu" {
            return Some(Self::Iommufd);
        }
        let (before, name) = target.rsplit_once("vfio/")?;
        if !(before == "/" || before.ends_with("/dev/")) {
            return None;
        }
        if name == "vfio" {
            return Some(Self::Container);
        }
        if let Some(name) = name.strip_prefix("devices/") {
            let name = name.to_owned();
            return Some(Self::Cdev { name });
        }
        let number = name.strip_prefix("noiommu-");
        Some(Self::Group {
            group: number.unwrap_or(name).parse().ok()?,
            noiommu: number.is_some(),
        })
    }

    /// Returns the file of VFIO that a device node stands for, by the directory of its device. The
    /// node may have any name: a container may have got it under another one.
    fn from_sysfs(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let parent = path.parent()?;
        if parent
            .file_name()
            .is_some_and(|folder| folder == "vfio-dev")
        {
            let name = name.to_owned();
            return Some(Self::Cdev { name });
        }
        match parent.to_str()? {
            "/sys/devices/virtual/vfio" => {
                let number = name.strip_prefix("noiommu-");
                Some(Self::Group {
                    group: number.unwrap_or(name).parse().ok()?,
                    noiommu: number.is_some(),
                })
            }
            "/sys/devices/virtual/misc" if name == "vfio" => Some(Self::Container),
            "/sys/devices/virtual/misc" if name == "iommu" => Some(Self::Iommufd),
            _ => None,
        }
    }

    /// Returns what the file is, for tables.
    pub fn describe(&self) -> String {
        match self {
            Self::Group { group, noiommu } => {
                format!("group {}{group}", if *noiommu { "noiommu-" } else { "" })
            }
            Self::Cdev { name } => format!("device file {name}"),
            Self::Device { device: Some(name) } => format!("device {name}"),
            Self::Device { device: None } => "device".to_owned(),
            Self::Container => "container".to_owned(),
            Self::Iommufd => "iommufd".to_owned(),
        }
    }
}

/// A device node other than one of VFIO that a process has open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenNode {
    /// The process.
    pub pid: u32,
    /// The name of the process.
    pub command: String,
    /// The path of the node, as the process has opened it.
    pub node: String,
    /// `MAJOR:MINOR` if it is a block device.
    pub block: Option<String>,
    /// The directory of the device in sysfs.
    pub path: PathBuf,
}

/// What processes have open.
#[derive(Clone, Debug, Default)]
pub struct Processes {
    /// The files of VFIO.
    pub holders: Vec<Holder>,
    /// Other device nodes.
    pub nodes: Vec<OpenNode>,
}

/// Finds the processes that have files of VFIO open. Those of other users are only visible to root.
/// This process has such files only if it has inherited them, so it is left out.
pub fn read(system: &System) -> Vec<Holder> {
    read_all(system).holders
}

/// Finds the processes that have files of VFIO or other device nodes open.
pub fn read_all(system: &System) -> Processes {
    let names = system.names("/proc");
    let mut pids: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    pids.sort();
    let own = system.own_pid();
    let mut reader = Reader {
        system,
        known: BTreeMap::new(),
        found: Processes::default(),
    };
    for pid in pids.into_iter().filter(|pid| Some(*pid) != own) {
        reader.read_process(pid);
    }
    reader.found
}

/// The kind and the number of a device node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Number {
    block: bool,
    /// `MAJOR:MINOR`.
    text: String,
}

impl Number {
    /// Returns the number of an open file, if it is a device.
    fn of_fd(system: &System, link: &Path, target: &str) -> Option<Self> {
        if !system.is_live() {
            // A copy of a system has no device nodes: its files have the kind and the number as text.
            let text = system.read(target)?;
            let (kind, number) = text.split_once(' ')?;
            let block = kind == "b";
            return (block || kind == "c").then(|| Self {
                block,
                text: number.to_owned(),
            });
        }
        // Without the flag, this would wait for a file server that does not answer.
        let flags = AtFlags::STATX_DONT_SYNC;
        let stat = rustix::fs::statx(rustix::fs::CWD, link, flags, StatxFlags::TYPE).ok()?;
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let block = kind == FileType::BlockDevice;
        (block || kind == FileType::CharacterDevice).then(|| Self {
            block,
            text: format!("{}:{}", stat.stx_rdev_major, stat.stx_rdev_minor),
        })
    }

    /// Returns the directory of the device in sysfs.
    fn path(&self, system: &System) -> Option<PathBuf> {
        let kind = if self.block { "block" } else { "char" };
        let link = system.path(format!("/sys/dev/{kind}/{}", self.text));
        Some(system.usual(&fs::canonicalize(link).ok()?))
    }
}

struct Reader<'a> {
    system: &'a System,
    /// The directories of the devices that were met already.
    known: BTreeMap<Number, Option<PathBuf>>,
    found: Processes,
}

impl Reader<'_> {
    fn read_process(&mut self, pid: u32) {
        let folder = self.system.path(format!("/proc/{pid}"));
        let mut fds: Vec<u32> = names_in(&folder.join("fd"))
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        fds.sort();
        let command = read_text(&folder.join("comm")).unwrap_or_default();
        let uid = fs::metadata(&folder).ok().map(|metadata| metadata.uid());
        let mut files = Vec::new();
        for fd in fds {
            let link = folder.join("fd").join(fd.to_string());
            let Ok(target) = fs::read_link(&link) else {
                continue;
            };
            let target = target.to_string_lossy();
            if let Some(File::Device { .. }) = File::from_link(&target) {
                let device = device_of(&folder.join("fdinfo").join(fd.to_string()));
                files.push((Some(fd), File::Device { device }));
            } else if target.starts_with('/') {
                let number = Number::of_fd(self.system, &link, &target);
                if let Some(file) = self.read_node(pid, &command, &target, number) {
                    files.push((Some(fd), file));
                }
            }
        }
        let open_device = |file: &File| matches!(file, File::Device { .. } | File::Cdev { .. });
        if !files.iter().any(|(_, file)| open_device(file)) {
            files.extend(mapped_file(&folder).map(|file| (None, file)));
        }
        let holder = |(fd, file)| Holder {
            pid,
            command: command.clone(),
            uid,
            fd,
            file,
        };
        self.found.holders.extend(files.into_iter().map(holder));
    }

    /// Returns the file of VFIO that a process has open. Remembers other device nodes.
    fn read_node(
        &mut self,
        pid: u32,
        command: &str,
        target: &str,
        number: Option<Number>,
    ) -> Option<File> {
        let Some(number) = number else {
            // A file of such a name that is not a device does not count.
            return (!self.system.is_live())
                .then(|| File::from_link(target))
                .flatten();
        };
        let known = self.known.entry(number.clone());
        let path = known.or_insert_with(|| number.path(self.system)).clone();
        let Some(path) = path else {
            return File::from_link(target).filter(|_| !number.block);
        };
        if number.block {
            self.found.nodes.push(OpenNode {
                pid,
                command: command.to_owned(),
                node: target.to_owned(),
                block: Some(number.text),
                path,
            });
            return None;
        }
        let file = File::from_sysfs(&path);
        if file.is_none() && !path.starts_with("/sys/devices/virtual") {
            self.found.nodes.push(OpenNode {
                pid,
                command: command.to_owned(),
                node: target.to_owned(),
                block: None,
                path,
            });
        }
        file
    }
}

/// Returns the name of the device that `fdinfo` shows.
fn device_of(fdinfo: &Path) -> Option<String> {
    let text = read_text(fdinfo)?;
    let path = text
        .lines()
        .find_map(|line| line.strip_prefix("vfio-device-syspath:"))?;
    Some(
        Path::new(path.trim())
            .file_name()?
            .to_string_lossy()
            .into_owned(),
    )
}

/// Returns the device that a process has mapped. The mapping keeps the device open.
fn mapped_file(folder: &Path) -> Option<File> {
    let maps = read_text(&folder.join("maps"))?;
    let paths = maps
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5));
    let mut files = paths.filter_map(File::from_link);
    files.find(|file| matches!(file, File::Device { .. } | File::Cdev { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_of_files() {
        let group = |group, noiommu| Some(File::Group { group, noiommu });
        let file = |name: &str| Some(File::Cdev { name: name.into() });
        for (target, expected) in [
            ("/dev/vfio/12", group(12, false)),
            ("/dev/vfio/noiommu-3", group(3, true)),
            ("/var/lib/lxc/a/rootfs/dev/vfio/7", group(7, false)),
            ("/vfio/7", group(7, false)),
            ("/dev/vfio/vfio", Some(File::Container)),
            ("/dev/vfio/devices/vfio4", file("vfio4")),
            ("/dev/vfio/devices/noiommu-vfio4", file("noiommu-vfio4")),
            ("/dev/iommu", Some(File::Iommufd)),
            (
                "anon_inode:[vfio-device]",
                Some(File::Device { device: None }),
            ),
            ("/home/me/vfio/7", None),
            ("/dev/vfio/x", None),
            ("/dev/vfio/", None),
            ("socket:[123]", None),
            ("", None),
        ] {
            assert_eq!(File::from_link(target), expected, "{target}");
        }
    }

    #[test]
    fn directories_of_files() {
        let name = "vfio0".into();
        for (path, expected) in [
            (
                "/sys/devices/virtual/vfio/7",
                Some(File::Group {
                    group: 7,
                    noiommu: false,
                }),
            ),
            (
                "/sys/devices/pci0000:00/0000:06:00.0/vfio-dev/vfio0",
                Some(File::Cdev { name }),
            ),
            ("/sys/devices/virtual/misc/vfio", Some(File::Container)),
            ("/sys/devices/virtual/misc/iommu", Some(File::Iommufd)),
            ("/sys/devices/virtual/misc/kvm", None),
            ("/sys/devices/virtual/vfio/x", None),
            ("/", None),
        ] {
            assert_eq!(File::from_sysfs(Path::new(path)), expected, "{path}");
        }
    }
}
