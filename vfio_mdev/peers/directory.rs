// SPDX-License-Identifier: GPL-2.0

//! Groups of members that share a UUID. This is the logic of peer-to-peer groups, independent of
//! devices.

use kernel::prelude::*;
use kernel_ext::tree::{
    Node,
    Tree, //
};

/// Groups by their key, with the number of their members.
///
/// A group exists as long as it has members.
pub(crate) struct Directory<K, G> {
    groups: Tree<K, Entry<G>>,
}

struct Entry<G> {
    group: G,
    members: usize,
}

/// A group that a member can join. It may have to be added to the directory first.
pub(crate) struct Target<K, G> {
    key: K,
    group: G,
    /// The entry, if the group is new.
    entry: Option<Node<K, Entry<G>>>,
}

impl<K, G> Target<K, G> {
    /// Returns the group.
    pub(crate) fn group(&self) -> &G {
        &self.group
    }
}

impl<K: Ord + Copy, G: Clone> Directory<K, G> {
    /// Creates a directory without groups.
    pub(crate) const fn new() -> Self {
        Self {
            groups: Tree::new(),
        }
    }

    /// Returns the group with `key`, or a new group, as a target that a member can join without
    /// failure. Does not change the directory.
    ///
    /// # Errors
    ///
    /// The errors of `make`, `ENOMEM`.
    pub(crate) fn target(&self, key: K, make: impl FnOnce() -> Result<G>) -> Result<Target<K, G>> {
        if let Some(entry) = self.groups.get(&key) {
            return Ok(Target {
                key,
                group: entry.group.clone(),
                entry: None,
            });
        }
        let group = make()?;
        let entry = Entry {
            group: group.clone(),
            members: 0,
        };
        Ok(Target {
            key,
            group,
            entry: Some(Node::new(key, entry)?),
        })
    }

    /// Adds a member to a target of this directory, which has not changed since. Returns the group.
    pub(crate) fn join(&mut self, target: Target<K, G>) -> G {
        if let Some(entry) = target.entry {
            self.groups.insert(entry);
        }
        if let Some(entry) = self.groups.get_mut(&target.key) {
            entry.members += 1;
        }
        target.group
    }

    /// Removes a member from the group with `key`. The last member removes the group.
    pub(crate) fn leave(&mut self, key: &K) {
        let Some(entry) = self.groups.get_mut(key) else {
            return;
        };
        entry.members -= 1;
        if entry.members == 0 {
            self.groups.remove(key);
        }
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_mdev_directory)]
mod tests {
    use super::*;

    /// A directory of groups with serial numbers, which distinguish a new group from an old one.
    struct Numbered {
        directory: Directory<char, u32>,
        made: u32,
    }

    impl Numbered {
        fn new() -> Self {
            Self {
                directory: Directory::new(),
                made: 0,
            }
        }

        fn target(&mut self, key: char) -> Result<Target<char, u32>> {
            let made = &mut self.made;
            self.directory.target(key, || {
                *made += 1;
                Ok(*made)
            })
        }

        fn join(&mut self, key: char) -> Result<u32> {
            let target = self.target(key)?;
            Ok(self.directory.join(target))
        }

        fn exists(&self, key: char) -> bool {
            self.directory.groups.contains(&key)
        }
    }

    #[test]
    fn who_has_one_key_shares_a_group() -> Result {
        let mut groups = Numbered::new();
        assert_eq!(groups.join('a')?, 1);
        assert_eq!(groups.join('b')?, 2);
        assert_eq!(groups.join('a')?, 1);
        Ok(())
    }

    #[test]
    fn a_group_goes_with_its_last_member() -> Result {
        let mut groups = Numbered::new();
        groups.join('a')?;
        groups.join('a')?;
        groups.directory.leave(&'a');
        assert!(groups.exists('a'));
        groups.directory.leave(&'a');
        assert!(!groups.exists('a'));
        // Joining again creates another group.
        assert_eq!(groups.join('a')?, 2);
        Ok(())
    }

    #[test]
    fn a_target_that_is_not_joined_changes_nothing() -> Result {
        let mut groups = Numbered::new();
        drop(groups.target('a')?);
        assert!(!groups.exists('a'));
        groups.join('b')?;
        drop(groups.target('b')?);
        groups.directory.leave(&'b');
        assert!(!groups.exists('b'));
        Ok(())
    }

    #[test]
    fn a_group_that_cannot_be_made_is_not_there() {
        let mut directory = Directory::<char, u32>::new();
        assert_eq!(directory.target('a', || Err(ENOMEM)).err(), Some(ENOMEM));
        assert!(directory.groups.is_empty());
        directory.leave(&'a');
    }

    /// Five members move at random between three groups. A group exists only while it has members,
    /// and members with the same key have the same group.
    #[test]
    fn moves_keep_the_books() -> Result {
        let mut groups = Numbered::new();
        let mut places = [('a', 0); 5];
        for place in &mut places {
            place.1 = groups.join('a')?;
        }
        let mut random = 1u32;
        for _ in 0..500 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let member = (random >> 16) as usize % places.len();
            let key = ['a', 'b', 'c'][(random >> 24) as usize % 3];
            if places[member].0 == key {
                continue;
            }
            let target = groups.target(key)?;
            groups.directory.leave(&places[member].0);
            places[member] = (key, groups.directory.join(target));
            for key in ['a', 'b', 'c'] {
                let mut there = places.iter().filter(|place| place.0 == key);
                let first = there.next();
                assert_eq!(groups.exists(key), first.is_some());
                assert!(there.all(|place| Some(place.1) == first.map(|first| first.1)));
            }
        }
        Ok(())
    }
}
