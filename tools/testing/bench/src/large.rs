// SPDX-License-Identifier: GPL-2.0

//! One GiB of memory of each kind.

use crate::{
    base::iommu_pages,
    measure::{
        median,
        print,
        time, //
    },
    memory::{
        Filled,
        Kind,
        MEBIBYTE,
        reserve_hugetlb, //
    },
    request::{
        Attached,
        Request, //
    },
};
use anyhow::{
    Context,
    Result, //
};

const SIZE: usize = 1024 * MEBIBYTE;
/// Where memory is mapped for devices.
const IOVA: u64 = 1 << 32;
/// Once suffices: what happens besides is little against it.
const REPETITIONS: usize = 1;

/// Measures with the group of `device`.
pub fn measure(device: &str) -> Result<()> {
    for kind in Kind::ALL {
        one_map(device, kind).with_context(|| kind.name())?;
    }
    Ok(())
}

/// Maps everything at once; then unmaps, or closes the container.
fn one_map(device: &str, kind: Kind) -> Result<()> {
    if kind == Kind::Hugetlb {
        reserve_hugetlb(SIZE)?;
    }
    let memory = Filled::new(kind, SIZE)?;
    let size = SIZE as u64;
    let mut map = Request::map(memory.addr, IOVA, size)?;
    let mut unmap = Request::unmap(IOVA, size)?;
    let mut left = 0;
    let [mapped, unmapped, closed] = median(REPETITIONS, || {
        let attached = Attached::new(device)?;
        let pages = iommu_pages()?;
        let mapped = time(|| map.send(&attached.container).map(drop))?;
        let unmapped = time(|| unmap.send_unmap(&attached.container, size))?;
        left = iommu_pages()? - pages;
        map.send(&attached.container)?;
        let closed = time(|| {
            drop(attached);
            Ok(())
        })?;
        Ok([mapped, unmapped, closed])
    })?;
    let name = kind.name();
    print(&format!("1 GiB of {name}: map"), mapped);
    print(&format!("1 GiB of {name}: unmap"), unmapped);
    print(&format!("1 GiB of {name}: close"), closed);
    print(
        &format!("page-table pages left after unmapping {name}"),
        left,
    );
    drop(memory);
    if kind == Kind::Hugetlb {
        reserve_hugetlb(0)?;
    }
    Ok(())
}
