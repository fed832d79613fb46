// SPDX-License-Identifier: GPL-2.0

//! The operations.

use crate::{
    each,
    turns, //
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    fs,
    os::fd::{
        AsFd,
        AsRawFd, //
    },
};
use vfio_client::{
    Bytes,
    Container,
    Device,
    Group,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    pci,
    raw,
    request, //
};

const MEBIBYTE: usize = 1 << 20;
const HUGE_PAGE: usize = 2 * MEBIBYTE;
/// Where memory is mapped for devices.
const IOVA: u64 = 1 << 32;
/// Enough for any answer with its capabilities.
const ANSWER: usize = 1024;

/// A request, ready to be sent again and again.
struct Request {
    number: u32,
    memory: Memory,
}

impl Request {
    fn new(number: u32, bytes: &Bytes) -> Result<Self> {
        let memory = Memory::anonymous(ANSWER)?;
        memory.write(0, bytes.as_ref());
        Ok(Self { number, memory })
    }

    fn send(&mut self, fd: impl AsFd) -> Result<i32> {
        Ok(raw::at(fd, self.number, &mut self.memory, 0)?)
    }
}

/// A group that nobody uses.
pub struct Bench {
    bdf: String,
    group: Group,
}

impl Bench {
    /// Opens the group of a device.
    pub fn new(bdf: &str) -> Result<Self> {
        Ok(Self {
            bdf: bdf.to_owned(),
            group: Group::open(pci::group_of(bdf)?)?,
        })
    }

    /// Measures containers without a backend.
    pub fn container(&self) -> Result<()> {
        each("container open+close", 100, || {
            drop(Container::open()?);
            Ok(())
        })
    }

    /// Measures how a group joins a container, which gets its backend, and leaves it.
    pub fn group(&self) -> Result<()> {
        let container = Container::open()?;
        let mut join = self.join(&container)?;
        each("group attach+detach", 20, || {
            join.send(&self.group)?;
            container.set_iommu(Iommu::Type1v2)?;
            Ok(self.group.unset_container()?)
        })
    }

    fn join(&self, container: &Container) -> Result<Request> {
        let fd = container.as_fd().as_raw_fd();
        let bytes = Bytes::new().raw(&fd.to_ne_bytes());
        Request::new(request::GROUP_SET_CONTAINER, &bytes)
    }

    /// Joins a container.
    pub fn attach(self) -> Result<Attached> {
        let container = Container::open()?;
        self.group.set_container(&container)?;
        container.set_iommu(Iommu::Type1v2)?;
        Ok(Attached {
            bench: self,
            container,
        })
    }
}

/// A group in a container with a backend.
pub struct Attached {
    bench: Bench,
    container: Container,
}

impl Attached {
    /// Measures requests to the device and to the backend that change nothing.
    pub fn device(&self) -> Result<()> {
        let name = Bytes::new().raw(self.bench.bdf.as_bytes()).fill(0, 1);
        let mut open = Request::new(request::GROUP_GET_DEVICE_FD, &name)?;
        each("GET_DEVICE_FD+close", 20, || {
            let fd = open.send(&self.bench.group)?;
            Ok(nix::unistd::close(fd)?)
        })?;

        let device: Device = self.bench.group.device(&self.bench.bdf)?;
        let size = Bytes::new().u32(ANSWER as u32).fill(0, 36);
        let mut region = Request::new(request::DEVICE_GET_REGION_INFO, &size)?;
        each("GET_REGION_INFO", 500, || region.send(&device).map(drop))?;
        let mut info = Request::new(request::IOMMU_GET_INFO, &size)?;
        each("IOMMU_GET_INFO", 500, || {
            info.send(&self.container).map(drop)
        })?;
        each("GET_API_VERSION", 500, || {
            self.container.api_version()?;
            Ok(())
        })
    }

    /// Measures one page.
    pub fn page(&self) -> Result<()> {
        let memory = Memory::anonymous(PAGE_SIZE)?;
        memory.write_u8(0, 1);
        self.map_and_unmap("4 KiB", 200, memory.addr(), PAGE_SIZE)
    }

    /// Measures much memory that is there already.
    pub fn memory(&self, name: &str, huge: bool) -> Result<()> {
        const SIZE: usize = 256 * MEBIBYTE;
        let mode = if huge { "always" } else { "never" };
        fs::write("/sys/kernel/mm/transparent_hugepage/enabled", mode).context("huge pages")?;
        let before = huge_pages()?;
        let memory = Memory::anonymous(SIZE + HUGE_PAGE)?;
        for page in (0..memory.len()).step_by(PAGE_SIZE) {
            memory.write_u8(page, 1);
        }
        let found = huge_pages()? - before;
        let wanted = if huge { SIZE / HUGE_PAGE } else { 0 };
        ensure!(found >= wanted, "{found} huge pages, not {wanted}");
        let start = memory.addr().next_multiple_of(HUGE_PAGE as u64);
        self.map_and_unmap(name, 1, start, SIZE)
    }

    fn map_and_unmap(&self, name: &str, times: u64, addr: u64, size: usize) -> Result<()> {
        let size = size as u64;
        let map = Bytes::new()
            .u32(32)
            .u32(MapFlags::ReadWrite.bits())
            .u64(addr)
            .u64(IOVA)
            .u64(size);
        let unmap = Bytes::new().u32(24).u32(0).u64(IOVA).u64(size);
        let mut map = Request::new(request::IOMMU_MAP_DMA, &map)?;
        let mut unmap = Request::new(request::IOMMU_UNMAP_DMA, &unmap)?;
        turns(
            [&format!("{name}: map"), &format!("{name}: unmap")],
            times,
            || map.send(&self.container).map(drop),
            || {
                unmap.send(&self.container)?;
                let gone = unmap.memory.read_u64(16);
                ensure!(gone == size, "{gone:#x} bytes went, not {size:#x}");
                Ok(())
            },
        )
    }
}

/// Returns how many huge pages the kernel has given to programs.
fn huge_pages() -> Result<usize> {
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;
    let kibibytes: usize = text
        .lines()
        .find_map(|line| line.strip_prefix("AnonHugePages:")?.strip_suffix(" kB"))
        .context("AnonHugePages")?
        .trim()
        .parse()?;
    Ok(kibibytes * 1024 / HUGE_PAGE)
}
