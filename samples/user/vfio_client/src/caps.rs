// SPDX-License-Identifier: GPL-2.0

//! Capability chains that follow an information structure.

use crate::Bytes;

/// One capability in a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capability {
    /// The capability id.
    pub id: u16,
    /// The version of its layout.
    pub version: u16,
    /// The offset of the capability from the start of the structure.
    pub offset: usize,
    /// The bytes after the header, up to the end of the buffer.
    pub body: Bytes,
}

/// Parses the chain that starts at `offset` of `buffer`.
///
/// A link that points outside of the buffer or backwards ends the chain.
pub fn chain(buffer: &[u8], offset: u32) -> Vec<Capability> {
    let mut links = Vec::new();
    let mut at = offset as usize;
    while at != 0 {
        let Some((header, body)) = buffer.get(at..).and_then(|b| b.split_at_checked(8)) else {
            break;
        };
        let half = |i: usize| u16::from_ne_bytes([header[i], header[i + 1]]);
        links.push(Capability {
            id: half(0),
            version: half(2),
            offset: at,
            body: Bytes::new().raw(body),
        });
        let next = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]) as usize;
        if next != 0 && next <= at {
            break;
        }
        at = next;
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(id: u16, next: u32) -> Vec<u8> {
        let mut bytes = id.to_ne_bytes().to_vec();
        bytes.extend_from_slice(&1u16.to_ne_bytes());
        bytes.extend_from_slice(&next.to_ne_bytes());
        bytes
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
        assert_eq!(chain(&[0; 4], 2), []);
    }
}
