// SPDX-License-Identifier: GPL-2.0

//! Lets users open device nodes.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path, //
};

use anyhow::{
    Context,
    Result, //
};
use nix::unistd::{
    self,
    Gid,
    Uid, //
};
use rustix::{
    fs::XattrFlags,
    io::Errno, //
};

use crate::{
    decide::why::User,
    status::Failure,
    system::access::{
        ATTRIBUTE,
        Acl, //
    },
};

/// Finds a user by name or number.
pub fn user(name: &str) -> Result<User> {
    let by_name = unistd::User::from_name(name).context("reading the users")?;
    let found = match (by_name, name.parse()) {
        (Some(user), _) => Some(user),
        // The kernel has no user with this number.
        (None, Ok(u32::MAX)) => None,
        (None, Ok(uid)) => {
            let uid = Uid::from_raw(uid);
            let by_number = unistd::User::from_uid(uid).context("reading the users")?;
            if by_number.is_none() {
                return Ok(User {
                    name: name.to_owned(),
                    uid: uid.as_raw(),
                    gids: Vec::new(),
                });
            }
            by_number
        }
        (None, Err(_)) => None,
    };
    let found = found.ok_or_else(|| Failure::not_found(format!("there is no user {name}")))?;
    Ok(User {
        gids: groups_of(&found),
        uid: found.uid.as_raw(),
        name: found.name,
    })
}

fn groups_of(user: &unistd::User) -> Vec<u32> {
    let name = std::ffi::CString::new(user.name.as_str()).unwrap_or_default();
    let gids = unistd::getgrouplist(&name, user.gid).unwrap_or_else(|_| vec![user.gid]);
    gids.into_iter().map(Gid::as_raw).collect()
}

/// How a user was let in or shut out.
pub enum Change {
    /// By the access control list.
    List,
    /// By the owner: the file system has no access control lists, or the caller wants it so.
    Owner,
}

/// Lets a user open a device node.
pub fn allow(node: &Path, user: &User, owner: bool) -> Result<Change> {
    if !owner && change_list(node, |acl| acl.allow(user.uid))? {
        return Ok(Change::List);
    }
    unistd::chown(node, Some(Uid::from_raw(user.uid)), None)
        .map_err(std::io::Error::from)
        .with_context(|| format!("changing the owner of {}", node.display()))?;
    Ok(Change::Owner)
}

/// Takes the permission away again.
pub fn forbid(node: &Path, user: &User) -> Result<()> {
    change_list(node, |acl| acl.forbid(user.uid))?;
    let metadata = fs::metadata(node).with_context(|| node.display().to_string())?;
    if metadata.uid() == user.uid && user.uid != 0 {
        unistd::chown(node, Some(Uid::from_raw(0)), None)
            .map_err(std::io::Error::from)
            .with_context(|| format!("changing the owner of {}", node.display()))?;
    }
    Ok(())
}

/// Changes the access control list of a file. Returns false if the file system has none.
fn change_list(node: &Path, change: impl FnOnce(&mut Acl)) -> Result<bool> {
    let metadata = fs::metadata(node).with_context(|| node.display().to_string())?;
    let mut acl = Acl::read(node).unwrap_or_else(|| Acl::from_mode(metadata.mode()));
    change(&mut acl);
    match rustix::fs::setxattr(node, ATTRIBUTE, &acl.to_bytes(), XattrFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(std::io::Error::from(error))
            .with_context(|| format!("changing the access control list of {}", node.display())),
    }
}
