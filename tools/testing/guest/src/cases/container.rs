// SPDX-License-Identifier: GPL-2.0

//! Containers, with and without a backend.

use crate::{
    env::{
        EDU,
        NVME,
        attached,
        group, //
    },
    harness::{
        Failure,
        cases, //
    },
};
use anyhow::Result;
use std::{
    os::unix::fs::chown,
    path::{
        Path,
        PathBuf, //
    },
};
use support::{
    PAGE,
    helper::Helper, //
};
use vfio_client::{
    Bytes,
    Container,
    Errno,
    Group,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    raw,
    request, //
};

cases! {
    #[rows("C1")] unprivileged_user_can_open,
    #[rows("C2")] get_api_version_returns_zero,
    #[rows("C3")] extensions_without_iommu_driver,
    #[rows("C4")] extensions_with_iommu_driver,
    #[rows("C5")] no_noiommu_extension,
    #[rows("C6")] set_iommu_needs_a_group,
    #[rows("C7")] set_iommu_twice,
    #[rows("C8")] set_iommu_unsupported,
    #[rows("C9")] set_iommu_unmap_all,
    #[rows("C11")] other_requests_without_iommu_driver,
    #[rows("C12")] unknown_requests_with_iommu_driver,
    #[rows("C13")] last_group_removes_iommu_driver,
    #[rows("C15")] no_read_write_mmap,
    api_version_ignores_argument,
    second_container_is_independent,
    two_groups_share_mappings,
    user_with_two_groups_needs_no_capability,
}

fn unprivileged_user_can_open() -> Result<()> {
    let mut helper = Helper::spawn(&["nobody"], &[])?;
    assert_eq!(helper.line()?, "0");
    assert_eq!(helper.line()?, "EACCES", "only root may open groups");
    helper.finish()
}

/// The node of a group that belongs to another user until this is dropped.
struct Given(PathBuf);

impl Given {
    fn new(bdf: &str) -> Result<Self> {
        let group = Group::number_of(&Path::new("/sys/bus/pci/devices").join(bdf))?;
        let node = PathBuf::from(format!("/dev/vfio/{group}"));
        chown(&node, Some(65534), Some(65534))?;
        Ok(Self(node))
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        chown(&self.0, Some(0), Some(0)).expect("the node is there");
    }
}

/// The owner of two nodes attaches both groups, maps memory, and lets a device access it.
fn user_with_two_groups_needs_no_capability() -> Result<()> {
    let _nodes = (Given::new(EDU)?, Given::new(NVME)?);
    let mut helper = Helper::spawn(&["owner-of-two-groups"], &[])?;
    assert_eq!(helper.line()?, "0000000000000000", "capabilities");
    assert_eq!(helper.line()?, "done");
    helper.finish()
}

fn get_api_version_returns_zero() -> Result<()> {
    assert_eq!(Container::open()?.api_version()?, 0);
    Ok(())
}

fn api_version_ignores_argument() -> Result<()> {
    let container = Container::open()?;
    assert_eq!(raw::value(&container, request::GET_API_VERSION, 1), Ok(0));
    assert_eq!(
        raw::value(&container, request::GET_API_VERSION, u64::MAX),
        Ok(0)
    );
    Ok(())
}

fn extensions_without_iommu_driver() -> Result<()> {
    let container = Container::open()?;
    for yes in [1, 3, 9] {
        assert_eq!(container.check_extension(yes)?, 1, "extension {yes}");
    }
    for no in [0, 2, 4, 5, 6, 7, 10, 11, 12, 100, 9999, u32::MAX] {
        assert_eq!(container.check_extension(no)?, 0, "extension {no}");
    }
    // The result is the same with a group, as long as no backend is chosen.
    let group = group(EDU)?;
    group.set_container(&container)?;
    for (extension, answer) in [(1, 1), (3, 1), (9, 1), (4, 0), (10, 0), (8, 0)] {
        assert_eq!(container.check_extension(extension)?, answer);
    }
    Ok(())
}

fn extensions_with_iommu_driver() -> Result<()> {
    for iommu in [Iommu::Type1, Iommu::Type1v2] {
        let (container, _group) = attached(EDU, iommu)?;
        for yes in [1, 3, 9, 10] {
            assert_eq!(container.check_extension(yes)?, 1, "extension {yes}");
        }
        for no in [0, 2, 5, 6, 7, 8, 11, 9999] {
            assert_eq!(container.check_extension(no)?, 0, "extension {no}");
        }
        // Whether all DMA is coherent depends on the IOMMU, but the answer is 0 or 1.
        assert!([0, 1].contains(&container.check_extension(4)?));
    }
    Ok(())
}

fn no_noiommu_extension() -> Result<()> {
    assert_eq!(Container::open()?.check_extension(8)?, 0);
    Ok(())
}

fn set_iommu(container: &Container, number: u64) -> Result<i32, Errno> {
    raw::value(container, request::SET_IOMMU, number)
}

fn set_iommu_needs_a_group() -> Result<()> {
    let container = Container::open()?;
    for number in [0, 1, 3, 8, 9, 9999] {
        assert_eq!(set_iommu(&container, number), Err(Errno::EINVAL));
    }
    Ok(())
}

