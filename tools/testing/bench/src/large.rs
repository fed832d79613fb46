// SPDX-License-Identifier: GPL-2.0

//! Memory of each kind, mapped as a whole, in some pieces, and page by page; and how it goes again.

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

/// Where memory is mapped for devices.
const IOVA: u64 = 1 << 32;

/// How often each way to end is measured. It takes long; rounds of the whole add to it.
const REPETITIONS: usize = 2;

/// How memory is divided into mappings.
#[derive(Clone, Copy)]
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

/// Measures memory of a kind, between two times at which DMA reaches it, and counters are the same.
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

/// What is printed besides costs.
const LEFT: &str = "page-table pages left by unmap";

/// Whether any figure of a shape is wanted.
fn is_wanted_shape(name: &str) -> bool {
    let ends = ENDS.iter().map(|(_, end)| *end);
    ends.chain(["map", LEFT])
        .any(|figure| is_wanted(&format!("{name}: {figure}")))
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
