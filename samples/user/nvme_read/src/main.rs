// SPDX-License-Identifier: GPL-2.0

//! A userspace NVMe driver over VFIO.
//!
//! The program maps memory in an IOMMU container and reads a whole disk into it by DMA, with
//! interrupts through eventfds. Then it shows that a transfer to an address that is not mapped is
//! blocked.
//!
//! ```text
//! # echo vfio-pci > /sys/bus/pci/devices/0000:01:00.0/driver_override
//! # echo 0000:01:00.0 > /sys/bus/pci/devices/0000:01:00.0/driver/unbind
//! # echo 0000:01:00.0 > /sys/bus/pci/drivers_probe
//! # nvme_read demo --device 0000:01:00.0 --expect-sha256 …
//! ```

#![forbid(unsafe_code)]

use anyhow::{
    Result,
    bail,
    ensure, //
};
use clap::{
    Args,
    Parser,
    Subcommand, //
};
use nvme_read::{
    controller::Controller,
    fault,
    picture,
    reader::{
        self,
        Outcome, //
    },
    report,
    session::Session, //
};

/// Read an NVMe disk from userspace, through VFIO.
#[derive(Parser)]
#[command(version)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Read the whole disk by DMA.
    Read(ReadOptions),
    /// Let the controller write to an address that is not mapped.
    Fault(FaultOptions),
    /// Do both, and draw a picture of it.
    Demo(ReadOptions),
}

#[derive(Args)]
struct ReadOptions {
    #[command(flatten)]
    device: DeviceOptions,
    /// The SHA-256 that the disk must have, in hexadecimal.
    #[arg(long, value_name = "HEX")]
    expect_sha256: Option<String>,
    /// Bytes to read by one command.
    #[arg(long, value_name = "BYTES", default_value_t = 128 << 10)]
    block_size: usize,
    /// Number of commands in the queue at a time.
    #[arg(long, value_name = "N", default_value_t = 16)]
    queue_depth: usize,
}

#[derive(Args)]
struct FaultOptions {
    #[command(flatten)]
    device: DeviceOptions,
}

#[derive(Args)]
struct DeviceOptions {
    /// The controller, as domain:bus:device.function; it must be bound to vfio-pci.
    #[arg(long, value_name = "BDF")]
    device: String,
}

fn main() -> Result<()> {
    match Options::parse().command {
        Command::Read(options) => {
            let session = Session::open(&options.device.device)?;
            report::device(&session);
            read(&session, &options)?;
            Ok(())
        }
        Command::Fault(options) => {
            let session = Session::open(&options.device.device)?;
            report::device(&session);
            fault::run(&session)?;
            Ok(())
        }
        Command::Demo(options) => {
            let session = Session::open(&options.device.device)?;
            report::device(&session);
            let outcome = read(&session, &options)?;
            let unmapped = fault::run(&session)?;
            report::title("What the controller reached, and what not");
            print!("{}", picture::of(&session, &outcome, unmapped));
            Ok(())
        }
    }
}

/// Reads the whole disk and compares its checksum.
fn read(session: &Session, options: &ReadOptions) -> Result<Outcome> {
    report::title("Read the whole disk by DMA");
    let mut controller = Controller::new(session)?;
    report::controller(&controller);
    let largest = controller.max_transfer();
    if !options.block_size.is_power_of_two() || options.block_size < controller.block_size() {
        bail!("--block-size must be a power of two, and no less than a block of the disk");
    }
    ensure!(
        options.block_size <= largest,
        "--block-size: the controller takes {largest} bytes at most"
    );
    let outcome = reader::read_all(&mut controller, options.block_size, options.queue_depth)?;
    report::read(&outcome);
    if let Some(expected) = &options.expect_sha256 {
        let equal = expected.eq_ignore_ascii_case(&outcome.sha256);
        report::line(
            "check",
            if equal {
                "the checksum is the expected one"
            } else {
                "the checksum is NOT the expected one"
            },
        );
        ensure!(equal, "expected SHA-256 {expected}");
    }
    Ok(outcome)
}
