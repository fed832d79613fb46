// SPDX-License-Identifier: GPL-2.0

//! The backend and its attributes: in which order and when they can be set.

use super::{
    LIODN,
    PAGE,
    divided, //
};
use crate::{
    env::{
        EDU,
        Setup,
        group, //
    },
    harness::{
        Failure,
        cases, //
    },
};
use anyhow::Result;
use pamu_dma::open;
use vfio_client::{
    Bytes,
    Container,
    Errno,
    Iommu,
    MapFlags,
    Memory,
    pamu::{
        self,
        Content,
        Pamu, //
    },
    raw,
    request,
    uapi::{
        VFIO_TYPE1_IOMMU,
        VFIO_TYPE1v2_IOMMU,
        VFIO_UNMAP_ALL, //
    }, //
};

cases! {
    extensions,
    pamu_requests_fail_on_type1_containers,
    group_without_liodn_cannot_be_attached,
    defaults,
    structures_are_checked,
    geometry_values,
    window_counts,
    geometry_then_windows_then_map,
    setting_the_geometry_removes_the_windows,
    rejected_values_change_nothing,
    attributes_cannot_change_while_mapped,
    too_many_windows_for_the_tables,
    stash_target,
    unsupported_requests,
}

fn extensions() -> Result<()> {
    let container = Container::open()?;
    assert_eq!(container.check_extension(pamu::EXTENSION)?, 1);
    // These extension numbers used to be the PAMU's.
    for taken in [2, 7] {
        assert_eq!(container.check_extension(taken)?, 0);
    }
    let (pamu, _engine) = open(0)?;
    let container = pamu.container();
    assert_eq!(container.check_extension(pamu::EXTENSION)?, 1);
    for other in [VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU, VFIO_UNMAP_ALL, 2, 7] {
        assert_eq!(container.check_extension(other)?, 0);
    }
    Ok(())
}

fn pamu_requests_fail_on_type1_containers() -> Result<()> {
    let setup = Setup::new()?;
    let container = &setup.container;
    assert_eq!(container.check_extension(pamu::EXTENSION)?, 0);
    for nr in [
        pamu::GET_ATTR,
        pamu::GET_WINDOW,
        pamu::GET_MSI_FD,
        pamu::REVIVE,
    ] {
        assert_eq!(raw::none(container, nr), Err(Errno::ENOTTY));
    }
    assert_eq!(container.set_iommu(Iommu::Type1).errno(), Errno::EINVAL);
    Ok(())
}

fn group_without_liodn_cannot_be_attached() -> Result<()> {
    let container = Container::open()?;
    let edu = group(EDU)?;
    edu.set_container(&container)?;
    assert_eq!(Pamu::new(container.try_clone()?).errno(), Errno::ENODEV);
    container.set_iommu(Iommu::Type1v2)?;
    drop(edu);

    let (pamu, _engine) = open(0)?;
    let edu = group(EDU)?;
    assert_eq!(edu.set_container(pamu.container()).errno(), Errno::ENODEV);
    // The failed request has not changed the group.
    edu.set_container(&Container::open()?)?;
    Ok(())
}

fn defaults() -> Result<()> {
    let (pamu, _engine) = open(0)?;
    assert_eq!(pamu.geometry()?, (0, (1 << 36) - 1));
    assert_eq!(pamu.windows()?, 256);
    assert_eq!(pamu.stash()?, (0, 0));
    assert!(!pamu.implicit()?);
    assert_eq!(pamu.bank_count()?, 3);
    assert_eq!(pamu.window(0).errno(), Errno::EINVAL);
    assert_eq!(pamu.violation(0)?, None);
    Ok(())
}

