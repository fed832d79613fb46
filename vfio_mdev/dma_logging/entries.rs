// SPDX-License-Identifier: GPL-2.0

//! The entries of a log: one bit for each entry, in chunks. Only chunks with a set bit use memory.

use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    prelude::*,
    rbtree::{
        RBTree,
        RBTreeNode,
        RBTreeNodeReservation, //
    }, //
};
use kernel_ext::mm::MemoryCgroup;

/// The number of entries in a chunk.
pub(super) const CHUNK: u64 = 1 << CHUNK_SHIFT;
const CHUNK_SHIFT: u32 = 12;
const WORDS: usize = (CHUNK / 64) as usize;

/// Chunks of entries, by their number.
pub(super) struct Entries(RBTree<u64, Chunk>);

/// Preallocated nodes for the first and the last chunk of a [`Span`], which it may cover only
/// partly.
pub(super) struct Spare([Option<RBTreeNodeReservation<u64, Chunk>>; 2]);

impl Spare {
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn new() -> Result<Self> {
        let reservation = || RBTreeNodeReservation::new(GFP_KERNEL_ACCOUNT);
        Ok(Self([Some(reservation()?), Some(reservation()?)]))
    }

    fn take(&mut self) -> Option<RBTreeNodeReservation<u64, Chunk>> {
        self.0.iter_mut().find_map(Option::take)
    }
}

/// A range of addresses, and the entries that it covers.
#[derive(Clone, Copy)]
pub(super) struct Span {
    first: u64,
    last: u64,
    shift: u32,
}

impl Span {
    /// Creates a span of the addresses from `first` to `last`. An entry stands for `1 << shift`
    /// bytes.
    pub(super) fn new(first: u64, last: u64, shift: u32) -> Self {
        Self { first, last, shift }
    }

    /// Returns the number of the chunk that contains the first entry.
    pub(super) fn first_chunk(&self) -> u64 {
        self.first_entry() >> CHUNK_SHIFT
    }

    fn first_entry(&self) -> u64 {
        self.first >> self.shift
    }

    fn last_entry(&self) -> u64 {
        self.last >> self.shift
    }

    fn first_address(&self, entry: u64) -> u64 {
        entry << self.shift
    }

    fn last_address(&self, entry: u64) -> u64 {
        self.first_address(entry) | ((1 << self.shift) - 1)
    }

    /// Whether the span covers an entry completely.
    fn has_whole(&self, entry: u64) -> bool {
        self.first <= self.first_address(entry) && self.last_address(entry) <= self.last
    }

    /// Returns the part of the span that the entries stand for, as its first address and its
    /// length.
    fn addresses(&self, first_entry: u64, last_entry: u64) -> (u64, u64) {
        let start = self.first_address(first_entry).max(self.first);
        let last = self.last_address(last_entry).min(self.last);
        (start, last - start + 1)
    }
}

impl Entries {
    pub(super) fn new() -> Self {
        Self(RBTree::new())
    }

