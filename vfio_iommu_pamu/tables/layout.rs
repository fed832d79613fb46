// SPDX-License-Identifier: GPL-2.0

//! The location of each table in the block of memory.

use core::ops::Range;

use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

use crate::{
    abi::Contiguous,
    paace::{
        MAPPING_ROWS,
        ROW,
        WORDS, //
    },
};

/// The number of entries of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// LIODNs, up to 65536, because a transaction contains 16 bits.
    pub(crate) liodns: u32,
    /// Secondary entries.
    pub(crate) secondaries: u32,
}

/// One of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// Primary entries: the PPAACT.
    Primaries,
    /// Secondary entries: the SPAACT.
    Secondaries,
    /// Operation mappings: the OMT.
    Mappings,
}

/// The locations of the tables.
pub(crate) struct Layout {
    limits: Limits,
    order: u32,
}

/// The size of an entry in bytes.
const ENTRY: usize = WORDS * size_of::<u32>();

impl Layout {
    /// Returns the layout of tables with these sizes.
    ///
    /// # Errors
    ///
    /// `EINVAL` if a size is 0, or too large for a LIODN's 16 bits or for one block of memory.
    pub(crate) fn new(limits: Limits) -> Result<Self> {
        let most = (PAGE_SIZE << Contiguous::MAX_ORDER) as u64;
        let bytes = u64::from(limits.secondaries) * ENTRY as u64;
        if limits.liodns == 0 || limits.liodns > 1 << 16 || limits.secondaries == 0 || bytes > most
        {
            return Err(EINVAL);
        }
        let mut this = Self { limits, order: 0 };
        let end = this.range(Table::Mappings).end;
        this.order = end.div_ceil(PAGE_SIZE).next_power_of_two().ilog2();
        if this.order > Contiguous::MAX_ORDER {
            return Err(EINVAL);
        }
        Ok(this)
    }

    /// Returns the sizes.
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Returns the order of the block of memory: the base-2 logarithm of its number of pages.
    pub(crate) fn order(&self) -> u32 {
        self.order
    }

    /// Returns the range of bytes of a table. Each table is page aligned.
    pub(crate) fn range(&self, table: Table) -> Range<usize> {
        let primaries = self.limits.liodns as usize * ENTRY;
        let secondaries = self.limits.secondaries as usize * ENTRY;
        let second = primaries.next_multiple_of(PAGE_SIZE);
        let third = second + secondaries.next_multiple_of(PAGE_SIZE);
        match table {
            Table::Primaries => 0..primaries,
            Table::Secondaries => second..second + secondaries,
            Table::Mappings => third..third + MAPPING_ROWS as usize * ROW,
        }
    }
}

#[kunit_tests(vfio_pamu_layout)]
mod tests {
    use super::*;

    fn layout(liodns: u32, secondaries: u32) -> Result<Layout> {
        Layout::new(Limits {
            liodns,
            secondaries,
        })
    }

    #[test]
    fn tables_do_not_overlap() -> Result {
        for (liodns, secondaries, order) in [
            (1280, 2048, 6),
            (1, 1, 2),
            (64, 64, 2),
            (65, 64, 2),
            (129, 64, 3),
            (4096, 1, 7),
        ] {
            let layout = layout(liodns, secondaries)?;
            let ranges = [Table::Primaries, Table::Secondaries, Table::Mappings]
                .map(|table| layout.range(table));
            assert!(ranges.iter().all(|range| range.start % PAGE_SIZE == 0));
            assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
            assert!(ranges[2].end <= PAGE_SIZE << layout.order());
            assert_eq!(layout.order(), order);
        }
        Ok(())
    }

    #[test]
    fn bad_sizes_are_refused() {
        for (liodns, secondaries) in [
            (0, 1),
            (1, 0),
            (65537, 1),
            (65536, 65536),
            (1, u32::MAX),
            (u32::MAX, u32::MAX),
        ] {
            assert_eq!(layout(liodns, secondaries).err(), Some(EINVAL));
        }
    }
}
