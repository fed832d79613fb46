// SPDX-License-Identifier: GPL-2.0

//! Whether a device can be handed out, and if not, why.

use serde::Serialize;

use super::{
    memlock,
    size, //
};
use crate::system::{
    Snapshot,
    access::Node,
    devices::{
        Device,
        Group, //
    },
    host_use::{
        HostUse,
        end_of, //
    },
    limits::Limits,
    log::LimitExceeded,
    processes::{
        File,
        Holder, //
    },
};

/// The kind of an obstacle. Scripts can rely on these names.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// No IOMMU confines its DMA.
    NoIommu,
    /// It is a bridge.
    Bridge,
    /// A driver of the host is bound to it.
    Driver,
    /// No driver is bound to it.
    NoDriver,
    /// A driver of the host is bound to another device of the group.
    Sibling,
    /// The host uses it, for example as a disk with a mounted file system.
    HostUse,
    /// A process has the group or a device of it open.
    Open,
    /// The machine does not isolate its interrupts.
    Isolation,
    /// The firmware needs memory mapped one to one for it.
    ReservedRegion,
    /// The limit of locked memory is too small.
    Memlock,
    /// The module with the backend of containers is not loaded.
    NoBackend,
    /// It has no device node.
    NoNode,
    /// The user may not open the device node.
    Access,
    /// A driver is being bound or unbound.
    Changing,
}

impl Reason {
    /// Returns the name that scripts see.
    pub fn name(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => name,
            _ => format!("{self:?}"),
        }
    }
}

/// Something that prevents the use of a device.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
pub struct Obstacle {
    /// The kind.
    pub reason: Reason,
    /// The device that it is about.
    pub device: String,
    /// The driver that is in the way.
    pub driver: Option<String>,
    /// The process that is in the way.
    pub pid: Option<u32>,
    /// A sentence about it.
    pub text: String,
    /// The commands that help, or a sentence if there is none.
    pub help: Vec<String>,
}

impl Obstacle {
    fn new(reason: Reason, device: &Device, text: impl Into<String>) -> Self {
        Self {
            reason,
            device: device.name.clone(),
            driver: None,
            pid: None,
            text: text.into(),
            help: Vec::new(),
        }
    }

    fn help(mut self, command: impl Into<String>) -> Self {
        self.help.push(command.into());
        self
    }

    fn driver(mut self, driver: Option<&str>) -> Self {
        self.driver = driver.map(str::to_owned);
        self
    }

    fn pid(mut self, pid: u32) -> Self {
        self.pid = Some(pid);
        self
    }
}

/// The answer to `why`.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The device.
    pub device: String,
    /// The number of its group.
    pub group: Option<u32>,
    /// Whether it can be handed out.
    pub ready: bool,
    /// What prevents that, in the order in which to remove it.
    pub obstacles: Vec<Obstacle>,
    /// Further remarks.
    pub notes: Vec<String>,
    /// The device nodes that a program can open.
    pub nodes: Vec<std::path::PathBuf>,
}

/// Who wants the device, and for how much memory.
#[derive(Clone, Debug, Default)]
pub struct Asker {
    /// The memory that the program maps for the device, in bytes.
    pub memory: Option<u64>,
    /// The limits of the program, or those of this program.
    pub limits: Option<Limits>,
    /// Whether `limits` are those of the program that uses the device.
    pub is_program: bool,
    /// The user who opens the device node.
    pub user: Option<User>,
    /// The messages of the kernel about limits.
    pub exceeded: Vec<LimitExceeded>,
}

/// A user.
#[derive(Clone, Debug)]
pub struct User {
    /// The name, or the number if it has none.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The groups of users that it belongs to.
    pub gids: Vec<u32>,
}

/// Tells whether a device can be handed out.
pub fn why(snapshot: &Snapshot, device: &Device, asker: &Asker) -> Verdict {
    let mut found = Findings {
        snapshot,
        device,
        obstacles: Vec::new(),
        notes: Vec::new(),
    };
    let group = snapshot.group_of(device);
    if device.is_bridge() {
        let text = "it is a PCI bridge: a device behind it can be handed out";
        found.add(Obstacle::new(Reason::Bridge, device, text).help("vfioctl list"));
    } else if let Some(group) = group {
        found.host_uses();
        found.own_driver();
        found.siblings(group);
        found.holders(group);
        found.platform(group);
        found.nodes(group, asker.user.as_ref());
        found.memlock(asker);
    } else {
        found.no_group();
    }
    let nodes = group.map(|group| group.node.iter().chain(&group.files));
    Verdict {
        device: device.name.clone(),
        group: device.group,
        ready: found.obstacles.is_empty(),
        obstacles: found.obstacles,
        notes: found.notes,
        nodes: nodes
            .into_iter()
            .flatten()
            .map(|node| node.path.clone())
            .collect(),
    }
}

