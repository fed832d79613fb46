// SPDX-License-Identifier: GPL-2.0

//! Effects of file systems and cgroups on mappings.

use super::limits::has_page_tables;
use crate::{
    env::{
        EDU,
        attached, //
    },
    harness::{
        Failure,
        cases, //
    },
};
use anyhow::{
    Result,
    ensure, //
};
use std::{
    fs::File,
    path::Path,
    process::Command, //
};
use support::{
    cgroup::Cgroup,
    machine::locked_pages, //
};
use vfio_client::{
    Errno,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE, //
};

cases! {
    #[rows("T-M19")] file_backed_memory_is_refused,
    #[requires(memory_cgroups)] page_tables_are_charged,
}

fn shell(script: &str) -> Result<()> {
    let done = Command::new("sh").args(["-ec", script]).output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{script}: {said}");
    Ok(())
}

/// A mounted file system that must be notified before its pages are written.
struct Mounted;

impl Mounted {
    const FOLDER: &str = "/mnt";

    fn new() -> Result<Self> {
        shell("dd if=/dev/zero of=/tmp/image bs=1M count=8 && mke2fs -F /tmp/image")?;
        let mounted = Self;
        // The block device must not be open for writing elsewhere when it is mounted.
        shell("losetup /dev/loop0 /tmp/image")?;
        shell("mkdir -p /mnt && mount -t ext4 /dev/loop0 /mnt")?;
        Ok(mounted)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = shell("umount /mnt; losetup -d /dev/loop0; rm /tmp/image") {
            eprintln!("{error:?}");
        }
    }
}

/// A device would write to the pages without notifying the file system.
fn file_backed_memory_is_refused() -> Result<()> {
    let _mounted = Mounted::new()?;
    let path = Path::new(Mounted::FOLDER).join("file");
    let file = File::create_new(&path)?;
    file.set_len(4 * PAGE_SIZE as u64)?;
    let file = File::options().read(true).write(true).open(path)?;
    let memory = Memory::from_file(&file, 0, 4 * PAGE_SIZE, true)?;
    memory.fill(0, memory.len(), 1);
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    for flags in [MapFlags::ReadWrite, MapFlags::Write] {
        assert_eq!(container.map(0, &memory, flags).errno(), Errno::EFAULT);
        assert_eq!((container.unmap_all()?, locked_pages()), (0, 0));
    }
    Ok(())
}

/// The number of mappings. They are so far apart that each needs its own page tables.
const COUNT: u64 = 200;
const APART: u64 = 1 << 30;
/// The minimum size of their page tables.
const TABLES: u64 = COUNT * PAGE_SIZE as u64;
/// The statistic of all kernel memory charged to a cgroup.
const KERNEL: &str = "kernel";

fn page_tables_are_charged() -> Result<()> {
    let cgroup = Cgroup::new("guest-tests")?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    let (container, group) = attached(EDU, Iommu::Type1v2)?;
    cgroup.during(|| {
        for number in 1..=COUNT {
            container.map(number * APART, &memory, MapFlags::ReadWrite)?;
        }
        Ok(())
    })?;
    if has_page_tables()? {
        let charged = cgroup.wait_for(KERNEL, |bytes| bytes >= TABLES)?;
        ensure!(
            charged >= TABLES,
            "expected at least {TABLES} bytes charged, got {charged}"
        );
    }
    drop((container, group));
    let left = cgroup.wait_for(KERNEL, |bytes| bytes < TABLES)?;
    ensure!(
        left < TABLES,
        "expected less than {TABLES} bytes charged, got {left}"
    );
    Ok(())
}
