// SPDX-License-Identifier: GPL-2.0

//! A group that ends while one of its requests has stopped, and is created again meanwhile.

use super::requests::{
    Ask,
    Range, //
};
use crate::{
    env::{
        SHARED,
        SIBLING,
        group, //
    },
    harness::cases,
    pin::Pinning,
    stall::{
        LIMIT,
        Progress,
        Release,
        Request,
        stops, //
    },
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    path::Path,
    thread, //
};
use vfio_client::{
    FaultOn,
    Userfault,
    pci, //
};

// The C module has no files of groups in debugfs.
cases! {
    #[requires(core(Rust))] debugfs_shows_the_group,
}

const PAGE: Range = Range {
    iova: 0x10_0000,
    pages: 1,
};

/// The group's only device is removed while SET_CONTAINER of the group pins a page. Then the other
/// device of the IOMMU group is offered.
fn debugfs_shows_the_group() -> Result<()> {
    let host = pci::driver(SIBLING).context("the sibling has no driver")?;
    pci::unbind(SIBLING)?;
    // The container has no IOMMU yet, so the memory is not accessed when it is mapped.
    let pinning = Pinning::new()?;
    let mut fault = Userfault::new(1)?;
    PAGE.map(fault.addr()).ask(&pinning.container)?;
    fault.arm(0..1, FaultOn::Access)?;
    let number = pci::group_of(SHARED)?;
    let shared = group(SHARED)?;
    thread::scope(|scope| -> Result<_> {
        let release = Release(&fault);
        let stopped = Request::send(scope, || shared.set_container(&pinning.container))?;
        ensure!(
            stops(&stopped, &fault)?,
            "the request does not stop at the fault"
        );
        let unbind = Request::send(scope, || pci::unbind(SHARED))?;
        let progress = unbind.settle();
        let bind = Request::send(scope, || pci::bind(SIBLING, "vfio-pci"))?;
        let bound = bind.done_within(LIMIT)?;
        drop(release);
        stopped.finish()??;
        unbind.finish()??;
        bind.finish()??;
        assert_eq!(progress, Progress::Waits, "the group is being removed");
        ensure!(
            bound,
            "binding another device waits for the stopped request"
        );
        Ok(())
    })?;
    let shown = Path::new("/sys/kernel/debug/vfio/groups").join(number.to_string());
    let exists = shown.exists();
    pci::bind(SHARED, "vfio-pci")?;
    pci::unbind(SIBLING)?;
    pci::bind(SIBLING, &host)?;
    ensure!(exists, "debugfs has no file for the new group");
    Ok(())
}
