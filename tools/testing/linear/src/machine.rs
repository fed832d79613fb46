// SPDX-License-Identifier: GPL-2.0

//! The machine: groups, devices, and the memory of the processes.

use anyhow::{
    Context,
    Result, //
};
use linear::{
    op::{
        ALL_GROUPS,
        GROUPS,
        Group,
        MARK,
        PAGE, //
    },
    plan::{
        MEMORY,
        MEMORY_PAGES, //
    },
};
use std::{
    fs::{
        self,
        File, //
    },
    os::unix::fs::FileExt,
    path::Path, //
};
use support::{
    devices,
    machine::locked_kib_of,
    pin, //
};
use vfio_client::{
    Arena,
    Group as GroupFile, //
};

/// The device of each group.
pub const DEVICES: [&str; GROUPS] = [pin::IN_C, devices::EDU, devices::NVME];

/// The offset of the mark in a page.
pub const MARK_AT: u64 = 2048;

const LIST: &str = "/sys/kernel/debug/vfio_iommu_type1/containers";
const LIMIT: &str = "/sys/module/vfio_iommu_type1/parameters/dma_entry_limit";

/// Opens a group.
pub fn open_group(group: Group) -> Result<GroupFile> {
    devices::group(DEVICES[group as usize])
}

/// Opens all groups, by index.
pub fn open_groups() -> Result<Vec<GroupFile>> {
    ALL_GROUPS.into_iter().map(open_group).collect()
}

/// Sets the mapping limit of new containers.
pub fn set_limit(limit: u32) -> Result<()> {
    fs::write(LIMIT, limit.to_string()).context(LIMIT)
}

/// Returns the number of pages that a process has locked.
pub fn locked_pages(process: u32) -> Result<u64> {
    Ok(locked_kib_of(process)? / (PAGE / 1024))
}

/// Returns whether debugfs has a list of containers, as with the Rust modules.
pub fn has_list() -> bool {
    Path::new(LIST).exists()
}

/// Returns the sums over all containers in debugfs: see [`linear::op::Op::Listed`].
pub fn list() -> Result<Vec<u64>> {
    let text = fs::read_to_string(LIST).context(LIST)?;
    let sum = |label: &str| -> Result<u64> {
        let rests = text
            .match_indices(label)
            .map(|(at, _)| &text[at + label.len()..]);
        let numbers = rests.map(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
        numbers
            .map(|number| Ok(number.unwrap_or_default().parse::<u64>()?))
            .sum()
    };
    let containers = text
        .lines()
        .filter(|line| line.starts_with("container of "))
        .count() as u64;
    let pages = |kib: u64| kib / (PAGE / 1024);
    let (charged, pinned) = (sum(" charged: ")?, sum(" pinned by drivers: ")?);
    Ok(vec![
        containers,
        sum(" mappings: ")?,
        pages(charged),
        pages(pinned),
    ])
}

/// Maps the memory that all processes share.
pub fn map_memory(file: &File) -> Result<Arena> {
    let len = (MEMORY_PAGES * PAGE) as usize;
    let mut arena = Arena::new(MEMORY as usize, len)?;
    arena.fill_from(0..len, file, 0)?;
    Ok(arena)
}

/// Writes the marks of all pages.
pub fn mark_memory(file: &File) -> Result<()> {
    file.set_len(MEMORY_PAGES * PAGE)?;
    for page in 0..MEMORY_PAGES {
        file.write_all_at(&(MARK + page).to_ne_bytes(), page * PAGE + MARK_AT)?;
    }
    Ok(())
}
