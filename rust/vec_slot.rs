// SPDX-License-Identifier: GPL-2.0

//! Memory for one more element of a vector, so that appending the element can't fail.

use kernel::{
    alloc::{
        Allocator,
        Flags,
        Vec, //
    },
    prelude::*, //
};

/// The memory for one more element of a vector, which does not change as long as this exists.
///
/// # Invariants
///
/// The vector is shorter than its capacity.
pub struct VecSlot<'a, T, A: Allocator>(&'a mut Vec<T, A>);

impl<'a, T, A: Allocator> VecSlot<'a, T, A> {
    /// Allocates the memory, unless `vec` has it already.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(vec: &'a mut Vec<T, A>, flags: Flags) -> Result<Self> {
        vec.reserve(1, flags)?;
        // INVARIANT: There is room for one element now.
        Ok(Self(vec))
    }

    /// Appends `value` to the vector.
    pub fn fill(self, value: T) {
        let spare = self.0.spare_capacity_mut().as_mut_ptr();
        // SAFETY: By the type invariant there is an element after the last one, which nothing uses.
        unsafe { (*spare).write(value) };
        // SAFETY: The element was just written.
        unsafe { self.0.inc_len(1) };
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(kernel_ext_vec_slot)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_filled_in_order() -> Result {
        let mut vec = KVec::new();
        for nth in 0..100 {
            VecSlot::new(&mut vec, GFP_KERNEL)?.fill(nth);
        }
        // A slot that isn't filled leaves only memory.
        VecSlot::new(&mut vec, GFP_KERNEL)?;
        assert!(vec.iter().copied().eq(0..100));
        Ok(())
    }
}
