// SPDX-License-Identifier: GPL-2.0

//! Checks of DMA with QEMU's `edu` device, see `docs/specs/edu.rst` in QEMU.

use crate::{
    memory::Filled,
    request::{
        Attached,
        Request, //
    },
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use vfio_client::{
    Device,
    Memory,
    PAGE_SIZE,
    edu::Edu, //
};

const PAGE: u64 = PAGE_SIZE as u64;
/// The IOVA of the memory to check, and the IOVA of two pages for comparison.
const IOVA: u64 = 1 << 32;
const OURS: u64 = 0x10_0000;

/// Copies a page through the buffer of the device.
fn copy(edu: &Edu, from: u64, to: u64) -> vfio_client::Result {
    edu.load(from, PAGE)?;
    edu.store(to, PAGE)
}

/// Makes the device copy random numbers to the first and the last page of `size` bytes of memory,
/// and back. Fails unless they arrive in both directions.
pub fn check(name: &str, memory: &Filled, size: u64) -> Result<()> {
    let attached = Attached::new(name)?;
    let device = attached.group.device(name)?;
    check_mapped(&device, memory, size, |addr, iova, size| {
        Request::map(addr, iova, size)?.send(&attached.container)?;
        Ok(())
    })?;
    Request::unmap(IOVA, size)?
        .send_unmap(&attached.container, size)
        .context("unmap after DMA")
}

/// Makes an open device copy through the mappings that `map` makes, of memory at the address, the
/// IOVA and of the size that it gets. They remain.
pub fn check_mapped(
    device: &Device,
    memory: &Filled,
    size: u64,
    mut map: impl FnMut(u64, u64, u64) -> Result<()>,
) -> Result<()> {
    let edu = Edu::new(device)?;
    let ours = Memory::anonymous(2 * PAGE_SIZE)?;
    map(ours.addr(), OURS, 2 * PAGE)?;
    map(memory.addr, IOVA, size)?;
    for at in [0, size - PAGE] {
        for word in (0..PAGE_SIZE).step_by(8) {
            ours.write_u64(word, fastrand::u64(1..));
        }
        copy(&edu, OURS, IOVA + at)?;
        copy(&edu, IOVA + at, OURS + PAGE)?;
        let sent = ours.to_vec(0, PAGE_SIZE);
        ensure!(memory.page(at)? == sent, "at {at:#x} is something else");
        let back = ours.to_vec(PAGE_SIZE, PAGE_SIZE);
        ensure!(back == sent, "something else came from {at:#x}");
    }
    Ok(())
}
