// SPDX-License-Identifier: GPL-2.0

//! `vfio_iommu_type1/containers` in debugfs: what is mapped in each container, for people.

use kernel::{
    debugfs::{
        self,
        Dir,
        Writer, //
    },
    fmt,
    prelude::*,
    sync::Arc, //
};

use iommu_group::ranges::Range;

use kernel_ext::mm::kib;

use crate::{
    abi::globals::CONTAINERS,
    container::{
        Container,
        Layout, //
    },
    pages::DmaPages, //
};

/// Shows a container from now on.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn add(container: &Arc<Container>) -> Result {
    let mut containers = CONTAINERS.lock();
    containers.push(container.clone(), GFP_KERNEL_ACCOUNT)?;
    Ok(())
}

/// Doesn't show a container any more, whose program is through with it.
pub(crate) fn remove(container: &Arc<Container>) {
    let mut containers = CONTAINERS.lock();
    containers.retain(|other| !Arc::ptr_eq(other, container));
    // Nobody drops a static when the module goes.
    if containers.is_empty() {
        *containers = KVec::new();
    }
}

/// The file.
pub(crate) type File = debugfs::File<Contents>;

/// What the file shows.
pub(crate) struct Contents;

/// Shows the file while the result lives.
///
/// # Errors
///
/// `ENOMEM`.
pub(crate) fn show() -> Result<Pin<KBox<File>>> {
    let folder = Dir::new(c"vfio_iommu_type1");
    KBox::pin_init(folder.read_only_file(c"containers", Contents), GFP_KERNEL)
}

impl Writer for Contents {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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
        totals.away,
        container.limit
    ))?;
    f.write_fmt(fmt!(
        "  mapped: {} KiB, charged: {} KiB, pinned by drivers: {} KiB\n",
        totals.mapped >> 10,
        kib(totals.charged),
        kib(totals.pinned)
    ))?;
    f.write_fmt(fmt!("  requests at work or waiting: {}\n", look.requests()))?;
    if let Some(owner) = look.state().get() {
        f.write_fmt(fmt!("  last to map: {owner}\n"))?;
    }
    f.write_fmt(fmt!(
        "  map: {}; unmap: {}; groups: {}\n",
        container.spent.map,
        container.spent.unmap,
        container.spent.groups
    ))
}

/// The groups by domain.
fn show_groups(f: &mut fmt::Formatter<'_>, layout: &Layout) -> fmt::Result {
    for domain in layout.domains.iter() {
        let sizes = domain.domain.page_sizes();
        f.write_fmt(fmt!("  IOMMU with page sizes {sizes:#x}, groups:"))?;
        for member in domain.groups.iter() {
            f.write_fmt(fmt!(" {}", member.attachment.group().id()))?;
        }
        f.write_str("\n")?;
    }
    if !layout.emulated.is_empty() {
        f.write_str("  no IOMMU, groups:")?;
        for group in layout.emulated.iter() {
            f.write_fmt(fmt!(" {}", group.id()))?;
        }
        f.write_str("\n")?;
    }
    Ok(())
}

/// Sums over the mappings of a container.
#[derive(Default)]
struct Totals {
    mappings: usize,
    /// How many somebody works on, whose pages aren't counted here.
    away: usize,
    /// In bytes.
    mapped: u64,
    /// In pages.
    charged: usize,
    /// In pages.
    pinned: usize,
}

impl Totals {
    /// How many mappings are looked at without letting others have the container's lock.
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
            self.away += 1;
            return;
        };
        self.mapped += pages.mapping.bytes();
        self.charged += pages.charge.pages();
        self.pinned += pages.pins().map_or(0, |pins| pins.count());
    }
}
