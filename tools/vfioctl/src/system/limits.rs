// SPDX-License-Identifier: GPL-2.0

//! The locked memory of processes, and its limits.

use serde::Serialize;

use super::{
    System,
    link_name, //
};

/// The bit of `CAP_IPC_LOCK` in `CapEff`.
const IPC_LOCK: u32 = 14;

/// The locked memory of a process, and what limits it.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct Limits {
    /// The process.
    pub pid: u32,
    /// The name of the process.
    pub command: String,
    /// The soft limit in bytes; `None` if there is none.
    pub soft: Option<u64>,
    /// The hard limit in bytes; `None` if there is none.
    pub hard: Option<u64>,
    /// Whether the process has `CAP_IPC_LOCK`, so that the limit does not apply to containers.
    pub ipc_lock: bool,
    /// The locked memory in bytes, to which the memory that containers pin is charged.
    pub locked: u64,
    /// The pinned memory in bytes. Memory that IOMMUFD pins is charged here.
    pub pinned: u64,
    /// The size of the memory that the process could map for devices, in bytes: what it can write.
    /// `None` if the caller may not see that.
    pub writable: Option<u64>,
    /// The number of containers that it has open.
    pub containers: usize,
}

impl Limits {
    /// Reads the limits of a process; `None` if there is no such process.
    pub fn read(system: &System, pid: &str) -> Option<Self> {
        let file = |name: &str| system.read(format!("/proc/{pid}/{name}"));
        let status = Fields(file("status")?);
        let (soft, hard) = parse_limit(&file("limits")?)?;
        Some(Self {
            pid: status.number("Pid").unwrap_or(0) as u32,
            command: file("comm").unwrap_or_default(),
            soft,
            hard,
            ipc_lock: (status.mask("CapEff") >> IPC_LOCK) & 1 == 1
                && !in_user_namespace(system, pid),
            locked: status.kib("VmLck"),
            pinned: status.kib("VmPin"),
            writable: file("maps").map(|maps| writable(&maps)),
            containers: 0,
        })
    }

    /// Returns whether the process can lock this many bytes.
    pub fn allow(&self, bytes: u64) -> bool {
        self.ipc_lock || self.soft.is_none_or(|limit| bytes <= limit)
    }
}

/// Returns whether a process is in another user namespace than the first process. Its capabilities
/// do not count for limits then.
fn in_user_namespace(system: &System, pid: &str) -> bool {
    let namespace = |pid: &str| link_name(&system.path(format!("/proc/{pid}/ns/user")));
    match (namespace(pid), namespace("1")) {
        (Some(own), Some(first)) => own != first,
        _ => false,
    }
}

/// The lines `NAME: VALUE` of `/proc/PID/status`.
struct Fields(String);

impl Fields {
    fn get(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.lines().filter_map(|line| line.split_once(':'));
        lines.find_map(|(key, value)| (key == name).then_some(value.trim()))
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    fn mask(&self, name: &str) -> u64 {
        let text = self.get(name).unwrap_or_default();
        u64::from_str_radix(text, 16).unwrap_or(0)
    }

    /// Returns a size in bytes; 0 for a process without memory.
    fn kib(&self, name: &str) -> u64 {
        let text = self.get(name).unwrap_or_default();
        let number: u64 = text.trim_end_matches(" kB").parse().unwrap_or(0);
        number.saturating_mul(1024)
    }
}

/// Returns the soft and the hard limit in `/proc/PID/limits`.
fn parse_limit(text: &str) -> Option<(Option<u64>, Option<u64>)> {
    let mut lines = text.lines();
    let rest = lines.find_map(|line| line.strip_prefix("Max locked memory"))?;
    let mut words = rest.split_whitespace();
    let mut limit = || match words.next()? {
        "unlimited" => Some(None),
        number => number.parse().ok().map(Some),
    };
    Some((limit()?, limit()?))
}

/// Returns the size of the memory that a process can write and that devices could use, by its
/// `maps`: without stacks, without private copies of files, and without memory of devices.
fn writable(maps: &str) -> u64 {
    let sizes = maps.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (range, access) = (words.next()?, words.next()?);
        let path = words.nth(3).unwrap_or_default();
        let memory = path.is_empty()
            || path == "[heap]"
            || path.starts_with("[anon")
            || (access.ends_with('s') && !is_device(path));
        if !memory || !access.starts_with("rw") {
            return None;
        }
        let (start, end) = range.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        number(end)?.checked_sub(number(start)?)
    });
    sizes.fold(0, u64::saturating_add)
}

fn is_device(path: &str) -> bool {
    let memory = ["/dev/shm/", "/dev/hugepages", "/dev/zero"];
    path.starts_with("anon_inode:")
        || (path.starts_with("/dev/") && !memory.iter().any(|start| path.starts_with(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_a_process() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max locked memory         8388608              unlimited            bytes\n";
        assert_eq!(parse_limit(text), Some((Some(8 << 20), None)));
        assert_eq!(parse_limit("Max locked memory   x y\n"), None);
        assert_eq!(parse_limit(""), None);
    }

    #[test]
    fn memory_that_devices_could_use() {
        let maps = "\
7f0000000000-7f0000200000 rw-p 00000000 00:00 0
7f0000200000-7f0000300000 rw-s 00000000 00:01 9 /memfd:pc.ram (deleted)
7f0000400000-7f0000500000 r--p 00000000 00:00 0
7f0000600000-7f0000700000 rw-p 00000000 08:01 7 /usr/lib/libc.so.6
7f0000800000-7f0000900000 rw-s 00000000 00:05 3 anon_inode:[vfio-device]
7f0000a00000-7f0000b00000 rw-s 00000000 00:05 3 /dev/dri/card0
7ffd00000000-7ffd00100000 rw-p 00000000 00:00 0 [stack]
odd
";
        assert_eq!(writable(maps), 0x30_0000);
    }
}
