// SPDX-License-Identifier: GPL-2.0

//! Interrupts through eventfds.

use crate::{
    env::{
        EDU,
        NVME,
        Setup,
        msi_window, //
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
    time::Duration, //
};
use support::{
    PAGE,
    requests::SetIrqs, //
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
    get_irq_info,
    get_irq_info_argsz,
    msi_from_device,
    msi_after_dma,
    #[rows("T-G6")] #[requires(msi_through_page_tables)] msi_window_is_mapped_in_software,
    msi_enable_disable,
    msi_from_user,
    msi_bad_eventfd,
    intx_masks_itself,
    #[rows("Q4")] intx_unmask_by_eventfd,
    msix_vectors,
    #[rows("D23")] set_irqs_arguments,
    close_disables_interrupts,
}

const INTX: u32 = 0;
const MSI: u32 = 1;
const MSIX: u32 = 2;
const REQ: u32 = 4;

pub(super) const NONE: u32 = SetIrqs::NONE;
pub(super) const BOOL: u32 = SetIrqs::BOOL;
pub(super) const EVENTFD: u32 = SetIrqs::EVENTFD;
pub(super) const MASK: u32 = SetIrqs::MASK;
pub(super) const UNMASK: u32 = SetIrqs::UNMASK;
pub(super) const TRIGGER: u32 = SetIrqs::TRIGGER;

const NEVER: Duration = Duration::from_millis(60);

/// Sends SET_IRQS for the first interrupt of an index.
pub(super) fn set(device: &Device, index: u32, flags: u32, data: &[u8]) -> Result<i32, Errno> {
    let request = SetIrqs {
        flags,
        index,
        data,
        ..SetIrqs::default()
    };
    request.send(device)
}

fn get_irq_info() -> Result<()> {
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

fn get_irq_info_argsz() -> Result<()> {
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
    setup.container.map(PAGE, &memory, MapFlags::ReadWrite)?;
    edu.start_store_irq(PAGE, 64);
    assert_eq!(interrupt.wait(LIMIT)?, 1);
    assert_eq!(edu.acknowledge(), 0x100);
    Ok(())
}

/// An SMMU translates the writes that are interrupts like any other: the kernel maps the register of
/// the interrupt controller into the window, whatever the user maps and unmaps.
fn msi_window_is_mapped_in_software() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let interrupt = Interrupt::new()?;
    let window = msi_window(EDU)?;
    let size = window.end - window.start + 1;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    let container = &setup.container;
    let arrives = |when: &str| -> Result<()> {
        edu.raise(1);
        assert_eq!(interrupt.wait(LIMIT)?, 1, "{when}");
        edu.acknowledge();
        Ok(())
    };
    setup.device.enable_irqs(MSI, &[&interrupt])?;
    arrives("nothing is mapped")?;
    for iova in [window.start - PAGE, window.end + 1] {
        container.map(iova, &memory, MapFlags::ReadWrite)?;
    }
    for iova in [window.start, window.end - PAGE + 1] {
        let answer = container.map(iova, &memory, MapFlags::ReadWrite);
        assert_eq!(answer.errno(), Errno::EINVAL, "{iova:#x}");
    }
    arrives("memory is mapped around the window")?;
    assert_eq!(container.unmap(window.start, size)?, 0);
    arrives("the window was unmapped")?;
    assert_eq!(container.unmap_all()?, 2 * PAGE);
    arrives("everything was unmapped")?;
    setup.device.disable_irqs(MSI)?;
    setup.device.enable_irqs(MSI, &[&interrupt])?;
    arrives("the interrupt was enabled again")
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
    assert_eq!(set(&setup.device, MSI, NONE | TRIGGER, &[]), Ok(0));
    assert_eq!(interrupt.take()?, 1);
    assert_eq!(set(&setup.device, MSI, BOOL | TRIGGER, &[1]), Ok(0));
    assert_eq!(interrupt.take()?, 1);
    assert_eq!(set(&setup.device, MSI, BOOL | TRIGGER, &[0]), Ok(0));
    assert_eq!(interrupt.take()?, 0);
    // -1 removes the eventfd.
    let minus = (-1i32).to_ne_bytes();
    assert_eq!(set(&setup.device, MSI, EVENTFD | TRIGGER, &minus), Ok(0));
    assert_eq!(set(&setup.device, MSI, NONE | TRIGGER, &[]), Ok(0));
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
                set(&setup.device, index, EVENTFD | TRIGGER, &fd),
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
    assert_eq!(set(&setup.device, INTX, NONE | UNMASK, &[]), Ok(0));
    assert_eq!(interrupt.wait(LIMIT)?, 1, "the line is still asserted");
    edu.acknowledge();
    assert_eq!(set(&setup.device, INTX, NONE | UNMASK, &[]), Ok(0));
    assert_eq!(interrupt.wait(NEVER)?, 0);
    assert_eq!(set(&setup.device, INTX, NONE | MASK, &[]), Ok(0));
    edu.raise(1);
    assert_eq!(interrupt.wait(NEVER)?, 0, "masked");
    edu.acknowledge();
    setup.device.disable_irqs(INTX)?;
    Ok(())
}

fn intx_unmask_by_eventfd() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let (interrupt, unmask) = (Interrupt::new()?, Interrupt::new()?);
    setup.device.enable_irqs(INTX, &[&interrupt])?;
    let fd = unmask.number().to_ne_bytes();
    let arm = || set(&setup.device, INTX, EVENTFD | UNMASK, &fd);
    assert_eq!(arm(), Ok(0));
    assert_eq!(arm(), Err(Errno::EBUSY), "an unmask eventfd is set already");
    edu.raise(1);
    assert_eq!(interrupt.wait(LIMIT)?, 1);
    unmask.signal()?;
    assert_eq!(
        interrupt.wait(LIMIT)?,
        1,
        "unmasked, and the line is asserted"
    );
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
    assert!(count >= 2, "expected at least 2 vectors, got {count}");
    let (first, second) = (Interrupt::new()?, Interrupt::new()?);
    setup.device.enable_irqs(MSIX, &[&first, &second])?;
    let vector = |start| {
        let trigger = SetIrqs {
            index: MSIX,
            start,
            ..SetIrqs::default()
        };
        trigger.send(&setup.device)
    };
    assert_eq!(vector(1), Ok(0));
    assert_eq!((first.take()?, second.take()?), (0, 1));
    assert_eq!(vector(count), Err(Errno::EINVAL));
    setup.device.disable_irqs(MSIX)?;
    Ok(())
}

