// SPDX-License-Identifier: GPL-2.0

//! Physical region pages: the location of a command's data (section 4.3 of the specification).

/// The size of the controller's memory pages, whatever the size of the kernel's.
pub const PAGE_SIZE: usize = 4096;

const PAGE: u64 = PAGE_SIZE as u64;

/// The maximum number of pages that one command can name with a list of one page.
pub const MAX_PAGES: usize = PAGE_SIZE / 8 + 1;

/// The two PRP entries of a command, and the list that the second entry may point to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prp {
    /// The address of the first page.
    pub first: u64,
    /// Zero, the address of the second page, or the address of the list.
    pub second: u64,
    /// The contents of the list.
    pub list: Vec<u64>,
}

impl Prp {
    /// Describes `len` bytes at `iova`, which must be page-aligned. `list` is the address of the
    /// list, if one is needed.
    ///
    /// Returns `None` if `iova` is not aligned or the list would exceed one page.
    pub fn new(iova: u64, len: usize, list: u64) -> Option<Self> {
        let pages = len.div_ceil(PAGE_SIZE);
        if pages > MAX_PAGES || iova % PAGE != 0 {
            return None;
        }
        let rest: Vec<_> = (1..pages as u64).map(|page| iova + page * PAGE).collect();
        let (second, list) = match rest.as_slice() {
            [] => (0, Vec::new()),
            [page] => (*page, Vec::new()),
            _ => (list, rest),
        };
        Some(Self {
            first: iova,
            second,
            list,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_two_pages_need_no_list() {
        for (len, second) in [(1, 0), (4096, 0), (4097, 0x11000), (8192, 0x11000)] {
            let prp = Prp::new(0x10000, len, 0x5000);
            assert_eq!(
                prp,
                Some(Prp {
                    first: 0x10000,
                    second,
                    list: Vec::new()
                })
            );
        }
    }

    #[test]
    fn more_pages_go_to_the_list() {
        let prp = Prp::new(0x10000, 4 * 4096, 0x5000);
        assert_eq!(
            prp,
            Some(Prp {
                first: 0x10000,
                second: 0x5000,
                list: vec![0x11000, 0x12000, 0x13000]
            })
        );
    }

    #[test]
    fn limits() {
        let largest = Prp::new(0, MAX_PAGES * 4096, 0x5000);
        assert_eq!(largest.map(|prp| prp.list.len()), Some(512));
        assert_eq!(Prp::new(0, MAX_PAGES * 4096 + 1, 0x5000), None);
        assert_eq!(Prp::new(8, 4096, 0x5000), None);
    }
}
