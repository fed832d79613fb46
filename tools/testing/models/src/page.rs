// SPDX-License-Identifier: GPL-2.0

//! `kernel::page`.

/// How many bits of an address are those within a page.
pub const PAGE_SHIFT: usize = 12;
