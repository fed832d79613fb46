// SPDX-License-Identifier: GPL-2.0

//! Serial ports, frame buffers and keyboards of the console.

use std::{
    fs,
    path::{
        Path,
        PathBuf, //
    },
};

use super::HostUse;
use crate::system::System;

/// Returns the devices of the console, with their directories.
pub fn read(system: &System) -> Vec<(PathBuf, HostUse)> {
    let mut found = read_terminals(system);
    found.extend(read_frame_buffer(system));
    found.extend(read_keyboards(system));
    found
}

fn directory(system: &System, usual: &Path) -> Option<PathBuf> {
    let real = fs::canonicalize(system.path(usual)).ok()?;
    Some(system.usual(&real))
}

/// Returns the terminals that are consoles.
fn read_terminals(system: &System) -> Vec<(PathBuf, HostUse)> {
    let active = system
        .read("/sys/class/tty/console/active")
        .unwrap_or_default();
    let terminals = active.split_whitespace().filter_map(|terminal| {
        let path = directory(system, &Path::new("/sys/class/tty").join(terminal))?;
        let terminal = terminal.to_owned();
        Some((path, HostUse::Console { terminal }))
    });
    terminals.collect()
}

/// Returns the frame buffer that shows the virtual terminals, the first one.
fn read_frame_buffer(system: &System) -> Option<(PathBuf, HostUse)> {
    let consoles = Path::new("/sys/class/vtconsole");
    let shows = |console: &String| {
        let text = |name: &str| system.read(consoles.join(console).join(name));
        text("name").is_some_and(|name| name.contains("frame buffer"))
            && text("bind").as_deref() == Some("1")
    };
    system.names(consoles).iter().any(shows).then_some(())?;
    let name = system
        .names("/sys/class/graphics")
        .into_iter()
        .find(|name| name.strip_prefix("fb").is_some_and(is_number))?;
    let path = directory(system, &Path::new("/sys/class/graphics").join(&name))?;
    Some((path, HostUse::FrameBuffer { name }))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the keyboards. Those of virtual machines and of laptops are no PCI devices.
fn read_keyboards(system: &System) -> Vec<(PathBuf, HostUse)> {
    let text = system.read("/proc/bus/input/devices").unwrap_or_default();
    let keyboards = text.split("\n\n").filter_map(|device| {
        let field = |start: &str| device.lines().find_map(|line| line.strip_prefix(start));
        // The keys from Esc to D, as udev tests it: a power button or a mouse lacks them.
        let keys = field("B: KEY=")?.split(' ').next_back()?;
        let keys = u64::from_str_radix(keys, 16).ok()?;
        (keys & 0xffff_fffe == 0xffff_fffe).then_some(())?;
        let path = field("S: Sysfs=")?;
        let name = field("N: Name=").unwrap_or_default().trim_matches('"');
        let name = name.to_owned();
        Some((
            PathBuf::from(format!("/sys{path}")),
            HostUse::Keyboard { name },
        ))
    });
    keyboards.collect()
}
