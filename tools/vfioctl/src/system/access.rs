// SPDX-License-Identifier: GPL-2.0

//! Owner, mode and access control list of device nodes.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{
        Path,
        PathBuf, //
    },
};

use serde::Serialize;

use super::System;

/// The extended attribute that has the access control list of a file.
pub const ATTRIBUTE: &str = "system.posix_acl_access";

/// A device node.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Node {
    /// Its path.
    pub path: PathBuf,
    /// The owner.
    pub uid: u32,
    /// The group of users.
    pub gid: u32,
    /// The permissions.
    pub mode: u32,
    /// The users who may read and write it by its access control list.
    pub allowed: Vec<u32>,
    /// The access control list, if it has one.
    #[serde(skip)]
    pub acl: Option<Acl>,
}

impl Node {
    /// Reads a node, by its usual path.
    pub fn read(system: &System, usual: &Path) -> Option<Self> {
        let path = system.path(usual);
        let metadata = fs::metadata(&path).ok()?;
        let acl = Acl::read(&path);
        Some(Self {
            path: usual.to_owned(),
            uid: metadata.uid(),
            gid: metadata.gid(),
            mode: metadata.mode() & 0o7777,
            allowed: acl.as_ref().map(Acl::allowed).unwrap_or_default(),
            acl,
        })
    }

    /// Returns whether a user may open it for reading and writing. Root may in any case.
    pub fn lets_in(&self, uid: u32, gids: &[u32]) -> bool {
        let of_mode;
        let acl = match &self.acl {
            Some(acl) => acl,
            None => {
                of_mode = Acl::from_mode(self.mode);
                &of_mode
            }
        };
        uid == 0 || acl.lets_in(uid, gids, (self.uid, self.gid))
    }
}

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const READ_WRITE: u16 = 6;
/// The id of entries that have none.
const NO_ID: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// An access control list, in the order that the kernel demands: by tag, then by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl(Vec<Entry>);

impl Acl {
    /// Makes the list that is equivalent to the permissions of a file.
    pub fn from_mode(mode: u32) -> Self {
        let entry = |tag, shift: u32| Entry {
            tag,
            // CAST: Three bits.
            permissions: ((mode >> shift) & 7) as u16,
            id: NO_ID,
        };
        Self(vec![
            entry(USER_OBJ, 6),
            entry(GROUP_OBJ, 3),
            entry(OTHER, 0),
        ])
    }

    /// Reads the list of a file; `None` if it has none.
    pub fn read(path: &Path) -> Option<Self> {
        let mut bytes = vec![0; 4096];
        let length = rustix::fs::getxattr(path, ATTRIBUTE, &mut bytes).ok()?;
        Self::parse(bytes.get(..length)?)
    }

