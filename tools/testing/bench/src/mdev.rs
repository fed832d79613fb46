// SPDX-License-Identifier: GPL-2.0

//! Mediated devices: the smallest Rust driver compared to the kernel's C samples, and the C samples
//! with the C and the Rust modules.

use crate::measure::{
    each,
    turns, //
};
use anyhow::{
    Context,
    Result, //
};
use std::{
    cell::RefCell,
    hint::black_box, //
};
use vfio_client::{
    PAGE_SIZE, RegionInfo,
    mdev::{
        Mdev,
        Open,
        new_uuid,
        type_folder, //
    },
    uapi::{
        VFIO_PCI_BAR0_REGION_INDEX,
        VFIO_PCI_CONFIG_REGION_INDEX, //
    },
};

/// A driver's type of device.
struct Sample {
    name: &'static str,
    /// A register region, and the offset of a register in it that can be read and written without
    /// side effects.
    registers: (u32, u64),
    /// A memory region.
    memory: u32,
}

/// A serial interface, which only has registers.
const MTTY: Sample = Sample {
    name: "mtty-1",
    registers: (VFIO_PCI_CONFIG_REGION_INDEX, INTERRUPT_LINE),
    memory: VFIO_PCI_BAR0_REGION_INDEX,
};
/// A display with a frame buffer.
const MDPY: Sample = Sample {
    name: "mdpy-vga",
    registers: (VFIO_PCI_CONFIG_REGION_INDEX, INTERRUPT_LINE),
    memory: VFIO_PCI_BAR0_REGION_INDEX,
};
/// A page of memory and a register.
const NULL: Sample = Sample {
    name: "mdev_null-page",
    registers: (1, 0),
    memory: 0,
};

/// The offset of a configuration register: all devices keep the value written to it.
const INTERRUPT_LINE: u64 = 0x3c;
const TIMES: u64 = 200;

/// Measures the sample drivers that are loaded. If [`NULL`] is loaded, it replaces the C samples in
/// the comparison.
pub fn measure() -> Result<()> {
    let or_null = |sample| if NULL.is_loaded() { &NULL } else { sample };
    come_and_go("smallest driver", or_null(&MTTY))?;
    registers("smallest driver", or_null(&MTTY))?;
    memory("driver with memory", or_null(&MDPY))?;
    for sample in [&MTTY, &MDPY] {
        come_and_go(sample.name, sample)?;
        registers(sample.name, sample)?;
    }
    memory(MDPY.name, &MDPY)
}

impl Sample {
    fn is_loaded(&self) -> bool {
        type_folder(self.name).exists()
    }

    /// Creates a device and opens it.
    fn open(&self) -> Result<(Mdev, Open)> {
        let mdev = Mdev::with_new_uuid(self.name)?;
        let open = mdev.open()?;
        Ok((mdev, open))
    }
}

/// Measures the cost of creating, opening, closing and removing a device.
fn come_and_go(title: &str, sample: &Sample) -> Result<()> {
    let uuid = new_uuid()?;
    let present = RefCell::new(None);
    turns(
        title,
        ["create", "remove"],
        20,
        || {
            *present.borrow_mut() = Some(Mdev::new(sample.name, &uuid)?);
            Ok(())
        },
        || {
            present.borrow_mut().take();
            Ok(())
        },
    )?;
    let mdev = Mdev::new(sample.name, &uuid)?;
    let (_container, group) = mdev.attach()?;
    each(&format!("{title}: GET_DEVICE_FD+close"), TIMES, || {
        drop(group.device(&uuid)?);
        Ok(())
    })
}

fn registers(title: &str, sample: &Sample) -> Result<()> {
    let (_mdev, open) = sample.open()?;
    let (index, offset) = sample.registers;
    let region = open.device.region(index)?;
    access(&format!("{title}: register"), &open, &region, offset, 4)
}

fn memory(title: &str, sample: &Sample) -> Result<()> {
    let (_mdev, open) = sample.open()?;
    let region = open.device.region(sample.memory)?;
    for size in [4, PAGE_SIZE] {
        access(&format!("{title}: memory"), &open, &region, 0, size)?;
    }
    each(
        &format!("{title}: map, write and unmap a page"),
        TIMES,
        || {
            let mapped = open.device.map_region(&region, 0, PAGE_SIZE)?;
            mapped.write_u32(0, 1);
            Ok(())
        },
    )
}

/// Measures reads and writes of `size` bytes.
fn access(title: &str, open: &Open, region: &RegionInfo, offset: u64, size: usize) -> Result<()> {
    let mut bytes = vec![0; size];
    each(&format!("{title}: pread {size} bytes"), TIMES, || {
        let read = open.device.read(region, offset, black_box(&mut bytes));
        read.context(title.to_owned())
    })?;
    each(&format!("{title}: pwrite {size} bytes"), TIMES, || {
        let written = open.device.write(region, offset, black_box(&bytes));
        written.context(title.to_owned())
    })
}
