// SPDX-License-Identifier: GPL-2.0

//! A group that ends while one of its requests has stopped, and is created again meanwhile.

use super::words::{
    self,
    Dma, //
};
use crate::{
    env::{
        SHARED,
        SIBLING,
        group, //
    },
    harness::{
        case,
        our_core, //
    },
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
use libtest_mimic::Trial;
use std::{
    path::Path,
    thread, //
};
use vfio_client::{
    FaultOn,
    Userfault,
    pci, //
};

/// Returns the case. The C module has no files of groups in debugfs.
pub fn cases() -> Vec<Trial> {
    let case = case("stalled::again::debugfs_shows_the_group", in_debugfs);
    vec![case.with_ignored_flag(!our_core())]
}

const PAGE: Dma = Dma {
    iova: 0x10_0000,
    pages: 1,
};

/// The group's only device is removed while SET_CONTAINER of the group pins a page. Then the other
/// device of the IOMMU group is offered.
fn in_debugfs() -> Result<()> {
    let host = pci::driver(SIBLING).context("the sibling has no driver")?;
    pci::unbind(SIBLING)?;
    // The container has no IOMMU yet, so the memory is not accessed when it is mapped.
    let pinning = Pinning::new()?;
    let mut fault = Userfault::new(1)?;
    words::map(&pinning.container, PAGE, fault.addr())?;
    fault.arm(0..1, FaultOn::Access)?;
    let number = pci::group_of(SHARED)?;
    let shared = group(SHARED)?;
    thread::scope(|scope| -> Result<_> {
        let release = Release(&fault);
        let stopped = Request::send(scope, || shared.set_container(&pinning.container))?;
        ensure!(stops(&stopped, &fault)?, "it does not stop");
        let unbind = Request::send(scope, || pci::unbind(SHARED))?;
        let progress = unbind.settle();
        let bind = Request::send(scope, || pci::bind(SIBLING, "vfio-pci"))?;
        let bound = bind.done_within(LIMIT)?;
        drop(release);
        stopped.finish()??;
        unbind.finish()??;
        bind.finish()??;
        assert_eq!(progress, Progress::Waits, "the group ends");
        ensure!(bound, "another device waits");
        Ok(())
    })?;
    let shown = Path::new("/sys/kernel/debug/vfio/groups").join(number.to_string());
    let exists = shown.exists();
    pci::bind(SHARED, "vfio-pci")?;
    pci::unbind(SIBLING)?;
    pci::bind(SIBLING, &host)?;
    ensure!(exists, "the new group has no file");
    Ok(())
}
