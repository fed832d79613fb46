// SPDX-License-Identifier: GPL-2.0

//! Tests of the tables and LIODNs of `vfio_iommu_pamu` with software PAMUs, which interpret what
//! the driver stored in memory.

mod concurrency;
mod violations;
mod windows;

use kernel::{
    prelude::*,
    sync::{
        atomic::Relaxed,
        Arc, //
    }, //
};

use kernel_ext::iommu_driver::GroupType;

use vfio_iommu_pamu::{
    liodn::Liodn,
    paace::{
        Aperture,
        Attributes, //
    },
    system::Settings,
    tables::{
        ContiguousPages,
        TableSizes,
        Tables, //
    },
    violation::Cause, //
};

use crate::{
    abi::{
        block_of,
        open, //
    },
    bus_master::{
        BusMaster,
        Denied, //
    },
    machine::Machine, //
};

pub(crate) fn tables() -> Result<Arc<Tables>> {
    Tables::new(TableSizes {
        liodns: 64,
        spaaces: 600,
    })
}

/// Returns a machine with two PAMUs and two banks.
pub(crate) fn machine() -> Result<Arc<Machine>> {
    machine_with(tables()?)
}

/// Returns such a machine with these tables.
fn machine_with(tables: Arc<Tables>) -> Result<Arc<Machine>> {
    let settings = Settings {
        max_windows: 256,
        // An open LIODN, as for a device that a kernel driver uses.
        open_liodns: open(&[5]),
        groups: GroupType::Emulated,
    };
    Machine::new(tables, 2, 2, settings)
}

/// Returns a LIODN whose aperture begins at 1 GiB and has windows of 64 KiB.
fn liodn(machine: &Machine, number: u32, windows: u32) -> Result<Liodn> {
    let mut liodn = machine.system().claim(number, None)?;
    let aperture = Aperture::of_size(BASE, u64::from(windows) * SIZE)?;
    liodn.configure(aperture, liodn.prepare(windows)?, Attributes::default())?;
    Ok(liodn)
}

const BASE: u64 = 1 << 30;
const SIZE: u64 = 1 << 16;

/// Returns a block of the size of a window, filled with `fill`.
fn memory(fill: u32) -> Result<ContiguousPages> {
    let memory = ContiguousPages::new(4)?;
    for word in memory.words() {
        word.store(fill, Relaxed);
    }
    Ok(memory)
}

/// Reads a word at `address` as a device. Returns the word, or the cause of the violation.
fn peek(machine: &Arc<Machine>, liodn: u16, address: u64) -> Result<u32, Cause> {
    let mut data = [0; 4];
    let master = BusMaster::on(machine.clone(), liodn);
    master.read(address, &mut data).map_err(cause)?;
    Ok(u32::from_ne_bytes(data))
}

/// Writes a word at `address` as a device.
fn poke(machine: &Arc<Machine>, liodn: u16, address: u64, word: u32) -> Result<(), Cause> {
    let master = BusMaster::on(machine.clone(), liodn);
    master.write(address, &word.to_ne_bytes()).map_err(cause)
}

fn cause(denied: Denied) -> Cause {
    match denied {
        Denied::Violation { status, .. } => Cause::of(status),
        Denied::NoMemory { .. } => Cause::Unknown,
    }
}
