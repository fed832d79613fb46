// SPDX-License-Identifier: GPL-2.0

//! The tables that the PAMUs read, and the allocation of their entries.
//!
//! All PAMUs of a machine share three tables. The primary entries (PPAACT) are indexed by LIODN.
//! From the secondary entries (SPAACT), each LIODN has a consecutive range for its windows. The
//! third table contains the operation mappings (OMT). The tables lie in one block of memory that is
//! aligned to its size: on some SoCs a single local access window has to cover all of them (erratum
//! A-004510).

#[allow(unsafe_code)]
mod abi;
mod layout;
mod pool;
pub(crate) mod writer;

use kernel::{
    new_mutex,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            AtomicFlag,
            Full,
            Relaxed, //
        },
        Arc,
        Mutex, //
    }, //
};

use kernel_ext::module_param;

use crate::paace::{
    Windows,
    Words,
    MAPPING_ROWS,
    WORDS, //
};

pub use abi::ContiguousPages;
pub use layout::TableSizes;

pub(crate) use layout::Table;

use layout::TableLayout;
use pool::Pool;

module_param! {
    /// The number of LIODNs in the tables.
    static MAX_LIODNS: u32 = 1280;
    name: "max_liodns",
    kind: "uint",
    description: "Number of LIODNs (default 1280)"
}

module_param! {
    /// The number of secondary entries.
    static MAX_SECONDARIES: u32 = 2048;
    name: "max_secondaries",
    kind: "uint",
    description: "Number of secondary entries: windows of all LIODNs, except the first of each (default 2048)"
}

/// The tables.
#[pin_data]
pub struct Tables {
    layout: TableLayout,
    memory: ContiguousPages,
    /// The allocated secondary entries.
    #[pin]
    pool: Mutex<Pool>,
    /// Whether a [`System`](crate::system::System) has these tables.
    used: AtomicFlag,
}

impl Tables {
    /// Allocates tables of these sizes. Every LIODN is blocked.
    ///
    /// # Errors
    ///
    /// `EINVAL` if a size is 0 or too large; `ENOMEM`.
    pub fn new(sizes: TableSizes) -> Result<Arc<Self>> {
        let layout = TableLayout::new(sizes)?;
        let memory = ContiguousPages::new(layout.order())?;
        let pool = Pool::new(sizes.spaaces as usize)?;
        let this = Arc::pin_init(
            pin_init!(Self {
                layout,
                memory,
                pool <- new_mutex!(pool, "vfio_pamu::pool"),
                used: AtomicFlag::new(false),
            }),
            GFP_KERNEL,
        )?;
        this.write_omt();
        Ok(this)
    }

    /// Allocates tables of the sizes that the module parameters set.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn from_parameters() -> Result<Arc<Self>> {
        Self::new(TableSizes {
            liodns: MAX_LIODNS.get(),
            spaaces: MAX_SECONDARIES.get(),
        })
    }

    /// Marks the tables as those of a system. Two systems would not wait for each other's PAMUs.
    ///
    /// # Errors
    ///
    /// `EBUSY` if this was called before.
    pub(crate) fn claim(&self) -> Result {
        if self.used.xchg(true, Full) {
            return Err(EBUSY);
        }
        Ok(())
    }

    /// Returns the sizes.
    pub(crate) fn sizes(&self) -> TableSizes {
        self.layout.sizes()
    }

    /// Returns the physical addresses of a table's first byte, and of the first byte after it.
    pub(crate) fn bounds(&self, table: Table) -> (u64, u64) {
        let range = self.layout.range(table);
        let base = self.memory.phys();
        (base + range.start as u64, base + range.end as u64)
    }

    /// Returns the primary entry of `liodn`, if it exists.
    pub(crate) fn ppaace(&self, liodn: u32) -> Option<Slot<'_>> {
        self.slot(Table::Ppaact, liodn)
    }

    /// Returns entry `index` of the SPAACT, if it exists.
    pub(crate) fn spaace(&self, index: u32) -> Option<Slot<'_>> {
        self.slot(Table::Spaact, index)
    }

    fn slot(&self, table: Table, index: u32) -> Option<Slot<'_>> {
        let size = WORDS * size_of::<u32>();
        let range = self.layout.range(table);
        let start = range.start + usize::try_from(index).ok()?.checked_mul(size)?;
        if start >= range.end {
            return None;
        }
        let first = start / size_of::<u32>();
        self.memory.words().get(first..first + WORDS).map(Slot)
    }

    /// Allocates consecutive secondary entries for all windows but the first.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there are not enough consecutive free entries.
    pub(crate) fn allocate_spaaces(self: &Arc<Self>, windows: Windows) -> Result<SpaaceRange> {
        let count = windows.spaaces();
        let first = match count {
            0 => 0,
            _ => self.pool.lock().take(count as usize).ok_or(ENOSPC)? as u32,
        };
        Ok(SpaaceRange {
            tables: self.clone(),
            first,
            windows,
        })
    }

    /// Returns the number of free secondary entries.
    pub fn free_spaaces(&self) -> usize {
        self.pool.lock().free()
    }

    /// Fills the OMT. Called before a PAMU uses it.
    fn write_omt(&self) {
        let start = self.layout.range(Table::Omt).start;
        for (row, operations) in crate::paace::ROWS.iter().enumerate() {
            for (at, bytes) in crate::paace::row(operations).chunks_exact(4).enumerate() {
                let word = bytes
                    .iter()
                    .fold(0, |word, byte| word << 8 | u32::from(*byte));
                let offset = start + row * crate::paace::ROW + at * 4;
                self.memory.words()[offset / 4].store(word.to_be(), Relaxed);
            }
        }
        const { assert!(crate::paace::ROWS.len() <= MAPPING_ROWS as usize) };
    }
}

