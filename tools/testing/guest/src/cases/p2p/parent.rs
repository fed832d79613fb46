// SPDX-License-Identifier: GPL-2.0

//! A parent can be removed while groups of its devices are open, but not while one of the
//! devices is open. The allocator of PASIDs can be removed unless a file of it is open.

use super::{
    Driver,
    open, //
};
use crate::{
    harness::{
        Failure,
        cases, //
    },
    migration::{
        STOP_COPY,
        go_with_file, //
    },
    modules::{
        debugfs_files_hold,
        load,
        unload, //
    },
    stall::LIMIT, //
};
use anyhow::Result;
use std::{
    io::Read,
    path::Path,
    sync::mpsc,
    thread,
    time::Duration, //
};
use vfio_client::Errno;
use vgpu_copy::{
    Kind,
    Mdev, //
};

cases! {
    #[rows("M9")] open_device_holds_module,
    #[rows("M9")] unregistering_parent_removes_devices,
    #[rows("M9")] remove_waits_for_last_close,
    debugfs_files_hold_ioasid,
}

const PARENT: &str = "/sys/class/mdev_bus/vgpu_p2p";

fn open_device_holds_module() -> Result<()> {
    let (mdev, other) = (
        Mdev::with_new_uuid(Kind::Single)?,
        Mdev::with_new_uuid(Kind::Isolated)?,
    );
    let (vgpu, _group, _container) = open(&mdev)?;
    for module in [Driver::loaded()?.module(), c"mdev"] {
        assert_eq!(unload(module), Err(Errno::EAGAIN), "{module:?}");
    }
    assert!(vgpu.identified()?, "it still works");
    assert!(mdev.folder().exists());
    assert!(other.folder().exists());
    assert!(Path::new(PARENT).exists());
    Ok(())
}

fn unregistering_parent_removes_devices() -> Result<()> {
    let mdevs = [Kind::Single, Kind::Double, Kind::Isolated].map(Mdev::with_new_uuid);
    let [first, second, third] = mdevs;
    let (first, second, third) = (first?, second?, third?);
    second.set_peer_uuid(&first.peer_uuid()?)?;
    let (container, group) = first.attach()?;
    let vgpu = vgpu_copy::Vgpu::open(&group, &first)?;
    let driver = Driver::loaded()?;
    let file = match driver {
        Driver::Rust => Some(go_with_file(vgpu.device(), STOP_COPY)?),
        Driver::C => None,
    };
    drop(vgpu);
    // Neither the group nor a migration file holds the driver.
    unload(driver.module())?;
    for mdev in [&first, &second, &third] {
        assert!(!mdev.folder().exists());
    }
    assert!(!Path::new(PARENT).exists());
    assert!(!Path::new("/sys/bus/mdev/drivers/vgpu_p2p").exists());
    assert_eq!(group.status().errno(), Errno::ENODEV);
    if let Some(mut file) = file {
        assert_eq!(file.read(&mut [0; 8]).errno(), Errno::ENODEV);
        assert_eq!(
            unload(c"mdev"),
            Err(Errno::EAGAIN),
            "the file is of the bus"
        );
    }
    drop((group, container));
    // Each card holds a reference to vfio.ko, so all are loaded again.
    driver.load()?;
    let again = Mdev::new(Kind::Single, first.uuid())?;
    assert!(open(&again)?.0.identified()?);
    Ok(())
}

fn remove_waits_for_last_close() -> Result<()> {
    let mdev = Mdev::with_new_uuid(Kind::Single)?;
    let (vgpu, group, container) = open(&mdev)?;
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| sender.send(mdev.remove()));
        let early = receiver.recv_timeout(Duration::from_millis(300));
        assert!(early.is_err(), "removed in use: {early:?}");
        assert!(vgpu.identified()?, "it still works");
        drop((vgpu, group, container));
        Ok(receiver.recv_timeout(LIMIT)??)
    })
}

fn debugfs_files_hold_ioasid() -> Result<()> {
    let files = ["space", "sets", "allocators", "ids"].map(|file| format!("ioasid/{file}"));
    let files = files.each_ref().map(String::as_str);
    debugfs_files_hold(c"ioasid", &files, || Ok(()))?;
    load(&["ioasid"])
}
