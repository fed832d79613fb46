// SPDX-License-Identifier: GPL-2.0

//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{
    Args,
    Parser,
    Subcommand,
    ValueEnum, //
};

/// Show and change which devices programs can use through VFIO.
///
/// A DEVICE is a PCI address with or without domain (0000:06:00.0 or 06:00.0), the UUID of a mediated
/// device, the name of a device file (vfio0), a path that ends with one of these, or the number of
/// an IOMMU group.
#[derive(Debug, Parser)]
#[command(
    name = "vfioctl",
    version,
    max_term_width = 100,
    after_help = "Exit status: 0 done, 1 an error, 2 wrong command line, 3 no such device, 4 refused \
                  (why: the device can't be handed out), 5 a privilege is missing, 6 not supported by \
                  the kernel or its modules."
)]
pub struct Options<C: Subcommand> {
    /// What to do.
    #[command(subcommand)]
    pub command: C,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum AnyCommand {
    /// A command for users.
    #[command(flatten)]
    Public(Command),
    /// Write the man pages and the completions for shells.
    #[command(hide = true)]
    Generate(GenerateOptions),
}

/// The commands for users. The man pages and completions have no others.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List groups, devices, drivers, and the processes that have them open.
    List(ListOptions),
    /// Tell whether a device can be handed out, and if not, why.
    ///
    /// Prints each obstacle and the command that removes it. The exit status is 0 if the device can
    /// be handed out, and 4 if not.
    Why(WhyOptions),
    /// Bind a device and its whole group to VFIO.
    ///
    /// Refuses to take away a disk that is mounted or otherwise in use, a network interface with an
    /// address or a route, the console, and what processes have open. 'vfioctl restore' undoes it.
    Bind(BindOptions),
    /// Give a device and its whole group back to the drivers that they had before.
    Restore(RestoreOptions),
    /// Bind a device and its group to VFIO at each boot.
    ///
    /// Refuses what 'vfioctl bind' refuses. Does not bind it now.
    Persist(PersistOptions),
    /// Let a user open the device nodes of a device.
    ///
    /// Adds the user to the access control list of the node of the group, and of the device files
    /// and /dev/iommu if the kernel has them. Lasts until the device is unbound or unplugged.
    Allow(AllowOptions),
    /// Show the processes that have files of VFIO open.
    Holders(HoldersOptions),
    /// Show how much memory a process can lock, and how much it needs.
    ///
    /// The exit status is 4 if the limit is too low.
    Memlock(MemlockOptions),
    /// List, create and remove mediated devices.
    #[command(subcommand)]
    Mdev(MdevCommand),
    /// Show and change which mediated devices share a group.
    #[command(subcommand)]
    Peers(PeersCommand),
    /// Show the containers, live.
    ///
    /// On the modules of this project: mappings, mapped, charged and pinned memory, and requests per
    /// second. On the modules in C: the processes that have containers, and their locked memory.
    Top(TopOptions),
    /// Draw the IOMMUs, groups and devices.
    Graph(GraphOptions),
}

/// The options of `list`.
#[derive(Debug, Args)]
pub struct ListOptions {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Show PCI devices without an IOMMU group, too.
    #[arg(long)]
    pub all: bool,
}

/// The options of `why`.
#[derive(Debug, Args)]
pub struct WhyOptions {
    /// The device.
    pub device: String,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Check whether this much memory can be locked, for example 4G.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub memory: Option<u64>,
    /// Check the limits of this process instead of one's own.
    #[arg(long, value_name = "PID")]
    pub pid: Option<u32>,
    /// Check whether this user may open the device.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
}

/// The options of `bind`.
#[derive(Debug, Args)]
pub struct BindOptions {
    /// The device.
    pub device: String,
    /// The driver for the device [default: vfio-pci for PCI].
    #[arg(long, value_name = "NAME", value_parser = parse_driver)]
    pub driver: Option<String>,
    /// Take away also what the host uses, except disks and what a program uses through VFIO.
    #[arg(long)]
    pub force: bool,
    /// Only print the commands that do the same.
    #[arg(long)]
    pub dry_run: bool,
    /// Refuse if the device is not of this model, VENDOR:DEVICE; with a name before it, as in
    /// 06:00.1=VENDOR:DEVICE, if another device of its group is not.
    #[arg(long, value_name = "[DEVICE=]ID")]
    pub expect: Vec<String>,
}

/// The options of `restore`.
#[derive(Debug, Args)]
pub struct RestoreOptions {
    /// The device.
    pub device: String,
    /// Only print the commands that do the same.
    #[arg(long)]
    pub dry_run: bool,
}

/// The options of `persist`.
#[derive(Debug, Args)]
pub struct PersistOptions {
    /// The device.
    pub device: String,
    /// What to write [default: udev].
    #[arg(long, value_enum)]
    pub by: Option<Persistence>,
    /// Take away also what the host uses now, as 'bind --force' does.
    #[arg(long, conflicts_with = "remove")]
    pub force: bool,
    /// Only print the file.
    #[arg(long)]
    pub print: bool,
    /// Remove what earlier calls wrote; with --by, only of that kind. The device may be gone.
    #[arg(long, conflicts_with = "print")]
    pub remove: bool,
}

