// SPDX-License-Identifier: GPL-2.0

//! The location of each table in the block of memory.

use core::ops::Range;

use kernel::{
    page::PAGE_SIZE,
    prelude::*, //
};

use crate::paace::{
    MAPPING_ROWS,
    ROW,
    WORDS, //
};

use super::ContiguousPages;

/// The number of entries of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableSizes {
    /// LIODNs, up to 65536, because a transaction contains 16 bits.
    pub liodns: u32,
    /// Secondary entries.
    pub spaaces: u32,
}

/// One of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    /// The primary entries.
    Ppaact,
    /// The secondary entries.
    Spaact,
    /// The operation mapping table.
    Omt,
}

/// The locations of the tables.
pub(crate) struct TableLayout {
    sizes: TableSizes,
    order: u32,
}

/// The size of an entry in bytes.
const ENTRY: usize = WORDS * size_of::<u32>();

impl TableLayout {
    /// Returns the layout of tables with these sizes.
    ///
    /// # Errors
    ///
    /// `EINVAL` if a size is 0, or too large for a LIODN's 16 bits or for one block of memory.
    pub(crate) fn new(sizes: TableSizes) -> Result<Self> {
        let most = (PAGE_SIZE << ContiguousPages::MAX_ORDER) as u64;
        let bytes = u64::from(sizes.spaaces) * ENTRY as u64;
        if sizes.liodns == 0 || sizes.liodns > 1 << 16 || sizes.spaaces == 0 || bytes > most {
            return Err(EINVAL);
        }
        let mut this = Self { sizes, order: 0 };
        let end = this.range(Table::Omt).end;
        this.order = end.div_ceil(PAGE_SIZE).next_power_of_two().ilog2();
        if this.order > ContiguousPages::MAX_ORDER {
            return Err(EINVAL);
        }
        Ok(this)
    }

    /// Returns the sizes.
    pub(crate) fn sizes(&self) -> TableSizes {
        self.sizes
    }

    /// Returns the order of the block of memory: the base-2 logarithm of its number of pages.
    pub(crate) fn order(&self) -> u32 {
        self.order
    }

    /// Returns the range of bytes of a table. Each table is page aligned.
    pub(crate) fn range(&self, table: Table) -> Range<usize> {
        let ppaaces = self.sizes.liodns as usize * ENTRY;
        let spaaces = self.sizes.spaaces as usize * ENTRY;
        let second = ppaaces.next_multiple_of(PAGE_SIZE);
        let third = second + spaaces.next_multiple_of(PAGE_SIZE);
        match table {
            Table::Ppaact => 0..ppaaces,
            Table::Spaact => second..second + spaaces,
            Table::Omt => third..third + MAPPING_ROWS as usize * ROW,
        }
    }
}

#[kunit_tests(vfio_pamu_layout)]
mod tests {
    use super::*;

    fn layout(liodns: u32, spaaces: u32) -> Result<TableLayout> {
        TableLayout::new(TableSizes { liodns, spaaces })
    }

    #[test]
    fn tables_do_not_overlap() -> Result {
        for (liodns, spaaces, order) in [
            (1280, 2048, 6),
            (1, 1, 2),
            (64, 64, 2),
            (65, 64, 2),
            (129, 64, 3),
            (4096, 1, 7),
        ] {
            let layout = layout(liodns, spaaces)?;
            let ranges =
                [Table::Ppaact, Table::Spaact, Table::Omt].map(|table| layout.range(table));
            assert!(ranges.iter().all(|range| range.start % PAGE_SIZE == 0));
            assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start));
            assert!(ranges[2].end <= PAGE_SIZE << layout.order());
            assert_eq!(layout.order(), order);
        }
        Ok(())
    }

    #[test]
    fn bad_sizes_are_refused() {
        for (liodns, spaaces) in [
            (0, 1),
            (1, 0),
            (65537, 1),
            (65536, 65536),
            (1, u32::MAX),
            (u32::MAX, u32::MAX),
        ] {
            assert_eq!(layout(liodns, spaaces).err(), Some(EINVAL));
        }
    }
}
