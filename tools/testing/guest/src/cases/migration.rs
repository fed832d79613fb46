// SPDX-License-Identifier: GPL-2.0

//! Migration: `mtty` passes through all states and transfers its registers.

use crate::{
    env::Setup,
    feature::{
        GET,
        MIG_DATA_SIZE,
        MIG_DEVICE_STATE,
        MIG_PRECOPY_INFO_V2,
        MIGRATION,
        SET,
        feature,
        feature_of_size, //
    },
    harness::{
        Failure,
        cases, //
    },
    mdev::{
        Mdev,
        UUIDS,
        open_mtty, //
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
    #[rows("D7")] feature_flags_and_sizes,
    #[rows("D9")] migration_flags,
    #[rows("D10")] initial_state,
    #[rows("D10")] state_is_migrated,
    #[rows("D10")] all_states_return_to_running,
    #[rows("D10")] precopy_to_stop_copy_keeps_data_file,
    #[rows("D10")] invalid_states,
    #[rows("D10")] invalid_transitions,
    #[rows("D10")] resuming_with_too_little_data,
    #[rows("D10")] resuming_with_wrong_data,
    #[rows("D10")] resuming_with_data_of_other_type,
    #[rows("D10")] data_file_is_dead_after_transition,
    #[rows("D10")] reset_returns_to_running,
    #[rows("D10")] last_close_ends_data_file,
    #[rows("D10")] unwritable_answer_changes_nothing,
    #[rows("D10")] no_free_descriptor_for_data_file,
    #[rows("D16")] stop_copy_length,
    #[rows("D18")] enable_precopy_info_v2,
    #[rows("D18")] precopy_info_v2_lasts_until_last_close,
    #[rows("D19")] get_precopy_info,
    #[rows("K5")] #[requires(vfio_debugfs)] debugfs_shows_migration_state,
    #[rows("K5")] #[requires(vfio_debugfs)] debugfs_without_migration,
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

fn feature_flags_and_sizes() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    migration::checks(&open.device)
}

fn all_states_return_to_running() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    migration::walk_back_to_running(&open.device)
}

fn precopy_to_stop_copy_keeps_data_file() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    migration::precopy_keeps_its_file(&open.device, Ok(0))
}

fn invalid_states() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    migration::bad_states(&open.device)
}

fn invalid_transitions() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    migration::illegal_ways(&open.device)
}

fn resuming_with_too_little_data() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    migration::not_enough_data(&open.device)
}

fn data_file_is_dead_after_transition() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    migration::file_is_useless_afterwards(&open.device)
}

fn reset_returns_to_running() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    migration::reset_goes_to_running(&open.device)
}

fn unwritable_answer_changes_nothing() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    migration::answer_cannot_be_written(&open.device)
}

fn no_free_descriptor_for_data_file() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    migration::no_descriptor_left(&open.device)
}

fn enable_precopy_info_v2() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    migration::precopy_info_v2(&open.device)
}

fn get_precopy_info() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    migration::precopy_info(&open.device, 24)
}

fn migration_flags() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    let mut data = Bytes::new().u64(u64::MAX).u64(u64::MAX);
    assert_eq!(feature(&open.device, GET | MIGRATION, &mut data), Ok(0));
    assert_eq!((data.get_u64(0), data.get_u64(8)), (7, u64::MAX));
    Ok(())
}

fn initial_state() -> Result<()> {
    let mdev = Mdev::new("mtty-2", UUIDS[0])?;
    let open = mdev.open()?;
    assert_eq!(state(&open.device)?, RUNNING);
    go_plainly(&open.device, RUNNING);
    assert_eq!(state(&open.device)?, RUNNING);
    Ok(())
}

fn state_is_migrated() -> Result<()> {
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

fn resuming_with_wrong_data() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
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

fn resuming_with_data_of_other_type() -> Result<()> {
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

fn last_close_ends_data_file() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
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

fn stop_copy_length() -> Result<()> {
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

fn precopy_info_v2_lasts_until_last_close() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
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

fn debugfs_shows_migration_state() -> Result<()> {
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

fn debugfs_without_migration() -> Result<()> {
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
