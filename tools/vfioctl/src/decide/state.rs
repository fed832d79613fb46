// SPDX-License-Identifier: GPL-2.0

//! The state of devices and groups, in a few words.

use serde::Serialize;

use crate::system::{
    Snapshot,
    devices::{
        Device,
        Group, //
    },
};

/// The state of a device.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum State {
    /// It is a bridge.
    Bridge,
    /// A program can open it.
    Ready,
    /// It is offered to programs, but another device of its group is in the way.
    Blocked {
        /// That device.
        by: String,
    },
    /// A process has its group or a device of it open.
    Open {
        /// The process.
        pid: u32,
        /// The name of the process.
        command: String,
    },
    /// A driver of the host is bound to it.
    Host {
        /// What the host uses it for, if that is known.
        #[serde(skip)]
        uses: Vec<String>,
    },
    /// No driver is bound to it.
    NoDriver,
}

impl State {
    /// Returns the state of a device.
    pub fn of(snapshot: &Snapshot, device: &Device) -> Self {
        let group = snapshot.group_of(device);
        let uses = snapshot.uses_of(&device.name);
        if device.is_bridge() {
            Self::Bridge
        } else if !device.is_offered() {
            match device.driver {
                None if uses.is_empty() => Self::NoDriver,
                _ => Self::Host {
                    uses: uses.iter().map(|used| used.describe()).collect(),
                },
            }
        } else if let Some(holder) =
            group.and_then(|group| snapshot.holders_of(group).into_iter().next())
        {
            Self::Open {
                pid: holder.pid,
                command: holder.command.clone(),
            }
        } else if let Some(by) =
            group.and_then(|group| blocking(snapshot, group).into_iter().next())
        {
            Self::Blocked { by }
        } else {
            Self::Ready
        }
    }

    /// Returns a short description.
    pub fn describe(&self) -> String {
        match self {
            Self::Bridge => "bridge".to_owned(),
            Self::Ready => "ready".to_owned(),
            Self::Blocked { by } => format!("blocked by {by}"),
            Self::Open { pid, command } => format!("open by {command} ({pid})"),
            Self::Host { uses } => match uses.first() {
                Some(used) => format!("host: {used}"),
                None => "host".to_owned(),
            },
            Self::NoDriver => "no driver".to_owned(),
        }
    }
}

/// Returns the devices that prevent the use of a group.
pub fn blocking(snapshot: &Snapshot, group: &Group) -> Vec<String> {
    let told = group.debug.as_ref().map(|debug| &debug.blocking);
    let blocks = |device: &&Device| match told {
        Some(told) => told.contains(&device.name),
        None => !device.lets_group_go(),
    };
    let members = snapshot.members(group).filter(blocks);
    members.map(|device| device.name.clone()).collect()
}

/// Returns whether a program may own all devices of a group.
pub fn is_viable(snapshot: &Snapshot, group: &Group) -> bool {
    let told = group.debug.as_ref().and_then(|debug| debug.viable);
    told.unwrap_or_else(|| blocking(snapshot, group).is_empty())
}
