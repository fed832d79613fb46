// SPDX-License-Identifier: GPL-2.0

//! Migration: `mtty` goes through all states, and takes its registers along.

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
        PROBE,
        SET,
        UUIDS,
        feature,
        feature_of_size, //
    },
};
use anyhow::{
    Context,
    Result, //
};
use nix::unistd::close;
use std::{
    fs::{
        self,
        File, //
    },
    io::{
        Read,
        Write, //
    },
    os::fd::AsRawFd,
};
use vfio_client::{
    Bytes,
    Device,
    Errno,
    Memory,
    PAGE_SIZE,
    raw,
    request,
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

const ERROR: u32 = 0;
const STOP: u32 = 1;
const RUNNING: u32 = 2;
const STOP_COPY: u32 = 3;
const RESUMING: u32 = 4;
const RUNNING_P2P: u32 = 5;
const PRE_COPY: u32 = 6;
const PRE_COPY_P2P: u32 = 7;

const GET_PRECOPY_INFO: u32 = request::number(21);

/// The scratch register of the serial port.
const SCRATCH: u64 = 7;

/// Goes to a state; returns the number of the descriptor, or -1, and how the call ended.
fn go(device: &Device, state: u32) -> (Result<i32, Errno>, i32) {
    let mut data = Bytes::new().u32(state).u32(77);
    let answer = feature(device, SET | MIG_DEVICE_STATE, &mut data);
    assert_eq!(data.get_u32(0), state, "the wanted state is left as it was");
    (answer, data.get_u32(4) as i32)
}

/// Goes to a state that has no file.
#[track_caller]
fn go_plainly(device: &Device, state: u32) {
    assert_eq!(go(device, state), (Ok(0), -1), "to state {state}");
}

/// Goes to a state that has a file.
fn go_with_file(device: &Device, state: u32) -> Result<File> {
    let (answer, number) = go(device, state);
    assert_eq!(answer, Ok(0), "to state {state}");
    let flags = nix::fcntl::fcntl(raw::duplicate(number)?, nix::fcntl::FcntlArg::F_GETFL)?;
    let expected = if state == RESUMING { 1 } else { 0 };
    assert_eq!(flags & 3, expected, "write-only or read-only");
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = u32::from_str_radix(flags.context("no flags")?.trim(), 8)?;
    assert_eq!(flags & 0o2000000, 0o2000000, "closed when a program starts");
    let own = raw::duplicate(number)?;
    close(number)?;
    Ok(own.into())
}

fn state(device: &Device) -> Result<u32> {
    let mut data = Bytes::new().u32(77).u32(77);
    feature(device, GET | MIG_DEVICE_STATE, &mut data)?;
    assert_eq!(data.get_u32(4) as i32, -1);
    Ok(data.get_u32(0))
}

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

fn data_size(device: &Device) -> Result<u64> {
    let mut data = Bytes::new().u64(u64::MAX);
    feature(device, GET | MIG_DATA_SIZE, &mut data)?;
    Ok(data.get_u64(0))
}

/// Reads all that a device says about itself, a few bytes at a time.
fn save(device: &Device) -> Result<Vec<u8>> {
    go_plainly(device, STOP);
    let mut file = go_with_file(device, STOP_COPY)?;
    let mut all = Vec::new();
    let mut part = [0; 7];
    loop {
        let count = file.read(&mut part)?;
        if count == 0 {
            break;
        }
        all.extend_from_slice(&part[..count]);
    }
    assert_eq!(file.read(&mut part)?, 0, "the end is the end");
    go_plainly(device, STOP);
    Ok(all)
}

fn d07_checks() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let open = mdev.open()?;
    let ask = |flags, size| {
        let mut data = Bytes::new().fill(0, size);
        feature(&open.device, flags, &mut data)
    };
    // Feature, what can be done with it, and how much data it wants.
    for (id, supported, size) in [
        (MIGRATION, GET, 8),
        (MIG_DEVICE_STATE, GET | SET, 8),
        (MIG_DATA_SIZE, GET, 8),
        (MIG_PRECOPY_INFO_V2, SET, 0),
    ] {
        assert_eq!(ask(id | PROBE, 0), Ok(0), "feature {id}");
        assert_eq!(
            ask(id, 64),
            Err(Errno::EINVAL),
            "feature {id}: nothing asked"
        );
        for op in [GET, SET] {
            let expected = if supported & op != 0 {
                Ok(0)
            } else {
                Err(Errno::EINVAL)
            };
            assert_eq!(ask(id | op | PROBE, 0), expected, "feature {id}, {op:#x}");
            if expected.is_err() {
                assert_eq!(ask(id | op, 64), expected, "feature {id}, {op:#x}");
            }
            if expected.is_ok() && size > 0 {
                assert_eq!(ask(id | op, size - 1), Err(Errno::EINVAL), "too small");
            }
        }
        let both = if supported == GET | SET {
            Ok(0)
        } else {
            Err(Errno::EINVAL)
        };
        assert_eq!(ask(id | GET | SET | PROBE, 0), both, "feature {id}");
        assert_eq!(ask(id | GET | SET, 64), Err(Errno::EINVAL));
        assert_eq!(ask(id | GET | (1 << 19), 64), Err(Errno::EINVAL));
    }
    assert_eq!(state(&open.device)?, RUNNING, "to probe changes nothing");
    Ok(())
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

fn d10_walk_back_to_running() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let open = mdev.open()?;
    let device = &open.device;
    // There and back by one request each: the core knows the states in between.
    for (there, file) in [
        (STOP, false),
        (STOP_COPY, true),
        (RUNNING_P2P, false),
        (PRE_COPY, true),
        (PRE_COPY_P2P, true),
        (STOP, false),
        (RUNNING_P2P, false),
    ] {
        if file {
            drop(go_with_file(device, there)?);
        } else {
            go_plainly(device, there);
        }
        assert_eq!(state(device)?, there);
        go_plainly(device, RUNNING);
        assert_eq!(state(device)?, RUNNING);
    }
    Ok(())
}

