// SPDX-License-Identifier: GPL-2.0

//! The memory map of the RFC of 2013, and a device that uses it.
//!
//! A guest has 256 MiB of memory at address 0, and its device needs three MSI banks. The aperture
//! therefore has 512 MiB in 8 windows: four windows map the memory, and the next three map the
//! banks. The program prints the map that the kernel reports, copies data through it and receives
//! the device's interrupt. It then lets the device violate the map in every possible way; the PAMU
//! must catch each violation.
//!
//! `--window` scales all sizes down. The memory consists of hugepages of at least the window size.

#![deny(unsafe_code)]

use anyhow::{
    Context,
    Result,
    bail,
    ensure, //
};
use clap::Parser;
use pamu_dma::{
    Engine,
    FIRST_LIODN,
    open, //
};
use std::time::Duration;
use vfio_client::{
    Interrupt,
    MapFlags,
    Memory,
    pamu::{
        Content,
        Pamu,
        Window, //
    }, //
};

/// The number of windows, and the number of windows that map memory.
const WINDOWS: u32 = 8;
const MEMORY: u32 = 4;

/// The window that is never mapped.
const HOLE: u64 = 7;

/// Uses a copy engine behind a PAMU, with the memory map of the RFC of 2013.
#[derive(Parser)]
struct Options {
    /// The size of a window in MiB, a power of two.
    #[arg(long, default_value_t = 64)]
    window: u64,
    /// The size of the hugepages in MiB, a power of two, at least that of a window.
    #[arg(long, default_value_t = 1024)]
    hugepage: u64,
}

fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(
        options.window.is_power_of_two() && options.hugepage.is_power_of_two(),
        "sizes are powers of two"
    );
    ensure!(
        options.window <= options.hugepage,
        "a window is one physical block: hugepages must be at least as large"
    );
    let window = options.window << 20;
    let order = (options.hugepage << 20).trailing_zeros();
    let memory = Memory::huge((u64::from(MEMORY) * window) as usize, order)
        .context("the guest's memory: are there hugepages?")?;

    let (pamu, engine) = open(0)?;
    set_up(&pamu, &memory, window)?;
    print_map(&pamu)?;
    copy(&engine, &memory, window)?;
    take_interrupt(&engine)?;
    step_outside(&pamu, &engine, &memory, window)?;
    println!("all is as it should be");
    Ok(())
}

/// Sets up the map.
fn set_up(pamu: &Pamu, memory: &Memory, window: u64) -> Result<()> {
    pamu.set_geometry(0, u64::from(WINDOWS) * window - 1)?;
    pamu.set_windows(WINDOWS)?;
    let size = (u64::from(MEMORY) * window) as usize;
    pamu.map_part(0, memory, 0, size, MapFlags::ReadWrite)?;
    let banks = pamu.bank_count()?;
    ensure!(
        banks < WINDOWS - MEMORY,
        "there are {banks} MSI banks, too many for this map"
    );
    for bank in 0..banks {
        let iova = u64::from(MEMORY + bank) * window;
        pamu.map_bank(bank, iova, MapFlags::Write)?;
    }
    Ok(())
}

/// Prints the map that the kernel reports.
fn print_map(pamu: &Pamu) -> Result<()> {
    let (start, end) = pamu.geometry()?;
    println!(
        "aperture {start:#x} to {end:#x}, {} windows",
        pamu.windows()?
    );
    println!("window        iova        physical      size  content");
    for window in pamu.all_windows()? {
        print_window(&window);
    }
    Ok(())
}

fn print_window(window: &Window) {
    let content = match window.content {
        Content::Free => "-".to_owned(),
        Content::Memory => "memory".to_owned(),
        Content::Bank(bank) => format!("MSI bank {bank}"),
    };
    println!(
        "{:6}  {:#010x}  {:#014x}  {:>8}  {content}",
        window.number,
        window.iova,
        window.phys,
        size(window.size),
    );
}

/// Formats a size.
fn size(bytes: u64) -> String {
    match bytes {
        0 => "-".to_owned(),
        bytes if bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
        bytes => format!("{} KiB", bytes >> 10),
    }
}

