// SPDX-License-Identifier: GPL-2.0

//! Memory of each kind, mapped as a whole, in some pieces, and page by page; and how it goes again.

use crate::{
    base::{
        Base,
        iommu_pages, //
    },
    edu,
    measure::{
        print,
        settle,
        time, //
    },
    memory::{
        Filled,
        GIBIBYTE,
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
use vfio_client::PAGE_SIZE;

/// Where memory is mapped for devices.
const IOVA: u64 = 1 << 32;

/// How memory is divided into mappings.
struct Shape {
    name: &'static str,
    count: u64,
    size: u64,
}

/// The last one has as many mappings as `vfio_iommu_type1.dma_entry_limit` allows, if nobody changed it.
const SHAPES: [Shape; 3] = [
    Shape {
        name: "1 GiB",
        count: 1,
        size: GIBIBYTE as u64,
    },
    Shape {
        name: "64 times 16 MiB",
        count: 64,
        size: 16 * MEBIBYTE as u64,
    },
    Shape {
        name: "65,535 times 4 KiB",
        count: 65_535,
        size: PAGE_SIZE as u64,
    },
];

/// How mappings go.
#[derive(Clone, Copy)]
enum End {
    /// Each by a request of its own.
    Unmap,
    /// All by one.
    UnmapAll,
    /// With their container.
    Close,
}

/// Measures with the group of `device`.
pub fn measure(device: &str) -> Result<()> {
    for kind in Kind::ALL {
        of_kind(device, kind).with_context(|| kind.name())?;
    }
    Ok(())
}

/// Measures memory of a kind, between two times at which DMA reaches it, and counters are the same.
fn of_kind(device: &str, kind: Kind) -> Result<()> {
    if kind == Kind::Hugetlb {
        reserve_hugetlb(GIBIBYTE)?;
    }
    let base = Base::take(device)?;
    let memory = Filled::new(kind, GIBIBYTE)?;
    edu::check(device, &memory, GIBIBYTE as u64)?;
    for shape in &SHAPES {
        let name = format!("{} of {}", shape.name, kind.name());
        of_shape(device, &memory, shape, &name).context(name)?;
    }
    edu::check(device, &memory, GIBIBYTE as u64)?;
    drop(memory);
    base.check()?;
    if kind == Kind::Hugetlb {
        reserve_hugetlb(0)?;
    }
    Ok(())
}

fn of_shape(device: &str, memory: &Filled, shape: &Shape, name: &str) -> Result<()> {
    let mut work = Work::new(device, memory, shape)?;
    let unmap = work.run(End::Unmap)?;
    let unmap_all = work.run(End::UnmapAll)?;
    let close = work.run(End::Close)?;
    let mut maps = [unmap.map, unmap_all.map, close.map];
    maps.sort_unstable();
    print(&format!("{name}: map"), maps[1]);
    print(&format!("{name}: unmap"), unmap.end);
    print(&format!("{name}: UNMAP_ALL"), unmap_all.end);
    print(&format!("{name}: close"), close.end);
    print(
        &format!("{name}: page-table pages left by unmap"),
        unmap.left,
    );
    Ok(())
}

/// What it cost to map and to end, and how many pages of page tables were left.
struct Costs {
    map: u64,
    end: u64,
    left: u64,
}

/// A shape of some memory, for the group of a device.
struct Work<'a> {
    device: &'a str,
    shape: &'a Shape,
    addr: u64,
    map: Request,
    unmap: Request,
    unmap_all: Request,
}

impl<'a> Work<'a> {
    fn new(device: &'a str, memory: &Filled, shape: &'a Shape) -> Result<Self> {
        Ok(Self {
            device,
            shape,
            addr: memory.addr,
            map: Request::map(memory.addr, IOVA, shape.size)?,
            unmap: Request::unmap(IOVA, shape.size)?,
            unmap_all: Request::unmap_all()?,
        })
    }

    fn run(&mut self, end: End) -> Result<Costs> {
        settle();
        let attached = Attached::new(self.device)?;
        let pages = iommu_pages()?;
        let map = time(|| self.map(&attached))?;
        let end = match end {
            End::Unmap => time(|| self.unmap(&attached))?,
            End::UnmapAll => time(|| self.unmap_all(&attached))?,
            End::Close => time(|| {
                drop(attached);
                Ok(())
            })?,
        };
        let left = iommu_pages()?.saturating_sub(pages);
        Ok(Costs { map, end, left })
    }

    fn map(&mut self, attached: &Attached) -> Result<()> {
        for offset in self.shape.offsets() {
            self.map.set_u64(8, self.addr + offset);
            self.map.set_u64(16, IOVA + offset);
            self.map.send(&attached.container)?;
        }
        Ok(())
    }

    fn unmap_all(&mut self, attached: &Attached) -> Result<()> {
        let size = self.shape.count * self.shape.size;
        self.unmap_all.send_unmap_all(&attached.container, size)
    }

    fn unmap(&mut self, attached: &Attached) -> Result<()> {
        for offset in self.shape.offsets() {
            self.unmap.set_u64(8, IOVA + offset);
            self.unmap
                .send_unmap(&attached.container, self.shape.size)?;
        }
        Ok(())
    }
}

impl Shape {
    /// Where each mapping begins.
    fn offsets(&self) -> impl Iterator<Item = u64> {
        let size = self.size;
        (0..self.count).map(move |nth| nth * size)
    }
}
