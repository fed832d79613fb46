// SPDX-License-Identifier: GPL-2.0

//! DMA through a real IOMMU.

use crate::{
    env::{
        EDU,
        NVME,
        Setup,
        attached,
        group,
        msi_window, //
    },
    harness::cases, //
};
use anyhow::Result;
use support::{
    PAGE,
    requests::UnmapDma, //
};
use vfio_client::{
    Iommu, MapFlags, Memory, PAGE_SIZE,
    edu::{
        self,
        Edu, //
    },
};

cases! {
    read_and_write,
    far_addresses,
    type1_v1_mappings,
    unmapped_address_faults,
    unmapped_memory_faults,
    read_only_mapping_refuses_writes,
    #[requires(write_only_mappings)] write_only_mapping_refuses_reads,
    transfer_across_two_mappings,
    new_memory_at_old_address,
    #[rows("C14")] mappings_survive_container_close,
    vaddr_update_keeps_device_working,
    no_dma_after_unset_container,
    #[rows("T-G4")] second_group_joins_during_transfers,
    #[rows("T-U16")] unmap_during_transfer,
}

/// The size of the largest transfer.
const ALL: u64 = edu::MEMORY as u64;

/// Returns as many bytes as the device has, which depend on their position and on `seed`.
fn pattern(seed: u8) -> Vec<u8> {
    (0..edu::MEMORY)
        .map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ seed)
        .collect()
}

/// Copies as much as the device has memory for through it, and checks that it arrives.
fn round_trip(edu: &Edu, from: (&Memory, u64), to: (&Memory, u64), seed: u8) -> Result<()> {
    let data = pattern(seed);
    from.0.write(0, &data);
    edu.load(from.1, ALL)?;
    to.0.fill(0, PAGE_SIZE, 0x77);
    edu.store(to.1, ALL)?;
    assert!(to.0.to_vec(0, edu::MEMORY) == data, "other bytes arrived");
    Ok(())
}

fn read_and_write() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let (from, to) = (Memory::anonymous(PAGE_SIZE)?, Memory::anonymous(PAGE_SIZE)?);
    setup.container.map(0x100 * PAGE, &from, MapFlags::Read)?;
    setup.container.map(0x200 * PAGE, &to, MapFlags::Write)?;
    round_trip(&edu, (&from, 0x100 * PAGE), (&to, 0x200 * PAGE), 1)?;
    round_trip(&edu, (&from, 0x100 * PAGE), (&to, 0x200 * PAGE), 2)?;
    // Writing part of a page leaves the rest unchanged.
    to.fill(0, PAGE_SIZE, 0x77);
    edu.store(0x200 * PAGE + 100, 50)?;
    let bytes = to.to_vec(0, PAGE_SIZE);
    assert_eq!(bytes[100..150], pattern(2)[..50]);
    assert!(bytes[..100].iter().chain(&bytes[150..]).all(|b| *b == 0x77));
    Ok(())
}

fn far_addresses() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    let last = setup.container.info()?.ranges().last().copied();
    let top = last.map_or(0x1_0000_0000, |range| range.end - PAGE + 1);
    let above_window = msi_window(EDU)?.end + 1;
    for iova in [0, above_window, 0x1_0000_0000, top] {
        setup.container.map(iova, &memory, MapFlags::ReadWrite)?;
        round_trip(&edu, (&memory, iova), (&memory, iova), 3)?;
        setup.container.unmap(iova, PAGE)?;
    }
    Ok(())
}

fn type1_v1_mappings() -> Result<()> {
    let setup = Setup::with(EDU, Iommu::Type1)?;
    let edu = Edu::new(&setup.device)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    setup
        .container
        .map(5 * PAGE, &memory, MapFlags::ReadWrite)?;
    round_trip(&edu, (&memory, 5 * PAGE), (&memory, 5 * PAGE), 4)
}

