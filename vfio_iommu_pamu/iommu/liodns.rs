// SPDX-License-Identifier: GPL-2.0

//! Which group a LIODN belongs to, and how many of its devices the kernel has.
//!
//! The IOMMU core attaches each device alone, but a PAMU only knows the LIODN. So a LIODN is blocked
//! only when all devices in the group that have it are: the core also blocks a single device while it
//! resets it.

use kernel::{
    prelude::*,
    sync::atomic::{
        AtomicFlag,
        Relaxed, //
    }, //
};

/// The LIODNs of a device in a group, and whether the kernel has the device.
pub(super) struct Attachment {
    liodns: KVec<u32>,
    /// Changed with the lock of [`GroupLiodns`] held.
    open: AtomicFlag,
}

impl Attachment {
    /// Returns that of a device that isn't open yet.
    pub(super) fn new(liodns: KVec<u32>) -> Self {
        Self {
            liodns,
            open: AtomicFlag::new(false),
        }
    }

    /// Returns the LIODNs.
    pub(super) fn liodns(&self) -> &[u32] {
        &self.liodns
    }
}

/// A LIODN of a group `G`.
struct GroupLiodn<G> {
    number: u32,
    group: G,
    /// The number of devices that the kernel has.
    open: u32,
}

/// The LIODNs of all groups. Each of them belongs to one group.
pub(super) struct GroupLiodns<G>(KVec<GroupLiodn<G>>);

impl<G: Clone + PartialEq> GroupLiodns<G> {
    /// Returns an empty list.
    pub(super) fn new() -> Self {
        Self(KVec::new())
    }

    /// Returns the group that has one of these LIODNs, or a new one. From now on it has all of them.
    ///
    /// # Errors
    ///
    /// `ENODEV` if two groups have some of them, `ENOMEM`, and those of `new`.
    pub(super) fn group_of(
        &mut self,
        liodns: &[u32],
        new: impl FnOnce() -> Result<G>,
    ) -> Result<G> {
        let mut found = None;
        for known in self.0.iter().filter(|known| liodns.contains(&known.number)) {
            if *found.get_or_insert(&known.group) != &known.group {
                return Err(ENODEV);
            }
        }
        let found = found.cloned();
        self.0.reserve(liodns.len(), GFP_KERNEL)?;
        let group = found.map_or_else(new, Ok)?;
        for &number in liodns {
            if self.0.iter().all(|known| known.number != number) {
                let added = GroupLiodn {
                    number,
                    group: group.clone(),
                    open: 0,
                };
                self.0.push(added, GFP_KERNEL)?;
            }
        }
        Ok(group)
    }

    /// Gives a device to the kernel. Calls `open` for each of its LIODNs.
    pub(super) fn open(&mut self, device: &Attachment, open: impl FnMut(u32)) {
        if !device.open.xchg(true, Relaxed) {
            for known in self.of(device) {
                known.open += 1;
            }
        }
        self.of(device).map(|known| known.number).for_each(open);
    }

    /// Takes a device from the kernel. Calls `block` for its LIODNs that no other device of the
    /// kernel has.
    pub(super) fn block(&mut self, device: &Attachment, block: impl FnMut(u32)) {
        if device.open.xchg(false, Relaxed) {
            for known in self.of(device) {
                known.open -= 1;
            }
        }
        let closed = self.of(device).filter(|known| known.open == 0);
        closed.map(|known| known.number).for_each(block);
    }

    /// Iterates over the LIODNs of a device.
    fn of<'a>(&'a mut self, device: &'a Attachment) -> impl Iterator<Item = &'a mut GroupLiodn<G>> {
        let has = |known: &&mut GroupLiodn<G>| device.liodns.contains(&known.number);
        self.0.iter_mut().filter(has)
    }
}

#[kunit_tests(vfio_pamu_group_liodns)]
mod tests {
    use super::*;

    fn device(liodns: &[u32]) -> Result<Attachment> {
        let mut list = KVec::new();
        list.extend_from_slice(liodns, GFP_KERNEL)?;
        Ok(Attachment::new(list))
    }

    #[test]
    fn groups_are_transitive() -> Result {
        let mut groups = GroupLiodns::new();
        let mut numbers = 0..;
        let mut group = |liodns: &[u32]| groups.group_of(liodns, || numbers.next().ok_or(ENOMEM));
        assert_eq!(group(&[1]), Ok(0));
        assert_eq!(group(&[2]), Ok(1));
        assert_eq!(group(&[3, 1]), Ok(0));
        assert_eq!(group(&[3]), Ok(0));
        assert_eq!(group(&[2, 4, 4]), Ok(1));
        // This one can be in neither.
        assert_eq!(group(&[5, 4, 3]), Err(ENODEV));
        assert_eq!(group(&[5]), Ok(2));
        Ok(())
    }

    #[test]
    fn liodn_is_blocked_with_its_last_device() -> Result {
        let mut groups = GroupLiodns::new();
        let [one, both, other] = [device(&[1])?, device(&[1, 2])?, device(&[2])?];
        for device in [&one, &both, &other] {
            groups.group_of(device.liodns(), || Ok(()))?;
        }
        let mut on = [false; 3];
        for (device, open, expected) in [
            (&one, true, [true, false]),
            (&both, true, [true, true]),
            (&other, true, [true, true]),
            // One is reset, and attached again.
            (&both, false, [true, true]),
            (&both, true, [true, true]),
            // Userspace takes the group. The core blocks one of them twice.
            (&one, false, [true, true]),
            (&one, false, [true, true]),
            (&both, false, [false, true]),
            (&other, false, [false, false]),
            (&both, true, [true, true]),
            (&both, true, [true, true]),
            (&both, false, [false, false]),
        ] {
            match open {
                true => groups.open(device, |liodn| on[liodn as usize] = true),
                false => groups.block(device, |liodn| on[liodn as usize] = false),
            }
            assert_eq!(on[1..], expected);
        }
        Ok(())
    }
}