    #[cfg(CONFIG_KUNIT)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds an entry. Memory for it is charged to `payer`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn enter(&mut self, entry: u64, payer: &MemoryCgroup) -> Result {
        let (number, bit) = (entry >> CHUNK_SHIFT, entry % CHUNK);
        if self.0.get(&number).is_none() {
            let node =
                payer.charge(|| RBTreeNode::new(number, Chunk::EMPTY, GFP_KERNEL_ACCOUNT))?;
            self.0.insert(node);
        }
        if let Some(chunk) = self.0.get_mut(&number) {
            chunk.set(bit);
        }
        Ok(())
    }

    /// Takes the entries in `span` out of the first chunk that has any of them, from chunk `number`
    /// on. An entry that the span covers only partly is part of the result, but also stays here.
    ///
    /// # Errors
    ///
    /// `ENOMEM` if another span has used up `spare`.
    pub(super) fn take(
        &mut self,
        span: &Span,
        number: u64,
        spare: &mut Spare,
    ) -> Result<Option<Taken>> {
        let mut cursor = self.0.cursor_lower_bound_mut(&number);
        while let Some(mut current) = cursor {
            let (&number, chunk) = current.current_mut();
            let base = number << CHUNK_SHIFT;
            if base > span.last_entry() {
                break;
            }
            let end = base + (CHUNK - 1);
            if span.has_whole(base) && span.has_whole(end) {
                let (_, node) = current.remove_current();
                return Ok(Some(Taken { number, node }));
            }
            let (first, last) = (span.first_entry().max(base), span.last_entry().min(end));
            let found = chunk.between(first - base, last - base);
            if !found.is_empty() {
                let node = spare.take().ok_or(ENOMEM)?;
                let mut whole = found.clone();
                for entry in [first, last] {
                    if !span.has_whole(entry) {
                        whole.clear(entry - base);
                    }
                }
                chunk.subtract(&whole);
                if chunk.is_empty() {
                    drop(current.remove_current());
                }
                let node = node.into_node(number, found);
                return Ok(Some(Taken { number, node }));
            }
            cursor = current.move_next();
        }
        Ok(None)
    }

    /// Adds entries that were taken elsewhere. Returns the number of their chunk.
    pub(super) fn put(&mut self, taken: Taken) -> u64 {
        let Taken { number, node } = taken;
        match self.0.get_mut(&number) {
            Some(chunk) => chunk.add(&node.to_key_value().1),
            None => drop(self.0.insert(node)),
        }
        number
    }

    /// Adds all entries of `taken`. Allocates no memory.
    pub(super) fn put_back(&mut self, mut taken: Self) {
        while let Some(cursor) = taken.0.cursor_front_mut() {
            let number = *cursor.current().0;
            let (_, node) = cursor.remove_current();
            self.put(Taken { number, node });
        }
    }

    /// Calls `f` for the parts of `span` that the entries of a chunk stand for, with the address
    /// and the length of each part.
    ///
    /// # Errors
    ///
    /// The errors of `f`.
    pub(super) fn each_piece(
        &self,
        number: u64,
        span: &Span,
        mut f: impl FnMut(u64, u64) -> Result,
    ) -> Result {
        let Some(chunk) = self.0.get(&number) else {
            return Ok(());
        };
        let base = number << CHUNK_SHIFT;
        let mut from = 0;
        while let Some((first, last)) = chunk.run(from) {
            let (start, length) = span.addresses(base + first, base + last);
            f(start, length)?;
            from = last + 1;
        }
        Ok(())
    }
}

/// A chunk that [`Entries::take`] returned.
pub(super) struct Taken {
    number: u64,
    node: RBTreeNode<u64, Chunk>,
}

/// One bit for each entry.
#[derive(Clone)]
struct Chunk([u64; WORDS]);

impl Chunk {
    const EMPTY: Self = Self([0; WORDS]);

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    fn is_set(&self, bit: u64) -> bool {
        self.0[(bit / 64) as usize] >> (bit % 64) & 1 == 1
    }

    fn set(&mut self, bit: u64) {
        self.0[(bit / 64) as usize] |= 1 << (bit % 64);
    }

    fn clear(&mut self, bit: u64) {
        self.0[(bit / 64) as usize] &= !(1 << (bit % 64));
    }

    fn add(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    fn subtract(&mut self, other: &Self) {
        for (word, less) in self.0.iter_mut().zip(&other.0) {
            *word &= !less;
        }
    }

    /// Returns the bits from `first` to `last`.
    fn between(&self, first: u64, last: u64) -> Self {
        let mut found = Self::EMPTY;
        for index in first / 64..=last / 64 {
            let (low, high) = (first.max(64 * index) % 64, last.min(64 * index + 63) % 64);
            let mask = u64::MAX << low & u64::MAX >> (63 - high);
            found.0[index as usize] = self.0[index as usize] & mask;
        }
        found
    }

    /// Returns the first run of set bits at or after `from`, as its first and its last bit.
    fn run(&self, from: u64) -> Option<(u64, u64)> {
        let mut first = from;
        while first < CHUNK && !self.is_set(first) {
            // Skip an empty word at once.
            let empty = self.0[(first / 64) as usize] == 0;
            first = if empty {
                (first / 64 + 1) * 64
            } else {
                first + 1
            };
        }
        if first >= CHUNK {
            return None;
        }
        let end = (first + 1..CHUNK).find(|&bit| !self.is_set(bit));
        Some((first, end.unwrap_or(CHUNK) - 1))
    }
}
