// SPDX-License-Identifier: GPL-2.0

//! A vector within its owner: with room for so many elements, which costs nothing until they are written.

use core::{
    mem::MaybeUninit,
    ops::{
        Deref,
        DerefMut, //
    },
};

/// Up to `N` elements.
///
/// # Invariants
///
/// The first `len` of `items`, at most all, are initialized.
pub struct ArrayVec<T, const N: usize> {
    items: [MaybeUninit<T>; N],
    len: usize,
}

impl<T: Copy, const N: usize> ArrayVec<T, N> {
    /// No elements.
    #[inline]
    pub const fn new() -> Self {
        // INVARIANT: There are none.
        Self {
            items: [const { MaybeUninit::uninit() }; N],
            len: 0,
        }
    }

    /// Adds elements that are `value` until there are `len`, if there is room for so many.
    #[inline]
    pub fn grow(&mut self, len: usize, value: T) {
        for item in self.items.get_mut(self.len..len).unwrap_or_default() {
            item.write(value);
            // INVARIANT: One more was initialized, the next one.
            self.len += 1;
        }
    }

    /// Forgets all elements.
    #[inline]
    pub fn clear(&mut self) {
        // INVARIANT: None has to be initialized.
        self.len = 0;
    }
}

impl<T: Copy, const N: usize> Default for ArrayVec<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Copy, const N: usize> Deref for ArrayVec<T, N> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: By the type invariant so many are there, and initialized.
        unsafe { core::slice::from_raw_parts(self.items.as_ptr().cast(), self.len) }
    }
}

impl<T: Copy, const N: usize> DerefMut for ArrayVec<T, N> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: By the type invariant so many are there, and initialized.
        unsafe { core::slice::from_raw_parts_mut(self.items.as_mut_ptr().cast(), self.len) }
    }
}

#[kernel::macros::kunit_tests(kernel_ext_array_vec)]
mod tests {
    use super::*;

    #[test]
    fn grows_as_far_as_there_is_room() {
        let mut few = ArrayVec::<u64, 3>::new();
        assert!(few.is_empty());
        few.grow(2, 7);
        few.grow(1, 8);
        few.grow(4, 9);
        assert_eq!(&few[..], &[7, 7]);
        few.grow(3, 9);
        assert_eq!(&few[..], &[7, 7, 9]);
        few.clear();
        few.grow(1, 1);
        assert_eq!(&few[..], &[1]);
    }
}
