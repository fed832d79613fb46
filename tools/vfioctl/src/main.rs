// SPDX-License-Identifier: GPL-2.0

//! `vfioctl` shows and changes which devices programs can use through VFIO.
//!
//! [`system`] reads the state of the machine, [`decide`] decides by it what is possible and what to
//! do, [`act`] does it, and [`output`] prints it.

#![forbid(unsafe_code)]

mod act;
mod cli;
mod decide;
mod name;
mod output;
mod status;
mod system;
#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    process::ExitCode, //
};

use anyhow::Result;
use clap::{
    Parser,
    ValueEnum, //
};

use act::{
    memory,
    memory::Locked,
    persist, //
};
use cli::{
    AllowOptions,
    AnyCommand,
    BindOptions,
    Command,
    HoldersOptions,
    MdevCommand,
    MemlockOptions,
    Options,
    PeersCommand,
    PersistOptions,
    Persistence,
    RestoreOptions,
    WhyOptions, //
};
use decide::{
    memlock,
    plan::{
        self,
        Memory,
        Plan,
        Step, //
    },
    why::{
        self,
        Asker, //
    },
};
use nix::unistd::Uid;
use output::{
    complain,
    print_line,
    printable, //
};
use status::{
    Failure,
    Status,
    status_of, //
};
use system::{
    Snapshot,
    System,
    access::Node,
    devices::Device,
    limits::Limits,
    log,
    processes::File, //
};

fn main() -> ExitCode {
    let options = Options::<AnyCommand>::parse();
    // For tests on a copy of a system.
    let root = std::env::var_os("VFIOCTL_ROOT").map(PathBuf::from);
    let system = System::new(root.as_deref());
    let done = match options.command {
        AnyCommand::Public(command) => run(&system, command),
        AnyCommand::Generate(options) => {
            output::generate::generate(&options.folder).map(|()| Status::Done)
        }
    };
    match done {
        Ok(status) => status.into(),
        Err(error) => {
            let status = status_of(&error);
            let hint = if status == Status::Permission && !Uid::effective().is_root() {
                "; run it as root"
            } else {
                ""
            };
            // It may have the name of a process or a mount.
            let text = printable(&format!("{error:#}"));
            complain(&format!("vfioctl: {text}{hint}\n"));
            status.into()
        }
    }
}

fn run(system: &System, command: Command) -> Result<Status> {
    match command {
        Command::List(options) => output::list::list(&Snapshot::read(system), &options)?,
        Command::Why(options) => return why(system, &options),
        Command::Bind(options) => return bind(system, &options),
        Command::Restore(options) => return restore(system, &options),
        Command::Persist(options) => return persist(system, &options),
        Command::Allow(options) => allow(system, &options)?,
        Command::Holders(options) => holders(system, &options)?,
        Command::Memlock(options) => return memlock(system, &options),
        Command::Mdev(command) => mdev(system, command)?,
        Command::Peers(command) => peers(system, command)?,
        Command::Top(options) => output::top::top(system, &options)?,
        Command::Graph(options) => {
            let snapshot = Snapshot::read(system);
            output::graph::graph(&snapshot, options.svg.as_deref(), options.only_vfio)?;
        }
    }
    Ok(Status::Done)
}

fn why(system: &System, options: &WhyOptions) -> Result<Status> {
    let mut snapshot = Snapshot::read(system);
    let names = names_together(&snapshot, name::device(&snapshot, &options.device)?);
    snapshot.probe_disks(system, &names);
    let pid = options.pid.map_or("self".to_owned(), |pid| pid.to_string());
    let limits = Limits::read(system, &pid);
    if let (None, Some(pid)) = (&limits, options.pid) {
        return Err(Failure::not_found(format!("there is no process {pid}")));
    }
    let asker = Asker {
        memory: options.memory,
        limits,
        is_program: options.pid.is_some(),
        user: options.user.as_deref().map(act::allow::user).transpose()?,
        exceeded: log::limits_exceeded(system),
    };
    let device = name::device(&snapshot, &options.device)?;
    let verdict = why::why(&snapshot, device, &asker);
    output::why::why(&verdict, options.json)?;
    Ok(if verdict.ready {
        Status::Done
    } else {
        Status::Refused
    })
}

