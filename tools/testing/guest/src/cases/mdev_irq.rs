// SPDX-License-Identifier: GPL-2.0

//! SET_IRQS on a mediated device: `mtty`.

use super::irq::{
    BOOL,
    EVENTFD,
    MASK,
    NONE,
    TRIGGER,
    UNMASK,
    set, //
};
use crate::{
    harness::cases,
    mdev::{
        Open,
        open_mtty, //
    },
    stall::LIMIT, //
};
use anyhow::Result;
use std::{
    fs::File,
    os::fd::AsRawFd, //
};
use support::requests::SetIrqs;
use vfio_client::{
    Errno, Interrupt, raw, request,
    uapi::{
        VFIO_PCI_INTX_IRQ_INDEX as INTX,
        VFIO_PCI_MSI_IRQ_INDEX as MSI, //
    },
};

cases! {
    #[rows("D23")] set_irqs_arguments,
    intx,
    msi,
    intx_excludes_msi,
    bad_eventfd,
}

fn trigger(open: &Open, index: u32) -> Result<i32, Errno> {
    set(&open.device, index, NONE | TRIGGER, &[])
}

fn set_eventfd(open: &Open, index: u32, fd: i32) -> Result<i32, Errno> {
    set(&open.device, index, EVENTFD | TRIGGER, &fd.to_ne_bytes())
}

fn disable(open: &Open, index: u32) -> Result<i32, Errno> {
    let request = SetIrqs {
        index,
        count: 0,
        ..SetIrqs::default()
    };
    request.send(&open.device)
}

fn set_irqs_arguments() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    // `mtty` sets its own counts only when it is asked for them.
    assert_eq!(open.device.info()?.irqs, 5);
    let valid = SetIrqs {
        index: INTX,
        data: &[0; 64],
        ..SetIrqs::default()
    };
    let flags = |flags| SetIrqs { flags, ..valid };
    let index = |index| SetIrqs { index, ..valid };
    let range = |start, count| SetIrqs {
        start,
        count,
        ..valid
    };
    for request in [
        index(5),
        index(u32::MAX),
        range(0, u32::MAX),
        range(1, u32::MAX - 1),
        range(5, 1),
        range(0, 6),
        range(4, 2),
        flags(NONE | TRIGGER | 64),
        flags(NONE | TRIGGER | (1 << 31)),
        flags(TRIGGER),
        flags(NONE | BOOL | TRIGGER),
        flags(BOOL | EVENTFD | TRIGGER),
        // Too little data.
        SetIrqs {
            flags: BOOL | TRIGGER,
            data: &[],
            ..valid
        },
        SetIrqs {
            flags: EVENTFD | TRIGGER,
            data: &[0; 3],
            ..valid
        },
        // The driver itself rejects these requests.
        SetIrqs {
            data: &[1],
            ..valid
        },
        SetIrqs {
            flags: BOOL | TRIGGER,
            index: MSI,
            data: &[1],
            ..valid
        },
    ] {
        assert_eq!(
            request.send(&open.device),
            Err(Errno::EINVAL),
            "{request:?}"
        );
    }
    let mut short = SetIrqs::default().bytes();
    short.as_mut()[0] = 19;
    assert_eq!(
        raw::bytes(&open.device, request::DEVICE_SET_IRQS, &mut short),
        Err(Errno::EINVAL),
        "argsz"
    );
    for index in [2, 3, 4] {
        assert_eq!(trigger(&open, index), Err(Errno::ENOTTY), "index {index}");
    }
    Ok(())
}

fn intx() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    open.device.info()?;
    let interrupt = Interrupt::new()?;
    assert_eq!(set_eventfd(&open, INTX, interrupt.number()), Ok(0));
    assert_eq!(trigger(&open, INTX), Ok(0));
    assert_eq!(interrupt.wait(LIMIT)?, 1);
    assert_eq!(trigger(&open, INTX), Ok(0));
    assert_eq!(interrupt.take()?, 0, "a triggered INTx is masked");
    assert_eq!(set(&open.device, INTX, NONE | UNMASK, &[]), Ok(0));
    assert_eq!(set(&open.device, INTX, BOOL | TRIGGER, &[0]), Ok(0));
    assert_eq!(interrupt.take()?, 0);
    assert_eq!(set(&open.device, INTX, BOOL | TRIGGER, &[1]), Ok(0));
    assert_eq!(interrupt.wait(LIMIT)?, 1);
    assert_eq!(set(&open.device, INTX, BOOL | UNMASK, &[1]), Ok(0));
    assert_eq!(set(&open.device, INTX, NONE | MASK, &[]), Ok(0));
    assert_eq!(trigger(&open, INTX), Ok(0));
    assert_eq!(interrupt.take()?, 0);
    let number = interrupt.number().to_ne_bytes();
    for action in [MASK, UNMASK] {
        let answer = set(&open.device, INTX, EVENTFD | action, &number);
        assert_eq!(answer, Err(Errno::ENOTTY));
    }
    assert_eq!(disable(&open, INTX), Ok(0));
    assert_eq!(trigger(&open, INTX), Err(Errno::EINVAL));
    Ok(())
}

fn msi() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    open.device.info()?;
    let interrupt = Interrupt::new()?;
    assert_eq!(set_eventfd(&open, MSI, interrupt.number()), Ok(0));
    for _ in 0..3 {
        assert_eq!(trigger(&open, MSI), Ok(0));
    }
    assert_eq!(interrupt.wait(LIMIT)?, 3);
    for action in [MASK, UNMASK] {
        let answer = set(&open.device, MSI, NONE | action, &[]);
        assert_eq!(answer, Err(Errno::ENOTTY));
    }
    // Closing the device releases the eventfd.
    drop(open);
    assert_eq!(interrupt.take()?, 0);
    Ok(())
}

fn intx_excludes_msi() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    open.device.info()?;
    let (first, second) = (Interrupt::new()?, Interrupt::new()?);
    assert_eq!(set_eventfd(&open, INTX, first.number()), Ok(0));
    assert_eq!(set_eventfd(&open, MSI, second.number()), Err(Errno::EINVAL));
    assert_eq!(disable(&open, MSI), Err(Errno::EINVAL));
    // The second eventfd replaces the first.
    assert_eq!(set_eventfd(&open, INTX, second.number()), Ok(0));
    assert_eq!(trigger(&open, INTX), Ok(0));
    assert_eq!((first.take()?, second.wait(LIMIT)?), (0, 1));
    // -1 removes the eventfd.
    assert_eq!(set_eventfd(&open, INTX, -1), Ok(0));
    assert_eq!(set_eventfd(&open, MSI, second.number()), Ok(0));
    Ok(())
}

fn bad_eventfd() -> Result<()> {
    let (_mdev, open) = open_mtty()?;
    open.device.info()?;
    let null = File::open("/dev/null")?;
    for index in [INTX, MSI] {
        assert_eq!(set_eventfd(&open, index, 1000), Err(Errno::EBADF));
        assert_eq!(
            set_eventfd(&open, index, null.as_raw_fd()),
            Err(Errno::EINVAL)
        );
        assert_eq!(trigger(&open, index), Err(Errno::EINVAL));
    }
    Ok(())
}
