// SPDX-License-Identifier: GPL-2.0

//! PASIDs of a device are attached to page tables and detached.
//!
//! The device has no PASIDs. The IOMMU core of Linux 7.3 still accepts the attach of a PASID in its
//! group, and changes nothing in the IOMMU.

use super::{
    has,
    open,
    reaches, //
};
use crate::{
    env::{
        EDU,
        NVME, //
    },
    harness::{
        Failure,
        cases, //
    },
};
use anyhow::Result;
use support::requests::AttachPt;
use vfio_client::{
    Device,
    Errno,
    Iommufd,
    MapFlags,
    Memory,
    PAGE_SIZE,
    edu::Edu,
    raw,
    request, //
};

cases! {
    #[rows("V6", "V7")] attach_and_detach,
    #[rows("V6")] replace,
    #[rows("V6", "V7")] page_tables_of_several,
    #[rows("V6", "V7")] device_stays_attached,
    #[rows("V6")] device_and_pasids_need_page_tables_for_pasids,
    #[rows("V6", "V7")] pasid_zero_is_the_device,
    #[rows("V10")] last_close_detaches_all,
    #[rows("V6")] second_device_of_iommufd,
    #[rows("V6")] #[requires(core(Rust))] id_that_cannot_be_written_detaches_only_the_pasid,
}

/// The largest PASID that PCIe has.
const LAST: u32 = (1 << 20) - 1;

/// A bound device, and an IOAS.
struct Bound {
    device: Device,
    iommufd: Iommufd,
    /// The id of the device.
    id: u32,
    ioas: u32,
}

impl Bound {
    fn new() -> Result<Self> {
        let (device, iommufd) = (open(EDU)?, Iommufd::open()?);
        let id = device.bind(&iommufd)?;
        let ioas = iommufd.ioas()?;
        Ok(Self {
            device,
            iommufd,
            id,
            ioas,
        })
    }

    /// Creates a page table to which PASIDs can be attached.
    fn table(&self) -> Result<u32> {
        Ok(self.iommufd.hwpt_for_pasids(self.id, self.ioas)?)
    }
}

fn attach_and_detach() -> Result<()> {
    let bound = Bound::new()?;
    let table = bound.table()?;
    for pasid in [1, 2, 1000, LAST] {
        assert_eq!(bound.device.attach_pasid(pasid, table)?, table);
        assert!(has(&bound.iommufd, table)?, "PASID {pasid} uses it");
        // The same again.
        assert_eq!(bound.device.attach_pasid(pasid, table)?, table);
        bound.device.detach_pasid(pasid)?;
        // It was not attached twice.
        assert_eq!(bound.device.attach_pasid(pasid, table)?, table);
        bound.device.detach_pasid(pasid)?;
        bound.device.detach_pasid(pasid)?;
    }
    bound.iommufd.destroy(table)?;
    Ok(())
}

fn replace() -> Result<()> {
    let bound = Bound::new()?;
    let (one, two) = (bound.table()?, bound.table()?);
    bound.device.attach_pasid(5, one)?;
    assert_eq!(bound.device.attach_pasid(5, two)?, two);
    assert!(has(&bound.iommufd, two)?);
    // What cannot replace it leaves it attached.
    let ordinary = bound.iommufd.hwpt(bound.id, bound.ioas)?;
    bound.iommufd.destroy(one)?;
    for (wrong, errno) in [
        (ordinary, Errno::EINVAL),
        (bound.ioas, Errno::EINVAL),
        (one, Errno::ENOENT),
        (bound.id, Errno::EINVAL),
    ] {
        let answer = bound.device.attach_pasid(5, wrong);
        assert_eq!(answer.errno(), errno, "object {wrong}");
        assert!(has(&bound.iommufd, two)?);
    }
    bound.device.detach_pasid(5)?;
    bound.iommufd.destroy(two)?;
    Ok(())
}

fn page_tables_of_several() -> Result<()> {
    let bound = Bound::new()?;
    let (one, two) = (bound.table()?, bound.table()?);
    for (pasid, table) in [(1, one), (2, two), (3, one), (LAST, two)] {
        assert_eq!(bound.device.attach_pasid(pasid, table)?, table);
    }
    bound.device.detach_pasid(1)?;
    // 4 is not attached.
    bound.device.detach_pasid(4)?;
    assert!(has(&bound.iommufd, one)?, "PASID 3 uses it");
    bound.device.detach_pasid(3)?;
    bound.iommufd.destroy(one)?;
    bound.device.detach_pasid(LAST)?;
    assert!(has(&bound.iommufd, two)?, "PASID 2 uses it");
    bound.device.detach_pasid(2)?;
    bound.iommufd.destroy(two)?;
    Ok(())
}