fn names_together(snapshot: &Snapshot, device: &Device) -> Vec<String> {
    let devices = plan::together(snapshot, device);
    devices.iter().map(|device| device.name.clone()).collect()
}

fn bind(system: &System, options: &BindOptions) -> Result<Status> {
    let mut locked = locked(system, options.dry_run)?;
    let mut snapshot = Snapshot::read(system);
    let names = names_together(&snapshot, name::device(&snapshot, &options.device)?);
    snapshot.probe_disks(system, &names);
    let device = name::device(&snapshot, &options.device)?;
    check_bindable(&snapshot, device, options)?;
    let memory = memory_of(system, locked.as_ref())?;
    let driver = options.driver.as_deref();
    let plan = plan::bind(&snapshot, device, driver, options.force, &memory);
    if !plan.refusals.is_empty() {
        return refuse(device, "bound", &plan);
    }
    if plan.devices.is_empty() {
        print_line(format!(
            "{} and its group are bound to VFIO already",
            device.name
        ))?;
        return Ok(Status::Done);
    }
    print_notes(&plan)?;
    let Some(locked) = &mut locked else {
        return print_commands(&plan);
    };
    act::bind::bind(system, &plan, locked)?;
    let now = Snapshot::read(system);
    print_drivers(&plan, &snapshot, &now)?;
    // A device without an IOMMU has got its group only now.
    let group = now
        .devices
        .get(&device.name)
        .and_then(|device| now.group_of(device));
    // The devices of a kernel without groups have only files of their own.
    let mut nodes = group
        .into_iter()
        .flat_map(|group| group.node.iter().chain(&group.files));
    if let Some(node) = nodes.next() {
        print_line(format!("Programs open {}.", node.path.display()))?;
    }
    Ok(Status::Done)
}

/// Takes the lock of the memory, except if nothing is to be changed.
fn locked(system: &System, dry_run: bool) -> Result<Option<Locked<'_>>> {
    (!dry_run).then(|| Locked::open(system)).transpose()
}

fn memory_of(system: &System, locked: Option<&Locked<'_>>) -> Result<Memory> {
    match locked {
        Some(locked) => Ok(locked.memory.clone()),
        None => memory::read(system),
    }
}

fn check_bindable(snapshot: &Snapshot, device: &Device, options: &BindOptions) -> Result<()> {
    for expected in &options.expect {
        let (device, expected) = match expected.split_once('=') {
            Some((other, expected)) => (name::device(snapshot, other)?, expected),
            None => (device, expected.as_str()),
        };
        let model = device.model().unwrap_or_default();
        if !model.eq_ignore_ascii_case(expected) {
            return Err(Failure::refused(format!(
                "{} is a {model}, not a {expected}: another device has taken its address",
                device.name
            )));
        }
    }
    if device.is_bridge() {
        return Err(Failure::refused(format!("{} is a PCI bridge", device.name)));
    }
    if device.vfio_driver().is_none() && options.driver.is_none() && !device.is_offered() {
        return Err(Failure::unsupported(format!(
            "there is no VFIO driver for devices on the bus {}; --driver names one",
            device.bus
        )));
    }
    if device.group.is_none() && !snapshot.modules.noiommu {
        return Err(Failure::unsupported(format!(
            "no IOMMU confines {}; 'vfioctl why {}' says what to do",
            device.name, device.name
        )));
    }
    Ok(())
}

fn restore(system: &System, options: &RestoreOptions) -> Result<Status> {
    let mut locked = locked(system, options.dry_run)?;
    let snapshot = Snapshot::read(system);
    let device = name::device(&snapshot, &options.device)?;
    let memory = memory_of(system, locked.as_ref())?;
    let plan = plan::restore(&snapshot, device, &memory);
    if !plan.refusals.is_empty() {
        return refuse(device, "restored", &plan);
    }
    if plan.devices.is_empty() {
        print_line(format!(
            "{} and its group are not bound to VFIO",
            device.name
        ))?;
        return Ok(Status::Done);
    }
    let Some(locked) = &mut locked else {
        return print_commands(&plan);
    };
    act::bind::restore(system, &plan, locked)?;
    print_drivers(&plan, &snapshot, &Snapshot::read(system))?;
    Ok(Status::Done)
}

