// SPDX-License-Identifier: GPL-2.0

//! The debugfs file `vfio_iommu_type1/containers`, which shows the mappings of each container and
//! statistics of its requests.

use kernel::{
    fmt,
    prelude::*, //
};

use kernel_ext::{
    debugfs::{
        self,
        Dir, //
    },
    iova::Range,
    mm::kib, //
};

use crate::{
    container::{
        Container,
        Layout,
        CONTAINERS, //
    },
    pages::DmaPages, //
};

/// The file.
pub(crate) type File = debugfs::File<Containers>;

/// The contents of the file.
pub(crate) struct Containers;

/// Creates the file, which exists until the returned value is dropped.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn show() -> Result<File> {
    Ok(Dir::new(c"vfio_iommu_type1")?.file(c"containers", ()))
}

#[vtable]
impl debugfs::Contents for Containers {
    type OwnerModule = crate::LocalModule;
    type Data = ();

    fn show((): (), f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for container in CONTAINERS.lock().iter() {
            show_container(f, container)?;
        }
        Ok(())
    }
}

fn show_container(f: &mut fmt::Formatter<'_>, container: &Container) -> fmt::Result {
    let totals = Totals::of(container);
    f.write_fmt(fmt!("container of {}\n", container.opener))?;
    let mut look = container.space.look();
    show_groups(f, look.layout())?;
    f.write_fmt(fmt!(
        "  mappings: {}, {} of them being changed, limit {}\n",
        totals.mappings,
        totals.taken,
        container.limit
    ))?;
    f.write_fmt(fmt!(
        "  mapped: {} KiB, charged: {} KiB, pinned by drivers: {} KiB\n",
        totals.mapped >> 10,
        kib(totals.charged),
        kib(totals.pinned)
    ))?;
    f.write_fmt(fmt!("  requests running or waiting: {}\n", look.requests()))?;
    if let Some(owner) = look.mutex_data().get() {
        f.write_fmt(fmt!("  last mapped by: {owner}\n"))?;
    }
    f.write_fmt(fmt!(
        "  map: {}; unmap: {}; attach and detach: {}\n",
        container.stats.map,
        container.stats.unmap,
        container.stats.groups
    ))
}

/// Writes the groups, by domain.
fn show_groups(f: &mut fmt::Formatter<'_>, layout: &Layout) -> fmt::Result {
    for domain in layout.domains.iter() {
        let sizes = domain.domain.page_sizes();
        f.write_fmt(fmt!("  IOMMU with page sizes {sizes:#x}, group ids:"))?;
        for member in domain.groups.iter() {
            f.write_fmt(fmt!(" {}", member.attachment.group().id()))?;
        }
        f.write_str("\n")?;
    }
    if !layout.emulated.is_empty() {
        f.write_str("  no IOMMU, group ids:")?;
        for group in layout.emulated.iter() {
            f.write_fmt(fmt!(" {}", group.id()))?;
        }
        f.write_str("\n")?;
    }
    Ok(())
}

/// Totals over the mappings of a container.
#[derive(Default)]
struct Totals {
    mappings: usize,
    /// The number of mappings whose pages a request has taken out; their pages are not counted
    /// here.
    taken: usize,
    /// In bytes.
    mapped: u64,
    /// In pages.
    charged: usize,
    /// In pages.
    pinned: usize,
}

impl Totals {
    /// The number of mappings to examine before the container's mutex is released.
    const AT_A_TIME: usize = 1024;

    fn of(container: &Container) -> Self {
        let mut totals = Self::default();
        let mut left = Some(Range::ALL);
        while let Some(range) = left.take() {
            let end = totals.mappings + Self::AT_A_TIME;
            container.space.look().for_each_in(range, |found, dma| {
                totals.add(dma.pages());
                if totals.mappings < end {
                    return true;
                }
                left = found
                    .last
                    .checked_add(1)
                    .map(|start| Range { start, ..range });
                false
            });
        }
        totals
    }

    fn add(&mut self, pages: Option<&DmaPages>) {
        self.mappings += 1;
        let Some(pages) = pages else {
            self.taken += 1;
            return;
        };
        self.mapped += pages.mapping().bytes();
        self.charged += pages.charge.pages();
        self.pinned += pages.pins().map_or(0, |pins| pins.count());
    }
}
