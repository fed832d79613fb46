// SPDX-License-Identifier: GPL-2.0

//! Memory of each kind, mapped as a whole, in pieces and page by page, and the ways to unmap it.

use crate::{
    base::{
        Base,
        iommu_pages, //
    },
    edu,
    measure::{
        is_wanted,
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

/// The IOVA of the memory.
const IOVA: u64 = 1 << 32;

/// The number of measurements of each way to unmap. They take long; repeated runs of the program
/// add more.
const REPETITIONS: usize = 2;

/// The division of memory into mappings.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    count: u64,
    size: u64,
}

/// The last one has as many mappings as the default `vfio_iommu_type1.dma_entry_limit` allows.
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

/// The ways to remove mappings.
#[derive(Clone, Copy)]
enum End {
    /// Each mapping by its own request.
    Unmap,
    /// All mappings by one request.
    UnmapAll,
    /// All mappings by closing the container.
    Close,
}

const ENDS: [(End, &str); 3] = [
    (End::Unmap, "unmap"),
    (End::UnmapAll, "UNMAP_ALL"),
    (End::Close, "close"),
];

/// Measures with the group of `device`.
pub fn measure(device: &str) -> Result<()> {
    for kind in Kind::ALL {
        of_kind(device, kind).with_context(|| kind.name())?;
    }
    Ok(())
}

/// Measures memory of a kind. Checks before and after that DMA reaches it, and that the counters
/// are the same.
fn of_kind(device: &str, kind: Kind) -> Result<()> {
    let named = SHAPES.map(|shape| {
        let name = format!("{} of {}", shape.name, kind.name());
        (shape, name)
    });
    let mut wanted = named.iter().filter(|(_, name)| is_wanted_shape(name));
    if wanted.clone().next().is_none() {
        return Ok(());
    }
    if kind == Kind::Hugetlb {
        reserve_hugetlb(GIBIBYTE)?;
    }
    let base = Base::take(device)?;
    let memory = Filled::new(kind, GIBIBYTE)?;
    edu::check(device, &memory, GIBIBYTE as u64)?;
    wanted.try_for_each(|(shape, name)| {
        of_shape(device, &memory, shape, name).with_context(|| name.clone())
    })?;
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
    let mut maps = Vec::new();
    let mut ends = [const { Vec::new() }; ENDS.len()];
    let mut left = Vec::new();
    for _ in 0..REPETITIONS {
        for ((end, _), samples) in ENDS.iter().zip(&mut ends) {
            let costs = work.run(*end)?;
            maps.push(costs.map);
            samples.push(costs.end);
            if matches!(end, End::Unmap) {
                left.push(costs.left);
            }
        }
    }
    print(&format!("{name}: map"), &maps);
    for ((_, end), samples) in ENDS.iter().zip(&ends) {
        print(&format!("{name}: {end}"), samples);
    }
    print(&format!("{name}: {LEFT}"), &left);
    Ok(())
}

/// The figure that is not a cost.
const LEFT: &str = "page-table pages left by unmap";

/// Returns whether any figure of a shape is wanted.
fn is_wanted_shape(name: &str) -> bool {
    let ends = ENDS.iter().map(|(_, end)| *end);
    ends.chain(["map", LEFT])
        .any(|figure| is_wanted(&format!("{name}: {figure}")))
}

/// The costs of mapping and unmapping, and the number of page-table pages left.
struct Costs {
    map: u64,
    end: u64,
    left: u64,
}

/// A shape of some memory, with the group of a device.
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
    /// Returns the offset of each mapping.
    fn offsets(&self) -> impl Iterator<Item = u64> {
        let size = self.size;
        (0..self.count).map(move |nth| nth * size)
    }
}
