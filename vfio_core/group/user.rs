// SPDX-License-Identifier: GPL-2.0

//! The user of a group. A group has at most one user at a time.

use kernel::{
    prelude::*,
    sync::Arc, //
};

use super::{
    holder::{
        Holder,
        HolderLabel, //
    },
    Group, //
};

/// Makes the owner of this value the only user of a group until the value is dropped.
///
/// The user is a process that opened the group's file, or a thread that moves a device between
/// groups. Claiming a group takes only the lock `user`, which is held briefly. It does not wait for
/// requests of another user, which hold the group's `state` and which userspace can prolong at
/// will.
///
/// # Invariants
///
/// The group's `user` was set for this value.
pub(super) struct User(Arc<Group>);

impl User {
    /// Makes the caller the user of `group`, or returns the group's current user.
    pub(super) fn claim(group: &Arc<Group>) -> Result<Self, HolderLabel> {
        let mut user = group.user.lock();
        if let Some(holder) = &*user {
            return Err(holder.label());
        }
        *user = Some(Holder::current());
        // INVARIANT: `user` was set above.
        Ok(Self(group.clone()))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let former = self.0.user.lock().take();
        drop(former);
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(vfio_core_group_user)]
mod tests {
    use kernel_ext::iommu_driver::GroupKind;

    use super::*;
    use crate::group::{
        abi::GROUPS,
        registry::software_group, //
    };

    #[test]
    fn one_at_a_time_whatever_requests_are_under_way() -> Result {
        let group = Group::new(software_group()?, GroupKind::Emulated)?;
        let request = group.state.lock();
        let user = User::claim(&group).map_err(|_| EBUSY)?;
        assert!(User::claim(&group).is_err());
        drop(user);
        assert!(User::claim(&group).is_ok());
        drop(request);
        Ok(())
    }

    #[test]
    fn group_ends_without_the_table() -> Result {
        let group = Group::new(software_group()?, GroupKind::Emulated)?;
        GROUPS.lock().add(group.clone())?;
        let ended = GROUPS.lock().remove_if_empty(&group).ok_or(EINVAL)?;
        // Removing the group under the registry's lock did not wait for `state`, so the group is
        // not revoked yet.
        assert!(group.state.lock().iommu_group.is_some());
        drop(ended);
        assert!(group.state.lock().iommu_group.is_none());
        Ok(())
    }
}
