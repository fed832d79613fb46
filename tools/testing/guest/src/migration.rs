// SPDX-License-Identifier: GPL-2.0

//! Migration states, set by `VFIO_DEVICE_FEATURE`: transitions between them, and rules for the
//! devices of any driver. `mtty` and `vgpu_p2p` are tested with the same functions.

use crate::{
    feature::{
        GET,
        MIG_DATA_SIZE,
        MIG_DEVICE_STATE,
        MIG_PRECOPY_INFO_V2,
        MIGRATION,
        PROBE,
        SET,
        feature, //
    },
    harness::Failure,
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
    os::fd::AsRawFd, //
};
use vfio_client::{
    Bytes, Device, Errno, Memory, PAGE_SIZE, raw, request,
    structures::{
        Feature,
        MigState,
        PrecopyInfo,
        argsz, //
    },
};

/// The device has failed.
pub const ERROR: u32 = 0;
/// The device is stopped.
pub const STOP: u32 = 1;
/// The device runs.
pub const RUNNING: u32 = 2;
/// The device is stopped, and its data can be read.
pub const STOP_COPY: u32 = 3;
/// The device is stopped, and its data can be written.
pub const RESUMING: u32 = 4;
/// The device runs, but does not access other devices.
pub const RUNNING_P2P: u32 = 5;
/// The device runs, and its initial data can be read.
pub const PRE_COPY: u32 = 6;
/// As `PRE_COPY`, but the device does not access other devices.
pub const PRE_COPY_P2P: u32 = 7;

/// `VFIO_MIG_GET_PRECOPY_INFO`
pub const GET_PRECOPY_INFO: u32 = request::number(21);

/// Requests a state. Returns the result of the call, and the number of the data descriptor or -1.
pub fn go(device: &Device, state: u32) -> (Result<i32, Errno>, i32) {
    let mut data = Bytes::of(&MigState {
        device_state: state,
        data_fd: 77,
    });
    let answer = feature(device, SET | MIG_DEVICE_STATE, &mut data);
    let MigState {
        device_state,
        data_fd,
    } = data.get(0);
    assert_eq!(device_state, state, "the wanted state is left as it was");
    (answer, data_fd)
}

/// Changes to a state without a data file.
#[track_caller]
pub fn go_plainly(device: &Device, state: u32) {
    assert_eq!(go(device, state), (Ok(0), -1), "to state {state}");
}

/// Changes to a state with a data file.
pub fn go_with_file(device: &Device, state: u32) -> Result<File> {
    let (answer, number) = go(device, state);
    assert_eq!(answer, Ok(0), "to state {state}");
    let flags = nix::fcntl::fcntl(raw::duplicate(number)?, nix::fcntl::FcntlArg::F_GETFL)?;
    let expected = if state == RESUMING { 1 } else { 0 };
    assert_eq!(flags & 3, expected, "write-only or read-only");
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = u32::from_str_radix(flags.context("fdinfo has no flags")?.trim(), 8)?;
    assert_eq!(flags & 0o2000000, 0o2000000, "closed when a program starts");
    let own = raw::duplicate(number)?;
    close(number)?;
    Ok(own.into())
}

/// Returns the current state.
pub fn state(device: &Device) -> Result<u32> {
    let mut data = Bytes::new().u32(77).u32(77);
    feature(device, GET | MIG_DEVICE_STATE, &mut data)?;
    let MigState {
        device_state,
        data_fd,
    } = data.get(0);
    assert_eq!(data_fd, -1);
    Ok(device_state)
}

/// Returns the expected size of the migration data.
pub fn data_size(device: &Device) -> Result<u64> {
    let mut data = Bytes::new().u64(u64::MAX);
    feature(device, GET | MIG_DATA_SIZE, &mut data)?;
    Ok(data.get_u64(0))
}