fn d10_precopy_keeps_its_file() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let open = mdev.open()?;
    let device = &open.device;
    set_scratch(device, 0x3c)?;
    let mut file = go_with_file(device, PRE_COPY)?;
    let mut data = vec![0; 1000];
    let header = file.read(&mut data)?;
    assert!(header > 0, "the header comes early");
    assert_eq!(file.read(&mut data[header..])?, 0);
    for next in [PRE_COPY_P2P, PRE_COPY, PRE_COPY_P2P, STOP_COPY] {
        go_plainly(device, next);
        assert_eq!(state(device)?, next);
    }
    let rest = file.read(&mut data[header..])?;
    assert_eq!((header + rest) as u64, data_size(device)?);
    // It is as good as one that was read at once.
    go_plainly(device, STOP);
    assert_eq!(save(device)?, &data[..header + rest]);
    Ok(())
}

fn d10_bad_states() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let open = mdev.open()?;
    for bad in [ERROR, 8, 9, 255, u32::MAX, 1 << 31] {
        let answer = go(&open.device, bad);
        assert_eq!(answer, (Err(Errno::EINVAL), -1), "state {bad}");
        assert_eq!(state(&open.device)?, RUNNING);
    }
    Ok(())
}

fn d10_illegal_ways() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let open = mdev.open()?;
    let device = &open.device;
    go_plainly(device, STOP);
    let mut file = go_with_file(device, STOP_COPY)?;
    for bad in [PRE_COPY, PRE_COPY_P2P] {
        assert_eq!(go(device, bad), (Err(Errno::EINVAL), -1));
        assert_eq!(state(device)?, STOP_COPY, "it stays where it was");
    }
    assert!(file.read(&mut [0; 8])? > 0, "the file still works");
    Ok(())
}

fn d10_resuming_without_enough_data() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let open = mdev.open()?;
    let device = &open.device;
    set_scratch(device, 0x77)?;
    let data = save(device)?;
    for len in [0, 1, 24, data.len() - 1] {
        let mut file = go_with_file(device, RESUMING)?;
        file.write_all(&data[..len])?;
        assert_eq!(go(device, RUNNING), (Err(Errno::EINVAL), -1), "{len} bytes");
        assert_eq!(state(device)?, RESUMING);
        // The rest may still come.
        file.write_all(&data[len..])?;
        go_plainly(device, RUNNING);
        go_plainly(device, STOP);
    }
    assert_eq!(scratch(device)?, 0x77);
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

fn d10_file_is_useless_afterwards() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let open = mdev.open()?;
    let mut file = go_with_file(&open.device, STOP_COPY)?;
    go_plainly(&open.device, RUNNING);
    assert_eq!(file.read(&mut [0; 8]).errno(), Errno::ENODEV);
    let mut file = go_with_file(&open.device, RESUMING)?;
    let reset = open.device.reset();
    assert!(reset.is_ok(), "{reset:?}");
    assert_eq!(file.write(&[0; 8]).errno(), Errno::ENODEV);
    Ok(())
}

