// SPDX-License-Identifier: GPL-2.0

//! The migration data: what they contain, and which data a device rejects.

use super::{
    HEADER,
    Open,
    RESUMING,
    RUNNING,
    STOP,
    STOP_COPY,
    go_plainly,
    go_with_file,
    save,
    state, //
};
use crate::{
    harness::{
        Failure,
        cases, //
    },
    migration::{
        data_size,
        go, //
    },
};
use anyhow::Result;
use std::io::{
    Read,
    Write, //
};
use vfio_client::{
    Errno,
    pci::{
        self,
        Config, //
    },
};
use vgpu_copy::{
    Command,
    Kind,
    Operands,
    Status, //
};

cases! {
    #[rows("D10")] registers_and_memory_migrate,
    #[rows("D10")] data_migrates_back,
    #[rows("D10")] wrong_header,
    #[rows("D10")] too_much_data,
    #[rows("D10")] corrupted_data,
    #[rows("D10")] forged_data,
    #[rows("D10")] data_of_other_type,
    #[rows("D10")] data_file_closed_early,
    #[rows("D16")] stop_copy_length,
}

/// The offset of the `STATUS` register after the header. `COMPLETED` and `COMMAND` follow it.
const STATUS: usize = HEADER + 256 + 36;

/// Returns bytes that depend on their position.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 5 * 3 + at) as u8).collect()
}

/// The state of a device as a program sees it.
#[derive(Debug, PartialEq, Eq)]
struct View {
    memory: Vec<u8>,
    offset: u32,
    status: Status,
    completed: u32,
    command: u16,
    bar: u32,
}

impl View {
    fn of(open: &Open) -> Result<Self> {
        let (vgpu, config) = (&open.vgpu, Config::of(open.device())?);
        Ok(Self {
            memory: vgpu.memory().to_vec(0, vgpu.memory().len()),
            offset: vgpu.offset()?,
            status: vgpu.status()?,
            completed: vgpu.completed()?,
            command: config.get(pci::COMMAND)?,
            bar: config.get(pci::BAR2)?,
        })
    }
}

/// Returns a device that has been used.
fn used(kind: Kind) -> Result<Open> {
    let open = Open::new(kind)?;
    let vgpu = &open.vgpu;
    vgpu.memory().write(0, &pattern(vgpu.memory().len()));
    let operands = Operands {
        address: 0x1234_5678_9abc,
        offset: 4711,
        length: 17,
        ..Operands::default()
    };
    assert_eq!(vgpu.run(Command::Load, &operands)?, Status::Fault);
    let config = Config::of(open.device())?;
    config.enable()?;
    config.set(pci::BAR2_HIGH, 0xfeed)?;
    Ok(open)
}

/// Writes migration data to a stopped device.
fn load(open: &Open, data: &[u8]) -> Result<()> {
    let mut file = go_with_file(open.device(), RESUMING)?;
    Ok(file.write_all(data)?)
}

