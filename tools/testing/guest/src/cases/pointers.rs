// SPDX-License-Identifier: GPL-2.0

//! Bad pointers, for every request that takes one.

use crate::{
    env::{
        NVME,
        Setup, //
    },
    harness::cases, //
};
use anyhow::Result;
use std::os::fd::AsFd;
use vfio_client::{
    Bytes,
    Errno,
    Iommu,
    Memory,
    PAGE_SIZE,
    raw,
    request, //
};

cases! {
    container_requests,
    group_requests,
    device_requests,
    #[rows("T-M1")] structures_that_cannot_be_read,
    structures_that_cannot_be_written,
    misaligned_structures,
}

/// Addresses without memory: null, the first page, the non-canonical hole, the kernel half, and
/// the end of the address space.
const NOWHERE: [u64; 7] = [
    0,
    1,
    4096,
    0x8000_0000_0000,
    1 << 63,
    0xffff_8880_0000_0000,
    u64::MAX,
];

const CONTAINER: [u32; 4] = [
    request::IOMMU_GET_INFO,
    request::IOMMU_MAP_DMA,
    request::IOMMU_UNMAP_DMA,
    request::IOMMU_DIRTY_PAGES,
];
const GROUP: [u32; 3] = [
    request::GROUP_GET_STATUS,
    request::GROUP_SET_CONTAINER,
    request::GROUP_GET_DEVICE_FD,
];
const DEVICE: [u32; 5] = [
    request::DEVICE_GET_INFO,
    request::DEVICE_GET_REGION_INFO,
    request::DEVICE_GET_IRQ_INFO,
    request::DEVICE_SET_IRQS,
    request::DEVICE_FEATURE,
];

#[track_caller]
fn nowhere(fd: impl AsFd, requests: &[u32]) {
    for nr in requests {
        for address in NOWHERE {
            assert_eq!(
                raw::value(fd.as_fd(), *nr, address),
                Err(Errno::EFAULT),
                "request {nr:#x} at {address:#x}"
            );
        }
    }
}

fn container_requests() -> Result<()> {
    let setup = Setup::new()?;
    nowhere(&setup.container, &CONTAINER);
    Ok(())
}

fn group_requests() -> Result<()> {
    let setup = Setup::new()?;
    nowhere(&setup.group, &GROUP);
    assert_eq!(setup.group.status()?, 3);
    Ok(())
}

fn device_requests() -> Result<()> {
    let setup = Setup::new()?;
    nowhere(&setup.device, &DEVICE);
    let nvme = Setup::with(NVME, Iommu::Type1v2)?;
    nowhere(&nvme.device, &DEVICE);
    Ok(())
}

fn structures_that_cannot_be_read() -> Result<()> {
    let setup = Setup::new()?;
    let mut memory = Memory::anonymous(PAGE_SIZE)?;
    memory.protect(false, false)?;
    let all = [
        (setup.container.as_fd(), &CONTAINER[..]),
        (setup.group.as_fd(), &GROUP[..]),
        (setup.device.as_fd(), &DEVICE[..]),
    ];
    for (fd, requests) in all {
        for nr in requests {
            assert_eq!(
                raw::at(fd, *nr, &mut memory, 0),
                Err(Errno::EFAULT),
                "request {nr:#x}"
            );
        }
    }
    // One byte less than what every request reads.
    for (fd, requests) in all {
        for nr in requests
            .iter()
            .filter(|nr| **nr != request::GROUP_GET_DEVICE_FD)
        {
            let mut stub = Bytes::new().fill(0, 3);
            assert_eq!(
                raw::bytes(fd, *nr, &mut stub),
                Err(Errno::EFAULT),
                "request {nr:#x}"
            );
        }
    }
    Ok(())
}

fn structures_that_cannot_be_written() -> Result<()> {
    let setup = Setup::new()?;
    let mut memory = Memory::anonymous(PAGE_SIZE)?;
    for (fd, nr, words) in [
        (
            setup.container.as_fd(),
            request::IOMMU_GET_INFO,
            [128, 0, 0, 0, 0, 0, 0, 0],
        ),
        (
            setup.container.as_fd(),
            request::IOMMU_UNMAP_DMA,
            [24, 0, 0x10000, 0, PAGE_SIZE as u32, 0, 0, 0],
        ),
        (
            setup.group.as_fd(),
            request::GROUP_GET_STATUS,
            [8, 0, 0, 0, 0, 0, 0, 0],
        ),
        (
            setup.device.as_fd(),
            request::DEVICE_GET_INFO,
            [24, 0, 0, 0, 0, 0, 0, 0],
        ),
        (
            setup.device.as_fd(),
            request::DEVICE_GET_REGION_INFO,
            [32, 0, 0, 0, 0, 0, 0, 0],
        ),
        (
            setup.device.as_fd(),
            request::DEVICE_GET_IRQ_INFO,
            [16, 0, 1, 0, 0, 0, 0, 0],
        ),
    ] {
        memory.protect(true, true)?;
        for (i, word) in words.into_iter().enumerate() {
            memory.write_u32(4 * i, word);
        }
        assert_eq!(raw::at(fd, nr, &mut memory, 0), Ok(0), "request {nr:#x}");
        for (i, word) in words.into_iter().enumerate() {
            memory.write_u32(4 * i, word);
        }
        memory.protect(true, false)?;
        assert_eq!(
            raw::at(fd, nr, &mut memory, 0),
            Err(Errno::EFAULT),
            "request {nr:#x}"
        );
    }
    Ok(())
}

fn misaligned_structures() -> Result<()> {
    let setup = Setup::new()?;
    let mut memory = Memory::anonymous(PAGE_SIZE)?;
    for offset in [1, 3, 7, PAGE_SIZE - 8] {
        memory.write(offset, &8u32.to_ne_bytes());
        assert_eq!(
            raw::at(&setup.group, request::GROUP_GET_STATUS, &mut memory, offset),
            Ok(0)
        );
        assert_eq!(memory.to_vec(offset + 4, 4), 3u32.to_ne_bytes());
    }
    Ok(())
}
