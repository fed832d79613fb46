// SPDX-License-Identifier: GPL-2.0

//! Diagnostics of the Rust type 1 backend: the tracepoint of failed requests, log messages, and
//! debugfs.

use super::limits::Parameter;
use crate::{
    env::{
        EDU,
        EMPTY,
        NVME,
        attached,
        group,
        msi_window, //
    },
    harness::cases,
    tracing::Trace, //
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    fs,
    process, //
};
use support::{
    PAGE,
    helper::Helper,
    kmsg::says,
    requests::DirtyPages, //
};
use vfio_client::{
    Arena,
    Bytes,
    Container,
    Errno,
    Filling,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    pci,
    raw,
    request, //
};

cases! {
    #[requires(type1(Rust))] trace_explains_refused_map,
    #[requires(type1(Rust))] trace_explains_refused_vaddr_update,
    #[requires(type1(Rust))] trace_explains_refused_unmap,
    #[requires(type1(Rust))] trace_explains_refused_unmap_with_bitmap,
    #[requires(type1(Rust))] log_explains_dma_entry_limit,
    #[requires(type1(Rust))] log_explains_memlock_limit,
    #[requires(type1(Rust))] debugfs_lists_containers,
}

const REFUSED: &str = "vfio_type1/vfio_type1_refused";
const READ: u32 = 1;
const VADDR: u32 = 4;
const ALL: u32 = 2;
const DIRTY: u32 = 1;
const UNALIGNED: &str = "address or size is not a multiple of the IOMMU page size";

/// A request to map or unmap. It is valid except for the fields that a case changes.
#[derive(Clone, Copy)]
struct Ask {
    argsz: u32,
    flags: u32,
    /// Used for a map only.
    vaddr: Option<u64>,
    iova: u64,
    size: u64,
}

/// The expected tracepoint record.
struct Refused {
    ask: Ask,
    errno: Errno,
    /// The first and the last address of the request's range.
    at: (u64, u64),
    reason: &'static str,
}

impl Ask {
    fn map(vaddr: u64) -> Self {
        Self {
            argsz: 32,
            flags: READ,
            vaddr: Some(vaddr),
            iova: 8 * PAGE,
            size: PAGE,
        }
    }

    fn unmap(iova: u64, size: u64) -> Self {
        Self {
            argsz: 24,
            flags: 0,
            vaddr: None,
            iova,
            size,
        }
    }

    fn argsz(self, argsz: u32) -> Self {
        Self { argsz, ..self }
    }

    fn flags(self, flags: u32) -> Self {
        Self { flags, ..self }
    }

    fn range(self, iova: u64, size: u64) -> Self {
        Self { iova, size, ..self }
    }

    fn is(self, errno: Errno, reason: &'static str) -> Refused {
        let last = self.iova.wrapping_add(self.size).wrapping_sub(1);
        Refused {
            ask: self,
            errno,
            at: (self.iova, last),
            reason,
        }
    }

    /// Returns the argument of the ioctl.
    fn bytes(self) -> Bytes {
        let start = Bytes::new().u32(self.argsz).u32(self.flags);
        let start = match self.vaddr {
            Some(vaddr) => start.u64(vaddr),
            None => start,
        };
        start.u64(self.iova).u64(self.size)
    }

    fn send(self, container: &Container, bytes: Bytes) -> Result<i32, Errno> {
        let number = match self.vaddr {
            Some(_) => request::IOMMU_MAP_DMA,
            None => request::IOMMU_UNMAP_DMA,
        };
        raw::bytes(container, number, &mut { bytes })
    }
}

impl Refused {
    fn at(self, first: u64, last: u64) -> Self {
        let at = (first, last);
        Self { at, ..self }
    }

    /// Sends the request and checks the trace.
    fn check(&self, container: &Container, trace: &Trace) -> Result<()> {
        self.check_with(container, trace, self.ask.bytes())
    }

    fn check_with(&self, container: &Container, trace: &Trace, bytes: Bytes) -> Result<()> {
        let Self { ask, reason, .. } = self;
        assert_eq!(ask.send(container, bytes), Err(self.errno), "{reason}");
        let line = format!(
            "vfio_type1_refused: {} iova={:#x} size={:#x} error={} at={:#x}-{:#x} reason=\"{reason}\"",
            ask.vaddr.map_or("unmap", |_| "map"),
            ask.iova,
            ask.size,
            -(self.errno as i32),
            self.at.0,
            self.at.1,
        );
        let lines = trace.take()?;
        ensure!(
            lines.contains(&line),
            "expected the trace record\n{line}\ngot:\n{lines}"
        );
        Ok(())
    }
}