/// Replaces the checksum at the end of the data, so that modified data look valid.
fn with_sum(mut data: Vec<u8>) -> Vec<u8> {
    let end = data.len() - 8;
    let sum = data[HEADER..end]
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
            (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
    data[end..].copy_from_slice(&sum.to_le_bytes());
    data
}

fn registers_and_memory_migrate() -> Result<()> {
    for kind in [Kind::Single, Kind::Double, Kind::Isolated] {
        let (from, to) = (used(kind)?, Open::new(kind)?);
        let (before, fresh) = (View::of(&from)?, View::of(&to)?);
        assert_ne!(before, fresh);
        let data = save(from.device())?;
        assert_eq!(View::of(&from)?, before);
        go_plainly(to.device(), STOP);
        let mut file = go_with_file(to.device(), RESUMING)?;
        for part in data.chunks(1009) {
            assert_eq!(file.write(part)?, part.len());
        }
        assert_eq!(View::of(&to)?, fresh, "not yet loaded");
        go_plainly(to.device(), RUNNING);
        assert_eq!(View::of(&to)?, before);
        // The device continues from this state.
        let status = to.vgpu.run(Command::Unknown, &Operands::default())?;
        assert_eq!((status, to.vgpu.completed()?), (Status::Invalid, 2));
        assert_eq!(state(from.device())?, STOP);
    }
    Ok(())
}

fn data_migrates_back() -> Result<()> {
    let (one, other) = (used(Kind::Single)?, used(Kind::Single)?);
    let before = View::of(&one)?;
    let data = save(one.device())?;
    load(&other, &data)?;
    go_plainly(other.device(), STOP);
    one.device().reset()?;
    assert_ne!(View::of(&one)?, before);
    let again = save(other.device())?;
    assert_eq!(again, data);
    load(&one, &again)?;
    go_plainly(one.device(), RUNNING);
    assert_eq!(View::of(&one)?, before);
    Ok(())
}

fn wrong_header() -> Result<()> {
    let (from, to) = (used(Kind::Single)?, used(Kind::Single)?);
    to.vgpu.memory().write(0, &[7; 100]);
    let before = View::of(&to)?;
    let data = save(from.device())?;
    let mut file = go_with_file(to.device(), RESUMING)?;
    for at in [0, 8, 12, 16, 24, HEADER - 1] {
        let mut wrong = data.clone();
        wrong[at] ^= 0x10;
        for len in [at + 1, HEADER, data.len()] {
            let answer = file.write(&wrong[..len]);
            assert_eq!(answer.errno(), Errno::EINVAL, "byte {at} of {len}");
        }
        assert_eq!(go(to.device(), STOP), (Err(Errno::EINVAL), -1));
    }
    assert_eq!(View::of(&to)?, before);
    // None of the invalid data was accepted: the valid data can still be written.
    file.write_all(&data)?;
    go_plainly(to.device(), STOP);
    assert_eq!(View::of(&to)?, View::of(&from)?);
    Ok(())
}

fn too_much_data() -> Result<()> {
    let open = used(Kind::Single)?;
    let mut data = save(open.device())?;
    let len = data.len();
    data.push(0);
    let mut file = go_with_file(open.device(), RESUMING)?;
    assert_eq!(file.write(&data).errno(), Errno::ENOMEM);
    assert_eq!(file.write(&data[..HEADER])?, HEADER);
    assert_eq!(file.write(&data[HEADER..]).errno(), Errno::ENOMEM);
    assert_eq!(file.write(&data[HEADER..len])?, len - HEADER);
    assert_eq!(file.write(&[0]).errno(), Errno::ENOMEM);
    assert_eq!(file.write(&[])?, 0);
    assert_eq!(file.read(&mut [0; 4]).errno(), Errno::EBADF);
    go_plainly(open.device(), RUNNING);
    Ok(())
}

fn corrupted_data() -> Result<()> {
    let (from, to) = (used(Kind::Single)?, used(Kind::Single)?);
    to.vgpu.memory().write(0, &[7; 100]);
    let before = View::of(&to)?;
    let data = save(from.device())?;
    for at in [
        HEADER,
        HEADER + 256,
        STATUS,
        1000,
        40_000,
        data.len() - 9,
        data.len() - 1,
    ] {
        let mut wrong = data.clone();
        wrong[at] ^= 0x10;
        load(&to, &wrong)?;
        assert_eq!(
            go(to.device(), RUNNING),
            (Err(Errno::EINVAL), -1),
            "byte {at}"
        );
        assert_eq!(state(to.device())?, RESUMING);
        assert_eq!(View::of(&to)?, before, "byte {at}");
        // The only way out is a reset.
        to.device().reset()?;
        to.vgpu.memory().write(0, &before.memory);
        let config = Config::of(to.device())?;
        config.enable()?;
        config.set(pci::BAR2_HIGH, (before.bar >> 16) as u16)?;
        let operands = Operands {
            offset: before.offset,
            length: 1,
            ..Operands::default()
        };
        assert_eq!(to.vgpu.run(Command::Load, &operands)?, before.status);
    }
    Ok(())
}

/// Data that no device has saved, but with a valid checksum.
fn forged_data() -> Result<()> {
    let (from, to) = (used(Kind::Single)?, Open::new(Kind::Single)?);
    let before = View::of(&to)?;
    let data = save(from.device())?;
    for (at, byte, what) in [
        (HEADER, 0xff, "a device by somebody else"),
        (HEADER + 0x34, 0x00, "no capability"),
        (HEADER + 0xff, 0x01, "a byte that can't be written"),
        (STATUS, 4, "no such status"),
        (STATUS + 3, 0x80, "no such status"),
    ] {
        let mut wrong = data.clone();
        wrong[at] = byte;
        load(&to, &with_sum(wrong))?;
        let answer = go(to.device(), STOP);
        assert_eq!(answer, (Err(Errno::EINVAL), -1), "{what}");
        assert_eq!(state(to.device())?, RESUMING);
        assert_eq!(View::of(&to)?, before, "{what}");
        to.device().reset()?;
    }
    let mut other = data.clone();
    other[STATUS + 4] = 99;
    load(&to, &with_sum(other))?;
    go_plainly(to.device(), RUNNING);
    assert_eq!(to.vgpu.completed()?, 99, "the sum is right");
    Ok(())
}

fn data_of_other_type() -> Result<()> {
    let from = used(Kind::Single)?;
    let data = save(from.device())?;
    for kind in [Kind::Double, Kind::Isolated] {
        let to = Open::new(kind)?;
        let mut file = go_with_file(to.device(), RESUMING)?;
        assert_eq!(file.write(&data).errno(), Errno::EINVAL, "{kind:?}");
        assert_eq!(go(to.device(), STOP), (Err(Errno::EINVAL), -1));
    }
    Ok(())
}

fn data_file_closed_early() -> Result<()> {
    let (from, to) = (used(Kind::Single)?, Open::new(Kind::Single)?);
    let mut file = go_with_file(from.device(), STOP_COPY)?;
    let mut half = vec![0; 30_000];
    file.read_exact(&mut half)?;
    drop(file);
    assert_eq!(state(from.device())?, STOP_COPY);
    go_plainly(from.device(), STOP);
    let data = save(from.device())?;
    assert_eq!(half, &data[..half.len()]);

    let mut file = go_with_file(to.device(), RESUMING)?;
    file.write_all(&half)?;
    drop(file);
    assert_eq!(go(to.device(), STOP), (Err(Errno::EINVAL), -1));
    assert_eq!(state(to.device())?, RESUMING);
    to.device().reset()?;
    load(&to, &data)?;
    go_plainly(to.device(), STOP);
    assert_eq!(View::of(&to)?, View::of(&from)?);
    Ok(())
}

fn stop_copy_length() -> Result<()> {
    for (kind, memory) in [(Kind::Single, 64 << 10), (Kind::Double, 128 << 10)] {
        let open = Open::new(kind)?;
        let size = data_size(open.device())?;
        assert_eq!(size, save(open.device())?.len() as u64);
        assert_eq!(size, memory + 256 + 48 + 64 + 8);
    }
    Ok(())
}
