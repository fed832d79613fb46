// SPDX-License-Identifier: GPL-2.0

//! UNMAP_DMA of a part of a large page, which is one entry of the IOMMU's page tables.
//!
//! Drivers of IOMMUs that use io-pgtable, such as that of the SMMU, cannot unmap a part of an entry.

use super::limits::{
    has_page_tables,
    page_table_pages, //
};
use crate::{
    env::{
        EDU,
        EMPTY,
        Setup,
        attached, //
    },
    harness::cases, //
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    fs,
    ops::Range, //
};
use support::{
    PAGE,
    machine::locked_pages,
    requests::UnmapDma, //
};
use vfio_client::{
    Advice,
    Arena,
    Errno,
    Filling,
    Iommu,
    MapFlags,
    PAGE_SIZE,
    edu::Edu, //
};

cases! {
    #[rows("T-U7")] v2_refuses_part_of_large_page,
    #[rows("T-U10", "T-U11")] v1_unmaps_large_page_as_a_whole,
    #[rows("T-U8")] large_pages_between_small_ones,
}

/// Where the memory is mapped.
const AT: u64 = 1 << 30;

/// Returns the size of a large page.
fn large() -> Result<usize> {
    let path = "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
    Ok(fs::read_to_string(path).context(path)?.trim().parse()?)
}

/// Returns memory in large pages.
fn memory(len: usize) -> Result<Arena> {
    let mut arena = Arena::new(EMPTY, len)?;
    arena.fill(0..len, Filling::Private)?;
    arena.advise(0..len, Advice::Huge)?;
    arena.advise(0..len, Advice::Write)?;
    Ok(arena)
}

/// Checks that a large page is one entry: it takes no table for small pages.
fn check_large(arena: &Arena, len: usize) -> Result<()> {
    let tables = |piece| -> Result<u64> {
        let (container, _group) = attached(EDU, Iommu::Type1v2)?;
        let before = page_table_pages()?;
        container.map_arena(AT, arena, piece, MapFlags::ReadWrite)?;
        page_table_pages()?
            .checked_sub(before)
            .context("fewer pages than before")
    };
    let (large, small) = (tables(0..len)?, tables(0..PAGE_SIZE)?);
    ensure!(
        small == large + u64::from(has_page_tables()?),
        "expected a table less than for a small page: {large} and {small}"
    );
    Ok(())
}

/// Returns whether the device reads and writes the memory at an offset from [`AT`].
fn reaches(edu: &Edu, arena: &mut Arena, offset: usize) -> Result<bool> {
    const LEN: usize = 64;
    let data: [u8; LEN] = std::array::from_fn(|i| (i + offset / PAGE_SIZE) as u8 ^ 0x5a);
    let iova = AT + offset as u64;
    arena.write(offset, &data)?;
    edu.load(iova, LEN as u64)?;
    arena.write(offset, &[0; LEN])?;
    edu.store(iova, LEN as u64)?;
    let mut found = [0; LEN];
    arena.read(offset, &mut found)?;
    ensure!(found == data || found == [0; LEN], "other bytes arrived");
    Ok(found == data)
}

/// Checks whether the device reaches the first, a middle and the last page of a piece.
fn check(edu: &Edu, arena: &mut Arena, piece: &Range<usize>, expected: bool) -> Result<()> {
    let middle = piece.start + piece.len() / 2 / PAGE_SIZE * PAGE_SIZE;
    for offset in [piece.start, middle, piece.end - PAGE_SIZE] {
        let found = reaches(edu, arena, offset)?;
        ensure!(found == expected, "at {offset:#x}: {found}");
    }
    Ok(())
}

fn v2_refuses_part_of_large_page() -> Result<()> {
    let len = large()?;
    let mut arena = memory(len)?;
    check_large(&arena, len)?;
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let container = &setup.container;
    container.map_arena(AT, &arena, 0..len, MapFlags::ReadWrite)?;
    check(&edu, &mut arena, &(0..len), true)?;
    let (size, middle) = (len as u64, len as u64 / 2);
    for (offset, bytes) in [
        (middle, PAGE),
        (0, PAGE),
        (size - PAGE, PAGE),
        (0, middle),
        (middle, middle),
        (PAGE, size - PAGE),
    ] {
        assert_eq!(
            UnmapDma::of(AT + offset, bytes).send(container),
            Err(Errno::EINVAL),
            "{offset:#x} {bytes:#x}"
        );
    }
    assert_eq!(locked_pages(), size / PAGE);
    check(&edu, &mut arena, &(0..len), true)?;
    assert_eq!(UnmapDma::of(AT, size).send(container), Ok(size));
    assert_eq!(locked_pages(), 0);
    check(&edu, &mut arena, &(0..len), false)
}

fn v1_unmaps_large_page_as_a_whole() -> Result<()> {
    let len = large()?;
    let mut arena = memory(len)?;
    check_large(&arena, len)?;
    let setup = Setup::with(EDU, Iommu::Type1)?;
    let edu = Edu::new(&setup.device)?;
    let container = &setup.container;
    let (size, middle) = (len as u64, len as u64 / 2);
    for first in [PAGE, middle, size] {
        container.map_arena(AT, &arena, 0..len, MapFlags::ReadWrite)?;
        // A page in the middle, and the rest behind it: nothing begins there.
        for (offset, bytes) in [(middle, PAGE), (middle + PAGE, middle - PAGE)] {
            assert_eq!(UnmapDma::of(AT + offset, bytes).send(container), Ok(0));
        }
        assert_eq!(locked_pages(), size / PAGE);
        check(&edu, &mut arena, &(0..len), true)?;
        assert_eq!(
            UnmapDma::of(AT, first).send(container),
            Ok(size),
            "{first:#x}"
        );
        assert_eq!(locked_pages(), 0);
        check(&edu, &mut arena, &(0..len), false)?;
    }
    Ok(())
}

/// A mapping that begins and ends in the middle of a large page, so that it has entries of both sizes.
fn large_pages_between_small_ones() -> Result<()> {
    let len = large()?;
    let mut arena = memory(4 * len)?;
    check_large(&arena, len)?;
    let setup = Setup::new()?;
    let edu = Edu::new(&setup.device)?;
    let container = &setup.container;
    let inner = len - PAGE_SIZE..3 * len + PAGE_SIZE;
    let pieces = [0..inner.start, inner.clone(), inner.end..4 * len];
    for piece in &pieces {
        let iova = AT + piece.start as u64;
        container.map_arena(iova, &arena, piece.clone(), MapFlags::ReadWrite)?;
    }
    for piece in &pieces {
        check(&edu, &mut arena, piece, true)?;
    }
    let size = inner.len() as u64;
    assert_eq!(
        UnmapDma::of(AT + inner.start as u64, size).send(container),
        Ok(size)
    );
    assert_eq!(locked_pages(), (4 * len as u64 - size) / PAGE);
    // What is beside it stays.
    for (piece, expected) in pieces.iter().zip([true, false, true]) {
        check(&edu, &mut arena, piece, expected)?;
    }
    Ok(())
}
