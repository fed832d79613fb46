// SPDX-License-Identifier: GPL-2.0

//! The file of a group in debugfs, `vfio/groups/N`, which shows the group without opening it.

use kernel::{
    fmt,
    prelude::*,
    str::BStr,
    sync::{
        Arc,
        ArcBorrow, //
    }, //
};
use kernel_ext::{
    bindings::{
        self,
        vfio_group_device, //
    },
    debugfs::Contents, //
};

use super::{
    holder::{
        Holder,
        SeenHolder, //
    },
    snapshot::Snapshot,
    Group, //
};

/// The contents of the file.
pub(super) struct GroupContents;

#[vtable]
impl Contents for GroupContents {
    type Data = Arc<Group>;

    fn show(group: ArcBorrow<'_, Group>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        group.write_snapshot(f)
    }
}

impl Group {
    /// Writes the group's devices and users. Does not wait for requests of the group's user.
    fn write_snapshot(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.state.try_lock().map(|state| self.snapshot(state)) {
            Some(Ok(snapshot)) => fmt::Display::fmt(&snapshot, f),
            Some(Err(e)) if e == ENODEV => f.write_str("removed\n"),
            Some(Err(e)) => f.write_fmt(fmt!("error {}\n", e.to_errno())),
            None => {
                let holder = self.user.lock().as_ref().map(Holder::seen);
                write_holder(f, holder)?;
                f.write_str("a request is in progress: read this file again\n")
            }
        }
    }
}

/// Returns the string in a field.
fn string(field: &[u8]) -> &BStr {
    let length = field.iter().position(|&c| c == 0).unwrap_or(field.len());
    BStr::from_bytes(&field[..length])
}

/// Describes how a device affects its group, and what the administrator can do.
fn meaning(member: &vfio_group_device) -> &'static str {
    match member.state {
        bindings::VFIO_GROUP_DEVICE_UNBOUND => "no driver, does not block the group",
        bindings::VFIO_GROUP_DEVICE_VFIO => "available to userspace",
        bindings::VFIO_GROUP_DEVICE_UNMANAGED => "does not block the group",
        bindings::VFIO_GROUP_DEVICE_KERNEL => "blocks the group: unbind it, or bind it to vfio-pci",
        _ => "being bound or unbound: read this file again",
    }
}

/// Writes the line that describes the group's user.
fn write_holder(f: &mut fmt::Formatter<'_>, holder: Option<SeenHolder>) -> fmt::Result {
    match holder {
        Some(holder) => f.write_fmt(fmt!("open: by {}\n", holder)),
        None => f.write_str("open: no\n"),
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_fmt(fmt!("viable: {}\n", if self.viable { "yes" } else { "no" }))?;
        let container = if self.in_container { "yes" } else { "no" };
        f.write_fmt(fmt!("in a container: {}\n", container))?;
        write_holder(f, self.holder)?;
        for member in &self.members {
            let (name, driver) = (string(&member.name), string(&member.driver));
            f.write_fmt(fmt!("{} [{}]: {}", name, driver, meaning(member)))?;
            if member.held_ms != 0 {
                f.write_fmt(fmt!(
                    ", open by {} ({}), for {} s",
                    string(&member.holder_comm),
                    member.holder_pid,
                    member.held_ms / 1000
                ))?;
            }
            f.write_str("\n")?;
        }
        Ok(())
    }
}
