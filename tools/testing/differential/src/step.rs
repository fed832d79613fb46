// SPDX-License-Identifier: GPL-2.0

//! The steps of a sequence.

use crate::{
    machine::DEVICES,
    memory::Change,
    request::Request, //
};
use std::fmt;

/// The maximum number of open containers.
pub const CONTAINERS: usize = 3;
/// The maximum number of times that each device is open.
pub const COPIES: usize = 2;
/// The maximum number of agents.
pub const AGENTS: usize = 2;

/// An open file, or the slot for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// A container.
    Container(usize),
    /// A group, by the index of its device.
    Group(usize),
    /// A device: its index, and the index of the open file.
    Device(usize, usize),
    /// A file unrelated to VFIO.
    Null,
}

/// The bitmap page.
#[derive(Clone, Copy, Debug)]
pub struct Bitmap {
    /// The byte that fills the page before the request.
    pub fill: u8,
}

/// A step.
#[derive(Debug)]
pub enum Step {
    /// Opens a container or a group.
    Open(File),
    /// Closes a file.
    Close(File),
    /// Opens a device of a group by name.
    OpenDevice {
        /// The group.
        group: usize,
        /// The index of the open file.
        copy: usize,
        /// The name.
        name: String,
    },
    /// Makes a group join a file, which may not be a container. `None` stands for an invalid
    /// descriptor.
    Join(usize, Option<File>),
    /// Sends a request.
    Send {
        /// The file.
        file: File,
        /// The request.
        request: Request,
        /// The bitmap page, if the request may write to it.
        bitmap: Option<Bitmap>,
    },
    /// Makes an agent send a request to a container.
    Delegate(usize, usize, Request),
    /// Reads bytes of a file at an offset: offset, length.
    Read(File, u64, usize),
    /// Changes a piece of memory.
    Memory(u64, Change),
    /// Writes a module parameter of the backend.
    Parameter(&'static str, &'static str),
    /// Starts an agent, optionally with a limit of locked pages.
    Hire(usize, Option<u64>),
    /// Ends an agent.
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