/// Returns an obstacle for each process that has the group or a device of it open.
pub fn open_files(snapshot: &Snapshot, device: &Device, group: &Group) -> Vec<Obstacle> {
    let mut found: Vec<Obstacle> = Vec::new();
    for holder in snapshot.holders_of(group) {
        if found
            .iter()
            .any(|obstacle| obstacle.pid == Some(holder.pid))
        {
            continue;
        }
        let text = format!(
            "{} ({}) has {} open{}",
            holder.command,
            holder.pid,
            file_of(holder, group),
            since(group, holder.pid)
        );
        found.push(
            Obstacle::new(Reason::Open, device, text)
                .pid(holder.pid)
                .help(end_of(holder.pid)),
        );
    }
    found
}

fn file_of(holder: &Holder, group: &Group) -> String {
    match &holder.file {
        File::Group { .. } => format!("group {}", group.id),
        file => format!("{} of group {}", file.describe(), group.id),
    }
}

/// Returns how long a process has had a group open, if debugfs shows it.
fn since(group: &Group, pid: u32) -> String {
    let openers = group.debug.iter().flat_map(|debug| &debug.openers);
    let seconds = openers.filter(|o| o.pid == pid).map(|o| o.seconds).max();
    seconds.map_or_else(String::new, |seconds| format!(", for {seconds} s"))
}

/// Returns an obstacle for each use of a device by the host.
pub fn host_uses(snapshot: &Snapshot, device: &Device) -> Vec<Obstacle> {
    let uses = snapshot.uses_of(&device.name).iter();
    uses.map(|used| host_use(device, used)).collect()
}

/// Returns the obstacle that a use of a device by the host is.
pub fn host_use(device: &Device, used: &HostUse) -> Obstacle {
    let obstacle = Obstacle::new(Reason::HostUse, device, used.describe());
    let obstacle = Obstacle {
        driver: device.driver.clone(),
        pid: used.pid(),
        ..obstacle
    };
    let forced = || {
        let name = &device.name;
        let command = format!("vfioctl bind --force {name}    # if the host can do without it");
        (!used.resists_force()).then_some(command)
    };
    let help = used.help().or_else(forced);
    help.into_iter().fold(obstacle, Obstacle::help)
}

struct Findings<'a> {
    snapshot: &'a Snapshot,
    device: &'a Device,
    obstacles: Vec<Obstacle>,
    notes: Vec<String>,
}

