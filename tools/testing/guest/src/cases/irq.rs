// SPDX-License-Identifier: GPL-2.0

//! Interrupts through eventfds.

use crate::{
    env::{
        NVME,
        Setup, //
    },
    harness::{
        Failure,
        cases, //
    },
    stall::LIMIT, //
};
use anyhow::Result;
use std::{
    os::fd::{
        AsFd,
        AsRawFd, //
    },
    time::Duration,
};
use vfio_client::{
    Bytes,
    Device,
    Errno,
    Interrupt,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    edu::Edu,
    raw,
    request, //
};

cases! {
    irq_info,
    irq_info_sizes,
    msi_from_device,
    msi_after_dma,
    msi_enable_disable,
    msi_from_user,
    msi_bad_eventfd,
    intx_masks_itself,
    q4_intx_unmask_by_eventfd,
    msix_vectors,
    d23_set_irqs_arguments,
    closing_turns_interrupts_off,
}

const INTX: u32 = 0;
const MSI: u32 = 1;
const MSIX: u32 = 2;
const REQ: u32 = 4;

const NONE: u32 = 1;
const BOOL: u32 = 2;
const EVENTFD: u32 = 4;
const MASK: u32 = 8;
const UNMASK: u32 = 16;
const TRIGGER: u32 = 32;

const NEVER: Duration = Duration::from_millis(60);

fn request(flags: u32, index: u32, start: u32, count: u32, data: &[u8]) -> Bytes {
    Bytes::new()
        .u32(20 + data.len() as u32)
        .u32(flags)
        .u32(index)
        .u32(start)
        .u32(count)
        .raw(data)
}

fn set(
    device: &Device,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
    data: &[u8],
) -> Result<i32, Errno> {
    let mut bytes = request(flags, index, start, count, data);
    let before = bytes.clone();
    let answer = raw::bytes(device, request::DEVICE_SET_IRQS, &mut bytes);
    assert_eq!(bytes, before, "SET_IRQS only reads");
    answer
}

fn irq_info() -> Result<()> {
    let setup = Setup::new()?;
    for (index, flags, count) in [(INTX, 7, 1), (MSI, 9, 1), (REQ, 9, 1)] {
        let info = setup.device.irq(index)?;
        assert_eq!((info.flags, info.count), (flags, count), "index {index}");
    }
    assert_eq!(setup.device.irq(MSIX)?.count, 0);
    assert_eq!(setup.device.irq(5).errno(), Errno::EINVAL);
    assert_eq!(setup.device.irq(u32::MAX).errno(), Errno::EINVAL);
    Ok(())
}

fn irq_info_sizes() -> Result<()> {
    let setup = Setup::new()?;
    let get = |bytes: &mut Bytes| raw::bytes(&setup.device, request::DEVICE_GET_IRQ_INFO, bytes);
    for short in [0, 8, 15] {
        let mut bytes = Bytes::new().u32(short).fill(0xaa, 12);
        assert_eq!(get(&mut bytes), Err(Errno::EINVAL));
        assert_eq!(bytes, Bytes::new().u32(short).fill(0xaa, 12));
    }
    let mut bytes = Bytes::new().u32(99).u32(0).u32(MSI).u32(0).fill(0xaa, 16);
    assert_eq!(get(&mut bytes), Ok(0));
    assert_eq!(
        bytes,
        Bytes::new().u32(99).u32(9).u32(MSI).u32(1).fill(0xaa, 16)
    );
    Ok(())
}

fn msi_from_device() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let interrupt = Interrupt::new()?;
    setup.device.enable_irqs(MSI, &[&interrupt])?;
    for round in 1..=3 {
        edu.raise(round);
        assert_eq!(interrupt.wait(LIMIT)?, 1, "round {round}");
        assert_eq!(edu.acknowledge(), round);
    }
    assert_eq!(interrupt.wait(NEVER)?, 0);
    setup.device.disable_irqs(MSI)?;
    Ok(())
}

fn msi_after_dma() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let interrupt = Interrupt::new()?;
    setup.device.enable_irqs(MSI, &[&interrupt])?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    setup.container.map(0x1000, &memory, MapFlags::ReadWrite)?;
    edu.start_store_irq(0x1000, 64);
    assert_eq!(interrupt.wait(LIMIT)?, 1);
    assert_eq!(edu.acknowledge(), 0x100);
    Ok(())
}

