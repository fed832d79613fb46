// SPDX-License-Identifier: GPL-2.0

//! What is done in one step.

use crate::{
    machine::DEVICES,
    memory::Change,
    request::Request, //
};
use std::fmt;

/// How many containers can be open.
pub const CONTAINERS: usize = 3;
/// How often each device can be open.
pub const COPIES: usize = 2;
/// How many other processes there can be.
pub const AGENTS: usize = 2;

/// An open file, or the place for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// A container.
    Container(usize),
    /// A group, by the number of its device.
    Group(usize),
    /// A device: its number, and which of the times that it is open.
    Device(usize, usize),
    /// A file that has nothing to do with VFIO.
    Null,
}

/// The page for a bitmap.
#[derive(Clone, Copy, Debug)]
pub struct Bitmap {
    /// What all bytes are before.
    pub fill: u8,
}

/// One step.
#[derive(Debug)]
pub enum Step {
    /// Opens a container or a group.
    Open(File),
    /// Closes a file.
    Close(File),
    /// Asks a group for a device by a name.
    OpenDevice {
        /// The group.
        group: usize,
        /// Where the device goes.
        copy: usize,
        /// The name.
        name: String,
    },
    /// Asks a group to join what may be a container; nothing stands for no file at all.
    Join(usize, Option<File>),
    /// Sends a request.
    Send {
        /// To which file.
        file: File,
        /// What.
        request: Request,
        /// The page for a bitmap, if the request may write there.
        bitmap: Option<Bitmap>,
    },
    /// Has another process send a request to a container.
    Delegate(usize, usize, Request),
    /// Reads some bytes of a file, from an offset.
    Read(File, u64, usize),
    /// Changes a piece of the memory.
    Memory(u64, Change),
    /// Writes a parameter of the backend.
    Parameter(&'static str, &'static str),
    /// Starts another process, perhaps one that may lock only so many pages.
    Hire(usize, Option<u64>),
    /// Ends it.
    Dismiss(usize),
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(slot) => write!(f, "container{slot}"),
            Self::Group(nth) => write!(f, "group({})", DEVICES[*nth]),
            Self::Device(nth, copy) => write!(f, "device({},{copy})", DEVICES[*nth]),
            Self::Null => f.write_str("/dev/null"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open(file) => write!(f, "open {file}"),
            Self::Close(file) => write!(f, "close {file}"),
            Self::OpenDevice { group, copy, name } => {
                write!(f, "{} device {name:.40} {copy}", File::Group(*group))
            }
            Self::Join(group, Some(file)) => write!(f, "{} join {file}", File::Group(*group)),
            Self::Join(group, None) => write!(f, "{} join nothing", File::Group(*group)),
            Self::Send { file, request, .. } => write!(f, "{file} {request}"),
            Self::Delegate(agent, slot, request) => {
                write!(f, "agent{agent} {} {request}", File::Container(*slot))
            }
            Self::Read(file, offset, len) => write!(f, "{file} read {offset:#x} {len}"),
            Self::Memory(piece, change) => write!(f, "memory {piece} {change:?}"),
            Self::Parameter(name, value) => write!(f, "parameter {name} {value}"),
            Self::Hire(agent, None) => write!(f, "agent{agent} begins"),
            Self::Hire(agent, Some(pages)) => write!(f, "agent{agent} begins, limit {pages}"),
            Self::Dismiss(agent) => write!(f, "agent{agent} ends"),
        }
    }
}