fn set_irqs_arguments() -> Result<()> {
    let setup = Setup::new()?;
    let device = &setup.device;
    let valid = SetIrqs {
        index: MSI,
        ..SetIrqs::default()
    };
    let mut short = SetIrqs { count: 0, ..valid }.bytes();
    short.as_mut()[0] = 19;
    assert_eq!(
        raw::bytes(device, request::DEVICE_SET_IRQS, &mut short),
        Err(Errno::EINVAL)
    );
    let no_interrupts = |index| SetIrqs {
        index,
        count: 0,
        ..valid
    };
    let flags = |flags| SetIrqs { flags, ..valid };
    let range = |start, count| SetIrqs {
        start,
        count,
        ..valid
    };
    let data = |flags, data| SetIrqs {
        flags,
        data,
        ..valid
    };
    for (case, request) in [
        ("index", no_interrupts(5)),
        ("huge index", no_interrupts(u32::MAX)),
        ("unknown flag", flags(NONE | TRIGGER | 64)),
        ("unknown high flag", flags(NONE | TRIGGER | (1 << 31))),
        ("start", range(1, 1)),
        ("count", range(0, 2)),
        ("sum of start and count wraps", range(1, u32::MAX)),
        ("sum of start and count is u32::MAX", range(0, u32::MAX)),
        ("no type of data", flags(TRIGGER)),
        ("two types of data", data(NONE | BOOL | TRIGGER, &[0])),
        ("no data", flags(BOOL | TRIGGER)),
        ("part of a descriptor", data(EVENTFD | TRIGGER, &[0; 3])),
        (
            "device without MSI-X",
            SetIrqs {
                index: MSIX,
                ..data(EVENTFD | TRIGGER, &[0; 4])
            },
        ),
        ("interrupt is not enabled", valid),
    ] {
        assert_eq!(request.send(device), Err(Errno::EINVAL), "{case}");
    }
    for (case, index, flags) in [
        ("MSI cannot be masked", MSI, NONE | MASK),
        ("no action", MSI, NONE),
        ("REQ cannot be masked", REQ, NONE | MASK),
        ("two actions", INTX, NONE | MASK | TRIGGER),
    ] {
        assert_eq!(set(device, index, flags, &[]), Err(Errno::ENOTTY), "{case}");
    }
    Ok(())
}

fn close_disables_interrupts() -> Result<()> {
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
