// SPDX-License-Identifier: GPL-2.0

//! Lifetimes: descriptors, threads and processes.

use crate::{
    env::{
        EDU,
        NVME,
        SHARED,
        Setup,
        attached,
        group, //
    },
    harness::{
        Failure,
        cases, //
    },
    helper,
    modules::{
        debugfs_files_hold,
        load,
        references,
        unload, //
    },
    stall::LIMIT, //
};
use anyhow::Result;
use nix::sys::memfd::{
    MFdFlags,
    memfd_create, //
};
use std::{
    any::Any,
    os::fd::{
        AsFd,
        AsRawFd, //
    },
    thread,
    time::Duration, //
};
use support::{
    PAGE,
    helper::Helper,
    machine::locked_pages, //
};
use vfio_client::{
    Errno,
    Group,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    edu::{
        self,
        Edu, //
    },
    pci,
    wait::until, //
};

cases! {
    close_in_every_order,
    close_in_every_order_with_two_groups,
    close_in_other_threads,
    close_all_files_concurrently,
    threads_map_concurrently,
    killed_while_open,
    killed_during_dma,
    child_process_uses_container,
    #[rows("C19")] container_sent_through_socket,
    #[rows("T-A7")] mapping_outlives_process_that_mapped,
    #[rows("K6")] open_files_hold_modules,
    #[rows("K6")] modules_in_use_cannot_be_unloaded,
    #[requires(core(Rust), type1(Rust))] debugfs_files_hold_modules,
}

/// The size of the largest transfer of the device.
const ALL: u64 = edu::MEMORY as u64;

/// All orders of three items.
const ORDERS: [[usize; 3]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

type Slot = Option<Box<dyn Any + Send>>;

/// Opens a container, a group and a device, with mappings.
fn everything() -> Result<(Memory, [Slot; 3])> {
    let setup = Setup::new()?;
    let memory = Memory::anonymous(64 * PAGE_SIZE)?;
    setup.container.map(0, &memory, MapFlags::ReadWrite)?;
    setup
        .container
        .map_part(0x100_0000, &memory, 0, 8 * PAGE_SIZE, MapFlags::Read)?;
    assert_eq!(locked_pages(), 72);
    let slots: [Slot; 3] = [
        Some(Box::new(setup.container)),
        Some(Box::new(setup.group)),
        Some(Box::new(setup.device)),
    ];
    Ok((memory, slots))
}

fn close_in_every_order() -> Result<()> {
    let number = pci::group_of(EDU)?;
    for order in ORDERS {
        let (_memory, mut slots) = everything()?;
        let last_holder = order.iter().rposition(|i| *i != 0).unwrap_or(0);
        for (step, i) in order.into_iter().enumerate() {
            slots[i] = None;
            let gone = step >= last_holder;
            let locked = if gone { 0 } else { 72 };
            assert_eq!(locked_pages(), locked, "order {order:?}, step {step}");
            let again = Group::open(number).map(drop).map_err(|e| e.errno());
            let expected = if gone { Ok(()) } else { Err(Errno::EBUSY) };
            assert_eq!(again, expected, "order {order:?}, step {step}");
        }
    }
    Ok(())
}

fn close_in_every_order_with_two_groups() -> Result<()> {
    for order in ORDERS {
        let (container, first) = attached(EDU, Iommu::Type1v2)?;
        let second = group(NVME)?;
        second.set_container(&container)?;
        let memory = Memory::anonymous(8 * PAGE_SIZE)?;
        container.map(0, &memory, MapFlags::ReadWrite)?;
        let mut slots: [Slot; 3] = [
            Some(Box::new(container)),
            Some(Box::new(first)),
            Some(Box::new(second)),
        ];
        for (step, i) in order.into_iter().enumerate() {
            slots[i] = None;
            let gone = slots[1].is_none() && slots[2].is_none();
            let locked = if gone { 0 } else { 8 };
            assert_eq!(locked_pages(), locked, "order {order:?}, step {step}");
        }
    }
    Ok(())
}

fn close_in_other_threads() -> Result<()> {
    for order in ORDERS {
        let (_memory, mut slots) = everything()?;
        for i in order {
            let slot = slots[i].take();
            assert!(thread::spawn(move || drop(slot)).join().is_ok());
        }
        assert_eq!(locked_pages(), 0);
    }
    Ok(())
}

fn close_all_files_concurrently() -> Result<()> {
    for _ in 0..10 {
        let (_memory, slots) = everything()?;
        let threads = slots.map(|slot| thread::spawn(move || drop(slot)));
        for thread in threads {
            assert!(thread.join().is_ok());
        }
        assert_eq!(locked_pages(), 0);
    }
    Ok(())
}

fn threads_map_concurrently() -> Result<()> {
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4u64)
            .map(|i| {
                let container = &container;
                scope.spawn(move || -> Result<()> {
                    let memory = Memory::anonymous(16 * PAGE_SIZE)?;
                    let base = i << 32;
                    for round in 0..50u64 {
                        let iova = base + round * 0x10_0000;
                        container.map(iova, &memory, MapFlags::ReadWrite)?;
                        let other = container.map(iova, &memory, MapFlags::Read);
                        assert_eq!(other.errno(), Errno::EEXIST);
                        assert_eq!(container.unmap(iova, 16 * PAGE)?, 16 * PAGE);
                        assert_eq!(container.unmap(iova, 16 * PAGE)?, 0);
                    }
                    Ok(())
                })
            })
            .collect();
        for thread in threads {
            assert!(matches!(thread.join(), Ok(Ok(()))));
        }
    });
    assert_eq!(container.info()?.dma_avail(), Some(65535));
    assert_eq!(locked_pages(), 0);
    Ok(())
}

