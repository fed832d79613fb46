// SPDX-License-Identifier: GPL-2.0

//! Attaching a device to an IOAS or a page table, and detaching it.

use super::{
    Attached,
    WithoutDriver,
    bound,
    has,
    open,
    reaches, //
};
use crate::{
    env::{
        EDU,
        NVME,
        SHARED,
        SIBLING,
        Setup, //
    },
    harness::{
        Failure,
        cases, //
    },
};
use anyhow::Result;
use support::{
    PAGE,
    requests::{
        AttachPt,
        DetachPt, //
    },
};
use vfio_client::{
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
    #[rows("V6")] attach_returns_page_table,
    #[rows("V6")] attach_argsz,
    #[rows("V6")] attach_flags,
    #[rows("V6")] attach_to_other_objects,
    #[rows("V6")] failed_attach_keeps_former_one,
    #[rows("V6")] second_attach_replaces_first,
    #[rows("V6")] attach_to_explicit_page_table,
    #[rows("V6")] replace_page_table_by_ioas,
    #[rows("V6")] page_table_id_that_cannot_be_written,
    #[rows("V6")] replace_with_id_that_cannot_be_written_detaches,
    #[rows("V6")] attach_outside_of_mappings_fails,
    #[rows("V6")] devices_share_page_table_of_ioas,
    #[rows("V6")] devices_of_a_group_have_one_page_table,
    #[rows("V7")] detach_is_repeatable,
    #[rows("V7")] detach_argsz_and_flags,
    #[rows("V7")] dma_is_blocked_after_detach,
    #[rows("V6", "V7")] structures_that_cannot_be_read,
    #[rows("V8")] #[requires(containers)] group_device_has_no_attach,
    #[rows("V6")] pasid_of_device_without_pasids,
    #[rows("V7")] detach_of_unused_pasid,
    #[rows("V6")] order_of_errors,
}

fn attach_returns_page_table() -> Result<()> {
    let (device, iommufd) = bound(EDU)?;
    let ioas = iommufd.ioas()?;
    let table = device.attach(ioas)?;
    assert_ne!(table, ioas);
    assert!(has(&iommufd, table)? && has(&iommufd, ioas)?);
    // The same again.
    assert_eq!(device.attach(ioas)?, table);
    assert_eq!(device.attach(table)?, table);
    device.detach()?;
    iommufd.destroy(ioas)?;
    assert!(!has(&iommufd, table)?, "it belonged to the IOAS");
    Ok(())
}

fn attach_argsz() -> Result<()> {
    let (device, iommufd) = bound(EDU)?;
    let ioas = iommufd.ioas()?;
    for argsz in [0, 4, 8, 11] {
        let attach = AttachPt {
            argsz,
            ..AttachPt::to(ioas)
        };
        assert_eq!(attach.send(&device), Err(Errno::EINVAL), "argsz {argsz}");
    }
    iommufd.destroy(ioas)?;
    let ioas = iommufd.ioas()?;
    // Bytes after the structure may have any value.
    for argsz in [
        AttachPt::SIZE_WITHOUT_PASID,
        15,
        AttachPt::SIZE,
        17,
        4096,
        u32::MAX,
    ] {
        let attach = AttachPt {
            argsz,
            pasid: 0xaaaa_aaaa,
            ..AttachPt::to(ioas)
        };
        assert!(attach.send(&device).is_ok(), "argsz {argsz}");
    }
    Ok(())
}

fn attach_flags() -> Result<()> {
    let attached = Attached::new()?;
    for flags in [2, 4, 1 << 31, u32::MAX, !AttachPt::PASID] {
        let attach = AttachPt {
            flags,
            ..AttachPt::to(attached.ioas)
        };
        let answer = attach.send(&attached.device);
        assert_eq!(answer, Err(Errno::EINVAL), "flags {flags:#x}");
    }
    Ok(())
}

/// The objects to which a device cannot be attached.
fn bad_objects(attached: &Attached) -> Result<Vec<(u32, Errno)>> {
    let other = open(NVME)?;
    let device = other.bind(&attached.iommufd)?;
    let gone = attached.iommufd.ioas()?;
    attached.iommufd.destroy(gone)?;
    // Objects of another iommufd have ids of their own.
    drop(other);
    Ok(vec![
        (0, Errno::ENOENT),
        (device, Errno::ENOENT),
        (gone, Errno::ENOENT),
        (12345, Errno::ENOENT),
        (u32::MAX, Errno::ENOENT),
    ])
}

