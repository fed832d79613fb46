// SPDX-License-Identifier: GPL-2.0

//! Limits on locked memory and on the number of mappings.

use crate::{
    env::{
        EDU,
        EMPTY,
        NVME,
        Setup,
        attached,
        msi_window, //
    },
    harness::{
        Failure,
        cases, //
    },
    helper::say,
    threads, //
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    fs,
    sync::atomic::{
        AtomicBool,
        Ordering, //
    },
};
use support::{
    PAGE,
    helper::{
        Helper,
        without_ipc_lock, //
    },
    machine::locked_pages, //
};
use vfio_client::{
    Advice,
    Arena,
    Errno,
    Filling,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    uapi::VFIO_PCI_BAR0_REGION_INDEX, //
};

cases! {
    #[rows("T-M12", "T-P3")] dma_entry_limit_is_enforced,
    #[rows("T-M16")] memlock_limit_is_enforced,
    #[rows("T-M16")] cap_ipc_lock_ignores_memlock_limit,
    #[rows("T-A5")] registers_are_not_charged,
    #[rows("T-A5")] registers_do_not_reduce_memlock_limit,
    #[rows("C18")] dma_entry_limit_is_sampled_by_set_iommu,
    parameter_defaults,
    #[rows("T-P2")] disable_hugepages_maps_single_pages,
}

const PARAMETERS: &str = "/sys/module/vfio_iommu_type1/parameters";

/// A changed module parameter, which is restored when dropped.
pub(super) struct Parameter {
    path: String,
    before: String,
}

impl Parameter {
    pub(super) fn set(name: &str, value: &str) -> Result<Self> {
        let path = format!("{PARAMETERS}/{name}");
        let before = fs::read_to_string(&path)?;
        fs::write(&path, value)?;
        Ok(Self { path, before })
    }
}

impl Drop for Parameter {
    fn drop(&mut self) {
        let _ = fs::write(&self.path, self.before.trim());
    }
}

fn parameter_defaults() -> Result<()> {
    // The first one may have been set when the module was loaded.
    for (name, values) in [
        ("allow_unsafe_interrupts", ["N\n", "Y\n"]),
        ("disable_hugepages", ["N\n", "N\n"]),
        ("dma_entry_limit", ["65535\n", "65535\n"]),
    ] {
        let text = fs::read_to_string(format!("{PARAMETERS}/{name}"))?;
        assert!(values.contains(&text.as_str()), "{name} is {text}");
    }
    let limit = Parameter::set("dma_entry_limit", "7")?;
    assert_eq!(fs::read_to_string(&limit.path)?, "7\n");
    assert_eq!(fs::write(&limit.path, "many").errno(), Errno::EINVAL);
    assert_eq!(fs::write(&limit.path, "-1").errno(), Errno::EINVAL);
    assert_eq!(fs::read_to_string(&limit.path)?, "7\n");
    drop(limit);
    let unsafe_interrupts = Parameter::set("allow_unsafe_interrupts", "1")?;
    assert_eq!(fs::read_to_string(&unsafe_interrupts.path)?, "Y\n");
    Ok(())
}

fn dma_entry_limit_is_enforced() -> Result<()> {
    let limit = Parameter::set("dma_entry_limit", "3")?;
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    for i in 0..3 {
        container.map(i * PAGE, &memory, MapFlags::Read)?;
    }
    assert_eq!(container.info()?.dma_avail(), Some(0));
    let window = msi_window(EDU)?.start;
    let full = || container.map(3 * PAGE, &memory, MapFlags::Read).errno();
    assert_eq!(full(), Errno::ENOSPC);
    // An overlap is detected before the limit, an invalid range after it.
    assert_eq!(
        container.map(0, &memory, MapFlags::Read).errno(),
        Errno::EEXIST
    );
    assert_eq!(
        container.map(window, &memory, MapFlags::Read).errno(),
        Errno::ENOSPC
    );
    container.unmap(PAGE, PAGE)?;
    container.map(3 * PAGE, &memory, MapFlags::Read)?;
    drop(limit);
    assert_eq!(
        container.map(4 * PAGE, &memory, MapFlags::Read).errno(),
        Errno::ENOSPC,
        "the parameter is for new containers"
    );
    assert_eq!(container.unmap_all()?, 3 * PAGE);
    Ok(())
}

fn dma_entry_limit_is_sampled_by_set_iommu() -> Result<()> {
    let (container, group) = attached(EDU, Iommu::Type1v2)?;
    let limit = Parameter::set("dma_entry_limit", "5")?;
    assert_eq!(container.info()?.dma_avail(), Some(65535));
    group.unset_container()?;
    group.set_container(&container)?;
    container.set_iommu(Iommu::Type1v2)?;
    assert_eq!(container.info()?.dma_avail(), Some(5));
    drop(limit);
    Ok(())
}

fn memlock_limit_is_enforced() -> Result<()> {
    let mut helper = Helper::spawn(&["memlock", "8"], &[])?;
    for (what, answer, locked, avail) in [
        ("nine pages of eight", "ENOMEM", "0", "Some(65535)"),
        ("all of eight", "OK", "8", "Some(65534)"),
        ("one more", "ENOMEM", "8", "Some(65534)"),
        ("one after unmap", "OK", "1", "Some(65534)"),
    ] {
        assert_eq!(helper.line()?, answer, "{what}");
        assert_eq!(helper.line()?, locked, "{what}");
        assert_eq!(helper.line()?, avail, "{what}");
    }
    helper.finish()
}

