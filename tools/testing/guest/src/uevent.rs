// SPDX-License-Identifier: GPL-2.0

//! Events that the kernel sends about its devices, as udev receives them.

use anyhow::{
    Context,
    Result,
    bail, //
};
use nix::{
    poll::{
        PollFd,
        PollFlags,
        PollTimeout,
        poll, //
    },
    sys::socket::{
        AddressFamily,
        MsgFlags,
        NetlinkAddr,
        SockFlag,
        SockProtocol,
        SockType,
        bind,
        recv,
        socket, //
    },
};
use std::{
    collections::BTreeMap,
    os::fd::{
        AsFd,
        AsRawFd,
        OwnedFd, //
    },
};

/// The multicast group of kernel events. Group 2 has the events that udev has processed.
const KERNEL: u32 = 1;
/// The timeout for an event, in ms.
const PATIENCE: u16 = 30_000;

/// A socket that receives all events from now on.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Starts listening.
    pub fn new() -> Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL))?;
        Ok(Self(fd))
    }

    /// Returns the next event for the device at `path` below `/sys`.
    pub fn about(&self, path: &str) -> Result<Event> {
        loop {
            let mut ready = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, PollTimeout::from(PATIENCE))? == 0 {
                bail!("no uevent for {path} in time");
            }
            let mut bytes = [0; 4096];
            let len = recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
            let event = Event::parse(&bytes[..len]).context("a uevent has an unknown format")?;
            if event.get("DEVPATH") == Some(path) {
                return Ok(event);
            }
        }
    }
}

/// An event: names and their values.
#[derive(Debug)]
pub struct Event(BTreeMap<String, String>);

impl Event {
    /// Parses `action@path` followed by `NAME=value` strings, each terminated by a zero byte.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.trim_end_matches('\0').split('\0');
        let (action, path) = lines.next()?.split_once('@')?;
        let pairs = lines.map(|line| line.split_once('='));
        let values: Option<BTreeMap<_, _>> = pairs
            .map(|pair| pair.map(|(name, value)| (name.to_owned(), value.to_owned())))
            .collect();
        let event = Self(values?);
        let same = event.get("ACTION") == Some(action) && event.get("DEVPATH") == Some(path);
        same.then_some(event)
    }

    /// Returns the value of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}