fn trace_explains_refused_map() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    container.map(0x10 * PAGE, &memory, MapFlags::Read)?;
    let mut hole = Arena::new(EMPTY, 2 * PAGE_SIZE)?;
    hole.fill(0..PAGE_SIZE, Filling::Private)?;
    let window = msi_window(EDU)?;
    let trace = Trace::of(REFUSED)?;
    let page = Ask::map(memory.addr());
    for refused in [
        page.argsz(8).is(Errno::EINVAL, "argsz too small"),
        page.flags(8).is(Errno::EINVAL, "unknown flags"),
        page.range(8 * PAGE, 0).is(Errno::EINVAL, "size is 0"),
        Ask::map(0)
            .range(2 * PAGE, u64::MAX - PAGE + 1)
            .flags(0)
            .is(Errno::EOVERFLOW, "range exceeds the last address"),
        page.flags(0)
            .is(Errno::EINVAL, "neither VFIO_DMA_MAP_FLAG_READ nor VFIO_DMA_MAP_FLAG_WRITE is set"),
        page.flags(READ | VADDR).is(
            Errno::EINVAL,
            "FLAG_VADDR cannot be combined with these flags",
        ),
        page.range(8 * PAGE, 0x800).is(Errno::EINVAL, UNALIGNED),
        page.range(0xf * PAGE, 2 * PAGE)
            .is(Errno::EEXIST, "range overlaps an existing mapping")
            .at(0x10 * PAGE, 0x14 * PAGE - 1),
        page.range(window.start - PAGE, 2 * PAGE)
            .is(
                Errno::EINVAL,
                "range is outside of the valid iova ranges; see VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE",
            )
            .at(window.start, window.end),
        Ask::map(hole.addr())
            .range(0x20 * PAGE, 2 * PAGE)
            .is(
                Errno::EFAULT,
                "the pages at the vaddr cannot be pinned",
            )
            .at(0x21 * PAGE, 0x22 * PAGE - 1),
    ] {
        refused.check(&container, &trace)?;
    }
    page.send(&container, page.bytes())?;
    assert_eq!(trace.take()?, "", "a successful request leaves no record");
    Ok(())
}

fn trace_explains_refused_vaddr_update() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    container.map(0x10 * PAGE, &memory, MapFlags::Read)?;
    let trace = Trace::of(REFUSED)?;
    let give = Ask::map(memory.addr()).flags(VADDR);
    give.is(Errno::ENOENT, "nothing is mapped in the range")
        .check(&container, &trace)?;
    give.range(0x10 * PAGE, 4 * PAGE)
        .is(
            Errno::EINVAL,
            "the vaddr of the mapping is still valid; invalidate it first",
        )
        .check(&container, &trace)?;
    let withdraw = Ask::unmap(0x10 * PAGE, 4 * PAGE).flags(VADDR);
    withdraw.send(&container, withdraw.bytes())?;
    give.range(0x11 * PAGE, PAGE)
        .is(Errno::EINVAL, "range is not exactly that of one mapping")
        .at(0x10 * PAGE, 0x14 * PAGE - 1)
        .check(&container, &trace)
}

fn trace_explains_refused_unmap() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    container.map(0x10 * PAGE, &memory, MapFlags::Read)?;
    let trace = Trace::of(REFUSED)?;
    let page = Ask::unmap(0x10 * PAGE, PAGE);
    for refused in [
        page.argsz(8).is(Errno::EINVAL, "argsz too small"),
        page.flags(8).is(Errno::EINVAL, "unknown flags"),
        page.flags(DIRTY).is(Errno::EINVAL, "argsz too small"),
        Ask::unmap(0, 0).flags(DIRTY | ALL).is(
            Errno::EINVAL,
            "a dirty bitmap cannot be combined with these flags",
        ),
        Ask::unmap(0x10 * PAGE, 0)
            .flags(ALL)
            .is(Errno::EINVAL, "FLAG_ALL requires iova and size 0"),
        Ask::unmap(0x10 * PAGE, 0).is(Errno::EINVAL, "size is 0"),
        Ask::unmap(0x10 * PAGE + 0x800, PAGE).is(Errno::EINVAL, UNALIGNED),
        Ask::unmap(0x13 * PAGE, 2 * PAGE)
            .is(Errno::EINVAL, "range bisects a mapping")
            .at(0x10 * PAGE, 0x14 * PAGE - 1),
    ] {
        refused.check(&container, &trace)?;
    }
    let withdraw = Ask::unmap(0, 0x100 * PAGE).flags(VADDR);
    withdraw.send(&container, withdraw.bytes())?;
    withdraw
        .is(Errno::EINVAL, "the vaddr of the mapping is already invalid")
        .at(0x10 * PAGE, 0x14 * PAGE - 1)
        .check(&container, &trace)
}