fn attach_to_other_objects() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let device = open(EDU)?;
    let id = device.bind(&iommufd)?;
    assert_eq!(device.attach(id).errno(), Errno::EINVAL, "a device");
    for id in [0, id + 1, 12345, u32::MAX] {
        assert_eq!(device.attach(id).errno(), Errno::ENOENT, "object {id}");
    }
    let ioas = iommufd.ioas()?;
    device.attach(ioas)?;
    Ok(())
}

fn failed_attach_keeps_former_one() -> Result<()> {
    let attached = Attached::new()?;
    let edu = Edu::new(&attached.device)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    attached.map(0x10_0000, &memory)?;
    for (id, errno) in bad_objects(&attached)? {
        assert_eq!(attached.device.attach(id).errno(), errno, "object {id}");
        assert!(reaches(&edu, &memory, 0x10_0000)?, "object {id}");
    }
    assert!(has(&attached.iommufd, attached.ioas)?);
    Ok(())
}

fn second_attach_replaces_first() -> Result<()> {
    let attached = Attached::new()?;
    let edu = Edu::new(&attached.device)?;
    let iommufd = &attached.iommufd;
    let (first, second) = (Memory::anonymous(PAGE_SIZE)?, Memory::anonymous(PAGE_SIZE)?);
    attached.map(0x10_0000, &first)?;
    let other = iommufd.ioas()?;
    iommufd.map(other, 0x20_0000, &second, MapFlags::ReadWrite)?;
    assert!(reaches(&edu, &first, 0x10_0000)?);
    assert!(!reaches(&edu, &second, 0x20_0000)?);
    attached.device.attach(other)?;
    assert!(!reaches(&edu, &first, 0x10_0000)?);
    assert!(reaches(&edu, &second, 0x20_0000)?);
    iommufd.destroy(attached.ioas)?;
    assert!(has(iommufd, other)?);
    assert!(reaches(&edu, &second, 0x20_0000)?);
    Ok(())
}

fn attach_to_explicit_page_table() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let device = open(EDU)?;
    let id = device.bind(&iommufd)?;
    let ioas = iommufd.ioas()?;
    let table = iommufd.hwpt(id, ioas)?;
    assert_eq!(device.attach(table)?, table);
    assert!(has(&iommufd, table)?);
    let edu = Edu::new(&device)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    iommufd.map(ioas, 0x10_0000, &memory, MapFlags::ReadWrite)?;
    assert!(reaches(&edu, &memory, 0x10_0000)?);
    device.detach()?;
    assert!(!reaches(&edu, &memory, 0x10_0000)?);
    iommufd.destroy(table)?;
    iommufd.destroy(ioas)?;
    Ok(())
}

fn replace_page_table_by_ioas() -> Result<()> {
    let iommufd = Iommufd::open()?;
    let device = open(EDU)?;
    let id = device.bind(&iommufd)?;
    let ioas = iommufd.ioas()?;
    let (one, two) = (iommufd.hwpt(id, ioas)?, iommufd.hwpt(id, ioas)?);
    assert_eq!(device.attach(one)?, one);
    assert_eq!(device.attach(two)?, two);
    iommufd.destroy(one)?;
    let automatic = device.attach(ioas)?;
    assert!(automatic != two, "explicit page tables are not chosen");
    iommufd.destroy(two)?;
    device.attach(automatic)?;
    Ok(())
}

/// Sends an attach request whose structure the kernel can only read.
fn attach_read_only(attached: &Attached, id: u32) -> Result<Result<i32, Errno>> {
    let mut memory = Memory::anonymous(PAGE_SIZE)?;
    memory.write(0, AttachPt::to(id).bytes().as_ref());
    memory.protect(true, false)?;
    let nr = request::DEVICE_ATTACH_IOMMUFD_PT;
    Ok(raw::at(&attached.device, nr, &mut memory, 0))
}

fn page_table_id_that_cannot_be_written() -> Result<()> {
    let attached = Attached::new()?;
    attached.device.detach()?;
    let edu = Edu::new(&attached.device)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    attached.map(0x10_0000, &memory)?;
    for _ in 0..3 {
        let answer = attach_read_only(&attached, attached.ioas)?;
        assert_eq!(answer, Err(Errno::EFAULT));
        assert!(!reaches(&edu, &memory, 0x10_0000)?, "it is not attached");
    }
    attached.device.attach(attached.ioas)?;
    assert!(reaches(&edu, &memory, 0x10_0000)?);
    attached.device.detach()?;
    attached.iommufd.destroy(attached.ioas)?;
    Ok(())
}