fn unmapped_address_faults() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let memory = Memory::anonymous(3 * PAGE_SIZE)?;
    memory.fill(0, memory.len(), 0x77);
    setup.container.map_part(
        0x101 * PAGE,
        &memory,
        PAGE_SIZE,
        PAGE_SIZE,
        MapFlags::ReadWrite,
    )?;
    // Before, after and far from the mapping, at the virtual address of the memory, and at a
    // physical address.
    for iova in [
        0x100 * PAGE,
        0x102 * PAGE,
        0x70000 * PAGE,
        memory.addr(),
        0x1000 * PAGE,
    ] {
        edu.store(iova, 64)?;
    }
    assert!(memory.to_vec(0, memory.len()).iter().all(|b| *b == 0x77));
    // The read is blocked, so the secret is not copied back.
    memory.write(2 * PAGE_SIZE, &pattern(9));
    edu.load(0x102 * PAGE, ALL)?;
    edu.store(0x101 * PAGE, ALL)?;
    assert!(memory.to_vec(PAGE_SIZE, edu::MEMORY) != pattern(9));
    // Blocked accesses do not affect permitted ones.
    let inner = Memory::anonymous(PAGE_SIZE)?;
    setup
        .container
        .map(0x200 * PAGE, &inner, MapFlags::ReadWrite)?;
    round_trip(&edu, (&inner, 0x200 * PAGE), (&inner, 0x200 * PAGE), 5)
}

fn unmapped_memory_faults() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    setup
        .container
        .map(0x100 * PAGE, &memory, MapFlags::ReadWrite)?;
    round_trip(&edu, (&memory, 0x100 * PAGE), (&memory, 0x100 * PAGE), 6)?;
    assert_eq!(setup.container.unmap(0x100 * PAGE, PAGE)?, PAGE);
    memory.fill(0, PAGE_SIZE, 0x77);
    edu.store(0x100 * PAGE, ALL)?;
    assert!(memory.to_vec(0, PAGE_SIZE).iter().all(|b| *b == 0x77));
    Ok(())
}

fn read_only_mapping_refuses_writes() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    setup.container.map(0, &memory, MapFlags::Read)?;
    memory.fill(0, PAGE_SIZE, 0x77);
    edu.store(0, ALL)?;
    assert!(memory.to_vec(0, PAGE_SIZE).iter().all(|b| *b == 0x77));
    Ok(())
}

fn write_only_mapping_refuses_reads() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let (secret, out) = (Memory::anonymous(PAGE_SIZE)?, Memory::anonymous(PAGE_SIZE)?);
    setup.container.map(0, &secret, MapFlags::Write)?;
    setup.container.map(0x10 * PAGE, &out, MapFlags::Write)?;
    secret.write(0, &pattern(10));
    edu.load(0, ALL)?;
    edu.store(0x10 * PAGE, ALL)?;
    assert!(
        out.to_vec(0, edu::MEMORY) != pattern(10),
        "it could be read"
    );
    Ok(())
}

fn transfer_across_two_mappings() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let (one, two) = (Memory::anonymous(PAGE_SIZE)?, Memory::anonymous(PAGE_SIZE)?);
    setup
        .container
        .map(0x10 * PAGE, &one, MapFlags::ReadWrite)?;
    setup
        .container
        .map(0x11 * PAGE, &two, MapFlags::ReadWrite)?;
    let data = pattern(11);
    one.write(0, &data);
    edu.load(0x10 * PAGE, ALL)?;
    one.fill(0, PAGE_SIZE, 0);
    edu.store(0x11 * PAGE - 2048, ALL)?;
    assert!(one.to_vec(PAGE_SIZE - 2048, 2048) == data[..2048]);
    assert!(two.to_vec(0, 2048) == data[2048..]);
    Ok(())
}

fn new_memory_at_old_address() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let (one, two) = (Memory::anonymous(PAGE_SIZE)?, Memory::anonymous(PAGE_SIZE)?);
    setup
        .container
        .map(0x10 * PAGE, &one, MapFlags::ReadWrite)?;
    round_trip(&edu, (&one, 0x10 * PAGE), (&one, 0x10 * PAGE), 12)?;
    setup.container.unmap(0x10 * PAGE, PAGE)?;
    setup
        .container
        .map(0x10 * PAGE, &two, MapFlags::ReadWrite)?;
    one.fill(0, PAGE_SIZE, 0x77);
    round_trip(&edu, (&two, 0x10 * PAGE), (&two, 0x10 * PAGE), 13)?;
    assert!(one.to_vec(0, PAGE_SIZE).iter().all(|b| *b == 0x77));
    Ok(())
}

fn mappings_survive_container_close() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    setup
        .container
        .map(0x10 * PAGE, &memory, MapFlags::ReadWrite)?;
    let Setup {
        device,
        group,
        container,
    } = setup;
    drop(container);
    round_trip(&edu, (&memory, 0x10 * PAGE), (&memory, 0x10 * PAGE), 14)?;
    drop(group);
    round_trip(&edu, (&memory, 0x10 * PAGE), (&memory, 0x10 * PAGE), 15)?;
    drop(device);
    // The mapped registers still hold the device.
    round_trip(&edu, (&memory, 0x10 * PAGE), (&memory, 0x10 * PAGE), 16)
}

