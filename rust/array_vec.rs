// SPDX-License-Identifier: GPL-2.0

//! Vectors with inline storage: [`ArrayVec`], whose capacity is fixed, and [`SmallVec`], which
//! allocates memory if it has more elements.

use core::{
    mem::MaybeUninit,
    ops::{
        Deref,
        DerefMut, //
    },
    ptr, //
};

use kernel::{
    alloc::{
        allocator::Kmalloc,
        Flags, //
    },
    prelude::*, //
};

use crate::vec_slot::VecSlot;

/// A vector of up to `N` elements. They cost nothing until they are written.
///
/// # Invariants
///
/// The first `len` of `items` are initialized, and `len` is at most `N`.
pub struct ArrayVec<T, const N: usize> {
    items: [MaybeUninit<T>; N],
    len: usize,
}

impl<T, const N: usize> ArrayVec<T, N> {
    /// Returns an empty vector.
    #[inline]
    pub const fn new() -> Self {
        // INVARIANT: The vector has no elements.
        Self {
            items: [const { MaybeUninit::uninit() }; N],
            len: 0,
        }
    }

    /// Returns the place after the last element, or `None` if the vector is full.
    #[inline]
    fn slot(&mut self) -> Option<ArraySlot<'_, T>> {
        // INVARIANT: The element at `len` is the one after the last.
        Some(ArraySlot {
            item: self.items.get_mut(self.len)?,
            len: &mut self.len,
        })
    }

    /// Appends `value`.
    ///
    /// # Errors
    ///
    /// Returns `value` if the vector is full.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        match self.slot() {
            Some(slot) => slot.fill(value),
            None => return Err(value),
        }
        Ok(())
    }

    /// Removes and returns the element at `index`, if there is one. The elements after it move up.
    #[inline]
    pub fn remove(&mut self, index: usize) -> Option<T> {
        let rest = self.get_mut(index..)?;
        let after = rest.len().checked_sub(1)?;
        let place = rest.as_mut_ptr();
        // SAFETY: The element is initialized. It is not used here any more: those after it replace it,
        // or it is no longer one of `len`.
        let removed = unsafe { place.read() };
        // SAFETY: `rest` has `after` elements after the first one.
        unsafe { ptr::copy(place.add(1), place, after) };
        // INVARIANT: The elements have moved up, so one less is initialized.
        self.len -= 1;
        Some(removed)
    }
}

impl<T: Copy, const N: usize> ArrayVec<T, N> {
    /// Removes all elements.
    #[inline]
    pub fn clear(&mut self) {
        // INVARIANT: With `len` 0 no element has to be initialized.
        self.len = 0;
    }
}

impl<T, const N: usize> Default for ArrayVec<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const N: usize> Deref for ArrayVec<T, N> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: By the type invariant `len` elements exist and are initialized.
        unsafe { core::slice::from_raw_parts(self.items.as_ptr().cast(), self.len) }
    }
}

impl<T, const N: usize> DerefMut for ArrayVec<T, N> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: By the type invariant `len` elements exist and are initialized.
        unsafe { core::slice::from_raw_parts_mut(self.items.as_mut_ptr().cast(), self.len) }
    }
}

impl<T, const N: usize> Drop for ArrayVec<T, N> {
    #[inline]
    fn drop(&mut self) {
        let items: *mut [T] = &mut **self;
        // SAFETY: By the type invariant the elements are initialized, and they are dropped once.
        unsafe { ptr::drop_in_place(items) };
    }
}

/// The place for one more element of an [`ArrayVec`].
///
/// # Invariants
///
/// `item` is the first element that is not initialized, and `len` is its index.
pub struct ArraySlot<'a, T> {
    item: &'a mut MaybeUninit<T>,
    len: &'a mut usize,
}

impl<T> ArraySlot<'_, T> {
    #[inline]
    fn fill(self, value: T) {
        self.item.write(value);
        // INVARIANT: By the type invariant of the slot, one element more is initialized now.
        *self.len += 1;
    }
}

/// A vector that stores up to `N` elements inline. For lists that mostly have few elements: these
/// need no allocation.
pub enum SmallVec<T, const N: usize> {
    /// There have never been more than `N` elements.
    Inline(ArrayVec<T, N>),
    /// The elements are in memory of their own.
    Heap(KVec<T>),
}

impl<T, const N: usize> SmallVec<T, N> {
    /// Returns an empty vector.
    #[inline]
    pub const fn new() -> Self {
        Self::Inline(ArrayVec::new())
    }

