// SPDX-License-Identifier: GPL-2.0

//! Migration: `mtty` passes through all states and transfers its registers.

use crate::{
    env::Setup,
    harness::{
        Failure,
        cases, //
    },
    mdev::{
        GET,
        MIG_DATA_SIZE,
        MIG_DEVICE_STATE,
        MIG_PRECOPY_INFO_V2,
        MIGRATION,
        Mdev,
        SET,
        UUIDS,
        feature,
        feature_of_size, //
    },
    migration::{
        self,
        PRE_COPY,
        PRE_COPY_P2P,
        RESUMING,
        RUNNING,
        RUNNING_P2P,
        STOP,
        STOP_COPY,
        data_size,
        go,
        go_plainly,
        go_with_file,
        precopy_flags,
        save,
        state, //
    },
};
use anyhow::Result;
use std::{
    fs,
    io::{
        Read,
        Write, //
    },
};
use vfio_client::{
    Bytes,
    Device,
    Errno,
    uapi::VFIO_PCI_BAR0_REGION_INDEX, //
};

cases! {
    d07_checks,
    d09_flags,
    d10_initial_state,
    d10_walk_with_data,
    d10_walk_back_to_running,
    d10_precopy_keeps_its_file,
    d10_bad_states,
    d10_illegal_ways,
    d10_resuming_without_enough_data,
    d10_resuming_with_wrong_data,
    d10_wrong_type_of_device,
    d10_file_is_useless_afterwards,
    d10_reset_goes_to_running,
    d10_last_close,
    d10_answer_cannot_be_written,
    d10_no_descriptor_left,
    d16_data_size,
    d18_precopy_info_v2,
    d18_sticky_until_the_last_close,
    d19_precopy_info,
    #[vfio_debugfs]
    k5_debugfs,
    #[vfio_debugfs]
    k5_debugfs_without_migration,
}

/// The scratch register of the serial port.
const SCRATCH: u64 = 7;

fn scratch(device: &Device) -> Result<u8> {
    let bar = device.region(VFIO_PCI_BAR0_REGION_INDEX)?;
    let mut byte = [0];
    device.read(&bar, SCRATCH, &mut byte)?;
    Ok(byte[0])
}

fn set_scratch(device: &Device, value: u8) -> Result<()> {
    let bar = device.region(VFIO_PCI_BAR0_REGION_INDEX)?;
    Ok(device.write(&bar, SCRATCH, &[value])?)
}

fn d07_checks() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    migration::checks(&mdev.open()?.device)
}

fn d10_walk_back_to_running() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    migration::walk_back_to_running(&mdev.open()?.device)
}

fn d10_precopy_keeps_its_file() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    migration::precopy_keeps_its_file(&mdev.open()?.device, Ok(0))
}

fn d10_bad_states() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    migration::bad_states(&mdev.open()?.device)
}

fn d10_illegal_ways() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    migration::illegal_ways(&mdev.open()?.device)
}

fn d10_resuming_without_enough_data() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    migration::not_enough_data(&mdev.open()?.device)
}

fn d10_file_is_useless_afterwards() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    migration::file_is_useless_afterwards(&mdev.open()?.device)
}

fn d10_reset_goes_to_running() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    migration::reset_goes_to_running(&mdev.open()?.device)
}

fn d10_answer_cannot_be_written() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    migration::answer_cannot_be_written(&mdev.open()?.device)
}

fn d10_no_descriptor_left() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    migration::no_descriptor_left(&mdev.open()?.device)
}

fn d18_precopy_info_v2() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    migration::precopy_info_v2(&mdev.open()?.device)
}

fn d19_precopy_info() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    migration::precopy_info(&mdev.open()?.device, 24)
}

fn d09_flags() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let open = mdev.open()?;
    let mut data = Bytes::new().u64(u64::MAX).u64(u64::MAX);
    assert_eq!(feature(&open.device, GET | MIGRATION, &mut data), Ok(0));
    assert_eq!((data.get_u64(0), data.get_u64(8)), (7, u64::MAX));
    Ok(())
}

fn d10_initial_state() -> Result<()> {
    let mdev = Mdev::new("mtty-2", UUIDS[0])?;
    let open = mdev.open()?;
    assert_eq!(state(&open.device)?, RUNNING);
    go_plainly(&open.device, RUNNING);
    assert_eq!(state(&open.device)?, RUNNING);
    Ok(())
}

fn d10_walk_with_data() -> Result<()> {
    for name in ["mtty-1", "mtty-2"] {
        let (source, target) = (Mdev::new(name, UUIDS[0])?, Mdev::new(name, UUIDS[1])?);
        let (from, to) = (source.open()?, target.open()?);
        set_scratch(&from.device, 0xa5)?;
        assert_eq!(scratch(&to.device)?, 0);
        let data = save(&from.device)?;
        assert_eq!(data.len() as u64, data_size(&from.device)?);
        go_plainly(&to.device, STOP);
        let mut file = go_with_file(&to.device, RESUMING)?;
        for part in data.chunks(11) {
            assert_eq!(file.write(part)?, part.len());
        }
        assert_eq!(scratch(&to.device)?, 0, "not yet loaded");
        go_plainly(&to.device, STOP);
        go_plainly(&to.device, RUNNING);
        assert_eq!(scratch(&to.device)?, 0xa5);
        assert_eq!(state(&from.device)?, STOP);
        go_plainly(&from.device, RUNNING);
    }
    Ok(())
}