fn vaddr_update_keeps_device_working() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let memory = Memory::anonymous_shared(PAGE_SIZE)?;
    setup
        .container
        .map(0x10 * PAGE, &memory, MapFlags::ReadWrite)?;
    let invalidate = UnmapDma {
        flags: UnmapDma::VADDR,
        ..UnmapDma::of(0x10 * PAGE, PAGE)
    };
    assert_eq!(invalidate.send(&setup.container), Ok(PAGE));
    round_trip(&edu, (&memory, 0x10 * PAGE), (&memory, 0x10 * PAGE), 17)?;
    Ok(())
}

fn no_dma_after_unset_container() -> Result<()> {
    let memory = Memory::anonymous(PAGE_SIZE)?;
    let (container, group) = attached(EDU, Iommu::Type1v2)?;
    let device = group.device(EDU)?;
    let edu = Edu::new(&device)?;
    container.map(0x10 * PAGE, &memory, MapFlags::ReadWrite)?;
    round_trip(&edu, (&memory, 0x10 * PAGE), (&memory, 0x10 * PAGE), 18)?;
    edu.start_store(0x10 * PAGE, ALL);
    drop((edu, device));
    group.unset_container()?;
    // The device writes 100 ms after the start. Leaving may take longer.
    memory.fill(0, PAGE_SIZE, 0x77);
    std::thread::sleep(std::time::Duration::from_millis(250));
    assert!(memory.to_vec(0, PAGE_SIZE).iter().all(|b| *b == 0x77));
    Ok(())
}

fn second_group_joins_during_transfers() -> Result<()> {
    let setup = Setup::new()?;
    let container = &setup.container;
    let edu = Edu::new(&setup.device)?;
    let (before, during) = (Memory::anonymous(PAGE_SIZE)?, Memory::anonymous(PAGE_SIZE)?);
    container.map(0x10 * PAGE, &before, MapFlags::ReadWrite)?;
    round_trip(&edu, (&before, 0x10 * PAGE), (&before, 0x10 * PAGE), 20)?;
    let other = group(NVME)?;
    other.set_container(container)?;
    round_trip(&edu, (&before, 0x10 * PAGE), (&before, 0x10 * PAGE), 21)?;
    container.map(0x20 * PAGE, &during, MapFlags::ReadWrite)?;
    let device = other.device(NVME)?;
    round_trip(&edu, (&before, 0x10 * PAGE), (&during, 0x20 * PAGE), 22)?;
    drop(device);
    other.unset_container()?;
    round_trip(&edu, (&during, 0x20 * PAGE), (&before, 0x10 * PAGE), 23)?;
    // The unmap takes effect for the remaining group, and affects nothing else.
    container.unmap(0x10 * PAGE, PAGE)?;
    before.fill(0, PAGE_SIZE, 0x77);
    edu.store(0x10 * PAGE, ALL)?;
    assert!(before.to_vec(0, PAGE_SIZE).iter().all(|b| *b == 0x77));
    round_trip(&edu, (&during, 0x20 * PAGE), (&during, 0x20 * PAGE), 24)
}

fn unmap_during_transfer() -> Result<()> {
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let (memory, other) = (Memory::anonymous(PAGE_SIZE)?, Memory::anonymous(PAGE_SIZE)?);
    setup
        .container
        .map(0x10 * PAGE, &memory, MapFlags::ReadWrite)?;
    setup
        .container
        .map(0x20 * PAGE, &other, MapFlags::ReadWrite)?;
    round_trip(&edu, (&memory, 0x10 * PAGE), (&memory, 0x10 * PAGE), 25)?;
    // The transfer is slow: the pages are unmapped before the device writes them.
    edu.start_store(0x10 * PAGE, ALL);
    setup.container.unmap(0x10 * PAGE, PAGE)?;
    memory.fill(0, PAGE_SIZE, 0x77);
    std::thread::sleep(std::time::Duration::from_millis(250));
    assert!(memory.to_vec(0, PAGE_SIZE).iter().all(|b| *b == 0x77));
    round_trip(&edu, (&other, 0x20 * PAGE), (&other, 0x20 * PAGE), 26)
}
