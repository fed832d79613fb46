// SPDX-License-Identifier: GPL-2.0

//! Memory of the log of an accelerator's writes is charged to the process that started the log,
//! not to the process that makes the accelerator write.

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

/// The distance of entries that share no memory of the log: 4096 pages.
const STEP: u64 = 4096 * PAGE_SIZE as u64;
const STEPS: u64 = 1024;
/// The minimum memory of each entry.
const BYTES: u64 = 512;
/// The statistic of kernel objects charged to a cgroup.
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

/// Reports the whole log in pages so large that a few bits suffice. Returns the number of bits
/// set.
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
    // Reported entries use no memory any more.
    assert_eq!(report(vgpu.device())?, STEPS);
    let least = before + STEPS * BYTES / 4;
    let left = cgroup.wait_for(OBJECTS, |bytes| bytes < least)?;
    ensure!(left < least, "{before} bytes, {charged}, {left} at last");
    Ok(())
}