/// Prints which driver each device had, and which it has.
fn print_drivers(plan: &Plan, before: &Snapshot, now: &Snapshot) -> Result<()> {
    let driver = |snapshot: &Snapshot, name: &str| {
        let device = snapshot.devices.get(name);
        output::or_dash(device.and_then(|device| device.driver.as_deref()))
    };
    plan.devices.iter().try_for_each(|name| {
        print_line(format!(
            "{name}: {} -> {}",
            driver(before, name),
            driver(now, name)
        ))
    })
}

fn refuse(device: &Device, what: &str, plan: &Plan) -> Result<Status> {
    let mut text = output::why::obstacles(&plan.refusals);
    if plan.can_be_forced {
        text += "If the host can do without it: --force takes it away all the same.\n";
    }
    complain(&format!("vfioctl: {} was not {what}:\n{text}", device.name));
    Ok(Status::Refused)
}

fn print_commands(plan: &Plan) -> Result<Status> {
    for command in plan.steps.iter().filter_map(Step::command) {
        print_line(command)?;
    }
    Ok(Status::Done)
}

fn print_notes(plan: &Plan) -> Result<()> {
    plan.notes
        .iter()
        .try_for_each(|note| print_line(format!("# {}", printable(note))))
}

fn persist(system: &System, options: &PersistOptions) -> Result<Status> {
    let mut snapshot = Snapshot::read(system);
    if options.remove {
        remove_persistence(system, &snapshot, options)?;
        return Ok(Status::Done);
    }
    let names = names_together(&snapshot, name::device(&snapshot, &options.device)?);
    if !options.print {
        snapshot.probe_disks(system, &names);
    }
    let device = name::device(&snapshot, &options.device)?;
    let by = options.by.unwrap_or(Persistence::Udev);
    let configuration = persist::configuration(system, &snapshot, device, by, options.force)?;
    if options.print {
        output::print(&configuration.text)?;
        return Ok(Status::Done);
    }
    let plan = plan::in_use(&snapshot, &plan::together(&snapshot, device), options.force);
    if !plan.refusals.is_empty() {
        return refuse(device, "made to be bound at each boot", &plan);
    }
    print_notes(&plan)?;
    persist::write(system, &configuration)?;
    let path = configuration.path.display();
    print_line(format!("wrote {path}: {}", configuration.next))?;
    Ok(Status::Done)
}

/// Removes what `persist` has written. The device need not be there any more.
fn remove_persistence(
    system: &System,
    snapshot: &Snapshot,
    options: &PersistOptions,
) -> Result<()> {
    let name = match name::device(snapshot, &options.device) {
        Ok(device) => device.name.clone(),
        Err(error) => persist::name_of_missing(&options.device).ok_or(error)?,
    };
    let only = options.by.as_slice();
    let kinds = match only {
        [] => Persistence::value_variants(),
        kinds => kinds,
    };
    let removed = persist::remove(system, &name, kinds)?;
    if removed.is_empty() {
        let paths = kinds.iter().map(|kind| persist::path(&name, *kind));
        let paths: Vec<String> = paths.map(|path| path.display().to_string()).collect();
        let paths = paths.join(" and no ");
        return Err(Failure::not_found(format!("there is no {paths}")));
    }
    for path in &removed {
        print_line(format!("removed {}", path.display()))?;
    }
    let rule = persist::path(&name, Persistence::Udev);
    if let Some(command) = persist::initramfs_command(system).filter(|_| removed.contains(&rule)) {
        print_line(format!(
            "The initramfs may have a copy of the rule, which still applies: run '{command}'."
        ))?;
    }
    Ok(())
}