fn d10_resuming_with_wrong_data() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let open = mdev.open()?;
    let device = &open.device;
    let mut data = save(device)?;
    let mut file = go_with_file(device, RESUMING)?;
    let mut long = data.clone();
    long.push(0);
    assert_eq!(file.write(&long).errno(), Errno::ENOMEM, "too much");
    data[0] ^= 1;
    assert_eq!(file.write(&data).errno(), Errno::EFAULT, "not its mark");
    assert_eq!(file.read(&mut [0; 4]).errno(), Errno::EBADF);
    device.reset()?;
    assert_eq!(state(device)?, RUNNING);
    Ok(())
}

fn d10_wrong_type_of_device() -> Result<()> {
    let (one, two) = (
        Mdev::new("mtty-1", UUIDS[0])?,
        Mdev::new("mtty-2", UUIDS[1])?,
    );
    let (from, to) = (one.open()?, two.open()?);
    let data = save(&from.device)?;
    go_plainly(&to.device, STOP);
    let mut file = go_with_file(&to.device, RESUMING)?;
    assert_eq!(file.write(&data).errno(), Errno::EFAULT);
    assert_eq!(go(&to.device, STOP), (Err(Errno::EINVAL), -1));
    Ok(())
}

fn d10_last_close() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let open = mdev.open()?;
    let second = open.group.device(UUIDS[0])?;
    let mut file = go_with_file(&open.device, STOP_COPY)?;
    drop(open.device);
    assert!(file.read(&mut [0; 8])? > 0, "there is another descriptor");
    drop(second);
    assert_eq!(file.read(&mut [0; 8]).errno(), Errno::ENODEV);
    drop(file);
    let again = open.group.device(UUIDS[0])?;
    assert_eq!(state(&again)?, STOP_COPY, "mtty keeps its state");
    go_plainly(&again, RUNNING);
    Ok(())
}

fn d16_data_size() -> Result<()> {
    let (one, two) = (
        Mdev::new("mtty-1", UUIDS[0])?,
        Mdev::new("mtty-2", UUIDS[1])?,
    );
    let sizes = (
        data_size(&one.open()?.device)?,
        data_size(&two.open()?.device)?,
    );
    let header = 24;
    assert_eq!(sizes.1 - header, 2 * (sizes.0 - header));
    let setup = Setup::new()?;
    let mut data = Bytes::new().u64(0);
    let answer = feature(&setup.device, GET | MIG_DATA_SIZE, &mut data);
    assert_eq!(answer, Err(Errno::ENOTTY));
    Ok(())
}

fn d18_sticky_until_the_last_close() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let open = mdev.open()?;
    let second = open.group.device(UUIDS[0])?;
    feature(&second, SET | MIG_PRECOPY_INFO_V2, &mut Bytes::new())?;
    drop(second);
    let file = go_with_file(&open.device, PRE_COPY)?;
    assert_eq!(precopy_flags(&file), 0, "set by the other descriptor");
    go_plainly(&open.device, RUNNING);
    drop(open.device);
    let again = open.group.device(UUIDS[0])?;
    let file = go_with_file(&again, PRE_COPY)?;
    assert_eq!(precopy_flags(&file), 0xff);
    Ok(())
}

fn k5_debugfs() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let folder = format!("/sys/kernel/debug/vfio/{}/migration", UUIDS[0]);
    let read = |name: &str| fs::read_to_string(format!("{folder}/{name}"));
    assert_eq!(
        read("features")?,
        "stop-copy\np2p\npre-copy\ndirty-tracking\n"
    );
    assert_eq!(read("state")?, "RUNNING\n", "though it is closed");
    let open = mdev.open()?;
    for (there, name) in [
        (STOP, "STOP"),
        (RUNNING_P2P, "RUNNING_P2P"),
        (RUNNING, "RUNNING"),
    ] {
        go_plainly(&open.device, there);
        assert_eq!(read("state")?, format!("{name}\n"));
    }
    for (there, name) in [
        (PRE_COPY, "PRE_COPY"),
        (PRE_COPY_P2P, "PRE_COPY_P2P"),
        (STOP_COPY, "STOP_COPY"),
        (RESUMING, "RESUMING"),
    ] {
        go_with_file(&open.device, there)?;
        assert_eq!(read("state")?, format!("{name}\n"));
        open.device.reset()?;
    }
    drop(open);
    drop(mdev);
    let device = format!("/sys/kernel/debug/vfio/{}", UUIDS[0]);
    assert!(!fs::exists(device)?);
    Ok(())
}

fn k5_debugfs_without_migration() -> Result<()> {
    let folder = format!("/sys/kernel/debug/vfio/{}", crate::env::EDU);
    assert!(fs::exists(&folder)?);
    assert!(!fs::exists(format!("{folder}/migration"))?);
    let mdev = Mdev::new("mdpy-vga", UUIDS[0])?;
    let folder = format!("/sys/kernel/debug/vfio/{}", UUIDS[0]);
    assert!(fs::exists(&folder)?);
    assert!(!fs::exists(format!("{folder}/migration"))?);
    let open = mdev.open()?;
    for id in [MIGRATION, MIG_DEVICE_STATE, MIG_DATA_SIZE] {
        let mut data = Bytes::new().u64(0);
        let answer = feature(&open.device, GET | id, &mut data);
        assert_eq!(answer, Err(Errno::ENOTTY));
    }
    let v2 = feature_of_size(
        &open.device,
        8,
        SET | MIG_PRECOPY_INFO_V2,
        &mut Bytes::new(),
    );
    assert_eq!(v2, Err(Errno::EINVAL), "not ENOTTY");
    Ok(())
}
