// SPDX-License-Identifier: GPL-2.0

//! Carries out the plans of `bind` and `restore`.

use std::{
    fs,
    path::PathBuf,
    process::Command, //
};

use anyhow::{
    Context,
    Result,
    bail, //
};

use super::{
    interrupt::Interrupt,
    memory::Locked,
    store, //
};
use crate::{
    decide::plan::{
        Before,
        Plan,
        Step, //
    },
    status::Failure,
    system::{
        System,
        devices::driver_override,
        host_use,
        link_name,
        read_text, //
    },
};

/// Carries out a plan of `bind`. If a step fails, or a signal arrives between two steps, the devices
/// get back what they had before it, which need not be what an earlier `bind` remembers.
pub fn bind(system: &System, plan: &Plan, locked: &mut Locked<'_>) -> Result<()> {
    let interrupt = Interrupt::new()?;
    let memory = locked.memory.clone();
    let steps = plan.steps.iter().try_for_each(|step| {
        interrupt.check()?;
        run(system, step, locked)
    });
    let Err(error) = steps else {
        return Ok(());
    };
    let mut failed = Vec::new();
    for before in plan.before.iter().rev() {
        let name = &before.device;
        match undo(system, before) {
            Ok(()) => match memory.get(name) {
                Some(was) => drop(locked.memory.insert(name.clone(), was.clone())),
                None => drop(locked.memory.remove(name)),
            },
            Err(error) => failed.push(format!(
                "{error:#}; 'vfioctl restore {name}' tries it again"
            )),
        }
    }
    if let Err(error) = locked.save() {
        failed.push(format!("{error:#}"));
    }
    if failed.is_empty() {
        Err(error.context("nothing was changed"))
    } else {
        Err(error.context(format!("undoing it failed, too: {}", failed.join("; "))))
    }
}

/// Gives a device back the driver and the `driver_override` that it had.
fn undo(system: &System, before: &Before) -> Result<()> {
    let (name, bus) = (&before.device, &before.bus);
    let set_override = |driver: Option<&str>| {
        let text = driver.unwrap_or_default().to_owned() + "\n";
        store(system, folder(bus, name).join("driver_override"), &text)
    };
    let device = system.path(folder(bus, name));
    let bound = link_name(&device.join("driver"));
    if bound != before.driver {
        set_override(before.driver.as_deref())?;
        if let Some(bound) = bound {
            unbind(system, bus, name, &bound)?;
        }
        if let Some(driver) = &before.driver {
            probe(system, bus, name, Some(driver))?;
        }
    }
    if driver_override(&device) != before.driver_override {
        set_override(before.driver_override.as_deref())?;
    }
    Ok(())
}

/// Carries out a plan of `restore`. If a step fails for a device, its driver is still remembered,
/// and the other devices are restored.
pub fn restore(system: &System, plan: &Plan, locked: &mut Locked<'_>) -> Result<()> {
    // A signal does not end it: what is half restored is of no use.
    let _interrupt = Interrupt::new()?;
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
        if let Err(error) = run(system, step, locked) {
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

/// Carries out a step.
fn run(system: &System, step: &Step, locked: &mut Locked<'_>) -> Result<()> {
    match step {
        Step::Load { driver, required } => load(system, driver, *required),
        Step::Remember { device, was } => {
            locked.memory.insert(device.clone(), was.clone());
            locked.save()
        }
        Step::Forget { device } => {
            locked.memory.remove(device);
            locked.save()
        }
        Step::Override {
            device,
            bus,
            driver,
        } => {
            let file = folder(bus, device).join("driver_override");
            // An empty line clears it; the kernel ignores an empty write.
            let text = driver.clone().unwrap_or_default() + "\n";
            store(system, file, &text)
        }
        Step::Unbind {
            device,
            bus,
            driver,
        } => unbind(system, bus, device, driver),
        Step::Probe {
            device,
            bus,
            driver,
        } => probe(system, bus, device, driver.as_deref()),
    }
}

fn unbind(system: &System, bus: &str, device: &str, driver: &str) -> Result<()> {
    // Somebody could mount a disk of the device after it was found unused.
    let path = system.path(folder(bus, device));
    let path = fs::canonicalize(&path).with_context(|| path.display().to_string())?;
    let _claims = host_use::claim(system, &system.usual(&path)).map_err(|disk| {
        Failure::refused(format!("the disk {disk} of {device} is in use by now"))
    })?;
    store(
        system,
        format!("/sys/bus/{bus}/drivers/{driver}/unbind"),
        device,
    )
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
    let complaint = complaint.replace('\n', "; ");
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
            unbind(system, bus, device, &driver)?;
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
