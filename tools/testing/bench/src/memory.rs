// SPDX-License-Identifier: GPL-2.0

//! Memory of each kind.

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
    os::fd::AsFd, //
};
use vfio_client::{
    Memory,
    PAGE_SIZE, //
};

pub const MEBIBYTE: usize = 1 << 20;
const HUGE_PAGE: usize = 2 * MEBIBYTE;

/// What memory consists of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Single pages.
    Pages,
    /// Single pages, no two of which are neighbours.
    Fragmented,
    /// Huge pages which the kernel gives to programs that don't know of them.
    Thp,
    /// Huge pages that were set aside.
    Hugetlb,
    /// Single pages of a file that has no name.
    Memfd,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Thp,
        Self::Hugetlb,
        Self::Pages,
        Self::Fragmented,
        Self::Memfd,
    ];

    /// What the table calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pages => "4 KiB pages",
            Self::Fragmented => "scattered 4 KiB pages",
            Self::Thp => "THP",
            Self::Hugetlb => "hugetlb",
            Self::Memfd => "memfd",
        }
    }
}

/// Memory that is there already.
pub struct Filled {
    _memory: Memory,
    /// Where it begins, at a multiple of the size of a huge page.
    pub addr: u64,
}

impl Filled {
    /// Makes `size` bytes.
    pub fn new(kind: Kind, size: usize) -> Result<Self> {
        let mode = if kind == Kind::Thp { "always" } else { "never" };
        fs::write("/sys/kernel/mm/transparent_hugepage/enabled", mode).context("huge pages")?;
        let before = huge_bytes()?;
        let memory = match kind {
            Kind::Hugetlb => hugetlb(size)?,
            Kind::Memfd => {
                let file = memfd_create(c"bench", MFdFlags::empty())?;
                nix::unistd::ftruncate(&file, (size + HUGE_PAGE) as i64)?;
                Memory::from_file(file.as_fd(), 0, size + HUGE_PAGE, true)?
            }
            _ => Memory::anonymous(size + HUGE_PAGE)?,
        };
        let mut pages: Vec<_> = (0..memory.len()).step_by(PAGE_SIZE).collect();
        if kind == Kind::Fragmented {
            fastrand::Rng::with_seed(1).shuffle(&mut pages);
        }
        for page in pages {
            memory.write_u8(page, 1);
        }
        let found = huge_bytes()? - before;
        let wanted = if kind == Kind::Thp { size } else { 0 };
        ensure!(
            found >= wanted,
            "{found:#x} bytes of huge pages, not {wanted:#x}"
        );
        let addr = memory.addr().next_multiple_of(HUGE_PAGE as u64);
        Ok(Self {
            _memory: memory,
            addr,
        })
    }
}

fn hugetlb(size: usize) -> Result<Memory> {
    let file = memfd_create(c"bench", MFdFlags::MFD_HUGETLB | MFdFlags::MFD_HUGE_2MB)?;
    nix::unistd::ftruncate(&file, size as i64)?;
    Memory::from_file(file.as_fd(), 0, size, true).context("nr_hugepages is too low")
}

/// Sets huge pages aside, for `size` bytes of [`Kind::Hugetlb`], or none.
pub fn reserve_hugetlb(size: usize) -> Result<()> {
    let path = "/proc/sys/vm/nr_hugepages";
    let wanted = (size / HUGE_PAGE).to_string();
    fs::write(path, &wanted).context(path)?;
    let found = fs::read_to_string(path)?;
    ensure!(found.trim() == wanted, "{found} huge pages, not {wanted}");
    Ok(())
}

/// Returns how many bytes of huge pages the kernel has given to programs that don't know of them.
fn huge_bytes() -> Result<usize> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let kibibytes: usize = text
        .lines()
        .find_map(|line| line.strip_prefix("AnonHugePages:")?.strip_suffix(" kB"))
        .context("AnonHugePages")?
        .trim()
        .parse()?;
    Ok(kibibytes * 1024)
}