/// Waits until a group can be opened.
fn open_soon(bdf: &str) -> Result<Group> {
    let mut last = group(bdf);
    until(LIMIT, || {
        if last.is_err() {
            last = group(bdf);
        }
        anyhow::Ok(last.is_ok())
    })?;
    last
}

fn killed_while_open() -> Result<()> {
    let mut helper = Helper::spawn(&["hold", EDU], &[])?;
    assert_eq!(helper.line()?, "ready");
    assert!(group(EDU).is_err(), "the helper holds the group");
    helper.kill()?;
    let group = open_soon(EDU)?;
    assert_eq!(group.status()?, 1);
    Ok(())
}

fn killed_during_dma() -> Result<()> {
    let shared = memfd_create(c"dma", MFdFlags::MFD_CLOEXEC)?;
    nix::unistd::ftruncate(&shared, PAGE_SIZE as nix::libc::off_t)?;
    let memory = Memory::from_file(&shared, 0, PAGE_SIZE, true)?;
    let words = ["dma", &shared.as_raw_fd().to_string(), "65536"];
    let mut helper = Helper::spawn(&words, &[&shared])?;
    assert_eq!(helper.line()?, "started");
    helper.kill()?;
    // The device writes 100 ms after the start. Killing the process may take longer.
    memory.fill(0, PAGE_SIZE, 0x5a);
    thread::sleep(Duration::from_millis(250));
    let bytes = memory.to_vec(0, PAGE_SIZE);
    assert!(
        bytes.iter().all(|b| *b == 0x5a),
        "the device wrote after its process was killed"
    );
    // The next user can use the device.
    drop(open_soon(EDU)?);
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    setup.container.map(0, &memory, MapFlags::ReadWrite)?;
    edu.load(0, ALL)?;
    memory.fill(0, PAGE_SIZE, 0);
    edu.store(0, ALL)?;
    let bytes = memory.to_vec(0, edu::MEMORY);
    assert!(bytes.iter().all(|b| *b == 0x5a));
    Ok(())
}

/// A helper maps its memory, and the device of this process writes to it.
fn shared_with(mut helper: Helper, setup: &Setup) -> Result<()> {
    assert_eq!(helper.line()?, "OK");
    assert_eq!(helper.line()?, "4", "the helper is charged");
    assert_eq!(locked_pages(), 0, "this process is not charged");
    let edu = Edu::new(&setup.device)?;
    edu.load(0x10000, ALL)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    setup
        .container
        .map(0x80_0000, &memory, MapFlags::ReadWrite)?;
    edu.store(0x80_0000, ALL)?;
    assert_eq!(
        memory.read_u8(17),
        0xc5,
        "the device read the memory of the helper"
    );
    memory.fill(0, PAGE_SIZE, 0x99);
    edu.load(0x80_0000, ALL)?;
    edu.store(0x10000, ALL)?;
    helper.proceed()?;
    assert_eq!(helper.line()?, "0x99", "the helper sees the DMA");
    assert_eq!(setup.container.unmap(0x10000, 4 * PAGE)?, 4 * PAGE);
    helper.proceed()?;
    helper.finish()
}

