// SPDX-License-Identifier: GPL-2.0

//! The containers: from debugfs of the modules of this project, or what procfs tells about the
//! processes that have some.

use serde::Serialize;

use super::{
    System,
    limits::Limits,
    processes::{
        self,
        File, //
    },
};

/// A container.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct Container {
    /// The process that created the address space.
    pub pid: u32,
    /// The name of the process.
    pub command: String,
    /// The numbers of its groups.
    pub groups: Vec<u32>,
    /// What only debugfs of the modules of this project tells.
    pub detail: Option<Detail>,
    /// The size of the locked memory of the process, in bytes.
    pub locked: u64,
}

/// What only debugfs of the modules of this project tells about a container.
#[derive(Clone, Debug, Default, Serialize, PartialEq, Eq)]
pub struct Detail {
    /// The number of mappings.
    pub mappings: u64,
    /// The maximum number of mappings.
    pub limit: u64,
    /// The size of the mapped memory, in bytes.
    pub mapped: u64,
    /// The size of the memory that is charged to the process, in bytes.
    pub charged: u64,
    /// The size of the memory that drivers of devices without an IOMMU have pinned, in bytes.
    pub pinned: u64,
    /// The number of requests that run or wait.
    pub running: u64,
    /// The number of map requests so far.
    pub maps: u64,
    /// The number of unmap requests so far.
    pub unmaps: u64,
}

/// Parses `vfio_iommu_type1/containers` in debugfs.
pub fn parse(text: &str) -> Vec<Container> {
    let mut containers: Vec<Container> = Vec::new();
    for line in text.lines() {
        if let Some(task) = line.strip_prefix("container of ") {
            let task = task
                .strip_suffix(')')
                .and_then(|task| task.rsplit_once(" ("));
            let (command, pid) = task.unwrap_or((line, ""));
            containers.push(Container {
                pid: pid.parse().unwrap_or(0),
                command: command.to_owned(),
                detail: Some(Detail::default()),
                ..Container::default()
            });
            continue;
        }
        let Some(container) = containers.last_mut() else {
            continue;
        };
        if let Some((_, groups)) = line.split_once("group ids:") {
            let groups = groups
                .split_whitespace()
                .filter_map(|id| id.parse::<u32>().ok());
            container.groups.extend(groups);
        } else if let Some(detail) = &mut container.detail {
            detail.parse_line(line);
        }
    }
    containers
}

impl Detail {
    fn parse_line(&mut self, line: &str) {
        for part in line.trim().split([',', ';']) {
            let (name, value) = part.trim().split_once(' ').unwrap_or((part, ""));
            let number = first_number(value);
            match name {
                "mappings:" => self.mappings = number,
                "limit" => self.limit = number,
                "mapped:" => self.mapped = number.saturating_mul(1024),
                "charged:" => self.charged = number.saturating_mul(1024),
                "pinned" => self.pinned = number.saturating_mul(1024),
                "requests" if value.starts_with("running") => self.running = number,
                "map:" => self.maps = number,
                "unmap:" => self.unmaps = number,
                _ => {}
            }
        }
    }
}

fn first_number(text: &str) -> u64 {
    let mut numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
    numbers.next().unwrap_or(0)
}

/// The containers, and whether the modules tell about them.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Containers {
    /// Whether the numbers come from debugfs of the modules of this project.
    pub from_debugfs: bool,
    /// The containers. Without debugfs, there is one for each file of a container.
    pub containers: Vec<Container>,
}

/// Reads the containers.
pub fn read(system: &System) -> Containers {
    let debugfs = system.read("/sys/kernel/debug/vfio_iommu_type1/containers");
    let from_debugfs = debugfs.is_some();
    let mut containers = match debugfs {
        Some(text) => parse(&text),
        None => from_processes(system),
    };
    for container in &mut containers {
        let limits = Limits::read(system, &container.pid.to_string());
        container.locked = limits.map_or(0, |limits| limits.locked);
    }
    Containers {
        from_debugfs,
        containers,
    }
}

fn from_processes(system: &System) -> Vec<Container> {
    let holders = processes::read(system);
    let mut containers: Vec<Container> = Vec::new();
    for holder in holders.iter().filter(|h| h.file == File::Container) {
        let of_process = holders.iter().filter(|other| other.pid == holder.pid);
        let groups = of_process.filter_map(|other| match other.file {
            File::Group { group, .. } => Some(group),
            _ => None,
        });
        containers.push(Container {
            pid: holder.pid,
            command: holder.command.clone(),
            groups: groups.collect(),
            ..Container::default()
        });
    }
    containers
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
container of nvme_read (135)
  IOMMU with page sizes 0x40201000, group ids: 1 4
  no IOMMU, group ids: 9
  mappings: 3, 1 of them being changed, limit 65535
  mapped: 24 KiB, charged: 20 KiB, pinned by drivers: 4 KiB
  requests running or waiting: 2
  last mapped by: nvme_read (135): 24 KiB locked in all, no limit (CAP_IPC_LOCK)
  map: 37 requests, 56 ms; unmap: 34 requests, 8 ms; attach and detach: 1 requests, 14 ms
container of a (b) (136)
";

    #[test]
    fn debugfs() {
        let containers = parse(TEXT);
        assert_eq!(containers.len(), 2);
        assert_eq!(containers[0].groups, [1, 4, 9]);
        let expected = Detail {
            mappings: 3,
            limit: 65535,
            mapped: 24 << 10,
            charged: 20 << 10,
            pinned: 4 << 10,
            running: 2,
            maps: 37,
            unmaps: 34,
        };
        assert_eq!(containers[0].detail, Some(expected));
        assert_eq!((containers[1].pid, &*containers[1].command), (136, "a (b)"));
    }

    #[test]
    fn odd_text_is_no_error() {
        assert!(parse("mapped: x\n\n  map:").is_empty());
        assert_eq!(parse("container of x\n  mapped:\n").len(), 1);
    }
}
