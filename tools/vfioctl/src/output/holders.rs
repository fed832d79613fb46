// SPDX-License-Identifier: GPL-2.0

//! `vfioctl holders`.

use anyhow::Result;
use nix::unistd::{
    Uid,
    User, //
};

use super::{
    or_dash,
    print,
    print_json,
    table, //
};
use crate::system::{
    Snapshot,
    processes::Holder, //
};

/// Prints processes that have files of VFIO open.
pub fn holders(snapshot: &Snapshot, holders: &[&Holder], json: bool) -> Result<()> {
    if json {
        return print_json(&holders);
    }
    if holders.is_empty() {
        let hint = if Uid::effective().is_root() {
            ""
        } else {
            " Only root sees the files of other users."
        };
        return print(&format!("No process has a file of VFIO open.{hint}\n"));
    }
    let rows = holders.iter().map(|holder| {
        let group = snapshot.group_of_holder(holder);
        vec![
            holder.pid.to_string(),
            holder.command.clone(),
            or_dash(holder.uid.map(user_name)),
            or_dash(holder.fd.map(|fd| fd.to_string())),
            or_dash(group.map(|group| group.to_string())),
            holder.file.describe(),
        ]
    });
    print(&table(
        &["PID", "COMMAND", "USER", "FD", "GROUP", "FILE"],
        rows,
    ))
}

fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}