fn set_iommu_twice() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    for number in [1, 3, 9, 9999] {
        assert_eq!(set_iommu(&container, number), Err(Errno::EINVAL));
    }
    assert_eq!(
        container.info()?.page_sizes & 0xfff,
        0,
        "the IOMMU driver still works"
    );
    Ok(())
}

fn set_iommu_unsupported() -> Result<()> {
    let container = Container::open()?;
    let group = group(EDU)?;
    group.set_container(&container)?;
    for number in [0, 2, 4, 5, 6, 7, 8, 10, 11, 9999, u32::MAX as u64] {
        assert_eq!(
            set_iommu(&container, number),
            Err(Errno::ENODEV),
            "{number}"
        );
    }
    container.set_iommu(Iommu::Type1v2)?;
    Ok(())
}

fn set_iommu_unmap_all() -> Result<()> {
    let container = Container::open()?;
    let group = group(EDU)?;
    group.set_container(&container)?;
    assert_eq!(set_iommu(&container, 9), Err(Errno::EINVAL));
    assert_eq!(
        group.device(EDU).errno(),
        Errno::EINVAL,
        "the container has no IOMMU driver"
    );
    container.set_iommu(Iommu::Type1)?;
    Ok(())
}

fn other_requests_without_iommu_driver() -> Result<()> {
    let container = Container::open()?;
    let check = |container: &Container| {
        for n in (3..=21).chain([150, 255]) {
            let nr = request::number(n);
            assert_eq!(raw::none(container, nr), Err(Errno::EINVAL), "request {n}");
        }
        assert_eq!(raw::none(container, 0x5401), Err(Errno::EINVAL), "TCGETS");
    };
    check(&container);
    let group = group(EDU)?;
    group.set_container(&container)?;
    check(&container);
    let memory = Memory::anonymous(PAGE_SIZE)?;
    assert_eq!(
        container.map(0, &memory, MapFlags::Read).errno(),
        Errno::EINVAL
    );
    assert_eq!(container.info().errno(), Errno::EINVAL);
    Ok(())
}

fn unknown_requests_with_iommu_driver() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    for n in [3, 4, 5, 6, 7, 8, 9, 10, 11, 15, 16, 18, 19, 20, 21, 150] {
        let nr = request::number(n);
        assert_eq!(raw::none(&container, nr), Err(Errno::ENOTTY), "request {n}");
    }
    assert_eq!(raw::none(&container, 0x5401), Err(Errno::ENOTTY), "TCGETS");
    // The same request number with a size or a direction is another request.
    let mut info = Bytes::new().u32(24).fill(0, 20);
    for bits in [1 << 30, 2 << 30, 24 << 16] {
        assert_eq!(
            raw::bytes(&container, request::IOMMU_GET_INFO | bits, &mut info),
            Err(Errno::ENOTTY)
        );
    }
    assert_eq!(info, Bytes::new().u32(24).fill(0, 20));
    Ok(())
}

fn last_group_removes_iommu_driver() -> Result<()> {
    let (container, group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    container.map(PAGE, &memory, MapFlags::ReadWrite)?;
    group.unset_container()?;
    assert_eq!(container.info().errno(), Errno::EINVAL);
    assert_eq!(
        container.unmap(PAGE, PAGE_SIZE as u64).errno(),
        Errno::EINVAL
    );
    // The container is used again with the other backend type. The old mapping is gone.
    group.set_container(&container)?;
    container.set_iommu(Iommu::Type1)?;
    container.map(PAGE, &memory, MapFlags::ReadWrite)?;
    assert_eq!(container.unmap_all()?, PAGE_SIZE as u64);
    Ok(())
}

fn no_read_write_mmap() -> Result<()> {
    let container = Container::open()?;
    let mut byte = [0x5a];
    assert_eq!(raw::pread(&container, &mut byte, 0), Err(Errno::EINVAL));
    assert_eq!(raw::pwrite(&container, &byte, 0), Err(Errno::EINVAL));
    assert_eq!(byte, [0x5a]);
    assert_eq!(
        Memory::from_file(&container, 0, PAGE_SIZE, true).errno(),
        Errno::ENODEV
    );
    Ok(())
}

fn second_container_is_independent() -> Result<()> {
    let (first, _group) = attached(EDU, Iommu::Type1v2)?;
    let (second, _other) = attached(NVME, Iommu::Type1v2)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    first.map(PAGE, &memory, MapFlags::ReadWrite)?;
    second.map(PAGE, &memory, MapFlags::ReadWrite)?;
    assert_eq!(second.unmap_all()?, PAGE_SIZE as u64);
    assert_eq!(first.unmap_all()?, PAGE_SIZE as u64);
    Ok(())
}

fn two_groups_share_mappings() -> Result<()> {
    let (container, first) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    container.map(PAGE, &memory, MapFlags::ReadWrite)?;
    let second = group(NVME)?;
    second.set_container(&container)?;
    let (edu, nvme) = (first.device(EDU)?, second.device(NVME)?);
    assert!(edu.info().is_ok() && nvme.info().is_ok());
    drop(edu);
    first.unset_container()?;
    // The container stays in use by the other group and keeps its mappings.
    assert_eq!(
        container.map(PAGE, &memory, MapFlags::ReadWrite).errno(),
        Errno::EEXIST
    );
    assert_eq!(second.status()?, 3);
    assert_eq!(first.status()?, 1);
    Ok(())
}