/// An entry in memory. Only [`writer`] writes to it.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'a>(&'a [Atomic<u32>]);

impl Slot<'_> {
    /// Returns a word of the entry.
    pub(crate) fn load(self, word: usize) -> u32 {
        u32::from_be(self.0[word].load(Relaxed))
    }

    /// Stores a word of the entry. Only [`writer`] calls this.
    pub(crate) fn store(self, word: usize, value: u32) {
        self.0[word].store(value.to_be(), Relaxed);
    }

    /// Returns all words. They are consistent only if there is no concurrent writer.
    pub(crate) fn words(self) -> Words {
        core::array::from_fn(|word| self.load(word))
    }
}

/// The consecutive secondary entries for the windows of one LIODN. Dropping this frees them.
///
/// When it is dropped, no primary entry refers to them any more.
pub struct SpaaceRange {
    tables: Arc<Tables>,
    first: u32,
    windows: Windows,
}

impl SpaaceRange {
    /// Returns the number of windows that the entries are for, including the first window.
    pub(crate) fn windows(&self) -> Windows {
        self.windows
    }

    /// Returns the index of the first entry, or 0 if there is none.
    pub(crate) fn first(&self) -> u32 {
        self.first
    }

    /// Returns the entry of window `index`, which isn't the first window.
    pub(crate) fn slot(&self, index: u32) -> Option<Slot<'_>> {
        if index >= self.windows.count() {
            return None;
        }
        self.tables.spaace(self.first + index.checked_sub(1)?)
    }

    /// Iterates over all entries.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        (1..self.windows.count()).filter_map(|index| self.slot(index))
    }
}

impl Drop for SpaaceRange {
    fn drop(&mut self) {
        for slot in self.slots() {
            writer::erase(slot);
        }
        let count = self.windows.spaaces() as usize;
        if count != 0 {
            self.tables
                .pool
                .lock()
                .give_back(self.first as usize, count);
        }
    }
}

#[kunit_tests(vfio_pamu_tables)]
mod tests {
    use super::*;

    fn tables() -> Result<Arc<Tables>> {
        Tables::new(TableSizes {
            liodns: 64,
            spaaces: 300,
        })
    }

    #[test]
    fn entries_are_at_their_physical_address() -> Result {
        let tables = tables()?;
        for (table, entries, bytes) in [(Table::Ppaact, 64, 64), (Table::Spaact, 300, 64)] {
            let (start, end) = tables.bounds(table);
            assert_eq!(end - start, entries * bytes);
            assert_eq!(start % 4096, 0);
            let slot = tables.slot(table, 5).ok_or(EINVAL)?;
            slot.store(3, 0x1234_5678);
            let word = (start + 5 * 64 + 12 - tables.memory.phys()) / 4;
            let word = &tables.memory.words()[word as usize];
            assert_eq!(u32::from_be(word.load(Relaxed)), 0x1234_5678);
            assert!(tables.slot(table, entries as u32 - 1).is_some());
            assert!(tables.slot(table, entries as u32).is_none());
            assert!(tables.slot(table, u32::MAX).is_none());
        }
        Ok(())
    }

    #[test]
    fn spaaces_are_freed() -> Result {
        let tables = tables()?;
        let all = tables.free_spaaces();
        let a = tables.allocate_spaaces(Windows::new(256)?)?;
        assert_eq!(tables.free_spaaces(), all - 255);
        assert_eq!(
            tables.allocate_spaaces(Windows::new(64)?).err(),
            Some(ENOSPC)
        );
        assert_eq!(tables.free_spaaces(), all - 255);
        let b = tables.allocate_spaaces(Windows::new(32)?)?;
        let none = tables.allocate_spaaces(Windows::ONE)?;
        assert!(none.slots().next().is_none());
        drop((a, none));
        let c = tables.allocate_spaaces(Windows::new(128)?)?;
        drop((b, c));
        assert_eq!(tables.free_spaaces(), all);
        Ok(())
    }

    #[test]
    fn spaaces_are_erased() -> Result {
        let tables = tables()?;
        let row = tables.allocate_spaaces(Windows::new(4)?)?;
        let first = row.first();
        assert!(row.slot(0).is_none() && row.slot(4).is_none());
        for slot in row.slots() {
            (0..WORDS).for_each(|word| slot.store(word, u32::MAX));
        }
        drop(row);
        for index in first..first + 3 {
            let slot = tables.spaace(index).ok_or(EINVAL)?;
            assert_eq!(slot.words(), [0; WORDS]);
        }
        Ok(())
    }
}
