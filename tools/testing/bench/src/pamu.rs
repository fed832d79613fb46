// SPDX-License-Identifier: GPL-2.0

//! Windows behind a software PAMU, compared to the same memory in page tables.
//!
//! The figures are the cost per window of a request for several windows, and the cost of one window
//! while many others are mapped.

use crate::{
    measure::{
        print,
        samples,
        time, //
    },
    request::{
        Attached,
        Request, //
    },
};
use anyhow::Result;
use pamu_dma::open;
use std::os::fd::AsFd;
use vfio_client::{
    MapFlags,
    Memory,
    pamu::Pamu, //
};

/// The numbers of windows per request.
const COUNTS: [u32; 5] = [1, 4, 16, 64, 256];

/// The window sizes: a page and a hugepage.
const SIZES: [(&str, u64); 2] = [("4 KiB", 4096), ("2 MiB", 2 << 20)];

const HUGE_ORDER: u32 = 21;
const REPETITIONS: usize = 3;

/// Measures with the first PAMU engine, and with the group of `device`.
pub fn measure(device: &str) -> Result<()> {
    for (name, size) in SIZES {
        for count in COUNTS {
            let memory = Memory::huge((u64::from(count) * size) as usize, HUGE_ORDER)?;
            {
                let (pamu, _engine) = open(0)?;
                divide(&pamu, count, size)?;
                let container = pamu.container();
                several(
                    &format!("pamu {name} of {count}"),
                    container,
                    &memory,
                    count,
                    size,
                )?;
            }
            let attached = Attached::new(device)?;
            let container = &attached.container;
            several(
                &format!("type1 {name} of {count}"),
                container,
                &memory,
                count,
                size,
            )?;
        }
    }
    one_among_many()?;
    access()
}

fn divide(pamu: &Pamu, count: u32, size: u64) -> Result<()> {
    pamu.set_geometry(0, u64::from(count) * size - 1)?;
    Ok(pamu.set_windows(count)?)
}

/// Maps `count` windows by one request, and unmaps them by another.
fn several(name: &str, container: impl AsFd, memory: &Memory, count: u32, size: u64) -> Result<()> {
    let all = u64::from(count) * size;
    let mut map = Request::map(memory.addr(), 0, all)?;
    let mut unmap = Request::unmap(0, all)?;
    let times = u64::from(256 / count).min(16);
    let [map_costs, unmap_costs] = samples(REPETITIONS, || {
        let mut sums = [0; 2];
        for _ in 0..times {
            sums[0] += time(|| map.send(&container).map(drop))?;
            sums[1] += time(|| unmap.send_unmap(&container, all))?;
        }
        Ok(sums.map(|sum| sum / times / u64::from(count)))
    })?;
    print(&format!("{name}: map"), &map_costs);
    print(&format!("{name}: unmap"), &unmap_costs);
    Ok(())
}

/// Maps and unmaps the last window while all others are mapped.
fn one_among_many() -> Result<()> {
    const PAGE: u64 = 4096;
    let memory = Memory::anonymous(256 * PAGE as usize)?;
    for count in COUNTS {
        let (pamu, _engine) = open(0)?;
        divide(&pamu, count, PAGE)?;
        let last = u64::from(count - 1) * PAGE;
        if last != 0 {
            pamu.map_part(0, &memory, 0, last as usize, MapFlags::ReadWrite)?;
        }
        let mut map = Request::map(memory.addr() + last, last, PAGE)?;
        let mut unmap = Request::unmap(last, PAGE)?;
        let [map_costs, unmap_costs] = samples(REPETITIONS, || {
            let mut sums = [0; 2];
            for _ in 0..16 {
                sums[0] += time(|| map.send(pamu.container()).map(drop))?;
                sums[1] += time(|| unmap.send_unmap(pamu.container(), PAGE))?;
            }
            Ok(sums.map(|sum| sum / 16))
        })?;
        print(&format!("pamu last of {count}: map"), &map_costs);
        print(&format!("pamu last of {count}: unmap"), &unmap_costs);
    }
    Ok(())
}

/// Makes the engine read eight bytes in the last window.
fn access() -> Result<()> {
    const PAGE: u64 = 4096;
    let memory = Memory::anonymous(256 * PAGE as usize)?;
    for count in COUNTS {
        let (pamu, engine) = open(0)?;
        divide(&pamu, count, PAGE)?;
        let all = u64::from(count) * PAGE;
        pamu.map_part(0, &memory, 0, all as usize, MapFlags::Read)?;
        let [costs] = samples(REPETITIONS, || {
            let all = time(|| {
                for _ in 0..32 {
                    engine.read(all - PAGE)??;
                }
                Ok(())
            })?;
            Ok([all / 32])
        })?;
        print(&format!("pamu read by a device, last of {count}"), &costs);
    }
    Ok(())
}
