// SPDX-License-Identifier: GPL-2.0

//! Carries out the plans of `bind` and `restore`.

use std::{
    path::PathBuf,
    process::Command, //
};

use anyhow::{
    Context,
    Result,
    bail, //
};

use super::{
    memory::Locked,
    store, //
};
use crate::{
    decide::plan::{
        self,
        Plan,
        Step, //
    },
    status::Failure,
    system::{
        Snapshot,
        System,
        link_name,
        read_text, //
    },
};

/// Carries out a plan of `bind`. If a step fails, restores the devices that were changed.
pub fn bind(system: &System, plan: &Plan, locked: &mut Locked<'_>) -> Result<()> {
    let Err(error) = run(system, &plan.steps, locked) else {
        return Ok(());
    };
    let snapshot = Snapshot::read(system);
    let mut failed = Vec::new();
    for device in plan
        .devices
        .iter()
        .filter_map(|name| snapshot.devices.get(name))
    {
        if !locked.memory.contains_key(&device.name) {
            continue;
        }
        let undo = plan::restore(&snapshot, device, &locked.memory);
        if let Err(error) = restore(system, &undo, locked) {
            failed.push(format!("{error:#}"));
        }
    }
    if failed.is_empty() {
        Err(error.context("nothing was changed"))
    } else {
        Err(error.context(format!("restoring failed, too: {}", failed.join("; "))))
    }
}

/// Carries out a plan of `restore`. If a step fails for a device, its driver is still remembered,
/// and the other devices are restored.
pub fn restore(system: &System, plan: &Plan, locked: &mut Locked<'_>) -> Result<()> {
    let mut failed: Vec<String> = Vec::new();
    let mut complaints = Vec::new();
    for step in &plan.steps {
        let hopeless = matches!(step, Step::Probe { .. } | Step::Forget { .. });
        if hopeless
            && step
                .device()
                .is_some_and(|device| failed.iter().any(|f| f == device))
        {
            continue;
        }
        if let Err(error) = run(system, std::slice::from_ref(step), locked) {
            failed.extend(step.device().map(str::to_owned));
            complaints.push(error);
        }
    }
    let mut complaints = complaints.into_iter();
    match complaints.next() {
        None => Ok(()),
        Some(first) => {
            // An error keeps its causes, and its exit status, if it is the only one.
            let others: Vec<String> = complaints.map(|error| format!("{error:#}")).collect();
            if others.is_empty() {
                return Err(first);
            }
            Err(first.context(others.join("; ")))
        }
    }
}

/// Carries out steps, in their order, until one fails.
fn run(system: &System, steps: &[Step], locked: &mut Locked<'_>) -> Result<()> {
    for step in steps {
        match step {
            Step::Load { driver, required } => load(system, driver, *required)?,
            Step::Remember { device, was } => {
                locked.memory.insert(device.clone(), was.clone());
                locked.save()?;
            }
            Step::Forget { device } => {
                locked.memory.remove(device);
                locked.save()?;
            }
            Step::Override {
                device,
                bus,
                driver,
            } => {
                let file = folder(bus, device).join("driver_override");
                // An empty line clears it; the kernel ignores an empty write.
                let text = driver.clone().unwrap_or_default() + "\n";
                store(system, file, &text)?;
            }
            Step::Unbind {
                device,
                bus,
                driver,
            } => store(
                system,
                format!("/sys/bus/{bus}/drivers/{driver}/unbind"),
                device,
            )?,
            Step::Probe {
                device,
                bus,
                driver,
            } => probe(system, bus, device, driver.as_deref())?,
        }
    }
    Ok(())
}

fn folder(bus: &str, device: &str) -> PathBuf {
    PathBuf::from(format!("/sys/bus/{bus}/devices/{device}"))
}

/// Loads the module of a driver, unless the driver is there.
fn load(system: &System, driver: &str, required: bool) -> Result<()> {
    let registered = || {
        let buses = system.names("/sys/bus");
        buses
            .iter()
            .any(|bus| system.exists(format!("/sys/bus/{bus}/drivers/{driver}")))
    };
    if registered() {
        return Ok(());
    }
    let ran = Command::new("modprobe").arg("--").arg(driver).output();
    if registered() || !required {
        return Ok(());
    }
    let output = ran.with_context(|| format!("running 'modprobe {driver}'"))?;
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() {
        bail!("'modprobe {driver}' succeeded, but there is no such driver");
    }
    Err(Failure::unsupported(format!(
        "'modprobe {driver}' failed: {complaint}"
    )))
}

/// Binds a device, and checks which driver it has got.
fn probe(system: &System, bus: &str, device: &str, wanted: Option<&str>) -> Result<()> {
    let ask = || store(system, format!("/sys/bus/{bus}/drivers_probe"), device);
    let bound = || link_name(&system.path(folder(bus, device)).join("driver"));
    let answer = ask();
    match (wanted, bound()) {
        (Some(wanted), Some(bound)) if wanted == bound => Ok(()),
        (Some(wanted), bound) => {
            let instead = match bound {
                Some(other) => format!("{other} was bound to it instead"),
                None => "no driver was bound to it; the kernel's log says why".to_owned(),
            };
            let error = anyhow::anyhow!("{wanted} did not take {device}: {instead}");
            match answer {
                Ok(()) => Err(error),
                Err(cause) => Err(cause.context(error)),
            }
        }
        (None, Some(driver)) if driver.starts_with("vfio") => {
            // Somebody has written the model to its new_id.
            forget_model(system, bus, device, &driver)?;
            store(
                system,
                format!("/sys/bus/{bus}/drivers/{driver}/unbind"),
                device,
            )?;
            ask()?;
            match bound() {
                Some(again) if again == driver => bail!(
                    "{driver} takes {device} again and again: unload it by 'modprobe -r {driver}'"
                ),
                _ => Ok(()),
            }
        }
        // No driver wants it, which is how it would be after a reboot.
        (None, _) => Ok(()),
    }
}

/// Removes the model of a device from those that somebody has added to a driver.
fn forget_model(system: &System, bus: &str, device: &str, driver: &str) -> Result<()> {
    let id = |name: &str| {
        let text = read_text(&system.path(folder(bus, device)).join(name)).unwrap_or_default();
        text.trim_start_matches("0x").to_owned()
    };
    let model = format!("{} {}", id("vendor"), id("device"));
    let file = format!("/sys/bus/{bus}/drivers/{driver}/remove_id");
    // There may be several entries. The write fails when there is none left.
    let mut removed = 0;
    while removed < 100 && store(system, &file, &model).is_ok() {
        removed += 1;
    }
    if removed == 0 {
        bail!("{driver} takes {device}, and its new_id does not have the model {model}");
    }
    Ok(())
}
