// SPDX-License-Identifier: GPL-2.0

//! The information that a type 1 container returns.

use crate::{
    env::{
        EDU,
        attached,
        msi_window, //
    },
    harness::cases, //
};
use anyhow::Result;
use vfio_client::{
    Bytes,
    Errno,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    raw,
    request,
    uapi::VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION, //
};

cases! {
    #[rows("T-I1")] get_info_argsz,
    #[rows("T-I1")] get_info_with_old_argsz,
    #[rows("T-I2")] capability_chain,
    #[rows("T-I2")] iova_range_capability,
    #[rows("T-I2")] dma_avail_capability,
    #[rows("T-I5")] argsz_too_small_for_capabilities,
    same_info_for_type1_and_v2,
}

fn get_info_argsz() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    for short in [0, 8, 15] {
        let mut bytes = Bytes::new().u32(short).fill(0xaa, 12);
        assert_eq!(
            raw::bytes(&container, request::IOMMU_GET_INFO, &mut bytes),
            Err(Errno::EINVAL)
        );
        assert_eq!(bytes, Bytes::new().u32(short).fill(0xaa, 12));
    }
    Ok(())
}

fn get_info_with_old_argsz() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let whole = container.info()?;
    // A program older than capabilities: nothing beyond 16 bytes is written.
    let mut bytes = Bytes::new().u32(16).fill(0, 12).fill(0xaa, 128);
    assert_eq!(
        raw::bytes(&container, request::IOMMU_GET_INFO, &mut bytes),
        Ok(0)
    );
    assert_eq!(bytes.get_u32(4), 3, "flags");
    assert_eq!(bytes.get_u64(8), whole.page_sizes);
    assert!(bytes.get_u32(0) > 24, "argsz is the size needed");
    assert_eq!(&bytes.as_ref()[16..], [0xaa; 128]);
    // Nothing beyond them is read either.
    let mut bytes = Bytes::new().u32(16).fill(0, 12);
    assert_eq!(
        raw::bytes(&container, request::IOMMU_GET_INFO, &mut bytes),
        Ok(0)
    );
    Ok(())
}

fn capability_chain() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let info = container.info()?;
    assert_eq!(info.flags, 3);
    assert_ne!(info.page_sizes & PAGE_SIZE as u64, 0, "pages of the kernel");
    assert_eq!(info.page_sizes % PAGE_SIZE as u64, 0, "no smaller pages");
    let chain: Vec<_> = info
        .caps
        .iter()
        .map(|c| (c.id, c.version, c.offset))
        .collect();
    // The migration capability has 32 bytes, the next one 12 (rounded up to 16).
    assert_eq!(chain, [(2, 1, 24), (3, 1, 56), (1, 1, 72)]);
    let migration = info.cap(VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION).cloned();
    let migration = migration.unwrap_or_else(|| unreachable!("in the chain"));
    assert_eq!(migration.body.get_u32(0), 0, "flags");
    assert_eq!(migration.body.get_u64(8), PAGE_SIZE as u64, "page size");
    assert_eq!(migration.body.get_u64(16), 256 << 20, "largest bitmap");
    Ok(())
}

fn iova_range_capability() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let ranges = container.info()?.ranges();
    let window = msi_window(EDU)?;
    assert!(!ranges.is_empty());
    assert_eq!(ranges[0].start, 0);
    for range in &ranges {
        assert!(range.start < range.end, "{range:x?}");
        assert!(
            range.end < window.start || range.start > window.end,
            "{range:x?} contains the interrupt window"
        );
    }
    for pair in ranges.windows(2) {
        assert!(
            pair[0].end < pair[1].start,
            "expected ascending ranges, got {pair:x?}"
        );
    }
    assert!(ranges.iter().any(|range| range.end == window.start - 1));
    assert!(ranges.iter().any(|range| range.start == window.end + 1));
    Ok(())
}

fn dma_avail_capability() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let avail = || -> Result<Option<u32>> { Ok(container.info()?.dma_avail()) };
    assert_eq!(avail()?, Some(65535));
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::Read)?;
    assert_eq!(avail()?, Some(65534));
    container.map(0x10_0000, &memory, MapFlags::Read)?;
    assert_eq!(avail()?, Some(65533));
    container.unmap(0, memory.len() as u64)?;
    assert_eq!(avail()?, Some(65534));
    container.unmap_all()?;
    assert_eq!(avail()?, Some(65535));
    Ok(())
}

fn argsz_too_small_for_capabilities() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let mut bytes = Bytes::new().u32(24).fill(0xaa, 20).fill(0xaa, 128);
    assert_eq!(
        raw::bytes(&container, request::IOMMU_GET_INFO, &mut bytes),
        Ok(0)
    );
    let needed = bytes.get_u32(0);
    assert!(needed > 24);
    assert_eq!(bytes.get_u32(4), 3, "flags");
    assert_eq!(bytes.get_u32(16), 0, "cap_offset");
    assert_eq!(&bytes.as_ref()[24..], [0xaa; 128]);
    // If one byte is missing, no capability is returned.
    let mut bytes = Bytes::new().u32(needed - 1).fill(0xaa, needed as usize - 4);
    assert_eq!(
        raw::bytes(&container, request::IOMMU_GET_INFO, &mut bytes),
        Ok(0)
    );
    assert_eq!((bytes.get_u32(0), bytes.get_u32(16)), (needed, 0));
    let mut bytes = Bytes::new()
        .u32(needed)
        .fill(0, needed as usize - 4)
        .fill(0xaa, 8);
    assert_eq!(
        raw::bytes(&container, request::IOMMU_GET_INFO, &mut bytes),
        Ok(0)
    );
    assert_eq!((bytes.get_u32(0), bytes.get_u32(16)), (needed, 24));
    assert_eq!(&bytes.as_ref()[needed as usize..], [0xaa; 8]);
    // The structure fits, but the chain would be written to inaccessible memory.
    let mut bytes = Bytes::new().u32(needed).fill(0xaa, 20);
    assert_eq!(
        raw::bytes(&container, request::IOMMU_GET_INFO, &mut bytes),
        Err(Errno::EFAULT)
    );
    Ok(())
}

fn same_info_for_type1_and_v2() -> Result<()> {
    let (container, group) = attached(EDU, Iommu::Type1v2)?;
    let v2 = container.info()?;
    group.unset_container()?;
    group.set_container(&container)?;
    container.set_iommu(Iommu::Type1)?;
    assert_eq!(container.info()?, v2);
    Ok(())
}