fn allow(system: &System, options: &AllowOptions) -> Result<()> {
    let snapshot = Snapshot::read(system);
    let user = act::allow::user(&options.user)?;
    let mut nodes: Vec<&Node> = Vec::new();
    for name in &options.devices {
        let device = name::device(&snapshot, name)?;
        let group = snapshot.group_of(device);
        let before = nodes.len();
        nodes.extend(
            group
                .into_iter()
                .flat_map(|group| group.node.iter().chain(&group.files)),
        );
        if nodes.len() == before {
            return Err(Failure::refused(format!(
                "{} has no device node; first run 'vfioctl bind {}'",
                device.name, device.name
            )));
        }
    }
    let is_file = |node: &&Node| node.path.starts_with("/dev/vfio/devices");
    let (has_files, has_groups) = (nodes.iter().any(is_file), !nodes.iter().all(is_file));
    // Others may need what is common to all devices, so that permission is not taken away.
    let iommufd = snapshot.iommufd.iter().filter(|_| has_files);
    let container = snapshot.container.iter().filter(|node| {
        // The kernel lets everybody open it, unless the administrator has changed that.
        has_groups && !node.lets_in(user.uid, &user.gids)
    });
    nodes.extend(iommufd.chain(container).filter(|_| !options.remove));
    for node in nodes {
        let path = system.path(&node.path);
        let how = if options.remove {
            act::allow::forbid(&path, &user)?;
            let now = Node::read(system, &node.path);
            if now.is_some_and(|now| now.lets_in(user.uid, &user.gids)) {
                "may still open, by its mode or its group,"
            } else {
                "may no longer open"
            }
        } else {
            match act::allow::allow(&path, &user, options.owner)? {
                act::allow::Change::List => "may open",
                act::allow::Change::Owner => "owns",
            }
        };
        print_line(format!("{} {how} {}", user.name, node.path.display()))?;
    }
    Ok(())
}

fn holders(system: &System, options: &HoldersOptions) -> Result<()> {
    let snapshot = Snapshot::read(system);
    let found = match &options.device {
        None => snapshot.holders.iter().collect(),
        Some(device) => {
            let group = snapshot.group_of(name::device(&snapshot, device)?);
            group
                .map(|group| snapshot.holders_of(group))
                .unwrap_or_default()
        }
    };
    output::holders::holders(&snapshot, &found, options.json)
}

fn memlock(system: &System, options: &MemlockOptions) -> Result<Status> {
    let limits = Limits::read(system, &options.pid.to_string());
    let Some(mut limits) = limits else {
        return Err(Failure::not_found(format!(
            "there is no process {}",
            options.pid
        )));
    };
    let holders = system::processes::read(system);
    let mut files = holders.iter().filter(|holder| holder.pid == limits.pid);
    limits.containers = files.by_ref().filter(|h| h.file == File::Container).count();
    let need = memlock::need(limits, options.memory, &log::limits_exceeded(system));
    let need = need.ok_or_else(|| {
        Failure::permission(format!(
            "the memory of process {} cannot be read; --memory SIZE tells what it maps",
            options.pid
        ))
    })?;
    output::memlock::memlock(&need, options.json)?;
    Ok(if need.enough {
        Status::Done
    } else {
        Status::Refused
    })
}

fn mdev(system: &System, command: MdevCommand) -> Result<()> {
    match command {
        MdevCommand::List { json } => output::mdev::list(&Snapshot::read(system), json),
        MdevCommand::Types { json } => output::mdev::types(&act::mdev::types(system), json),
        MdevCommand::Create { kind, parent, uuid } => {
            let uuid = act::mdev::create(system, &kind, parent.as_deref(), uuid)?;
            print_line(uuid.to_string())
        }
        MdevCommand::Remove { device } => act::mdev::remove(system, &device),
    }
}

fn peers(system: &System, command: PeersCommand) -> Result<()> {
    match command {
        PeersCommand::List { json } => return output::mdev::peers(&Snapshot::read(system), json),
        PeersCommand::Group { devices } => act::mdev::group(system, &devices)?,
        PeersCommand::Split { device } => act::mdev::split(system, &device)?,
    }
    output::mdev::peers(&Snapshot::read(system), false)
}
