// SPDX-License-Identifier: GPL-2.0

//! Capability chains that follow the `*_INFO` structures: `struct vfio_info_cap_header`.
//!
//! A header consists of a `u16` id, a `u16` version and the `u32` offset of the next header (zero
//! in the last header), in native byte order. While a chain is built, offsets count from the start
//! of the chain. Before the chain is copied to userspace, they are shifted to count from the start
//! of the structure that precedes it.

/// Size in bytes of a header.
pub(crate) const HEADER_SIZE: usize = 8;

/// The alignment of every capability.
const ALIGN: usize = 8;

/// Returns the size in bytes that a capability of `size` bytes takes in a chain, or `None` on
/// overflow.
pub(crate) const fn aligned_size(size: usize) -> Option<usize> {
    size.checked_next_multiple_of(ALIGN)
}

fn next(chain: &[u8], at: usize) -> Option<usize> {
    let field = chain.get(at..at + HEADER_SIZE)?;
    let next = u32::from_ne_bytes([field[4], field[5], field[6], field[7]]);
    Some(next as usize)
}

fn set_next(chain: &mut [u8], at: usize, next: usize) {
    if let Some(field) = chain.get_mut(at + 4..at + HEADER_SIZE) {
        field.copy_from_slice(&(next as u32).to_ne_bytes());
    }
}

/// Adds a capability at byte `at`, which is the current end of the chain in `chain`. Zeroes all
/// bytes from `at` on, then writes the header and links it to the chain.
pub(crate) fn append(chain: &mut [u8], at: usize, id: u16, version: u16) {
    let Some(new) = chain.get_mut(at..) else {
        return;
    };
    new.fill(0);
    if new.len() < HEADER_SIZE {
        return;
    }
    new[0..2].copy_from_slice(&id.to_ne_bytes());
    new[2..4].copy_from_slice(&version.to_ne_bytes());
    if at > 0 {
        let last = last(chain);
        set_next(chain, last, at);
    }
}

/// Returns the offset of the last capability.
fn last(chain: &[u8]) -> usize {
    let mut at = 0;
    while let Some(next) = next(chain, at).filter(|&next| next > at) {
        at = next;
    }
    at
}

/// Adds `offset` to all offsets, so that they are relative to `offset` bytes before the chain.
pub(crate) fn shift(chain: &mut [u8], offset: usize) {
    let mut at = 0;
    while let Some(next) = next(chain, at).filter(|&next| next > at) {
        set_next(chain, at, next.wrapping_add(offset));
        at = next;
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_core_info_caps)]
mod tests {
    use super::*;
    use kernel::prelude::*;

    /// Builds a chain of capabilities with the given sizes in bytes. Their ids start at 1.
    fn chain(sizes: &[usize]) -> Result<KVec<u8>> {
        let mut chain = KVec::new();
        for (i, &size) in sizes.iter().enumerate() {
            let at = chain.len();
            let size = aligned_size(size).ok_or(EOVERFLOW)?;
            chain.extend_with(size, 0xff, GFP_KERNEL)?;
            append(&mut chain, at, i as u16 + 1, 7);
        }
        Ok(chain)
    }

    #[test]
    fn d24_sizes_are_aligned() {
        for (size, aligned) in [(0, 0), (1, 8), (8, 8), (9, 16), (24, 24)] {
            assert_eq!(aligned_size(size), Some(aligned));
        }
        assert_eq!(aligned_size(usize::MAX), None);
    }

    #[test]
    fn d24_walk_finds_every_capability() -> Result {
        let sizes = [8, 9, 24, 17, 8];
        let mut chain = chain(&sizes)?;
        for offset in [0, 24, 32] {
            let mut copy = KVec::new();
            copy.extend_from_slice(&chain, GFP_KERNEL)?;
            shift(&mut copy, offset);
            let mut at = 0;
            for id in 1..=sizes.len() {
                assert_eq!(u16::from_ne_bytes([copy[at], copy[at + 1]]), id as u16);
                assert_eq!(u16::from_ne_bytes([copy[at + 2], copy[at + 3]]), 7);
                let next = next(&copy, at).ok_or(EINVAL)?;
                if id == sizes.len() {
                    assert_eq!(next, 0);
                } else {
                    at = next - offset;
                    assert_eq!(at % ALIGN, 0);
                }
            }
        }
        shift(&mut chain[..0], 24);
        Ok(())
    }

    #[test]
    fn d24_content_is_zeroed() -> Result {
        let chain = chain(&[32])?;
        assert!(chain[HEADER_SIZE..].iter().all(|&byte| byte == 0));
        Ok(())
    }
}
