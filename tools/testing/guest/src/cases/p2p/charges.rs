// SPDX-License-Identifier: GPL-2.0

//! Who is charged for the log of what an accelerator writes: the process that began it, whoever has the
//! accelerator write.

use super::open;
use crate::{
    cgroup::Cgroup,
    harness::cases,
    mdev::{
        DMA_LOGGING_REPORT,
        DMA_LOGGING_START,
        GET,
        SET,
        feature, //
    },
};
use anyhow::{
    Result,
    ensure, //
};
use vfio_client::{
    Bytes,
    Device,
    MapFlags,
    Memory,
    PAGE_SIZE, //
};
use vgpu_copy::{
    Command,
    Kind,
    Mdev,
    Operands,
    Status, //
};

cases! {
    #[memory_cgroups]
    log_is_charged_to_its_beginner,
}

/// How far apart entries are that share no memory of the log: 4096 pages.
const STEP: u64 = 4096 * PAGE_SIZE as u64;
const STEPS: u64 = 1024;
/// At least so much is needed for each.
const BYTES: u64 = 512;
/// The kernel's objects that are charged to a cgroup.
const OBJECTS: &str = "slab_unreclaimable";

fn start(device: &Device) -> Result<()> {
    let range = Memory::anonymous(PAGE_SIZE)?;
    range.write_u64(0, 0);
    range.write_u64(8, STEPS * STEP);
    let mut data = Bytes::new()
        .u64(PAGE_SIZE as u64)
        .u32(1)
        .u32(0)
        .u64(range.addr());
    assert_eq!(feature(device, SET | DMA_LOGGING_START, &mut data), Ok(0));
    Ok(())
}

/// Reports all in so large pages that a few bits do.
fn report(device: &Device) -> Result<u64> {
    let bits = Memory::anonymous(STEPS as usize / 8)?;
    let mut data = Bytes::new()
        .u64(0)
        .u64(STEPS * STEP)
        .u64(STEP)
        .u64(bits.addr());
    assert_eq!(feature(device, GET | DMA_LOGGING_REPORT, &mut data), Ok(0));
    let words = (0..STEPS as usize / 64).map(|word| bits.read_u64(8 * word));
    Ok(words.map(|word| u64::from(word.count_ones())).sum())
}

fn log_is_charged_to_its_beginner() -> Result<()> {
    let mdev = Mdev::with_new_uuid(Kind::Single)?;
    let (vgpu, _group, container) = open(&mdev)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    for step in 0..STEPS {
        container.map(step * STEP, &memory, MapFlags::ReadWrite)?;
    }
    let cgroup = Cgroup::new("beginner")?;
    cgroup.during(|| start(vgpu.device()))?;
    let before = cgroup.bytes(OBJECTS)?;
    for step in 0..STEPS {
        let operands = Operands {
            address: step * STEP,
            length: 1,
            ..Operands::default()
        };
        assert_eq!(vgpu.run(Command::Store, &operands)?, Status::Done);
    }
    let most = before + STEPS * BYTES;
    let charged = cgroup.wait_for(OBJECTS, |bytes| bytes >= most)?;
    ensure!(charged >= most, "{before} bytes, then {charged}");
    // What was reported takes no memory any more.
    assert_eq!(report(vgpu.device())?, STEPS);
    let least = before + STEPS * BYTES / 4;
    let left = cgroup.wait_for(OBJECTS, |bytes| bytes < least)?;
    ensure!(left < least, "{before} bytes, {charged}, {left} at last");
    Ok(())
}
