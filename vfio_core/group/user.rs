// SPDX-License-Identifier: GPL-2.0

//! The user of a group: there is one at a time.

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

/// Makes the owner of this value the only user of a group, until it is dropped.
///
/// The user is a program that has the group's file open, or a thread of the kernel that changes the
/// group. Becoming the user takes the lock `user` only, for a moment: it does not wait for requests of
/// another user, which hold the group's `state` for as long as that program likes.
///
/// # Invariants
///
/// The group's `user` was set for this value.
pub(super) struct User(Arc<Group>);

impl User {
    /// Makes the caller the user of `group`, or returns the user that it has.
    pub(super) fn claim(group: &Arc<Group>) -> Result<Self, HolderLabel> {
        let mut user = group.user.lock();
        if let Some(holder) = &*user {
            return Err(holder.label());
        }
        *user = Some(Holder::current());
        // INVARIANT: Set just now.
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
    use kernel_ext::{
        iommu::Group as IommuGroup,
        iommu_driver::GroupKind, //
    };

    use super::*;
    use crate::{
        abi::globals::GROUPS,
        group::registry::software_group, //
    };

    #[test]
    fn one_at_a_time_whatever_requests_are_under_way() -> Result {
        let group = Group::new(IommuGroup::alloc()?, GroupKind::Emulated)?;
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
        let group = GROUPS.lock().add(software_group()?, GroupKind::Emulated)?;
        let ended = GROUPS.lock().remove_if_empty(&group).ok_or(EINVAL)?;
        // Nothing was waited for under the table's lock: a request may go on.
        assert!(group.state.lock().iommu_group.is_some());
        drop(ended);
        assert!(group.state.lock().iommu_group.is_none());
        Ok(())
    }
}