fn structures_are_checked() -> Result<()> {
    let (pamu, _engine) = divided(8, PAGE)?;
    let container = pamu.container();
    for (nr, size) in [
        (pamu::GET_ATTR, 32),
        (pamu::SET_ATTR, 32),
        (pamu::MAP_MSI_BANK, 24),
        (pamu::UNMAP_MSI_BANK, 16),
        (pamu::GET_WINDOW, 40),
        (pamu::GET_VIOLATION, 24),
        (request::IOMMU_MAP_DMA, 32),
        (request::IOMMU_UNMAP_DMA, 24),
    ] {
        let send = |argsz, flags| {
            let mut bytes = Bytes::new().u32(argsz).u32(flags).fill(0, size - 8);
            raw::bytes(container, nr, &mut bytes).err()
        };
        assert_eq!(send(size as u32 - 1, 0), Some(Errno::EINVAL), "{nr:#x}");
        assert_eq!(send(size as u32, 1 << 31), Some(Errno::EINVAL), "{nr:#x}");
        assert_eq!(raw::value(container, nr, 0), Err(Errno::EFAULT), "{nr:#x}");
    }
    for nr in [pamu::SET_VIOLATION_EVENTFD, pamu::REVIVE] {
        assert_eq!(raw::value(container, nr, 0), Err(Errno::EFAULT), "{nr:#x}");
    }
    for nr in [pamu::GET_ATTR, pamu::SET_ATTR] {
        for attribute in [3, 255, 257, u32::MAX] {
            let mut bytes = Bytes::new().u32(32).u32(0).u32(attribute).fill(0, 20);
            assert_eq!(raw::bytes(container, nr, &mut bytes), Err(Errno::EINVAL));
        }
    }
    // A structure longer than the known one.
    let mut bytes = Bytes::new().u32(64).u32(0).u32(1).fill(0xff, 52);
    raw::bytes(container, pamu::GET_ATTR, &mut bytes)?;
    assert_eq!((bytes.get_u32(16), bytes.get_u32(20)), (8, u32::MAX));
    Ok(())
}

fn geometry_values() -> Result<()> {
    let (pamu, _engine) = open(0)?;
    for (start, end) in [
        (0, PAGE - 1),
        (0, (1 << 63) - 1),
        (0x4000, 0x7fff),
        (u64::MAX - 0xfff, u64::MAX),
    ] {
        pamu.set_geometry(start, end)?;
        assert_eq!(pamu.geometry()?, (start, end));
    }
    for (start, end) in [
        (0, 0),
        (0, PAGE - 2),
        (0, PAGE),
        (0x1000, 0x2fff),
        (0x800, 0x17ff),
        (0x2000, 0x1fff),
        (0x2000, 0xfff),
        (0, u64::MAX),
    ] {
        assert_eq!(pamu.set_geometry(start, end).errno(), Errno::EINVAL);
    }
    assert_eq!(pamu.geometry()?, (u64::MAX - 0xfff, u64::MAX));
    Ok(())
}

fn window_counts() -> Result<()> {
    let (pamu, _engine) = open(0)?;
    pamu.set_geometry(0, (64 << 12) - 1)?;
    for count in 0..=130 {
        let good = u32::is_power_of_two(count) && count <= 64;
        assert_eq!(pamu.set_windows(count).is_ok(), good, "{count}");
    }
    pamu.set_geometry(0, (1 << 36) - 1)?;
    pamu.set_windows(256)?;
    for count in [0, 512, 1 << 31, u32::MAX] {
        assert_eq!(pamu.set_windows(count).errno(), Errno::EINVAL);
    }
    assert_eq!(pamu.windows()?, 256);
    Ok(())
}

fn geometry_then_windows_then_map() -> Result<()> {
    let (pamu, _engine) = open(0)?;
    let memory = Memory::anonymous(4096)?;
    let not_yet = || {
        assert_eq!(pamu.map(0, &memory, MapFlags::Read).errno(), Errno::EINVAL);
        assert_eq!(pamu.map_bank(0, 0, MapFlags::Write).errno(), Errno::EINVAL);
        assert_eq!(pamu.map_any_banks(0, PAGE).errno(), Errno::EINVAL);
        assert_eq!(pamu.unmap(0, PAGE).errno(), Errno::EINVAL);
        assert_eq!(pamu.unmap_bank(0).errno(), Errno::EINVAL);
        assert_eq!(pamu.window(0).errno(), Errno::EINVAL);
        assert_eq!(pamu.set_stash(0, 1).errno(), Errno::EINVAL);
    };
    // The default geometry is too small.
    assert_eq!(pamu.set_windows(8).errno(), Errno::EINVAL);
    not_yet();
    pamu.set_geometry(0, 8 * PAGE - 1)?;
    not_yet();
    pamu.set_windows(8)?;
    pamu.map(0, &memory, MapFlags::Read)?;
    Ok(())
}

fn setting_the_geometry_removes_the_windows() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    let memory = Memory::anonymous(4096)?;
    pamu.set_geometry(0, 16 * PAGE - 1)?;
    assert_eq!(pamu.windows()?, 256);
    assert_eq!(pamu.map(0, &memory, MapFlags::Read).errno(), Errno::EINVAL);
    super::unreached(&pamu, &engine, 0);
    pamu.set_windows(16)?;
    pamu.map(15 * PAGE, &memory, MapFlags::Read)?;
    assert_eq!(engine.read(15 * PAGE)?, Ok(0));
    Ok(())
}

