// SPDX-License-Identifier: GPL-2.0

//! `list`, the names of devices, and exit statuses.

use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    sync::atomic::{
        AtomicBool,
        Ordering, //
    },
    thread, //
};

use super::Case;
use crate::{
    Stack,
    machine::{
        DISK,
        EDU,
        NIC,
        NOBODY,
        SHARED,
        SIBLING,
        group,
        has_driver,
        store, //
    },
    program::{
        expect,
        vfioctl,
        vfioctl_as, //
    }, //
};

/// Returns the cases.
pub fn cases(stack: Stack) -> Vec<Case> {
    vec![
        (
            "list::devices_and_drivers",
            Box::new(move || devices(stack)),
        ),
        (
            "list::while_a_device_comes_and_goes",
            Box::new(while_devices_vanish),
        ),
        ("names::all_names_of_a_device", Box::new(names)),
        ("status::not_found_usage_permission", Box::new(statuses)),
    ]
}

fn devices(stack: Stack) -> Result<()> {
    let said = vfioctl("list")?.exits(0)?;
    for (device, kind, driver) in [
        (DISK, "NVMe disk", "nvme"),
        (SIBLING, "other", "virtio-pci"),
        (NIC, "network", "e1000e"),
    ] {
        let line = said.out.lines().find(|line| line.contains(device));
        let line = line.with_context(|| format!("expected a line with {device}:\n{}", said.out))?;
        ensure!(
            line.contains(kind) && line.contains(driver),
            "expected {kind} and {driver}: {line}"
        );
    }
    let list = vfioctl("list --json")?.exits(0)?.json()?;
    expect(&list["modules"], "vfio_in_rust", stack == Stack::Rust)?;
    expect(&list["modules"], "type1_in_rust", stack == Stack::Rust)?;
    expect(&list["modules"], "interrupt_remapping", true)?;
    let groups = list["groups"].as_array().context("expected groups")?;
    let number = group(SHARED)?;
    let shared = groups.iter().find(|group| group["id"] == number);
    let shared = shared.with_context(|| format!("expected group {number}"))?;
    expect(shared, "viable", false)?;
    expect(shared, "blocking", vec![SIBLING])?;
    let members = shared["members"].as_array().context("expected members")?;
    let names: Vec<_> = members
        .iter()
        .map(|member| member["name"].clone())
        .collect();
    ensure!(
        names == [SHARED, SIBLING],
        "expected both devices of the group: {names:?}"
    );
    expect(&members[1], "state", "host")
}

fn while_devices_vanish() -> Result<()> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let disturb = scope.spawn(|| {
            let mut rounds = 0;
            while !stop.load(Ordering::Relaxed) || rounds == 0 {
                store(format!("/sys/bus/pci/devices/{EDU}/remove"), "1")?;
                store("/sys/bus/pci/rescan", "1")?;
                rounds += 1;
            }
            Ok::<_, anyhow::Error>(rounds)
        });
        let list = || {
            for _ in 0..10 {
                vfioctl("list --json")?.exits(0)?.json()?;
                let why = vfioctl(&format!("why {EDU}"))?;
                let status = if why.err.contains("there is no device") {
                    3
                } else {
                    4
                };
                why.exits(status)?;
            }
            Ok::<_, anyhow::Error>(())
        };
        let listed = list();
        stop.store(true, Ordering::Relaxed);
        let disturbed = disturb
            .join()
            .map_err(|_| anyhow::anyhow!("the thread panicked"))?;
        listed.and(disturbed.map(|_| ()))
    })
}

fn names() -> Result<()> {
    let number = group(DISK)?.to_string();
    let path = format!("/sys/bus/pci/devices/{DISK}");
    for name in [DISK, "00:04.0", &number, &path] {
        let verdict = vfioctl(&format!("why {name} --json"))?.exits(4)?.json()?;
        expect(&verdict, "device", DISK)?;
    }
    Ok(())
}

fn statuses() -> Result<()> {
    for command in [
        "why 00:1e.7",
        "bind 4711",
        "holders x",
        "memlock 999999",
        "restore 00:1e.7",
    ] {
        vfioctl(command)?.exits(3)?.complains("there is no")?;
    }
    vfioctl("list --nonsense")?.exits(2)?;
    vfioctl("why")?.exits(2)?;
    vfioctl_as(NOBODY, &format!("bind {DISK}"))?
        .exits(5)?
        .complains("run it as root")?;
    vfioctl_as(NOBODY, "list")?.exits(0)?.says(DISK)?;
    has_driver(DISK, "nvme")
}