fn d10_reset_goes_to_running() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let open = mdev.open()?;
    for there in [STOP, RUNNING_P2P] {
        go_plainly(&open.device, there);
        open.device.reset()?;
        assert_eq!(state(&open.device)?, RUNNING);
    }
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

/// The kernel has made the file, but can't tell its number.
fn d10_answer_cannot_be_written() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let open = mdev.open()?;
    let mut memory = Memory::anonymous(PAGE_SIZE)?;
    let request = Bytes::new()
        .u32(16)
        .u32(SET | MIG_DEVICE_STATE)
        .u32(STOP_COPY)
        .u32(0);
    memory.write(0, request.as_ref());
    memory.protect(true, false)?;
    let answer = raw::at(&open.device, request::DEVICE_FEATURE, &mut memory, 0);
    assert_eq!(answer, Err(Errno::EFAULT));
    assert_eq!(state(&open.device)?, STOP_COPY, "the state was changed");
    // What stayed of the file is the device's own; the leak check counts descriptors.
    go_plainly(&open.device, RUNNING);
    Ok(())
}

fn d10_no_descriptor_left() -> Result<()> {
    use nix::sys::resource::{
        Resource,
        getrlimit,
        setrlimit, //
    };
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let open = mdev.open()?;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let mut fillers = vec![File::open("/dev/null")?];
    let next = fillers[0].as_raw_fd() as u64 + 1;
    setrlimit(Resource::RLIMIT_NOFILE, next, hard)?;
    while let Ok(file) = File::open("/dev/null") {
        fillers.push(file);
    }
    let mut data = Bytes::new().u32(STOP_COPY).u32(77);
    let answer = feature(&open.device, SET | MIG_DEVICE_STATE, &mut data);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
    assert_eq!(answer, Err(Errno::EMFILE));
    assert_eq!(data.get_u32(4), 77, "the structure was not written");
    assert_eq!(state(&open.device)?, STOP_COPY);
    go_plainly(&open.device, RUNNING);
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

/// Asks a file of the precopy phase; the flags go in as they come out in the first version.
fn precopy_flags(file: &File) -> u32 {
    let mut info = Bytes::new().u32(24).u32(0xff).u64(0).u64(0);
    assert_eq!(raw::bytes(file, GET_PRECOPY_INFO, &mut info), Ok(0));
    info.get_u32(4)
}

fn d18_precopy_info_v2() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let open = mdev.open()?;
    let file = go_with_file(&open.device, PRE_COPY)?;
    assert_eq!(precopy_flags(&file), 0xff);
    let mut nothing = Bytes::new();
    let set = feature(&open.device, SET | MIG_PRECOPY_INFO_V2, &mut nothing);
    assert_eq!(set, Ok(0));
    assert_eq!(precopy_flags(&file), 0);
    let mut more = Bytes::new().u64(1);
    let set = feature(&open.device, SET | MIG_PRECOPY_INFO_V2, &mut more);
    assert_eq!(set, Ok(0), "as often as one likes");
    assert_eq!(precopy_flags(&file), 0);
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

fn d19_precopy_info() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let open = mdev.open()?;
    let device = &open.device;
    let mut file = go_with_file(device, PRE_COPY)?;
    let ask = |file: &File, argsz: u32| {
        let mut info = Bytes::new().u32(argsz).u32(0).u64(99).u64(99);
        let answer = raw::bytes(file, GET_PRECOPY_INFO, &mut info);
        (answer, info.get_u64(8), info.get_u64(16))
    };
    assert_eq!(ask(&file, 23).0, Err(Errno::EINVAL));
    assert_eq!(raw::value(&file, GET_PRECOPY_INFO, 1), Err(Errno::EFAULT));
    assert_eq!(raw::none(&file, request::UNKNOWN), Err(Errno::ENOTTY));
    assert_eq!(ask(&file, 24), (Ok(0), 24, 0), "the header");
    assert_eq!(file.read(&mut [0; 10])?, 10);
    assert_eq!(ask(&file, 24), (Ok(0), 14, 0));
    go_plainly(device, PRE_COPY_P2P);
    assert_eq!(ask(&file, 100), (Ok(0), 14, 0));
    go_plainly(device, STOP_COPY);
    assert_eq!(ask(&file, 24).0, Err(Errno::EINVAL), "no longer");
    // On the device it is an unknown request.
    assert_eq!(raw::none(device, GET_PRECOPY_INFO), Err(Errno::ENOTTY));
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