fn trace_explains_refused_unmap_with_bitmap() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let bits = Memory::anonymous(PAGE_SIZE)?;
    let trace = Trace::of(REFUSED)?;
    let refused = |page_size: u64, size: u64, reason| {
        let ask = Ask::unmap(0x10 * PAGE, 2 * PAGE).argsz(48).flags(DIRTY);
        let bytes = ask.bytes().u64(page_size).u64(size).u64(bits.addr());
        ask.is(Errno::EINVAL, reason)
            .check_with(&container, &trace, bytes)
    };
    refused(0, 8, "invalid dirty bitmap: address, size or pgsize")?;
    refused(PAGE, 0, "invalid dirty bitmap: address, size or pgsize")?;
    refused(PAGE, 8, "dirty page tracking is disabled; start it first")?;
    DirtyPages::track(DirtyPages::START).send(&container)?;
    refused(
        2 * PAGE,
        8,
        "pgsize of the bitmap is not the smallest IOMMU page size",
    )
}

fn log_explains_dma_entry_limit() -> Result<()> {
    let limit = Parameter::set("dma_entry_limit", "2")?;
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    drop(limit);
    let memory = Memory::anonymous(PAGE_SIZE)?;
    container.map(0, &memory, MapFlags::Read)?;
    container.map(PAGE, &memory, MapFlags::Read)?;
    let pid = format!("({}): dma_entry_limit reached", nix::unistd::gettid());
    let numbers = "2 mappings in the container; raise";
    let parts = [
        "vfio_iommu_type1: ",
        &pid,
        numbers,
        "raise the module parameter dma_entry_limit",
    ];
    let trace = Trace::of(REFUSED)?;
    let page = Ask::map(memory.addr()).range(2 * PAGE, PAGE);
    says(&parts, || {
        page.is(Errno::ENOSPC, "too many mappings; raise dma_entry_limit")
            .check(&container, &trace)
    })
}

fn log_explains_memlock_limit() -> Result<()> {
    let trace = Trace::of(REFUSED)?;
    let limit = format!(" 0 KiB locked, limit {} KiB", 8 * PAGE / 1024);
    let parts = [
        "RLIMIT_MEMLOCK exceeded: ",
        &limit,
        "raise the limit or grant CAP_IPC_LOCK",
    ];
    says(&parts, || {
        let mut helper = Helper::spawn(&["memlock", "8"], &[])?;
        assert_eq!(helper.line()?, "ENOMEM");
        let lines = trace.take()?;
        assert!(lines.contains("error=-12 "), "{lines}");
        let reason = "reason=\"locked memory limit exceeded; raise RLIMIT_MEMLOCK\"";
        assert!(lines.contains(reason), "{lines}");
        for _ in 0..11 {
            helper.line()?;
        }
        helper.finish()
    })
}

/// Returns what debugfs shows about the containers of this process.
fn own_containers() -> Result<String> {
    let path = "/sys/kernel/debug/vfio_iommu_type1/containers";
    let text = fs::read_to_string(path).context(path)?;
    let pid = format!("({})\n", process::id());
    Ok(text
        .split("container of ")
        .filter(|container| {
            container
                .lines()
                .next()
                .is_some_and(|line| format!("{line}\n").ends_with(&pid))
        })
        .collect())
}

fn debugfs_lists_containers() -> Result<()> {
    assert_eq!(own_containers()?, "");
    let (container, first) = attached(EDU, Iommu::Type1v2)?;
    let second = group(NVME)?;
    second.set_container(&container)?;
    let memory = Memory::anonymous(8 * PAGE_SIZE)?;
    container.map(0x10 * PAGE, &memory, MapFlags::Read)?;
    container.map_part(0x40 * PAGE, &memory, 0, PAGE_SIZE, MapFlags::Read)?;
    container.unmap(0x40 * PAGE, PAGE)?;
    let text = own_containers()?;
    let kib = 8 * PAGE / 1024;
    let groups = [pci::group_of(EDU)?, pci::group_of(NVME)?];
    for part in [
        format!("group ids: {} {}\n", groups[0], groups[1]),
        "mappings: 1, 0 of them being changed, limit 65535\n".into(),
        format!("mapped: {kib} KiB, charged: {kib} KiB, pinned by drivers: 0 KiB\n"),
        format!(
            "({}): {kib} KiB locked in all, no limit (CAP_IPC_LOCK)\n",
            process::id()
        ),
        "map: 2 requests, ".into(),
        "unmap: 1 requests, ".into(),
        "attach and detach: 2 requests, ".into(),
    ] {
        ensure!(text.contains(&part), "expected {part:?} in:\n{text}");
    }
    drop((first, second));
    drop(container);
    assert_eq!(own_containers()?, "");
    Ok(())
}
