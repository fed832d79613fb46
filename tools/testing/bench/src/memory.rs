// SPDX-License-Identifier: GPL-2.0

//! Memory of each kind.

use crate::{
    base::meminfo,
    request::Attached, //
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use nix::sys::memfd::{
    MFdFlags,
    memfd_create, //
};
use std::{
    fs,
    os::fd::{
        AsFd,
        BorrowedFd,
        OwnedFd, //
    },
};
use vfio_client::{
    Arena,
    Device,
    Memory,
    PAGE_SIZE,
    RegionInfo,
    pci,
    uapi::VFIO_PCI_BAR2_REGION_INDEX, //
};

pub const MEBIBYTE: usize = 1 << 20;
pub const GIBIBYTE: usize = 1 << 30;
const HUGE_PAGE: usize = 2 * MEBIBYTE;
/// The address of a mapped BAR: a multiple of the largest size that one CPU page-table entry
/// covers.
const BAR_ADDR: usize = 0x1000 << 30;

/// The kinds of memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Single pages.
    Pages,
    /// Single pages that are not contiguous.
    Fragmented,
    /// Transparent huge pages.
    Thp,
    /// Reserved huge pages (hugetlbfs).
    Hugetlb,
    /// Single pages of a memfd.
    Memfd,
    /// A region of a device, mapped with the largest possible page-table entries.
    Bar,
    /// The same at an address that only allows page-table entries of one page.
    UnalignedBar,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 7] = [
        Self::Thp,
        Self::Hugetlb,
        Self::Pages,
        Self::Fragmented,
        Self::Memfd,
        Self::Bar,
        Self::UnalignedBar,
    ];

    /// Returns the name in the output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pages => "4 KiB pages",
            Self::Fragmented => "scattered 4 KiB pages",
            Self::Thp => "THP",
            Self::Hugetlb => "hugetlb",
            Self::Memfd => "memfd",
            Self::Bar => "BAR",
            Self::UnalignedBar => "unaligned BAR",
        }
    }
}

/// Populated memory.
pub struct Filled {
    backing: Backing,
    /// The file that has the memory.
    file: Option<OwnedFd>,
    /// The first address. It is a multiple of the huge page size unless the kind says otherwise.
    pub addr: u64,
}

enum Backing {
    Memory(Memory),
    Bar(Bar),
}

impl Filled {
    /// Allocates `size` bytes.
    pub fn new(kind: Kind, size: usize) -> Result<Self> {
        match kind {
            Kind::Bar => Bar::open(size, BAR_ADDR),
            Kind::UnalignedBar => Bar::open(size, BAR_ADDR + PAGE_SIZE),
            _ => memory(kind, size),
        }
    }

    /// Returns the file that has the memory, and the offset of the first address in it.
    pub fn file(&self) -> Option<(BorrowedFd<'_>, u64)> {
        let Backing::Memory(memory) = &self.backing else {
            return None;
        };
        let file = self.file.as_ref()?;
        Some((file.as_fd(), self.addr - memory.addr()))
    }

    /// Returns the content of the page at `offset`.
    pub fn page(&self, offset: u64) -> Result<Vec<u8>> {
        match &self.backing {
            Backing::Memory(memory) => {
                let offset = self.addr - memory.addr() + offset;
                Ok(memory.to_vec(offset as usize, PAGE_SIZE))
            }
            Backing::Bar(bar) => {
                let page = bar.device.map_region(&bar.region, offset, PAGE_SIZE)?;
                Ok(page.to_vec(0, PAGE_SIZE))
            }
        }
    }
}

