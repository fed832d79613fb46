// SPDX-License-Identifier: GPL-2.0

//! The processes that have files of VFIO open.

use std::{
    fs,
    os::unix::fs::{
        FileTypeExt,
        MetadataExt, //
    },
    path::Path, //
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

/// Finds the processes that have files of VFIO open. Those of other users are only visible to root.
/// This process has such files only if it has inherited them, so it is left out.
pub fn read(system: &System) -> Vec<Holder> {
    let names = system.names("/proc");
    let mut pids: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
    pids.sort();
    let own = system.own_pid();
    pids.into_iter()
        .filter(|pid| Some(*pid) != own)
        .flat_map(|pid| read_process(system, pid))
        .collect()
}

fn read_process(system: &System, pid: u32) -> Vec<Holder> {
    let folder = system.path(format!("/proc/{pid}"));
    let mut files: Vec<(Option<u32>, File)> = open_files(&folder, system.is_live())
        .into_iter()
        .map(|(fd, file)| (Some(fd), file))
        .collect();
    let open_device = |file: &File| matches!(file, File::Device { .. } | File::Cdev { .. });
    if !files.iter().any(|(_, file)| open_device(file)) {
        files.extend(mapped_file(&folder).map(|file| (None, file)));
    }
    if files.is_empty() {
        return Vec::new();
    }
    let command = read_text(&folder.join("comm")).unwrap_or_default();
    let uid = fs::metadata(&folder).ok().map(|metadata| metadata.uid());
    let holder = |(fd, file)| Holder {
        pid,
        command: command.clone(),
        uid,
        fd,
        file,
    };
    files.into_iter().map(holder).collect()
}

fn open_files(folder: &Path, live: bool) -> Vec<(u32, File)> {
    let mut fds: Vec<u32> = names_in(&folder.join("fd"))
        .iter()
        .filter_map(|name| name.parse().ok())
        .collect();
    fds.sort();
    let found = fds.into_iter().filter_map(|fd| {
        let link = folder.join("fd").join(fd.to_string());
        let target = fs::read_link(&link).ok()?;
        match File::from_link(&target.to_string_lossy())? {
            File::Device { .. } => {
                let device = device_of(&folder.join("fdinfo").join(fd.to_string()));
                Some((fd, File::Device { device }))
            }
            // A file of this name that is not a device does not count.
            _ if live && fs::metadata(&link).is_ok_and(|m| !m.file_type().is_char_device()) => None,
            file => Some((fd, file)),
        }
    });
    found.collect()
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
}