fn msi_enable_disable() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    for _ in 0..3 {
        let (first, second) = (Interrupt::new()?, Interrupt::new()?);
        setup.device.enable_irqs(MSI, &[&first])?;
        // The second eventfd replaces the first.
        setup.device.enable_irqs(MSI, &[&second])?;
        edu.raise(1);
        assert_eq!(second.wait(LIMIT)?, 1);
        assert_eq!(first.take()?, 0);
        edu.acknowledge();
        setup.device.disable_irqs(MSI)?;
        setup.device.disable_irqs(MSI).err();
    }
    Ok(())
}

fn msi_from_user() -> Result<()> {
    let setup = Setup::new()?;
    let interrupt = Interrupt::new()?;
    setup.device.enable_irqs(MSI, &[&interrupt])?;
    assert_eq!(set(&setup.device, NONE | TRIGGER, MSI, 0, 1, &[]), Ok(0));
    assert_eq!(interrupt.take()?, 1);
    assert_eq!(set(&setup.device, BOOL | TRIGGER, MSI, 0, 1, &[1]), Ok(0));
    assert_eq!(interrupt.take()?, 1);
    assert_eq!(set(&setup.device, BOOL | TRIGGER, MSI, 0, 1, &[0]), Ok(0));
    assert_eq!(interrupt.take()?, 0);
    // -1 removes the eventfd.
    let minus = (-1i32).to_ne_bytes();
    assert_eq!(
        set(&setup.device, EVENTFD | TRIGGER, MSI, 0, 1, &minus),
        Ok(0)
    );
    assert_eq!(set(&setup.device, NONE | TRIGGER, MSI, 0, 1, &[]), Ok(0));
    assert_eq!(interrupt.take()?, 0);
    Ok(())
}

fn msi_bad_eventfd() -> Result<()> {
    let setup = Setup::new()?;
    let bad = 9999i32.to_ne_bytes();
    let group = setup.group.as_fd().as_raw_fd().to_ne_bytes();
    for (fd, errno) in [(bad, Errno::EBADF), (group, Errno::EINVAL)] {
        for index in [MSI, INTX, REQ] {
            assert_eq!(
                set(&setup.device, EVENTFD | TRIGGER, index, 0, 1, &fd),
                Err(errno),
                "index {index}"
            );
        }
    }
    let interrupt = Interrupt::new()?;
    setup.device.enable_irqs(MSI, &[&interrupt])?;
    Ok(())
}

fn intx_masks_itself() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let interrupt = Interrupt::new()?;
    setup.device.enable_irqs(INTX, &[&interrupt])?;
    edu.raise(1);
    assert_eq!(interrupt.wait(LIMIT)?, 1);
    // The line is still asserted, but masked.
    assert_eq!(interrupt.wait(NEVER)?, 0);
    assert_eq!(set(&setup.device, NONE | UNMASK, INTX, 0, 1, &[]), Ok(0));
    assert_eq!(interrupt.wait(LIMIT)?, 1, "the line is still up");
    edu.acknowledge();
    assert_eq!(set(&setup.device, NONE | UNMASK, INTX, 0, 1, &[]), Ok(0));
    assert_eq!(interrupt.wait(NEVER)?, 0);
    assert_eq!(set(&setup.device, NONE | MASK, INTX, 0, 1, &[]), Ok(0));
    edu.raise(1);
    assert_eq!(interrupt.wait(NEVER)?, 0, "masked");
    edu.acknowledge();
    setup.device.disable_irqs(INTX)?;
    Ok(())
}

fn q4_intx_unmask_by_eventfd() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let (interrupt, unmask) = (Interrupt::new()?, Interrupt::new()?);
    setup.device.enable_irqs(INTX, &[&interrupt])?;
    let fd = unmask.number().to_ne_bytes();
    let arm = || set(&setup.device, EVENTFD | UNMASK, INTX, 0, 1, &fd);
    assert_eq!(arm(), Ok(0));
    assert_eq!(arm(), Err(Errno::EBUSY), "one at a time");
    edu.raise(1);
    assert_eq!(interrupt.wait(LIMIT)?, 1);
    unmask.signal()?;
    assert_eq!(interrupt.wait(LIMIT)?, 1, "unmasked, and the line is up");
    edu.acknowledge();
    unmask.signal()?;
    assert_eq!(interrupt.wait(NEVER)?, 0);
    // The last close of the eventfd disarms it.
    drop(unmask);
    setup.device.disable_irqs(INTX)?;
    Ok(())
}

