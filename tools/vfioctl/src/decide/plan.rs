// SPDX-License-Identifier: GPL-2.0

//! What `bind` and `restore` do.

use std::collections::BTreeMap;

use serde::{
    Deserialize,
    Serialize, //
};

use super::why::{
    self,
    Obstacle, //
};
use crate::system::{
    Snapshot,
    devices::{
        Device,
        Group, //
    },
    host_use::HostUse, //
};

/// What `bind` remembers of a device.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Remembered {
    /// The driver that was bound to it.
    pub driver: Option<String>,
    /// The driver that was demanded by `driver_override`.
    pub driver_override: Option<String>,
    /// The model, to notice that another device has taken its address.
    pub model: Option<String>,
}

/// The devices that `bind` has taken from their drivers, by name.
pub type Memory = BTreeMap<String, Remembered>;

/// One step.
#[derive(Clone, Debug, Serialize, PartialEq, Eq)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Load the module of a driver.
    Load {
        /// The driver.
        driver: String,
        /// Whether the next steps make no sense without it.
        required: bool,
    },
    /// Remember what was bound to a device.
    Remember {
        /// The device.
        device: String,
        /// What to remember.
        was: Remembered,
    },
    /// Set or clear `driver_override`.
    Override {
        /// The device.
        device: String,
        /// Its bus.
        bus: String,
        /// The only driver that may be bound to it from now on.
        driver: Option<String>,
    },
    /// Unbind a device from its driver.
    Unbind {
        /// The device.
        device: String,
        /// Its bus.
        bus: String,
        /// The driver.
        driver: String,
    },
    /// Bind a device.
    Probe {
        /// The device.
        device: String,
        /// Its bus.
        bus: String,
        /// The driver that must be bound to it afterwards; `None` if any but a VFIO driver may be.
        driver: Option<String>,
    },
    /// Forget what was bound to a device.
    Forget {
        /// The device.
        device: String,
    },
}

impl Step {
    /// Returns the device that the step is about.
    pub fn device(&self) -> Option<&str> {
        match self {
            Self::Load { .. } => None,
            Self::Remember { device, .. }
            | Self::Override { device, .. }
            | Self::Unbind { device, .. }
            | Self::Probe { device, .. }
            | Self::Forget { device } => Some(device),
        }
    }

    /// Returns the shell command that does the same, if there is one.
    pub fn command(&self) -> Option<String> {
        let folder = |bus: &str| format!("/sys/bus/{bus}");
        match self {
            Self::Load { driver, .. } => Some(format!("modprobe {driver}")),
            Self::Override {
                device,
                bus,
                driver,
            } => {
                let file = format!("{}/devices/{device}/driver_override", folder(bus));
                let text = driver.as_deref().map(|driver| format!("{driver} "));
                Some(format!("echo {}>{file}", text.unwrap_or_default()))
            }
            Self::Unbind {
                device,
                bus,
                driver,
            } => Some(format!(
                "echo {device} >{}/drivers/{driver}/unbind",
                folder(bus)
            )),
            Self::Probe { device, bus, .. } => {
                Some(format!("echo {device} >{}/drivers_probe", folder(bus)))
            }
            Self::Remember { .. } | Self::Forget { .. } => None,
        }
    }
}

/// What a device has before a plan is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// The device.
    pub device: String,
    /// Its bus.
    pub bus: String,
    /// Its driver.
    pub driver: Option<String>,
    /// The driver that is demanded by `driver_override`.
    pub driver_override: Option<String>,
}

/// What to do, or why not.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The devices that change their driver.
    pub devices: Vec<String>,
    /// What these devices have now.
    pub before: Vec<Before>,
    /// What to do.
    pub steps: Vec<Step>,
    /// Why not to do it.
    pub refusals: Vec<Obstacle>,
    /// Whether `--force` would overcome all of `refusals`.
    pub can_be_forced: bool,
    /// Remarks.
    pub notes: Vec<String>,
}

/// Returns the devices that are bound or restored with a device: its group without bridges.
pub fn together<'a>(snapshot: &'a Snapshot, device: &'a Device) -> Vec<&'a Device> {
    match snapshot.group_of(device) {
        Some(group) => snapshot.members(group).filter(|d| !d.is_bridge()).collect(),
        None => vec![device],
    }
}

/// Plans to bind a device and its group to VFIO. `driver` is that of the user's choice for the
/// device itself. `force` allows to take away the console and network interfaces.
pub fn bind(
    snapshot: &Snapshot,
    device: &Device,
    driver: Option<&str>,
    force: bool,
    memory: &Memory,
) -> Plan {
    let mut plan = Plan {
        can_be_forced: true,
        ..Plan::default()
    };
    for member in together(snapshot, device) {
        let chosen = driver.filter(|_| member.name == device.name);
        let Some(target) = chosen.or(member.vfio_driver()) else {
            continue;
        };
        let bound = member.driver.as_deref();
        if bound == Some(target) || (chosen.is_none() && member.is_offered()) {
            continue;
        }
        plan.refuse_uses(snapshot, member, force);
        if member.is_offered() {
            // Another VFIO driver; it can't be taken away from a program.
            let group = snapshot.group_of(member);
            let open = group.map(|group| why::open_files(snapshot, member, group));
            let open = open.unwrap_or_default();
            plan.can_be_forced &= open.is_empty();
            plan.refusals.extend(open);
        }
        plan.add_bind(member, target, memory);
    }
    plan
}

