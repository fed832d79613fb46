// SPDX-License-Identifier: GPL-2.0

//! Merging a group while a request of the other group has stopped.

use super::requests::{
    Ask,
    Range, //
};
use crate::{
    cases::binding::{
        iommu_fd,
        merge_group, //
    },
    env::{
        EDU,
        NVME,
        group, //
    },
    harness::cases,
    pin::Pinning,
    stall::{
        Progress,
        Release,
        Request,
        stops, //
    },
};
use anyhow::{
    Result,
    ensure, //
};
use std::thread;
use vfio_client::{
    Errno,
    FaultOn,
    MapFlags,
    Memory,
    PAGE_SIZE,
    Userfault, //
};

// The C module does not merge groups.
cases! {
    #[requires(core(Rust))] failed_merge_keeps_container_of_get_iommu_fd,
}

const PAGE: Range = Range {
    iova: 0x10_0000,
    pages: 1,
};

/// SET_CONTAINER of one group pins a page and stops. MERGE with that group waits for it, and fails
/// because the group is in a container then. Meanwhile another thread gets the address space of the
/// group that was to be merged.
fn failed_merge_keeps_container_of_get_iommu_fd() -> Result<()> {
    // The container has no IOMMU yet, so the memory is not accessed when it is mapped.
    let pinning = Pinning::new()?;
    let mut fault = Userfault::new(1)?;
    PAGE.map(fault.addr()).ask(&pinning.container)?;
    fault.arm(0..1, FaultOn::Access)?;
    let (edu, nvme) = (group(EDU)?, group(NVME)?);
    let container = thread::scope(|scope| -> Result<_> {
        let release = Release(&fault);
        let stopped = Request::send(scope, || nvme.set_container(&pinning.container))?;
        ensure!(
            stops(&stopped, &fault)?,
            "the request does not stop at the fault"
        );
        let merge = Request::send(scope, || merge_group(&edu, &nvme))?;
        assert_eq!(merge.settle(), Progress::Waits, "the other group is locked");
        let other = Request::send(scope, || iommu_fd(&edu))?;
        other.settle();
        drop(release);
        stopped.finish()??;
        assert_eq!(merge.finish()?, Err(Errno::EINVAL), "it is in a container");
        other.finish()?
    })?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::ReadWrite)?;
    assert_eq!(
        (edu.status()?, container.unmap_all()?),
        (3, PAGE_SIZE as u64)
    );
    Ok(())
}