fn replace_with_id_that_cannot_be_written_detaches() -> Result<()> {
    let attached = Attached::new()?;
    let edu = Edu::new(&attached.device)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    attached.map(0x10_0000, &memory)?;
    let other = attached.iommufd.ioas()?;
    assert_eq!(attach_read_only(&attached, other)?, Err(Errno::EFAULT));
    assert!(!reaches(&edu, &memory, 0x10_0000)?, "it is not attached");
    attached.iommufd.destroy(other)?;
    attached.iommufd.destroy(attached.ioas)?;
    Ok(())
}

/// Memory is mapped where the device has interrupts.
fn attach_outside_of_mappings_fails() -> Result<()> {
    let (device, iommufd) = bound(EDU)?;
    let ioas = iommufd.ioas()?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    iommufd.map(ioas, 0xfee0_0000, &memory, MapFlags::ReadWrite)?;
    assert_eq!(device.attach(ioas).errno(), Errno::EADDRINUSE);
    assert_eq!(iommufd.unmap(ioas, 0xfee0_0000, PAGE)?, PAGE);
    device.attach(ioas)?;
    let again = iommufd.map(ioas, 0xfee0_0000, &memory, MapFlags::ReadWrite);
    assert_eq!(again.errno(), Errno::EINVAL);
    Ok(())
}

fn devices_share_page_table_of_ioas() -> Result<()> {
    let first = Attached::new()?;
    let second = open(NVME)?;
    second.bind(&first.iommufd)?;
    let table = second.attach(first.ioas)?;
    assert_eq!(first.device.attach(first.ioas)?, table);
    first.device.detach()?;
    assert!(has(&first.iommufd, table)?, "the other device has it");
    Ok(())
}

fn devices_of_a_group_have_one_page_table() -> Result<()> {
    let sibling = WithoutDriver::new()?;
    sibling.bind_vfio()?;
    let first = Attached::with(SHARED)?;
    let second = open(SIBLING)?;
    second.bind(&first.iommufd)?;
    let other = first.iommufd.ioas()?;
    assert_eq!(second.attach(other).errno(), Errno::EINVAL);
    let table = second.attach(first.ioas)?;
    assert_eq!(first.device.attach(first.ioas)?, table);
    // Replacing it for one device replaces it for both.
    let new = first.device.attach(other)?;
    assert_eq!(second.attach(other)?, new);
    first.device.detach()?;
    assert!(has(&first.iommufd, new)?, "the other device has it");
    second.detach()?;
    first.iommufd.destroy(other)?;
    Ok(())
}

fn detach_is_repeatable() -> Result<()> {
    let (device, iommufd) = bound(EDU)?;
    device.detach()?;
    let ioas = iommufd.ioas()?;
    device.attach(ioas)?;
    device.detach()?;
    device.detach()?;
    device.attach(ioas)?;
    Ok(())
}

fn detach_argsz_and_flags() -> Result<()> {
    let attached = Attached::new()?;
    for argsz in [0, 4, 7] {
        let detach = DetachPt {
            argsz,
            ..DetachPt::default()
        };
        assert_eq!(detach.send(&attached.device), Err(Errno::EINVAL));
    }
    for flags in [2, 1 << 31, u32::MAX, !DetachPt::PASID] {
        let detach = DetachPt {
            flags,
            ..DetachPt::default()
        };
        assert_eq!(detach.send(&attached.device), Err(Errno::EINVAL));
    }
    assert!(has(&attached.iommufd, attached.ioas)?, "still attached");
    for argsz in [
        DetachPt::SIZE_WITHOUT_PASID,
        11,
        DetachPt::SIZE,
        100,
        u32::MAX,
    ] {
        attached.device.attach(attached.ioas)?;
        let detach = DetachPt {
            argsz,
            pasid: 0xaaaa_aaaa,
            ..DetachPt::default()
        };
        assert_eq!(detach.send(&attached.device), Ok(0), "argsz {argsz}");
    }
    attached.iommufd.destroy(attached.ioas)?;
    Ok(())
}

fn dma_is_blocked_after_detach() -> Result<()> {
    let attached = Attached::new()?;
    let edu = Edu::new(&attached.device)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    attached.map(0x10_0000, &memory)?;
    assert!(reaches(&edu, &memory, 0x10_0000)?);
    attached.device.detach()?;
    assert!(!reaches(&edu, &memory, 0x10_0000)?);
    attached.device.attach(attached.ioas)?;
    assert!(reaches(&edu, &memory, 0x10_0000)?, "the mapping stayed");
    Ok(())
}

/// Sends the end of a page, which has too few bytes of the structure.
fn cut(device: &vfio_client::Device, nr: u32, bytes: &[u8], missing: usize) -> Result<Errno> {
    let mut memory = Memory::anonymous(PAGE_SIZE)?;
    let length = bytes.len() - missing;
    memory.write(PAGE_SIZE - length, &bytes[..length]);
    Ok(raw::at(device, nr, &mut memory, PAGE_SIZE - length).errno())
}