    /// Parses the value of the extended attribute.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*head) != 2 || rest.len() % 8 != 0 {
            return None;
        }
        let entries = rest.chunks_exact(8).map(|c| Entry {
            tag: u16::from_le_bytes([c[0], c[1]]),
            permissions: u16::from_le_bytes([c[2], c[3]]),
            id: u32::from_le_bytes([c[4], c[5], c[6], c[7]]),
        });
        Some(Self(entries.collect()))
    }

    /// Returns the value of the extended attribute.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = 2_u32.to_le_bytes().to_vec();
        for entry in &self.0 {
            bytes.extend(entry.tag.to_le_bytes());
            bytes.extend(entry.permissions.to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        bytes
    }

    /// Returns the permissions that an entry cannot exceed, unless it is that of the owner or of all
    /// others.
    fn mask(&self) -> u16 {
        let mask = self.0.iter().find(|entry| entry.tag == MASK);
        mask.map_or(7, |entry| entry.permissions)
    }

    /// Returns the users who may read and write.
    fn allowed(&self) -> Vec<u32> {
        let mask = self.mask();
        let users = self.0.iter().filter(|entry| entry.tag == USER);
        users
            .filter(|entry| entry.permissions & mask & READ_WRITE == READ_WRITE)
            .map(|entry| entry.id)
            .collect()
    }

    /// Returns whether a user may read and write a file with this owner and group. As in the
    /// kernel, the first kind of entry that is about the user decides.
    fn lets_in(&self, uid: u32, gids: &[u32], (owner, group): (u32, u32)) -> bool {
        let mask = self.mask();
        let permits =
            |entry: &Entry, mask: u16| entry.permissions & mask & READ_WRITE == READ_WRITE;
        let find = |tag, id| {
            let mut entries = self.0.iter();
            entries.find(|entry| entry.tag == tag && entry.id == id)
        };
        if uid == owner {
            return find(USER_OBJ, NO_ID).is_some_and(|entry| permits(entry, 7));
        }
        if let Some(entry) = find(USER, uid) {
            return permits(entry, mask);
        }
        let is_member = |entry: &&Entry| match entry.tag {
            GROUP_OBJ => gids.contains(&group),
            GROUP => gids.contains(&entry.id),
            _ => false,
        };
        let mut of_groups = self.0.iter().filter(is_member).peekable();
        if of_groups.peek().is_some() {
            return of_groups.any(|entry| permits(entry, mask));
        }
        find(OTHER, NO_ID).is_some_and(|entry| permits(entry, 7))
    }

    /// Lets a user read and write. Nobody else gets or loses a permission.
    pub fn allow(&mut self, uid: u32) {
        self.forbid(uid);
        // The mask may hide permissions of others, which a larger one would reveal.
        let mask = self.mask();
        for entry in &mut self.0 {
            if [USER, GROUP_OBJ, GROUP].contains(&entry.tag) {
                entry.permissions &= mask;
            }
        }
        self.0.retain(|entry| entry.tag != MASK);
        self.put(USER, uid, READ_WRITE);
        let masked = self
            .0
            .iter()
            .filter(|e| [USER, GROUP_OBJ, GROUP].contains(&e.tag));
        let mask = masked.fold(0, |mask, entry| mask | entry.permissions);
        self.put(MASK, NO_ID, mask);
    }

    /// Removes the entry of a user.
    pub fn forbid(&mut self, uid: u32) {
        self.0
            .retain(|entry| !(entry.tag == USER && entry.id == uid));
        // Without named entries, the mask would only hide the permissions of the file's group.
        let named = self.0.iter().any(|e| [USER, GROUP].contains(&e.tag));
        if !named {
            let mask = self.mask();
            self.0.retain(|entry| entry.tag != MASK);
            for entry in self.0.iter_mut().filter(|entry| entry.tag == GROUP_OBJ) {
                entry.permissions &= mask;
            }
        }
    }

    fn put(&mut self, tag: u16, id: u32, permissions: u16) {
        self.0.push(Entry {
            tag,
            permissions,
            id,
        });
        self.0.sort_by_key(|entry| (entry.tag, entry.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_allowed_and_forbidden_again() {
        let before = Acl::from_mode(0o600);
        let mut acl = before.clone();
        acl.allow(1000);
        acl.allow(7);
        acl.allow(1000);
        assert_eq!(acl.allowed(), [7, 1000]);
        let parsed = Acl::parse(&acl.to_bytes()).unwrap();
        assert_eq!(parsed, acl);
        let tags: Vec<u16> = acl.0.iter().map(|entry| entry.tag).collect();
        assert_eq!(tags, [USER_OBJ, USER, USER, GROUP_OBJ, MASK, OTHER]);
        acl.forbid(7);
        acl.forbid(1000);
        assert_eq!(acl, before);
    }

    #[test]
    fn a_mask_limits_users() {
        let mut acl = Acl::from_mode(0o600);
        acl.allow(7);
        acl.0.iter_mut().for_each(|entry| {
            if entry.tag == MASK {
                entry.permissions = 4;
            }
        });
        assert!(acl.allowed().is_empty());
    }

    #[test]
    fn odd_bytes_are_no_list() {
        for bytes in [&b""[..], b"\x02\0\0", b"\x03\0\0\0", b"\x02\0\0\0abc"] {
            assert_eq!(Acl::parse(bytes), None);
        }
    }

    #[test]
    fn who_may_open_a_node() {
        let node = Node {
            uid: 5,
            gid: 6,
            mode: 0o660,
            ..Node::default()
        };
        assert!(node.lets_in(0, &[]));
        assert!(node.lets_in(5, &[]));
        assert!(node.lets_in(1, &[6]));
        assert!(!node.lets_in(9, &[]));
        assert!(!node.lets_in(1, &[1]));
    }

    /// The mode shows the mask in the place of the permissions of the group.
    #[test]
    fn who_may_open_a_node_with_a_list() {
        let mut acl = Acl::from_mode(0o600);
        acl.allow(9);
        let mut node = Node {
            uid: 5,
            gid: 6,
            mode: 0o660,
            acl: Some(acl),
            ..Node::default()
        };
        assert!(node.lets_in(9, &[]));
        assert!(!node.lets_in(1, &[6]));
        let acl = node.acl.as_mut().unwrap();
        acl.put(GROUP, 8, READ_WRITE);
        acl.put(USER, 5, READ_WRITE);
        acl.0[0].permissions = 4;
        assert!(node.lets_in(1, &[8]));
        // The owner's entry decides about the owner.
        assert!(!node.lets_in(5, &[8]));
    }

    /// A list of 0660 with a mask that takes writing away from the group of the file and a user.
    #[test]
    fn nobody_else_gets_a_permission() {
        let mut acl = Acl::from_mode(0o660);
        acl.put(USER, 7, READ_WRITE);
        acl.put(MASK, NO_ID, 4);
        acl.allow(9);
        assert_eq!(acl.allowed(), [9]);
        assert!(!acl.lets_in(1, &[6], (5, 6)));
        acl.forbid(9);
        acl.forbid(7);
        assert!(!acl.lets_in(1, &[6], (5, 6)));
    }
}