    /// Returns the memory for one more element, which is allocated unless the vector has it already.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    #[inline]
    pub fn slot(&mut self, flags: Flags) -> Result<SmallSlot<'_, T>> {
        if self.len() == N {
            self.spill(flags)?;
        }
        match self {
            Self::Inline(few) => few.slot().map(SmallSlot::Inline).ok_or(ENOMEM),
            Self::Heap(many) => VecSlot::new(many, flags).map(SmallSlot::Heap),
        }
    }

    /// Moves the elements to memory of their own, with room for as many more, if they are inline.
    #[cold]
    fn spill(&mut self, flags: Flags) -> Result {
        let Self::Inline(few) = self else {
            return Ok(());
        };
        let mut many = KVec::with_capacity(2 * N, flags)?;
        while let Some(item) = few.remove(0) {
            many.push(item, flags)?;
        }
        *self = Self::Heap(many);
        Ok(())
    }

    /// Appends `item`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    #[inline]
    pub fn push(&mut self, item: T, flags: Flags) -> Result {
        self.slot(flags)?.fill(item);
        Ok(())
    }

    /// Removes and returns the element at `index`, if there is one. The elements after it move up.
    #[inline]
    pub fn remove(&mut self, index: usize) -> Option<T> {
        match self {
            Self::Inline(few) => few.remove(index),
            Self::Heap(many) => many.remove(index).ok(),
        }
    }
}

impl<T, const N: usize> Default for SmallVec<T, N> {
    #[inline]
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const N: usize> Deref for SmallVec<T, N> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        match self {
            Self::Inline(few) => few,
            Self::Heap(many) => many,
        }
    }
}

impl<T, const N: usize> DerefMut for SmallVec<T, N> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        match self {
            Self::Inline(few) => few,
            Self::Heap(many) => many,
        }
    }
}

/// The memory for one more element of a [`SmallVec`], which does not change as long as this exists.
pub enum SmallSlot<'a, T> {
    /// The place is inline.
    Inline(ArraySlot<'a, T>),
    /// The place is in memory of the vector's own.
    Heap(VecSlot<'a, T, Kmalloc>),
}

impl<T> SmallSlot<'_, T> {
    /// Appends `item` to the vector.
    #[inline]
    pub fn fill(self, item: T) {
        match self {
            Self::Inline(slot) => slot.fill(item),
            Self::Heap(slot) => slot.fill(item),
        }
    }
}

#[kernel::macros::kunit_tests(kernel_ext_array_vec)]
mod tests {
    use kernel::sync::Arc;

    use super::*;

    #[test]
    fn full_vector_takes_no_element() {
        let mut few = ArrayVec::<u64, 2>::new();
        assert!(few.is_empty());
        assert_eq!(
            (few.push(7), few.push(8), few.push(9)),
            (Ok(()), Ok(()), Err(9))
        );
        assert_eq!(&few[..], &[7, 8]);
        few.clear();
        assert_eq!(few.push(1), Ok(()));
        assert_eq!(&few[..], &[1]);
    }

    #[test]
    fn elements_are_dropped_once() -> Result {
        let item = Arc::new(7, GFP_KERNEL)?;
        for count in 0..5 {
            let mut items = SmallVec::<Arc<i32>, 2>::new();
            for _ in 0..count {
                items.push(item.clone(), GFP_KERNEL)?;
            }
            assert_eq!(items.len(), count);
            assert_eq!(items.remove(0).is_some(), count != 0);
            assert_eq!(items.len(), count.saturating_sub(1));
        }
        // All references but this one are gone, and none too many.
        assert!(Arc::into_unique_or_drop(item).is_some());
        Ok(())
    }

    #[test]
    fn elements_keep_their_order() -> Result {
        let mut items = SmallVec::<u64, 2>::new();
        for item in 0..6 {
            items.push(item, GFP_KERNEL)?;
            assert_eq!(matches!(items, SmallVec::Inline(_)), items.len() <= 2);
        }
        assert_eq!((items.remove(3), items.remove(5)), (Some(3), None));
        assert_eq!(&items[..], &[0, 1, 2, 4, 5]);
        let mut few = SmallVec::<u64, 2>::new();
        few.push(1, GFP_KERNEL)?;
        few.push(2, GFP_KERNEL)?;
        assert_eq!((few.remove(0), few.remove(1)), (Some(1), None));
        assert_eq!(&few[..], &[2]);
        Ok(())
    }

    #[test]
    fn slots_are_filled_in_order() -> Result {
        let mut items = SmallVec::<u64, 2>::new();
        for item in 0..6 {
            // A slot that isn't filled leaves only memory.
            items.slot(GFP_KERNEL)?;
            items.slot(GFP_KERNEL)?.fill(item);
        }
        assert_eq!(&items[..], &[0, 1, 2, 3, 4, 5]);
        Ok(())
    }
}
