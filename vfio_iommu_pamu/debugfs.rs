// SPDX-License-Identifier: GPL-2.0

//! Files for troubleshooting in debugfs, below `vfio_iommu_pamu`.

use kernel::{
    fmt,
    prelude::*, //
};
use kernel_ext::debugfs::{
    Contents,
    Dir,
    File, //
};

use crate::{
    paace::{
        Block,
        Ppaace,
        Spaace,
        Windows, //
    },
    registers::Register,
    system::{
        System,
        SystemRef, //
    }, //
};

/// The debugfs files. Dropping this removes them.
pub(crate) struct Debugfs {
    _liodns: File<Liodns>,
    _registers: File<Registers>,
    _violations: File<Violations>,
}

impl Debugfs {
    /// Creates the files.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        let dir = Dir::new(c"vfio_iommu_pamu")?;
        Ok(Self {
            _liodns: dir.file(c"liodns", ()),
            _registers: dir.file(c"registers", ()),
            _violations: dir.file(c"violations", ()),
        })
    }
}

/// The LIODNs that have an aperture, with the targets of their windows.
struct Liodns;

#[vtable]
impl Contents for Liodns {
    type OwnerModule = crate::LocalModule;
    type Data = ();

    fn show((): (), f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(system) = SystemRef::get() else {
            return Ok(());
        };
        let (free, all) = (
            system.tables().free_spaaces(),
            system.tables().sizes().spaaces,
        );
        f.write_fmt(fmt!("secondary entries: {free} of {all} are free\n"))?;
        for liodn in 0..system.liodns() {
            let words = system.tables().ppaace(liodn).map(|slot| slot.words());
            match words.map(|words| Ppaace::decode(&words)) {
                Some(Ok(entry)) if entry.aperture.is_some() => show(f, &system, liodn, &entry)?,
                Some(Err(_)) => f.write_fmt(fmt!("LIODN {liodn}: update in progress\n"))?,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Shows a LIODN and its windows.
fn show(f: &mut fmt::Formatter<'_>, system: &System, liodn: u32, entry: &Ppaace) -> fmt::Result {
    let Some(aperture) = entry.aperture else {
        return Ok(());
    };
    f.write_fmt(fmt!(
        "LIODN {liodn}: {}, {:#x}-{:#x}, windows: {}, stash: {}\n",
        if entry.valid { "on" } else { "off" },
        aperture.start(),
        aperture.last(),
        entry.windows.count(),
        entry.attributes.stash.map_or(0, |stash| stash.0.get())
    ))?;
    let window = aperture.window_size(entry.windows).unwrap_or(0);
    let first = Block {
        size: match entry.windows {
            Windows::ONE => aperture.size(),
            _ => entry.block.size,
        },
        ..entry.block
    };
    show_window(f, 0, aperture.start(), &first)?;
    for index in 1..entry.windows.count() {
        let slot = system.tables().spaace(entry.first_spaace + index - 1);
        let Some(Ok(entry)) = slot.map(|slot| Spaace::decode(&slot.words(), window)) else {
            continue;
        };
        if entry.valid {
            show_window(
                f,
                index,
                aperture.start() + window * u64::from(index),
                &entry.block,
            )?;
        }
    }
    Ok(())
}

/// Shows a window, if it gives any access.
fn show_window(f: &mut fmt::Formatter<'_>, index: u32, iova: u64, block: &Block) -> fmt::Result {
    let access = ["", "r", "w", "rw"][block.access as usize];
    if access.is_empty() {
        return Ok(());
    }
    f.write_fmt(fmt!(
        "  {index:3}: {iova:#x} -> {:#x}, {:#x} bytes, {access}\n",
        block.phys,
        block.size
    ))
}

/// The registers of all PAMUs.
struct Registers;

#[vtable]
impl Contents for Registers {
    type OwnerModule = crate::LocalModule;
    type Data = ();

    fn show((): (), f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(system) = SystemRef::get() else {
            return Ok(());
        };
        for (number, pamu) in system.pamus().iter().enumerate() {
            for (register, name) in Register::ALL {
                let offset = *register as u16;
                let value = pamu.read(*register);
                f.write_fmt(fmt!("{number} {offset:03x} {name:7} {value:08x}\n"))?;
            }
        }
        Ok(())
    }
}

/// The number of violations, and the last ones, oldest first.
struct Violations;

#[vtable]
impl Contents for Violations {
    type OwnerModule = crate::LocalModule;
    type Data = ();

    fn show((): (), f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(system) = SystemRef::get() else {
            return Ok(());
        };
        let history = system.history().lock();
        f.write_fmt(fmt!("{} in all\n", history.count()))?;
        for violation in history.iter() {
            f.write_fmt(fmt!("{violation}\n"))?;
        }
        Ok(())
    }
}