fn memory(kind: Kind, size: usize) -> Result<Filled> {
    give_huge_pages(kind == Kind::Thp)?;
    let before = huge_bytes()?;
    let (memory, file) = match kind {
        Kind::Hugetlb => {
            let (memory, file) = of_file(hugetlb_file()?, size)?;
            (memory, Some(file))
        }
        Kind::Memfd => {
            let file = memfd_create(c"bench", MFdFlags::empty())?;
            let (memory, file) = of_file(file, size + HUGE_PAGE)?;
            (memory, Some(file))
        }
        _ => (Memory::anonymous(size + HUGE_PAGE)?, None),
    };
    let mut pages: Vec<_> = (0..memory.len()).step_by(PAGE_SIZE).collect();
    if kind == Kind::Fragmented {
        fastrand::Rng::with_seed(1).shuffle(&mut pages);
    }
    for page in pages {
        memory.write_u8(page, 1);
    }
    // Otherwise single pages could be collapsed into huge pages during the measurement.
    give_huge_pages(false)?;
    let found = huge_bytes()? - before;
    let wanted = if kind == Kind::Thp { size } else { 0 };
    ensure!(
        found >= wanted,
        "{found:#x} bytes of huge pages, not {wanted:#x}"
    );
    let addr = memory.addr().next_multiple_of(HUGE_PAGE as u64);
    let backing = Backing::Memory(memory);
    Ok(Filled {
        backing,
        file,
        addr,
    })
}

/// Enables or disables transparent huge pages.
pub fn give_huge_pages(give: bool) -> Result<()> {
    let mode = if give { "always" } else { "never" };
    fs::write("/sys/kernel/mm/transparent_hugepage/enabled", mode).context("huge pages")
}

/// Creates a file of reserved huge pages.
fn hugetlb_file() -> Result<OwnedFd> {
    let flags = MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB;
    Ok(memfd_create(c"bench", flags)?)
}

/// Gives a file `size` bytes, and maps them.
fn of_file(file: OwnedFd, size: usize) -> Result<(Memory, OwnedFd)> {
    nix::unistd::ftruncate(&file, size as i64)?;
    let memory = Memory::from_file(file.as_fd(), 0, size, true);
    Ok((memory.context("too few huge pages, if it has some")?, file))
}

/// A region of a device, which is open in its own container.
struct Bar {
    _arena: Arena,
    region: RegionInfo,
    device: Device,
    _attached: Attached,
}

impl Bar {
    /// Maps `size` bytes of the region at `addr`.
    fn open(size: usize, addr: usize) -> Result<Filled> {
        let name = device_with_memory()?;
        let attached = Attached::new(&name)?;
        let device = attached.group.device(&name)?;
        pci::Config::of(&device)?.enable()?;
        let region = device.region(VFIO_PCI_BAR2_REGION_INDEX)?;
        ensure!(region.size >= size as u64, "{:#x} bytes", region.size);
        let mut arena = Arena::new(addr, size)?;
        arena.fill_from(0..size, &device, region.offset)?;
        Ok(Filled {
            addr: arena.addr(),
            file: None,
            backing: Backing::Bar(Self {
                _arena: arena,
                region,
                device,
                _attached: attached,
            }),
        })
    }
}

/// Returns the device whose BAR is plain memory: QEMU's `ivshmem-plain`.
pub fn device_with_memory() -> Result<String> {
    const ID: [u32; 2] = [0x1af4, 0x1110];
    let driver = "/sys/bus/pci/drivers/vfio-pci";
    for entry in fs::read_dir(driver).context(driver)? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        let id = ["vendor", "device"].map(|attribute| pci::read_number(&name, attribute).ok());
        if id == ID.map(Some) {
            return Ok(name);
        }
    }
    anyhow::bail!("vfio-pci has no ivshmem device")
}

/// Reserves huge pages for `size` bytes of [`Kind::Hugetlb`]; 0 frees them.
pub fn reserve_hugetlb(size: usize) -> Result<()> {
    let path = "/proc/sys/vm/nr_hugepages";
    let wanted = (size / HUGE_PAGE).to_string();
    fs::write(path, &wanted).context(path)?;
    let found = fs::read_to_string(path)?;
    ensure!(found.trim() == wanted, "{found} huge pages, not {wanted}");
    Ok(())
}

/// Returns the total size of transparent huge pages in bytes.
fn huge_bytes() -> Result<usize> {
    Ok(meminfo("AnonHugePages")? as usize)
}
