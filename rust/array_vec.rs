// SPDX-License-Identifier: GPL-2.0

//! A vector with inline storage of fixed capacity. Elements cost nothing until they are written.

use core::{
    mem::MaybeUninit,
    ops::{
        Deref,
        DerefMut, //
    },
};

/// A vector of up to `N` elements.
///
/// # Invariants
///
/// The first `len` of `items` are initialized, and `len` is at most `N`.
pub struct ArrayVec<T, const N: usize> {
    items: [MaybeUninit<T>; N],
    len: usize,
}

impl<T: Copy, const N: usize> ArrayVec<T, N> {
    /// Returns an empty vector.
    #[inline]
    pub const fn new() -> Self {
        // INVARIANT: The vector has no elements.
        Self {
            items: [const { MaybeUninit::uninit() }; N],
            len: 0,
        }
    }

    /// Appends copies of `value` until the vector has `len` elements. Does nothing if `len` exceeds
    /// the capacity.
    #[inline]
    pub fn grow(&mut self, len: usize, value: T) {
        for item in self.items.get_mut(self.len..len).unwrap_or_default() {
            item.write(value);
            // INVARIANT: The next element was just initialized.
            self.len += 1;
        }
    }

    /// Removes all elements.
    #[inline]
    pub fn clear(&mut self) {
        // INVARIANT: With `len` 0 no element has to be initialized.
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
        // SAFETY: By the type invariant `len` elements exist and are initialized.
        unsafe { core::slice::from_raw_parts(self.items.as_ptr().cast(), self.len) }
    }
}

impl<T: Copy, const N: usize> DerefMut for ArrayVec<T, N> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: By the type invariant `len` elements exist and are initialized.
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
