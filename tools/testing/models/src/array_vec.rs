// SPDX-License-Identifier: GPL-2.0

//! `kernel_ext::array_vec`, as far as the sources need it.

use crate::prelude::KVec;

/// A vector whose first `N` elements need no allocation. Here they do.
pub type SmallVec<T, const N: usize> = KVec<T>;