/// How devices are bound at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Persistence {
    /// A rule of udev, which binds before another driver does.
    Udev,
    /// A unit of systemd, which takes the devices away from their drivers during boot.
    Systemd,
}

/// The options of `allow`.
#[derive(Debug, Args)]
pub struct AllowOptions {
    /// The user, by name or number.
    pub user: String,
    /// The devices.
    #[arg(required = true)]
    pub devices: Vec<String>,
    /// Make the user the owner of the nodes instead.
    #[arg(long)]
    pub owner: bool,
    /// Take the permission away again, except that for files that are common to all devices.
    #[arg(long)]
    pub remove: bool,
}

/// The options of `holders`.
#[derive(Debug, Args)]
pub struct HoldersOptions {
    /// Only those of the group of this device.
    pub device: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// The options of `memlock`.
#[derive(Debug, Args)]
pub struct MemlockOptions {
    /// The process.
    pub pid: u32,
    /// The memory that it maps in each container, for example 4G [default: what the log says, or all
    /// that it can write].
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub memory: Option<u64>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// The commands of `mdev`.
#[derive(Debug, Subcommand)]
pub enum MdevCommand {
    /// List the mediated devices.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List the types that can be created.
    Types {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Create a device, and print its UUID.
    Create {
        /// The type, for example mtty-1.
        #[arg(value_name = "TYPE")]
        kind: String,
        /// The parent, if several have the type.
        #[arg(long)]
        parent: Option<String>,
        /// The UUID [default: a random one].
        #[arg(long)]
        uuid: Option<uuid::Uuid>,
    },
    /// Remove a device.
    Remove {
        /// The UUID.
        device: String,
    },
}

/// The commands of `peers`.
#[derive(Debug, Subcommand)]
pub enum PeersCommand {
    /// List the devices that can have peers, by group.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Put devices into one group: that of the first one.
    Group {
        /// The UUIDs.
        #[arg(required = true, num_args = 2..)]
        devices: Vec<String>,
    },
    /// Give a device a group of its own again.
    Split {
        /// The UUID.
        device: String,
    },
}

/// The options of `top`.
#[derive(Debug, Args)]
pub struct TopOptions {
    /// Seconds between two looks.
    #[arg(long, short, value_name = "SECONDS", default_value = "2", value_parser = parse_delay)]
    pub delay: Duration,
    /// Print tables instead of using the whole terminal.
    #[arg(long, short)]
    pub batch: bool,
    /// End after this number of looks.
    #[arg(long, short = 'n', value_name = "N")]
    pub count: Option<u64>,
    /// Print JSON, one line for each look; implies --batch.
    #[arg(long)]
    pub json: bool,
}

/// The options of `graph`.
#[derive(Debug, Args)]
pub struct GraphOptions {
    /// Write an SVG picture to this file; - is the standard output.
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Leave out groups without a device that VFIO offers.
    #[arg(long)]
    pub only_vfio: bool,
}

/// The options of `generate`.
#[derive(Debug, Args)]
pub struct GenerateOptions {
    /// The folder to write to.
    pub folder: PathBuf,
}

/// Parses a number of seconds.
fn parse_delay(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| "it is a number of seconds".to_owned())?;
    if !(0.01..=86400.0).contains(&seconds) {
        return Err("it is at least 0.01, and at most 86400, which is a day".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Checks the name of a driver, which becomes part of a path.
fn parse_driver(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.+:".contains(c);
    if text.is_empty() || text.starts_with(['.', '-']) || !text.chars().all(plain) {
        return Err("it is a name as in /sys/bus/pci/drivers".to_owned());
    }
    Ok(text.to_owned())
}

/// Parses a size with an optional suffix K, M, G or T.
fn parse_size(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let text = lower
        .strip_suffix("ib")
        .or(lower.strip_suffix('b'))
        .unwrap_or(&lower);
    let (number, shift) = match text.char_indices().next_back() {
        Some((at, 'k')) => (&text[..at], 10),
        Some((at, 'm')) => (&text[..at], 20),
        Some((at, 'g')) => (&text[..at], 30),
        Some((at, 't')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let number: u64 = number
        .trim()
        .parse()
        .map_err(|_| "it is a number of bytes, or a number with K, M, G or T".to_owned())?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "it is too large".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Options::<AnyCommand>::command().debug_assert();
    }

    #[test]
    fn delays() {
        assert_eq!(parse_delay("0.5"), Ok(Duration::from_millis(500)));
        for odd in ["", "x", "-1", "0", "1e-9", "1e19", "inf", "nan"] {
            assert!(parse_delay(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn drivers() {
        for name in ["vfio-pci", "8139cp", "mlx5_vfio_pci"] {
            assert_eq!(parse_driver(name).as_deref(), Ok(name));
        }
        for odd in ["", "../..", "a/b", "a\nb", "-x", "a;b"] {
            assert!(parse_driver(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("4k"), Ok(4096));
        assert_eq!(parse_size("2 MiB"), Ok(2 << 20));
        assert_eq!(parse_size("1GB"), Ok(1 << 30));
        for odd in ["", "G", "-1", "1.5G", "99999999999999T", "4\u{e9}"] {
            assert!(parse_size(odd).is_err(), "{odd}");
        }
    }
}