/// Makes the device copy data from each memory window to the next.
fn copy(engine: &Engine, memory: &Memory, window: u64) -> Result<()> {
    const LENGTH: usize = 64 << 10;
    for offset in (0..LENGTH).step_by(8) {
        memory.write_u64(offset, 0x0123_4567_89ab_cdef ^ offset as u64);
    }
    for from in 0..u64::from(MEMORY) - 1 {
        engine
            .copy(from * window, (from + 1) * window, LENGTH as u32)?
            .context("the copy failed")?;
    }
    let last = (u64::from(MEMORY - 1) * window) as usize;
    ensure!(
        memory.to_vec(0, LENGTH) == memory.to_vec(last, LENGTH),
        "what was copied differs"
    );
    println!("copied {LENGTH} bytes through {MEMORY} windows");
    Ok(())
}

/// Makes the device raise its interrupt.
fn take_interrupt(engine: &Engine) -> Result<()> {
    let interrupt = Interrupt::new()?;
    engine.enable_interrupt(&interrupt)?;
    engine
        .interrupt()?
        .context("the device could not write to the doorbell")?;
    let count = interrupt.wait(Duration::from_secs(1))?;
    ensure!(count == 1, "{count} interrupts came instead of one");
    println!(
        "got an interrupt by a write to {:#x}",
        engine.msi_address()?
    );
    engine.disable_interrupt()?;
    Ok(())
}

/// Makes the device violate the map in every possible way.
fn step_outside(pamu: &Pamu, engine: &Engine, memory: &Memory, window: u64) -> Result<()> {
    let last = u64::from(MEMORY - 1);
    caught(pamu, engine, "hole", HOLE * window)?;

    pamu.unmap(last * window, window)?;
    caught(pamu, engine, "window that is off", last * window)?;

    // Maps a quarter of the window, read-only.
    let quarter = window / 4;
    let offset = (last * window) as usize;
    pamu.map_part(
        last * window,
        memory,
        offset,
        quarter as usize,
        MapFlags::Read,
    )?;
    caught(
        pamu,
        engine,
        "behind a part of a window",
        last * window + quarter,
    )?;
    caught_write(pamu, engine, "write to a read-only window", last * window)?;

    engine.pretend(FIRST_LIODN + 1)?;
    let foreign = engine.read(0)?;
    ensure!(foreign.is_err(), "a foreign LIODN got in");
    println!("caught: foreign LIODN");
    engine.device().reset()?;
    engine.read(0)?.context("the device can't go on")?;
    Ok(())
}

/// Checks that the device cannot read at `iova`.
fn caught(pamu: &Pamu, engine: &Engine, what: &str, iova: u64) -> Result<()> {
    ensure!(engine.read(iova)?.is_err(), "{what}: {iova:#x} was read");
    shut_off(pamu, engine, what, iova)
}

/// Checks that the device cannot write at `iova`.
fn caught_write(pamu: &Pamu, engine: &Engine, what: &str, iova: u64) -> Result<()> {
    ensure!(
        engine.write(iova, 0)?.is_err(),
        "{what}: {iova:#x} was written"
    );
    shut_off(pamu, engine, what, iova)
}

/// Checks that the device was shut off because of an access at `iova`, then revives it.
fn shut_off(pamu: &Pamu, engine: &Engine, what: &str, iova: u64) -> Result<()> {
    let Some(violation) = pamu.violation(0)? else {
        bail!("{what}: no violation is reported");
    };
    ensure!(
        violation.iova == iova && violation.liodn == FIRST_LIODN,
        "{what}: another violation is reported: {violation:?}"
    );
    ensure!(
        engine.read(0)?.is_err(),
        "{what}: the device was not shut off"
    );
    pamu.revive(violation.liodn)?;
    engine
        .read(0)?
        .with_context(|| format!("{what}: the device was not revived"))?;
    println!("caught: {what} (AVS1 {:#010x})", violation.status);
    Ok(())
}
