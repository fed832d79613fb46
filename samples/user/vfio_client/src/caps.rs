// SPDX-License-Identifier: GPL-2.0

//! Capability chains that follow an information structure.

use crate::{
    Bytes,
    structures::CapHeader, //
};
use zerocopy::FromBytes;

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
        let link = buffer.get(at..).unwrap_or_default();
        let Ok((header, body)) = CapHeader::read_from_prefix(link) else {
            break;
        };
        links.push(Capability {
            id: header.id,
            version: header.version,
            offset: at,
            body: Bytes::new().raw(body),
        });
        let next = header.next as usize;
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
        assert_eq!(chain(&[0; 4], 2), []);
    }
}
