// SPDX-License-Identifier: GPL-2.0

//! Capability chains that follow an information structure.

use crate::{
    Bytes,
    structures::CapHeader, //
};
use zerocopy::FromBytes;

/// One capability in a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capability {
    /// The capability id.
    pub id: u16,
    /// The version of its layout.
    pub version: u16,
    /// The offset of the capability from the start of the structure.
    pub offset: usize,
    /// The bytes after the header, up to the next capability or the end of the buffer.
    pub body: Bytes,
}

/// Parses the chain that starts at `offset` of `buffer`.
///
/// A link that points outside of the buffer or backwards ends the chain. So there is an end, whatever
/// the buffer contains, and the bodies have no more bytes than the buffer.
///
/// # Examples
///
/// ```
/// use vfio_client::{Bytes, chain, structures::CapHeader};
///
/// let buffer = Bytes::new()
///     .u64(0)
///     .append(&CapHeader { id: 1, version: 2, next: 24 })
///     .u64(7)
///     .append(&CapHeader { id: 3, version: 1, next: 0 });
/// let caps = chain(buffer.as_ref(), 8);
/// assert_eq!(caps[0].body.get_u64(0), 7);
/// assert_eq!((caps[1].id, caps[1].offset), (3, 24));
/// ```
pub fn chain(buffer: &[u8], offset: u32) -> Vec<Capability> {
    let mut links = Vec::new();
    let mut at = offset as usize;
    while at != 0 {
        let link = buffer.get(at..).unwrap_or_default();
        let Ok((header, body)) = CapHeader::read_from_prefix(link) else {
            break;
        };
        let next = header.next as usize;
        // The bytes from this link to the next one, if there is one.
        let ahead = next.checked_sub(at).filter(|ahead| *ahead > 0);
        let own = ahead.map_or(body.len(), |ahead| {
            ahead.saturating_sub(size_of::<CapHeader>())
        });
        links.push(Capability {
            id: header.id,
            version: header.version,
            offset: at,
            body: Bytes::new().raw(body.get(..own).unwrap_or(body)),
        });
        if ahead.is_none() {
            break;
        }
        at = next;
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;
    use fastrand::Rng;
    use zerocopy::IntoBytes;

    fn link(id: u16, next: u32) -> Vec<u8> {
        let version = 1;
        CapHeader { id, version, next }.as_bytes().to_vec()
    }

    #[test]
    fn follows_offsets() {
        let buffer = [link(0, 0), link(7, 16), link(9, 0)].concat();
        let ids: Vec<_> = chain(&buffer, 8).iter().map(|c| (c.id, c.offset)).collect();
        assert_eq!(ids, [(7, 8), (9, 16)]);
    }

    #[test]
    fn ends_at_bad_links() {
        assert_eq!(chain(&link(1, 4096), 0), []);
        assert_eq!(chain(&[link(0, 0), link(7, 8)].concat(), 8).len(), 1);
        assert_eq!(chain(&[link(0, 0), link(7, 12)].concat(), 8).len(), 1);
        assert_eq!(chain(&[link(0, 0), link(7, 1)].concat(), 8).len(), 1);
        assert_eq!(chain(&[link(0, 0), link(7, u32::MAX)].concat(), 8).len(), 1);
        assert_eq!(chain(&[0; 4], 2), []);
        assert_eq!(chain(&[0; 16], u32::MAX), []);
        assert_eq!(chain(&[], 1), []);
    }

    #[test]
    fn a_body_ends_at_the_next_link() {
        let buffer = [link(0, 0), link(7, 24), vec![1; 8], link(9, 0), vec![2; 3]].concat();
        let bodies = chain(&buffer, 8).into_iter().map(|cap| cap.body);
        let expected = [[1; 8].as_slice(), &[2; 3]].map(|body| Bytes::new().raw(body));
        assert!(bodies.eq(expected));
    }

    #[test]
    fn ends_and_stays_inside_for_any_bytes() {
        let mut rng = Rng::with_seed(1);
        for _ in 0..200_000 {
            let mut buffer = vec![0; rng.usize(..200)];
            rng.fill(&mut buffer);
            // Offsets that are often inside.
            for word in buffer.chunks_exact_mut(4) {
                if rng.u8(..4) > 0 {
                    word.copy_from_slice(&rng.u32(..200).to_ne_bytes());
                }
            }
            let caps = chain(&buffer, rng.u32(..220));
            assert!(caps.is_sorted_by(|a, b| a.offset < b.offset));
            let sum: usize = caps.iter().map(|cap| cap.body.len()).sum();
            assert!(sum <= buffer.len());
        }
    }
}
