// SPDX-License-Identifier: GPL-2.0

//! Output for the user.

use crate::{
    controller::Controller,
    reader::Outcome,
    session::Session, //
};
use std::time::Duration;

/// Prints a section title.
pub fn title(text: &str) {
    println!("\n{text}");
}

/// Prints one line.
pub fn line(what: &str, text: &str) {
    println!("  {what:<11} {text}");
}

/// Formats a duration in milliseconds or seconds.
pub fn duration(time: Duration) -> String {
    match time.as_secs_f64() {
        s if s < 0.01 => format!("{:.2} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// Formats a number of bytes.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 20 => format!("{:.1} MiB", b as f64 / f64::from(1 << 20)),
        b if b >= 1 << 10 => format!("{:.0} KiB", b as f64 / f64::from(1 << 10)),
        b => format!("{b} bytes"),
    }
}

/// Prints the device.
pub fn device(session: &Session) {
    println!("NVMe controller {}", session.bdf());
    line("group", &format!("/dev/vfio/{}", session.group_number()));
    if let Ok(info) = session.container().info() {
        let ranges: Vec<_> = info
            .ranges()
            .iter()
            .map(|range| format!("{:#x}-{:#x}", range.start, range.end))
            .collect();
        line("addresses", &format!("{} for DMA", ranges.join(", ")));
    }
}

/// Prints the controller and the disk.
pub fn controller(controller: &Controller<'_>) {
    let page = controller.page();
    let bytes = controller.blocks() * controller.block_size() as u64;
    line(
        "controller",
        &format!(
            "{}, serial {}, NVMe {}",
            page.model,
            page.serial,
            controller.version()
        ),
    );
    line(
        "disk",
        &format!(
            "{}: {} blocks of {} bytes",
            size(bytes),
            controller.blocks(),
            controller.block_size()
        ),
    );
    let (admin, io) = controller.entries();
    line(
        "queues",
        &format!("admin {admin} entries, I/O {io} entries; MSI-X through eventfds"),
    );
}

/// Prints the result of a read.
pub fn read(outcome: &Outcome) {
    let rate = outcome.bytes as f64 / f64::from(1 << 20) / outcome.time.as_secs_f64();
    line(
        "read",
        &format!(
            "{} by {} commands of {}, {} at a time",
            size(outcome.bytes),
            outcome.commands,
            size(outcome.block_size as u64),
            outcome.depth
        ),
    );
    line(
        "time",
        &format!(
            "{} ({rate:.1} MiB/s), {} interrupts",
            duration(outcome.time),
            outcome.interrupts
        ),
    );
    line("sha256", &outcome.sha256);
}