fn child_process_uses_container() -> Result<()> {
    let setup = Setup::new()?;
    let fd = setup.container.as_fd().try_clone_to_owned()?;
    let words = ["map", &fd.as_raw_fd().to_string(), "65536"];
    let helper = Helper::spawn(&words, &[&fd])?;
    drop(fd);
    shared_with(helper, &setup)
}

fn container_sent_through_socket() -> Result<()> {
    let setup = Setup::new()?;
    let (ours, theirs) = helper::sockets()?;
    helper::send(&ours, setup.container.as_fd())?;
    let words = ["receive", &theirs.as_raw_fd().to_string(), "65536"];
    let helper = Helper::spawn(&words, &[&theirs])?;
    shared_with(helper, &setup)
}

fn mapping_outlives_process_that_mapped() -> Result<()> {
    let setup = Setup::new()?;
    let fd = setup.container.as_fd().try_clone_to_owned()?;
    let words = ["map", &fd.as_raw_fd().to_string(), "65536"];
    let mut helper = Helper::spawn(&words, &[&fd])?;
    drop(fd);
    assert_eq!(helper.line()?, "OK");
    helper.kill()?;
    // The mapping and its pages stay: the device still reads them.
    let edu = Edu::new(&setup.device)?;
    edu.load(0x10000, ALL)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    setup
        .container
        .map(0x80_0000, &memory, MapFlags::ReadWrite)?;
    edu.store(0x80_0000, ALL)?;
    assert_eq!(memory.read_u8(edu::MEMORY - 1), 0xc5);
    assert_eq!(setup.container.unmap(0x10000, 4 * PAGE)?, 4 * PAGE);
    Ok(())
}

fn open_files_hold_modules() -> Result<()> {
    let before = (
        references("vfio")?,
        references("vfio_iommu_type1")?,
        references("vfio_pci")?,
    );
    let (container, group) = attached(EDU, Iommu::Type1v2)?;
    assert!(references("vfio")? >= before.0 + 2, "container and group");
    assert_eq!(references("vfio_iommu_type1")?, before.1 + 1);
    assert_eq!(references("vfio_pci")?, before.2);
    let device = group.device(EDU)?;
    let again = group.device(EDU)?;
    assert_eq!(references("vfio_pci")?, before.2 + 1, "first open");
    drop((device, again, group, container));
    let after = (
        references("vfio")?,
        references("vfio_iommu_type1")?,
        references("vfio_pci")?,
    );
    assert_eq!(after, before);
    Ok(())
}

/// Returns whether a module cannot be unloaded now. If it can, this unloads it.
fn in_use(module: &std::ffi::CStr) -> bool {
    unload(module) == Err(nix::Error::EAGAIN)
}

fn modules_in_use_cannot_be_unloaded() -> Result<()> {
    let (container, group) = attached(EDU, Iommu::Type1v2)?;
    assert!(in_use(c"vfio_iommu_type1"), "a container holds the module");
    let device = group.device(EDU)?;
    assert!(in_use(c"vfio_pci"), "a device is open");
    // Other modules depend on these while they are loaded.
    for module in [c"vfio", c"vfio_pci_core"] {
        assert_eq!(unload(module), Err(nix::Error::EAGAIN), "{module:?}");
    }
    drop((container, group));
    assert!(
        in_use(c"vfio_iommu_type1"),
        "the device holds the container"
    );
    drop(device);
    // Now the module can be unloaded and loaded again.
    unload(c"vfio_iommu_type1")?;
    let (_container, group) = {
        let container = vfio_client::Container::open()?;
        assert_eq!(
            container.check_extension(3)?,
            0,
            "no IOMMU driver is loaded"
        );
        crate::stress::restore(crate::stress::DEVICES)?;
        attached(EDU, Iommu::Type1v2)?
    };
    group.device(EDU)?;
    Ok(())
}

/// A file of a group stays open when the group ends.
fn debugfs_files_hold_modules() -> Result<()> {
    let number = pci::group_of(EDU)?;
    let containers = ["vfio_iommu_type1/containers"];
    debugfs_files_hold(c"vfio_iommu_type1", &containers, || Ok(()))?;
    debugfs_files_hold(c"vfio", &[&format!("vfio/groups/{number}")], || {
        unload(c"vfio_pci")?;
        unload(c"vfio_pci_core")?;
        Ok(())
    })?;
    load(&["vfio_iommu_type1"])?;
    load(&["vfio_pci"])?;
    for device in [EDU, NVME, SHARED] {
        pci::bind(device, "vfio-pci")?;
    }
    Ok(())
}