/// The device is attached with and without PASIDs independently.
fn device_stays_attached() -> Result<()> {
    let bound = Bound::new()?;
    let (own, of_pasids) = (bound.table()?, bound.table()?);
    let memory = Memory::anonymous(PAGE_SIZE)?;
    let map = |iova| {
        bound
            .iommufd
            .map(bound.ioas, iova, &memory, MapFlags::ReadWrite)
    };
    bound.device.attach(own)?;
    let edu = Edu::new(&bound.device)?;
    map(0x10_0000)?;
    bound.device.attach_pasid(1, of_pasids)?;
    map(0x20_0000)?;
    assert!(reaches(&edu, &memory, 0x10_0000)? && reaches(&edu, &memory, 0x20_0000)?);
    bound.device.detach_pasid(1)?;
    assert!(reaches(&edu, &memory, 0x10_0000)?, "after a detach");
    bound.device.attach_pasid(1, of_pasids)?;
    bound.device.detach()?;
    assert!(!reaches(&edu, &memory, 0x10_0000)?, "detached");
    bound.iommufd.destroy(own)?;
    assert!(has(&bound.iommufd, of_pasids)?, "the PASID stays attached");
    bound.device.detach_pasid(1)?;
    bound.iommufd.destroy(of_pasids)?;
    Ok(())
}

fn device_and_pasids_need_page_tables_for_pasids() -> Result<()> {
    let bound = Bound::new()?;
    let table = bound.table()?;
    // A PASID cannot be attached beside an ordinary page table of the device.
    bound.device.attach(bound.ioas)?;
    assert_eq!(bound.device.attach_pasid(1, table).errno(), Errno::EINVAL);
    bound.device.attach(table)?;
    bound.device.attach_pasid(1, table)?;
    // Nor the other way round.
    let ordinary = bound.iommufd.hwpt(bound.id, bound.ioas)?;
    assert_eq!(bound.device.attach(ordinary).errno(), Errno::EINVAL);
    bound.iommufd.destroy(ordinary)?;
    bound.device.detach()?;
    assert!(has(&bound.iommufd, table)?, "the PASID uses it");
    bound.device.detach_pasid(1)?;
    bound.device.attach(bound.ioas)?;
    bound.iommufd.destroy(table)?;
    Ok(())
}

/// IOMMUFD takes PASID 0 for the device itself. VFIO keeps it apart.
fn pasid_zero_is_the_device() -> Result<()> {
    let bound = Bound::new()?;
    let table = bound.table()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    bound
        .iommufd
        .map(bound.ioas, 0x10_0000, &memory, MapFlags::ReadWrite)?;
    let edu = Edu::new(&bound.device)?;
    bound.device.attach_pasid(0, table)?;
    assert!(reaches(&edu, &memory, 0x10_0000)?);
    assert_eq!(bound.device.attach(table).errno(), Errno::EBUSY);
    bound.device.detach()?;
    assert!(reaches(&edu, &memory, 0x10_0000)?, "it was not attached");
    bound.device.detach_pasid(0)?;
    assert!(!reaches(&edu, &memory, 0x10_0000)?);
    bound.device.attach(table)?;
    assert!(reaches(&edu, &memory, 0x10_0000)?);
    Ok(())
}

fn last_close_detaches_all() -> Result<()> {
    let bound = Bound::new()?;
    let (one, two) = (bound.table()?, bound.table()?);
    bound.device.attach(one)?;
    for (pasid, table) in [(1, one), (2, two), (LAST, two)] {
        bound.device.attach_pasid(pasid, table)?;
    }
    drop(bound.device);
    bound.iommufd.destroy(one)?;
    bound.iommufd.destroy(two)?;
    bound.iommufd.destroy(bound.ioas)?;
    // Nothing of it is left for the next user.
    let next = Bound::new()?;
    let table = next.table()?;
    next.device.attach(next.ioas)?;
    next.device.attach(table)?;
    next.device.attach_pasid(1, table)?;
    Ok(())
}

/// A second device of the iommufd, of another group, has PASIDs of its own.
fn second_device_of_iommufd() -> Result<()> {
    let bound = Bound::new()?;
    let table = bound.table()?;
    let other = open(NVME)?;
    other.bind(&bound.iommufd)?;
    bound.device.attach_pasid(1, table)?;
    other.attach_pasid(1, table)?;
    bound.device.detach_pasid(1)?;
    assert!(has(&bound.iommufd, table)?, "the other device uses it");
    drop(other);
    bound.iommufd.destroy(table)?;
    Ok(())
}

fn id_that_cannot_be_written_detaches_only_the_pasid() -> Result<()> {
    let bound = Bound::new()?;
    let (own, of_pasids) = (bound.table()?, bound.table()?);
    let memory = Memory::anonymous(PAGE_SIZE)?;
    bound
        .iommufd
        .map(bound.ioas, 0x10_0000, &memory, MapFlags::ReadWrite)?;
    let edu = Edu::new(&bound.device)?;
    bound.device.attach(own)?;
    bound.device.attach_pasid(2, own)?;
    let mut argument = Memory::anonymous(PAGE_SIZE)?;
    let attach = AttachPt {
        flags: AttachPt::PASID,
        pasid: 1,
        ..AttachPt::to(of_pasids)
    };
    argument.write(0, attach.bytes().as_ref());
    argument.protect(true, false)?;
    let nr = request::DEVICE_ATTACH_IOMMUFD_PT;
    let answer = raw::at(&bound.device, nr, &mut argument, 0);
    assert_eq!(answer, Err(Errno::EFAULT));
    bound.iommufd.destroy(of_pasids)?;
    assert!(reaches(&edu, &memory, 0x10_0000)?, "the device is attached");
    bound.device.detach()?;
    assert!(has(&bound.iommufd, own)?, "PASID 2 is attached");
    Ok(())
}