fn cap_ipc_lock_ignores_memlock_limit() -> Result<()> {
    use nix::sys::resource::{
        Resource,
        getrlimit,
        setrlimit, //
    };
    let (soft, hard) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(4 * PAGE_SIZE)?;
    setrlimit(Resource::RLIMIT_MEMLOCK, 0, hard)?;
    // With CAP_IPC_LOCK no limit applies, but the pages are charged.
    let answer = container.map(0, &memory, MapFlags::ReadWrite);
    let locked = locked_pages();
    setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard)?;
    answer?;
    assert_eq!(locked, 4);
    Ok(())
}

fn registers_are_not_charged() -> Result<()> {
    let mut helper = Helper::spawn(&["memlock-bar"], &[])?;
    assert_eq!(helper.line()?, "ENOMEM", "memory");
    assert_eq!(helper.line()?, "OK", "registers");
    assert_eq!(helper.line()?, "0");
    helper.finish()
}

/// Device registers do not count against the limit, not even while they are being mapped.
fn registers_do_not_reduce_memlock_limit() -> Result<()> {
    let mut helper = Helper::spawn(&["memlock-beside-registers"], &[])?;
    let answer = helper.line()?;
    ensure!(answer == "OK", "{answer}");
    helper.finish()
}

/// How often the memory is mapped, and its size in pages.
const ROUNDS: usize = 100;
const MEMORY: usize = 16;

/// Maps memory for one device while the registers of another are mapped repeatedly. The registers
/// have as many pages as may be locked.
pub(crate) fn memory_beside_registers() -> Result<()> {
    let (setup, other) = (Setup::new()?, Setup::with(NVME, Iommu::Type1v2)?);
    let registers = setup.device.map_whole(VFIO_PCI_BAR0_REGION_INDEX)?;
    let memory = Memory::anonymous(MEMORY * PAGE_SIZE)?;
    memory.fill(0, memory.len(), 1);
    without_ipc_lock(registers.len() as u64)?;
    let over = AtomicBool::new(false);
    let bodies: Vec<threads::Body<'_, ()>> = vec![
        Box::new(|| {
            while !over.load(Ordering::Relaxed) {
                setup.container.map(0, &registers, MapFlags::ReadWrite)?;
                setup.container.unmap(0, registers.len() as u64)?;
            }
            Ok(())
        }),
        Box::new(|| {
            let outcome: Result<()> = (0..ROUNDS).try_for_each(|round| {
                let mapped = other.container.map(0, &memory, MapFlags::ReadWrite);
                mapped.with_context(|| format!("memory in round {round}"))?;
                other.container.unmap(0, memory.len() as u64)?;
                Ok(())
            });
            over.store(true, Ordering::Relaxed);
            outcome
        }),
    ];
    threads::run(bodies)?;
    say("OK");
    Ok(())
}

/// Returns the number of pages used for IOMMU page tables.
pub(super) fn page_table_pages() -> Result<u64> {
    // Each CPU keeps its own count for a while; this adds them up.
    fs::write("/proc/sys/vm/stat_refresh", "1").context("stat_refresh")?;
    let text = fs::read_to_string("/proc/vmstat")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("nr_iommu_pages "));
    Ok(line.context("this kernel counts no such pages")?.parse()?)
}

/// Returns whether the IOMMU uses page tables built by the kernel. virtio-iommu does not: it
/// receives map requests.
pub(super) fn has_page_tables() -> Result<bool> {
    let mut names = Vec::new();
    for entry in fs::read_dir("/sys/class/iommu")? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    ensure!(!names.is_empty(), "there is no IOMMU");
    Ok(names.iter().any(|name| {
        ["dmar", "ivhd", "smmu3"]
            .iter()
            .any(|driver| name.starts_with(driver))
    }))
}

fn disable_hugepages_maps_single_pages() -> Result<()> {
    let path = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
    let huge: usize = fs::read_to_string(path).context(path)?.trim().parse()?;
    let mut arena = Arena::new(EMPTY, huge)?;
    arena.fill(0..huge, Filling::Private)?;
    arena.advise(0..huge, Advice::Huge)?;
    arena.advise(0..huge, Advice::Write)?;
    let taken = |value| -> Result<u64> {
        let _parameter = Parameter::set("disable_hugepages", value)?;
        let (container, _group) = attached(EDU, Iommu::Type1v2)?;
        let before = page_table_pages()?;
        container.map_arena(1 << 30, &arena, 0..huge, MapFlags::ReadWrite)?;
        let taken = page_table_pages()?.checked_sub(before);
        assert_eq!(container.unmap(1 << 30, huge as u64)?, huge as u64);
        taken.context("fewer pages than before")
    };
    let (with, without) = (taken("N")?, taken("Y")?);
    // The small pages need a table of their own.
    let more = u64::from(has_page_tables()?);
    assert_eq!(without, with + more, "with hugepages {with}");
    assert_eq!(without > 0, more > 0);
    Ok(())
}