fn msix_vectors() -> Result<()> {
    let setup = Setup::with(NVME, Iommu::Type1v2)?;
    let count = setup.device.irq(MSIX)?.count;
    assert!(count >= 2, "{count} vectors");
    let (first, second) = (Interrupt::new()?, Interrupt::new()?);
    setup.device.enable_irqs(MSIX, &[&first, &second])?;
    assert_eq!(set(&setup.device, NONE | TRIGGER, MSIX, 1, 1, &[]), Ok(0));
    assert_eq!((first.take()?, second.take()?), (0, 1));
    assert_eq!(
        set(&setup.device, NONE | TRIGGER, MSIX, count, 1, &[]),
        Err(Errno::EINVAL)
    );
    setup.device.disable_irqs(MSIX)?;
    Ok(())
}

fn d23_set_irqs_arguments() -> Result<()> {
    let setup = Setup::new()?;
    let device = &setup.device;
    let mut short = request(NONE | TRIGGER, MSI, 0, 0, &[]);
    short.as_mut()[0] = 19;
    assert_eq!(
        raw::bytes(device, request::DEVICE_SET_IRQS, &mut short),
        Err(Errno::EINVAL)
    );
    let eight = [0; 8];
    for (what, flags, index, start, count, data) in [
        ("index", NONE | TRIGGER, 5, 0, 0, &eight[..0]),
        ("huge index", NONE | TRIGGER, u32::MAX, 0, 0, &eight[..0]),
        ("flag", NONE | TRIGGER | 64, MSI, 0, 1, &eight[..0]),
        (
            "high flag",
            NONE | TRIGGER | (1 << 31),
            MSI,
            0,
            1,
            &eight[..0],
        ),
        ("start", NONE | TRIGGER, MSI, 1, 1, &eight[..0]),
        ("count", NONE | TRIGGER, MSI, 0, 2, &eight[..0]),
        ("sum wraps", NONE | TRIGGER, MSI, 1, u32::MAX, &eight[..0]),
        ("sum is max", NONE | TRIGGER, MSI, 0, u32::MAX, &eight[..0]),
        ("no type of data", TRIGGER, MSI, 0, 1, &eight[..0]),
        ("two types", NONE | BOOL | TRIGGER, MSI, 0, 1, &eight[..1]),
        ("no bool", BOOL | TRIGGER, MSI, 0, 1, &eight[..0]),
        ("half an eventfd", EVENTFD | TRIGGER, MSI, 0, 1, &eight[..3]),
        (
            "MSI-X that is not there",
            EVENTFD | TRIGGER,
            MSIX,
            0,
            1,
            &eight[..4],
        ),
        ("trigger while off", NONE | TRIGGER, MSI, 0, 1, &eight[..0]),
    ] {
        assert_eq!(
            set(device, flags, index, start, count, data),
            Err(Errno::EINVAL),
            "{what}"
        );
    }
    for (what, flags, index) in [
        ("MSI can't be masked", NONE | MASK, MSI),
        ("no action", NONE, MSI),
        ("REQ can't be masked", NONE | MASK, REQ),
        ("two actions", NONE | MASK | TRIGGER, INTX),
    ] {
        assert_eq!(
            set(device, flags, index, 0, 1, &[]),
            Err(Errno::ENOTTY),
            "{what}"
        );
    }
    Ok(())
}

fn closing_turns_interrupts_off() -> Result<()> {
    let interrupt = Interrupt::new()?;
    let setup = Setup::new()?;
    setup.device.enable_irqs(MSI, &[&interrupt])?;
    drop(setup);
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    edu.raise(1);
    assert_eq!(interrupt.wait(NEVER)?, 0);
    edu.acknowledge();
    // The new user can enable another type of interrupt.
    setup.device.enable_irqs(INTX, &[&interrupt])?;
    Ok(())
}
