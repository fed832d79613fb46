// SPDX-License-Identifier: GPL-2.0

//! The holders of groups and devices, for log messages and for requests that report them. The
//! holder of a group is its user; a group has at most one at a time.

use kernel::{
    fmt,
    prelude::*,
    str::BStr,
    sync::Arc,
    time::{
        Instant,
        Monotonic, //
    }, //
};
use kernel_ext::task::{
    ProcessId,
    TaskLabel, //
};

use super::Group;

/// The task that opened a group or device, and the time at which it did.
pub(crate) struct Holder {
    task: TaskLabel,
    process: ProcessId,
    since: Instant<Monotonic>,
}

impl Holder {
    /// Creates a holder for the calling task, starting now.
    pub(crate) fn current() -> Self {
        Self {
            task: TaskLabel::current(),
            process: ProcessId::current(),
            since: Instant::now(),
        }
    }

    /// Returns the time since the open, in milliseconds.
    fn held_ms(&self) -> u64 {
        self.since.elapsed().as_millis().unsigned_abs()
    }

    /// Returns the holder in the form used by log messages.
    pub(super) fn label(&self) -> HolderLabel {
        HolderLabel {
            task: self.task,
            seconds: self.held_ms() / 1000,
        }
    }

    /// Returns the information about the holder that the calling process may see.
    pub(super) fn seen(&self) -> SeenHolder {
        SeenHolder {
            pid: self.process.number_for_current().unwrap_or(0),
            comm: self.task.comm(),
            held_ms: self.held_ms().max(1),
        }
    }
}

/// A holder in the form used by log messages, with its PID in the initial PID namespace.
#[derive(Clone, Copy)]
pub(super) struct HolderLabel {
    task: TaskLabel,
    seconds: u64,
}

impl fmt::Display for HolderLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!("{}, for {} s", self.task, self.seconds))
    }
}

/// A holder in the form that one process may see.
#[derive(Clone, Copy)]
pub(super) struct SeenHolder {
    /// The PID in that process's PID namespace, or zero if the holder is not visible there.
    pub(super) pid: u32,
    /// The name of the task, padded with zero bytes.
    pub(super) comm: [u8; 16],
    /// The time since the open in milliseconds, at least one.
    pub(super) held_ms: u64,
}

impl fmt::Display for SeenHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let length = self.comm.iter().position(|&c| c == 0);
        let name = BStr::from_bytes(&self.comm[..length.unwrap_or(self.comm.len())]);
        let seconds = self.held_ms / 1000;
        f.write_fmt(fmt!("{} ({}), for {} s", name, self.pid, seconds))
    }
}

/// The only user of a group, until the value is dropped: `opened_file` of `struct vfio_group`.
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
#[kernel::macros::kunit_tests(vfio_core_group_holder)]
mod tests {
    use kernel_ext::{
        iommu::Group as IommuGroup,
        iommu_driver::GroupType, //
    };

    use super::*;
    use crate::group::{
        abi::GROUPS,
        registry::SOFTWARE_GROUP, //
    };

    fn group() -> Result<Arc<Group>> {
        Group::new(IommuGroup::alloc(SOFTWARE_GROUP)?, GroupType::Emulated)
    }

    #[test]
    fn one_at_a_time_whatever_requests_are_under_way() -> Result {
        let group = group()?;
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
        let group = group()?;
        GROUPS.lock().add(group.clone())?;
        let ended = GROUPS.lock().leave(&group).ok_or(EINVAL)?;
        // Removing the group under the registry's lock did not wait for `state`, so the group is
        // not revoked yet.
        assert!(group.state.lock().iommu_group.is_some());
        drop(ended);
        assert!(group.state.lock().iommu_group.is_none());
        Ok(())
    }
}