/// Returns what the host uses of devices: what must not be taken away, and what `force` takes away.
pub fn in_use(snapshot: &Snapshot, devices: &[&Device], force: bool) -> Plan {
    let mut plan = Plan {
        can_be_forced: true,
        ..Plan::default()
    };
    for device in devices {
        plan.refuse_uses(snapshot, device, force);
    }
    plan
}

impl Plan {
    /// Refuses to take a device that the host uses. With `force`, some uses are only remarked.
    fn refuse_uses(&mut self, snapshot: &Snapshot, device: &Device, force: bool) {
        for used in snapshot.uses_of(&device.name) {
            self.can_be_forced &= !used.resists_force();
            if used.resists_force() || !force {
                self.refusals.push(why::host_use(device, used));
            } else {
                let note = format!("{}: {}", device.name, used.describe());
                self.notes.push(note);
            }
        }
    }

    fn add_bind(&mut self, device: &Device, target: &str, memory: &Memory) {
        let (name, bus) = (device.name.clone(), device.bus.clone());
        let load = Step::Load {
            driver: target.to_owned(),
            required: true,
        };
        if !self.steps.contains(&load) {
            self.steps.push(load);
        }
        // What an earlier bind remembers is still what to restore, unless the device has got
        // another driver since then.
        let known = memory.get(&name).filter(|was| was.model == device.model());
        if known.is_none() || (device.driver.is_some() && !device.is_offered()) {
            self.steps.push(Step::Remember {
                device: name.clone(),
                was: Remembered {
                    driver: device.driver.clone(),
                    driver_override: device.driver_override.clone(),
                    model: device.model(),
                },
            });
        }
        if let Some(stale) = device.driver_override.as_deref().filter(|d| *d != target) {
            self.notes
                .push(format!("{name}: driver_override was {stale}"));
        }
        self.steps.push(Step::Override {
            device: name.clone(),
            bus: bus.clone(),
            driver: Some(target.to_owned()),
        });
        self.steps
            .extend(device.driver.clone().map(|driver| Step::Unbind {
                device: name.clone(),
                bus: bus.clone(),
                driver,
            }));
        self.steps.push(Step::Probe {
            device: name.clone(),
            bus,
            driver: Some(target.to_owned()),
        });
        self.before.push(Before {
            device: name.clone(),
            bus: device.bus.clone(),
            driver: device.driver.clone(),
            driver_override: device.driver_override.clone(),
        });
        self.devices.push(name);
    }

    fn add_restore(&mut self, device: &Device, was: Option<&Remembered>) {
        let (name, bus) = (device.name.clone(), device.bus.clone());
        let set_override = |driver: Option<String>| Step::Override {
            device: name.clone(),
            bus: bus.clone(),
            driver,
        };
        let last = was.and_then(|was| {
            let demanded = was.driver_override.clone();
            // An override that named another driver than the one that was bound was a leftover.
            demanded.filter(|demanded| was.driver.as_ref() == Some(demanded))
        });
        let vfio = device.driver.clone().filter(|_| is_ours(device));
        let wanted = was.and_then(|was| was.driver.clone());
        let has_it = device.driver.is_some() && vfio.is_none();
        if let Some(driver) = wanted.clone().filter(|_| !has_it) {
            self.steps.push(Step::Load {
                driver: driver.clone(),
                required: false,
            });
            // Without it, a driver to whose `new_id` somebody has written could take the device.
            self.steps.push(set_override(Some(driver)));
        } else {
            self.steps.push(set_override(None));
        }
        self.steps.extend(vfio.map(|driver| Step::Unbind {
            device: name.clone(),
            bus: bus.clone(),
            driver,
        }));
        let had_none = was.is_some_and(|was| was.driver.is_none());
        if !has_it && !had_none {
            self.steps.push(Step::Probe {
                device: name.clone(),
                bus: bus.clone(),
                driver: wanted.clone(),
            });
        }
        if (wanted.is_some() && !has_it) || last.is_some() {
            self.steps.push(set_override(last));
        }
        if was.is_some() {
            let device = name.clone();
            self.steps.push(Step::Forget { device });
        }
        self.devices.push(name);
    }
}

/// Returns whether a VFIO driver is bound to a device that drivers can be chosen for.
fn is_ours(device: &Device) -> bool {
    device.vfio_driver().is_some()
        && (device.is_offered() || device.driver.as_deref() == device.vfio_driver())
}

/// Plans to give a device and its group back to their drivers.
pub fn restore(snapshot: &Snapshot, device: &Device, memory: &Memory) -> Plan {
    let mut plan = Plan::default();
    let group: Option<&Group> = snapshot.group_of(device);
    let members = together(snapshot, device);
    for member in members {
        let was = memory.get(&member.name);
        let was = was.filter(|was| was.model == member.model());
        if was.is_some() || is_ours(member) {
            plan.add_restore(member, was);
        }
    }
    if let Some(group) = group.filter(|_| !plan.devices.is_empty()) {
        plan.refusals = why::open_files(snapshot, device, group);
    }
    // What vanishes with a device must not be in use, either.
    let unbound = plan.steps.iter().filter_map(|step| match step {
        Step::Unbind { device, .. } => snapshot.devices.get(device),
        _ => None,
    });
    for member in unbound {
        let uses = snapshot.uses_of(&member.name).iter();
        let below = uses.filter(|used| matches!(used, HostUse::InUse { .. }) || used.is_storage());
        plan.refusals
            .extend(below.map(|used| why::host_use(member, used)));
    }
    plan
}