/// Reads all migration data of a device, a few bytes at a time.
pub fn save(device: &Device) -> Result<Vec<u8>> {
    go_plainly(device, STOP);
    let mut file = go_with_file(device, STOP_COPY)?;
    let mut all = Vec::new();
    let mut part = [0; 61];
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

/// Checks which features are supported, and which operations they allow.
pub fn checks(device: &Device) -> Result<()> {
    let ask = |flags, size| {
        let mut data = Bytes::new().fill(0, size);
        feature(device, flags, &mut data)
    };
    // The feature, the supported operations, and the size of the data.
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
    assert_eq!(state(device)?, RUNNING, "to probe changes nothing");
    Ok(())
}

/// Goes to a state and back with one request each. The core goes through the intermediate states.
pub fn walk_back_to_running(device: &Device) -> Result<()> {
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

/// The pre-copy data and the final data are one stream, read from one file.
pub fn precopy_keeps_its_file(device: &Device, end: Result<usize, Errno>) -> Result<()> {
    let mut file = go_with_file(device, PRE_COPY)?;
    let mut data = vec![0; 1 << 20];
    let header = file.read(&mut data)?;
    assert!(header > 0, "the header comes early");
    match end {
        Ok(count) => assert_eq!(file.read(&mut data[header..])?, count),
        Err(errno) => assert_eq!(file.read(&mut data[header..]).errno(), errno),
    }
    for next in [PRE_COPY_P2P, PRE_COPY, PRE_COPY_P2P, STOP_COPY] {
        go_plainly(device, next);
        assert_eq!(state(device)?, next);
    }
    let rest = file.read(&mut data[header..])?;
    assert_eq!((header + rest) as u64, data_size(device)?);
    // The data are the same as those read in one state.
    go_plainly(device, STOP);
    assert_eq!(save(device)?, &data[..header + rest]);
    Ok(())
}

/// Invalid states are rejected.
pub fn bad_states(device: &Device) -> Result<()> {
    for bad in [ERROR, 8, 9, 255, u32::MAX, 1 << 31] {
        let answer = go(device, bad);
        assert_eq!(answer, (Err(Errno::EINVAL), -1), "state {bad}");
        assert_eq!(state(device)?, RUNNING);
    }
    Ok(())
}

/// There is no way back from `STOP_COPY` to `PRE_COPY`.
pub fn illegal_ways(device: &Device) -> Result<()> {
    go_plainly(device, STOP);
    let mut file = go_with_file(device, STOP_COPY)?;
    for bad in [PRE_COPY, PRE_COPY_P2P] {
        assert_eq!(go(device, bad), (Err(Errno::EINVAL), -1));
        assert_eq!(state(device)?, STOP_COPY, "it stays where it was");
    }
    assert!(file.read(&mut [0; 8])? > 0, "the file still works");
    Ok(())
}

/// The device waits for the rest of its data.
pub fn not_enough_data(device: &Device) -> Result<()> {
    let data = save(device)?;
    for len in [0, 1, 24, data.len() - 1] {
        let mut file = go_with_file(device, RESUMING)?;
        file.write_all(&data[..len])?;
        assert_eq!(go(device, RUNNING), (Err(Errno::EINVAL), -1), "{len} bytes");
        assert_eq!(state(device)?, RESUMING);
        // The rest may still be written.
        file.write_all(&data[len..])?;
        go_plainly(device, RUNNING);
        go_plainly(device, STOP);
    }
    assert_eq!(save(device)?, data);
    Ok(())
}

/// Leaving the states that have a file, or a reset, makes the file unusable.
pub fn file_is_useless_afterwards(device: &Device) -> Result<()> {
    let mut file = go_with_file(device, STOP_COPY)?;
    go_plainly(device, RUNNING);
    assert_eq!(file.read(&mut [0; 8]).errno(), Errno::ENODEV);
    let mut file = go_with_file(device, RESUMING)?;
    let reset = device.reset();
    assert!(reset.is_ok(), "{reset:?}");
    assert_eq!(file.write(&[0; 8]).errno(), Errno::ENODEV);
    Ok(())
}

/// A reset ends all other states.
pub fn reset_goes_to_running(device: &Device) -> Result<()> {
    for there in [STOP, RUNNING_P2P, RUNNING] {
        go_plainly(device, there);
        device.reset()?;
        assert_eq!(state(device)?, RUNNING);
    }
    for there in [STOP_COPY, RESUMING, PRE_COPY, PRE_COPY_P2P] {
        let mut file = go_with_file(device, there)?;
        device.reset()?;
        assert_eq!(state(device)?, RUNNING);
        let answer = match there {
            RESUMING => file.write(&[0; 8]),
            _ => file.read(&mut [0; 8]),
        };
        assert_eq!(answer.errno(), Errno::ENODEV, "state {there}");
    }
    Ok(())
}

/// The kernel has created the file, but cannot return its descriptor.
pub fn answer_cannot_be_written(device: &Device) -> Result<()> {
    let mut memory = Memory::anonymous(PAGE_SIZE)?;
    let header = Feature {
        argsz: argsz::<Feature>() + argsz::<MigState>(),
        flags: SET | MIG_DEVICE_STATE,
    };
    let state_to_set = MigState {
        device_state: STOP_COPY,
        data_fd: 0,
    };
    let request = Bytes::of(&header).append(&state_to_set);
    memory.write(0, request.as_ref());
    memory.protect(true, false)?;
    let answer = raw::at(device, request::DEVICE_FEATURE, &mut memory, 0);
    assert_eq!(answer, Err(Errno::EFAULT));
    assert_eq!(state(device)?, STOP_COPY, "the state was changed");
    // The device still holds the file; the leak check counts descriptors.
    go_plainly(device, RUNNING);
    Ok(())
}

/// No descriptor is available for the file.
pub fn no_descriptor_left(device: &Device) -> Result<()> {
    use nix::sys::resource::{
        Resource,
        getrlimit,
        rlim_t,
        setrlimit, //
    };
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let mut fillers = vec![File::open("/dev/null")?];
    let next = fillers[0].as_raw_fd() as rlim_t + 1;
    setrlimit(Resource::RLIMIT_NOFILE, next, hard)?;
    while let Ok(file) = File::open("/dev/null") {
        fillers.push(file);
    }
    let mut data = Bytes::new().u32(STOP_COPY).u32(77);
    let answer = feature(device, SET | MIG_DEVICE_STATE, &mut data);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
    assert_eq!(answer, Err(Errno::EMFILE));
    assert_eq!(data.get_u32(4), 77, "the structure was not written");
    assert_eq!(state(device)?, STOP_COPY);
    go_plainly(device, RUNNING);
    Ok(())
}

/// Sends GET_PRECOPY_INFO to a file. Returns the flags, which the first version leaves unchanged.
pub fn precopy_flags(file: &File) -> u32 {
    let mut info = Bytes::of(&PrecopyInfo {
        argsz: argsz::<PrecopyInfo>(),
        flags: 0xff,
        ..PrecopyInfo::default()
    });
    assert_eq!(raw::bytes(file, GET_PRECOPY_INFO, &mut info), Ok(0));
    info.get::<PrecopyInfo>(0).flags
}

/// In the second version, the kernel writes the flags.
pub fn precopy_info_v2(device: &Device) -> Result<()> {
    let file = go_with_file(device, PRE_COPY)?;
    assert_eq!(precopy_flags(&file), 0xff);
    let mut nothing = Bytes::new();
    let set = feature(device, SET | MIG_PRECOPY_INFO_V2, &mut nothing);
    assert_eq!(set, Ok(0));
    assert_eq!(precopy_flags(&file), 0);
    let mut more = Bytes::new().u64(1);
    let set = feature(device, SET | MIG_PRECOPY_INFO_V2, &mut more);
    assert_eq!(set, Ok(0), "as often as one likes");
    assert_eq!(precopy_flags(&file), 0);
    Ok(())
}

/// Checks the information about the `header` bytes of pre-copy data.
pub fn precopy_info(device: &Device, header: u64) -> Result<()> {
    let mut file = go_with_file(device, PRE_COPY)?;
    let ask = |file: &File, argsz: u32| {
        let mut info = Bytes::of(&PrecopyInfo {
            argsz,
            flags: 0,
            initial_bytes: 99,
            dirty_bytes: 99,
        });
        let answer = raw::bytes(file, GET_PRECOPY_INFO, &mut info);
        let info: PrecopyInfo = info.get(0);
        (answer, info.initial_bytes, info.dirty_bytes)
    };
    assert_eq!(ask(&file, 23).0, Err(Errno::EINVAL));
    assert_eq!(raw::value(&file, GET_PRECOPY_INFO, 1), Err(Errno::EFAULT));
    assert_eq!(raw::none(&file, request::UNKNOWN), Err(Errno::ENOTTY));
    assert_eq!(ask(&file, 24), (Ok(0), header, 0));
    assert_eq!(file.read(&mut [0; 10])?, 10);
    assert_eq!(ask(&file, 24), (Ok(0), header - 10, 0));
    go_plainly(device, PRE_COPY_P2P);
    assert_eq!(ask(&file, 100), (Ok(0), header - 10, 0));
    go_plainly(device, STOP_COPY);
    assert_eq!(ask(&file, 24).0, Err(Errno::EINVAL), "no longer");
    // For the device, this request is unknown.
    assert_eq!(raw::none(device, GET_PRECOPY_INFO), Err(Errno::ENOTTY));
    Ok(())
}