impl Findings<'_> {
    fn add(&mut self, obstacle: Obstacle) {
        self.obstacles.push(obstacle);
    }

    fn bind_command(&self) -> String {
        format!("vfioctl bind {}", self.device.name)
    }

    fn no_group(&mut self) {
        let obstacle = Obstacle::new(
            Reason::NoIommu,
            self.device,
            "no IOMMU confines its DMA: it is in no IOMMU group",
        );
        let help = if self.snapshot.iommus.is_empty() {
            "enable the IOMMU (VT-d, AMD-Vi) in the firmware; on Intel, boot with intel_iommu=on"
        } else {
            "the machine has an IOMMU, but not for this device: use a device in another slot"
        };
        self.add(obstacle.help(help));
    }

    /// What the host uses of the device. A device that VFIO offers already is used by nobody.
    fn host_uses(&mut self) {
        if !self.device.is_offered() {
            let found = host_uses(self.snapshot, self.device);
            self.obstacles.extend(found);
        }
    }

    fn own_driver(&mut self) {
        let device = self.device;
        if device.is_offered() {
            return;
        }
        let obstacle = match device.driver.as_deref() {
            Some(driver) => {
                let text = format!("it is bound to the driver {driver}");
                Obstacle::new(Reason::Driver, device, text).driver(Some(driver))
            }
            None => Obstacle::new(Reason::NoDriver, device, "no driver is bound to it"),
        };
        self.add(obstacle.help(self.bind_command()));
        if let Some(stale) = &device.driver_override {
            self.notes.push(format!(
                "driver_override is {stale}; 'vfioctl bind' replaces it"
            ));
        }
    }

    fn siblings(&mut self, group: &Group) {
        let snapshot = self.snapshot;
        let blocking = group
            .debug
            .as_ref()
            .map_or(&[][..], |debug| debug.blocking.as_slice());
        for sibling in snapshot.members(group) {
            let blocks = !sibling.lets_group_go() || blocking.contains(&sibling.name);
            if sibling.name == self.device.name || !blocks {
                continue;
            }
            self.obstacles.extend(host_uses(snapshot, sibling));
            let driver = sibling.driver.as_deref().unwrap_or("a driver");
            let text = format!(
                "{} of the same group {} is bound to the driver {driver}",
                sibling.name, group.id
            );
            let obstacle = Obstacle::new(Reason::Sibling, sibling, text);
            let obstacle = obstacle.driver(sibling.driver.as_deref());
            self.add(obstacle.help(self.bind_command()));
        }
        let explained = self
            .obstacles
            .iter()
            .any(|o| matches!(o.reason, Reason::Sibling | Reason::Driver));
        let viable = group.debug.as_ref().and_then(|debug| debug.viable);
        if viable == Some(false) && !explained {
            let text = "a driver is being bound to a device of the group, or unbound";
            let obstacle = Obstacle::new(Reason::Changing, self.device, text);
            self.add(obstacle.help(format!("vfioctl why {}    # again", self.device.name)));
        }
    }

    fn holders(&mut self, group: &Group) {
        let found = open_files(self.snapshot, self.device, group);
        self.obstacles.extend(found);
    }

    /// What the machine or the modules lack.
    fn platform(&mut self, group: &Group) {
        let (device, modules) = (self.device, &self.snapshot.modules);
        if !group.direct_regions.is_empty() {
            let regions = group.direct_regions.join(", ");
            let text = format!(
                "the firmware needs {regions} mapped one to one for group {}",
                group.id
            );
            let obstacle = Obstacle::new(Reason::ReservedRegion, device, text);
            let help = "update the firmware, or use a device in another slot";
            self.add(obstacle.help(help));
        }
        let behind_iommu = device.mdev.is_none() && !group.noiommu;
        if behind_iommu && modules.interrupt_remapping == Some(false) && !modules.unsafe_interrupts
        {
            let text =
                "the machine has no interrupt remapping, so the device can raise any interrupt";
            let obstacle = Obstacle::new(Reason::Isolation, device, text);
            let file = "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";
            let help = format!("echo Y >{file}    # if you trust the program");
            self.add(obstacle.help(help));
        }
        if device.is_offered() && !modules.type1 && !modules.iommufd {
            let text = "containers have no backend: vfio_iommu_type1 is not loaded";
            let obstacle = Obstacle::new(Reason::NoBackend, device, text);
            self.add(obstacle.help("modprobe vfio_iommu_type1"));
        }
        if group.noiommu {
            let note = "no IOMMU confines its DMA: the program needs CAP_SYS_RAWIO, and can reach all memory";
            self.notes.push(note.to_owned());
        }
    }

    fn nodes(&mut self, group: &Group, user: Option<&User>) {
        if !self.device.is_offered() {
            return;
        }
        if group.node.is_none() && group.files.is_empty() {
            let text = format!("/dev/vfio/{} does not exist", group.node_name());
            let obstacle = Obstacle::new(Reason::NoNode, self.device, text);
            self.add(obstacle.help("udevadm trigger    # in a container, pass the node on to it"));
            return;
        }
        let Some(user) = user else { return };
        if let Some(node) = self.node_that_keeps_out(group, user) {
            let text = format!("{} may not open {}", user.name, node.path.display());
            let obstacle = Obstacle::new(Reason::Access, self.device, text);
            self.add(obstacle.help(format!("vfioctl allow {} {}", user.name, self.device.name)));
        }
    }

    /// Returns a node that a user may not open. The user needs the node of the group and that of
    /// containers, or a device file and that of IOMMUFD.
    fn node_that_keeps_out<'a>(&'a self, group: &'a Group, user: &User) -> Option<&'a Node> {
        let snapshot = self.snapshot;
        let keeps_out = |node: &&Node| !node.lets_in(user.uid, &user.gids);
        let ways = [
            (group.node.as_slice(), &snapshot.container),
            (group.files.as_slice(), &snapshot.iommufd),
        ];
        let mut first = None;
        for (nodes, owner) in ways {
            let all = nodes.iter().chain(owner);
            match all.filter(|_| !nodes.is_empty()).find(keeps_out) {
                None if !nodes.is_empty() => return None,
                found => first = first.or(found),
            }
        }
        first
    }

    fn memlock(&mut self, asker: &Asker) {
        let Some(limits) = &asker.limits else { return };
        let mut wanted = asker
            .memory
            .map(|memory| memory.saturating_add(limits.locked));
        if asker.is_program {
            wanted = wanted.max(memlock::exceeded_by(limits.pid, &asker.exceeded));
        }
        let soft = limits.soft.filter(|_| !limits.ipc_lock);
        match (wanted, soft) {
            (Some(wanted), Some(soft)) if wanted > soft => {
                let text = format!(
                    "{} ({}) may lock {}, and needs {}",
                    limits.command,
                    limits.pid,
                    size(soft),
                    size(wanted)
                );
                let obstacle = Obstacle::new(Reason::Memlock, self.device, text).pid(limits.pid);
                let obstacle = memlock::commands(limits, wanted)
                    .into_iter()
                    .fold(obstacle, Obstacle::help);
                self.add(obstacle);
            }
            (None, Some(soft)) => self.notes.push(format!(
                "the limit of locked memory is {}: a program without CAP_IPC_LOCK can map no more; \
                 --memory SIZE checks whether that is enough",
                size(soft)
            )),
            _ => {}
        }
    }
}