fn structures_that_cannot_be_read() -> Result<()> {
    let (attach, detach) = (
        request::DEVICE_ATTACH_IOMMUFD_PT,
        request::DEVICE_DETACH_IOMMUFD_PT,
    );
    let attached = Attached::new()?;
    let device = &attached.device;
    for nr in [attach, detach] {
        for address in [0, 1, 4096, 1 << 63, u64::MAX] {
            assert_eq!(raw::value(device, nr, address), Err(Errno::EFAULT));
        }
    }
    let bytes = AttachPt::to(attached.ioas).bytes();
    for missing in [5, 8, 13] {
        let answer = cut(device, attach, bytes.as_ref(), missing)?;
        assert_eq!(answer, Errno::EFAULT, "without {missing} bytes");
    }
    let bytes = DetachPt::default().bytes();
    for missing in [5, 8] {
        let answer = cut(device, detach, bytes.as_ref(), missing)?;
        assert_eq!(answer, Errno::EFAULT, "without {missing} bytes");
    }
    // The PASID is read only if there is one.
    let bytes = AttachPt {
        flags: AttachPt::PASID,
        ..AttachPt::to(attached.ioas)
    };
    assert_eq!(
        cut(device, attach, bytes.bytes().as_ref(), 4)?,
        Errno::EFAULT
    );
    let bytes = DetachPt {
        flags: DetachPt::PASID,
        ..DetachPt::default()
    };
    assert_eq!(
        cut(device, detach, bytes.bytes().as_ref(), 4)?,
        Errno::EFAULT
    );
    assert!(has(&attached.iommufd, attached.ioas)?, "still attached");
    Ok(())
}

fn group_device_has_no_attach() -> Result<()> {
    let setup = Setup::new()?;
    assert_eq!(AttachPt::to(1).send(&setup.device), Err(Errno::ENOTTY));
    let detach = DetachPt::default().send(&setup.device);
    assert_eq!(detach, Err(Errno::ENOTTY));
    for nr in [
        request::DEVICE_ATTACH_IOMMUFD_PT,
        request::DEVICE_DETACH_IOMMUFD_PT,
    ] {
        assert_eq!(raw::none(&setup.device, nr), Err(Errno::ENOTTY));
    }
    Ok(())
}

fn pasid_of_device_without_pasids() -> Result<()> {
    let attached = Attached::new()?;
    let ioas = attached.iommufd.ioas()?;
    for pasid in [1, 100] {
        let answer = attached.device.attach_pasid(pasid, ioas);
        assert_eq!(answer.errno(), Errno::EINVAL, "PASID {pasid}");
    }
    // The core keeps the PASIDs in an IDA, whose ids have 31 bits.
    for pasid in [1 << 31, u32::MAX] {
        let answer = attached.device.attach_pasid(pasid, ioas);
        assert_eq!(answer.errno(), Errno::ENOSPC, "PASID {pasid}");
    }
    attached.device.detach_pasid(1)?;
    attached.iommufd.destroy(ioas)?;
    Ok(())
}

fn detach_of_unused_pasid() -> Result<()> {
    let attached = Attached::new()?;
    for pasid in [0, 1, 1 << 20] {
        attached.device.detach_pasid(pasid)?;
    }
    assert!(has(&attached.iommufd, attached.ioas)?, "still attached");
    let detach = DetachPt {
        argsz: DetachPt::SIZE_WITHOUT_PASID,
        flags: DetachPt::PASID,
        pasid: 1,
    };
    assert_eq!(detach.send(&attached.device), Err(Errno::EINVAL));
    Ok(())
}

/// Each request is wrong in several ways, and the first error is reported.
fn order_of_errors() -> Result<()> {
    let (device, _iommufd) = bound(EDU)?;
    let short = AttachPt {
        argsz: AttachPt::SIZE_WITHOUT_PASID,
        flags: AttachPt::PASID,
        ..AttachPt::to(12345)
    };
    assert_eq!(short.send(&device), Err(Errno::EINVAL), "argsz first");
    let unknown = AttachPt {
        flags: 2,
        ..AttachPt::to(12345)
    };
    assert_eq!(unknown.send(&device), Err(Errno::EINVAL), "flags first");
    // The whole structure is read before its size is checked.
    let bytes = AttachPt {
        argsz: 0,
        flags: u32::MAX,
        ..AttachPt::to(12345)
    };
    let nr = request::DEVICE_ATTACH_IOMMUFD_PT;
    assert_eq!(cut(&device, nr, bytes.bytes().as_ref(), 5)?, Errno::EFAULT);
    Ok(())
}
