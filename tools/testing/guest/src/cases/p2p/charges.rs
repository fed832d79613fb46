// SPDX-License-Identifier: GPL-2.0

//! Memory of the log of an accelerator's writes is charged to the process that started the log,
//! not to the process that makes the accelerator write.

use super::open;
use crate::{
    dma_logging::{
        send_report,
        start, //
    },
    harness::cases, //
};
use anyhow::{
    Result,
    ensure, //
};
use support::cgroup::Cgroup;
use vfio_client::{
    Device,
    MapFlags,
    Memory,
    PAGE_SIZE,
    structures::LoggingReport, //
};
use vgpu_copy::{
    Command,
    Kind,
    Mdev,
    Operands,
    Status, //
};

cases! {
    #[requires(memory_cgroups)] dirty_log_is_charged_to_process_that_started_it,
}

/// The distance of entries that share no memory of the log: 4096 pages.
const STEP: u64 = 4096 * PAGE_SIZE as u64;
const STEPS: u64 = 1024;
/// The minimum memory of each entry.
const BYTES: u64 = 512;
/// The statistic of kernel objects charged to a cgroup.
const OBJECTS: &str = "slab_unreclaimable";

/// Reports the whole log in pages so large that a few bits suffice. Returns the number of bits
/// set.
fn report(device: &Device) -> Result<u64> {
    let bits = Memory::anonymous(STEPS as usize / 8)?;
    let report = LoggingReport {
        iova: 0,
        length: STEPS * STEP,
        page_size: STEP,
        bitmap: bits.addr(),
    };
    assert_eq!(send_report(device, &report), Ok(0));
    let words = (0..STEPS as usize / 64).map(|word| bits.read_u64(8 * word));
    Ok(words.map(|word| u64::from(word.count_ones())).sum())
}

fn dirty_log_is_charged_to_process_that_started_it() -> Result<()> {
    let mdev = Mdev::with_new_uuid(Kind::Single)?;
    let (vgpu, _group, container) = open(&mdev)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    for step in 0..STEPS {
        container.map(step * STEP, &memory, MapFlags::ReadWrite)?;
    }
    let cgroup = Cgroup::new("beginner")?;
    let page_size = PAGE_SIZE as u64;
    let range = (0, STEPS * STEP);
    let started = cgroup.during(|| start(vgpu.device(), page_size, &[range]))?;
    assert_eq!(started, Ok(page_size));
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