fn rejected_values_change_nothing() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    assert_eq!(pamu.set_geometry(0, 3 * PAGE).errno(), Errno::EINVAL);
    assert_eq!(pamu.set_windows(7).errno(), Errno::EINVAL);
    assert_eq!(pamu.set_windows(16).errno(), Errno::EINVAL);
    assert_eq!(pamu.geometry()?, (0, 8 * PAGE - 1));
    assert_eq!(pamu.windows()?, 8);
    let memory = Memory::anonymous(4096)?;
    memory.write_u64(0, 42);
    pamu.map(7 * PAGE, &memory, MapFlags::Read)?;
    assert_eq!(engine.read(7 * PAGE)?, Ok(42));
    Ok(())
}

fn attributes_cannot_change_while_mapped() -> Result<()> {
    let (pamu, engine) = divided(8, PAGE)?;
    let memory = Memory::anonymous(4096)?;
    memory.write_u64(0, 42);
    let busy = || {
        assert_eq!(pamu.set_geometry(0, PAGE - 1).errno(), Errno::EBUSY);
        assert_eq!(pamu.set_windows(4).errno(), Errno::EBUSY);
        assert_eq!(pamu.set_implicit(true).errno(), Errno::EBUSY);
    };
    pamu.map(0, &memory, MapFlags::Read)?;
    busy();
    assert_eq!(engine.read(0)?, Ok(42));
    pamu.map_bank(0, PAGE, MapFlags::Write)?;
    assert_eq!(pamu.unmap(0, PAGE)?, PAGE);
    busy();
    pamu.unmap_bank(PAGE)?;
    pamu.set_windows(4)?;
    pamu.set_geometry(0, PAGE - 1)?;
    Ok(())
}

/// The tables have 2048 entries beyond the first window of each LIODN.
fn too_many_windows_for_the_tables() -> Result<()> {
    const ENGINES: u32 = 10;
    let mut full = Vec::new();
    let mut refused = 0;
    for number in 0..ENGINES {
        let (pamu, engine) = open(number)?;
        pamu.set_geometry(0, 256 * PAGE - 1)?;
        match pamu.set_windows(256) {
            Ok(()) => {}
            Err(error) => {
                assert_eq!(error.errno(), Errno::ENOSPC);
                // Nothing has changed, and a smaller number of windows is possible.
                assert_eq!(pamu.windows()?, 256);
                assert_eq!(pamu.window(0).errno(), Errno::EINVAL);
                pamu.set_windows(1)?;
                refused += 1;
            }
        }
        full.push((pamu, engine));
    }
    assert_eq!(refused, ENGINES - 8);
    // Setting the windows again allocates the new entries before it frees the old ones.
    let (first, _) = &full[0];
    assert_eq!(first.set_windows(256).errno(), Errno::ENOSPC);
    assert_eq!(first.window(255)?.content, Content::Free);
    // Freed entries can be allocated again.
    full[1].0.set_windows(1)?;
    full[ENGINES as usize - 1].0.set_windows(256)?;
    Ok(())
}

fn stash_target() -> Result<()> {
    let (pamu, _engine) = divided(8, PAGE)?;
    for (cpu, cache) in [(0, 0), (0, 9), (u32::MAX, 1), (0, u32::MAX)] {
        assert_eq!(pamu.set_stash(cpu, cache).errno(), Errno::EINVAL);
    }
    assert_eq!(pamu.stash()?, (0, 0));
    Ok(())
}

fn unsupported_requests() -> Result<()> {
    let (pamu, _engine) = open(0)?;
    // GET_INFO of type 1, and unassigned numbers.
    for nr in [
        request::IOMMU_GET_INFO,
        request::UNKNOWN,
        request::number(20),
    ] {
        assert_eq!(raw::none(pamu.container(), nr), Err(Errno::ENOTTY));
    }
    assert_eq!(pamu.revive(LIODN).errno(), Errno::EINVAL);
    assert_eq!(pamu.revive(9999).errno(), Errno::ENODEV);
    assert_eq!(
        pamu.container().set_iommu(Iommu::Type1v2).errno(),
        Errno::EINVAL
    );
    Ok(())
}
