// SPDX-License-Identifier: GPL-2.0

//! `mdev` and `peers`.

use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::fs::{
    self,
    File, //
};

use super::Case;
use crate::{
    Stack,
    machine::{
        DISK, //
    },
    program::{
        expect,
        vfioctl, //
    }, //
};

/// Returns the cases.
pub fn cases(stack: Stack) -> Vec<Case> {
    vec![
        ("mdev::create_and_remove", Box::new(move || mdev(stack))),
        (
            "peers::group_and_split",
            match stack {
                Stack::C => Box::new(no_peers),
                Stack::Rust => Box::new(peers),
            },
        ),
    ]
}

/// Returns a type of mediated device that the machine has, and its parent.
fn kind(stack: Stack) -> (&'static str, &'static str) {
    match stack {
        Stack::C => ("mtty-1", "mtty"),
        Stack::Rust => ("vgpu_p2p-p2p-1x", "vgpu_p2p"),
    }
}

fn mdev(stack: Stack) -> Result<()> {
    let (kind, parent) = kind(stack);
    let uuid = "7c0b5a46-0e30-4fa5-90d4-2d8c6f5e1a01";
    vfioctl("mdev types")?.exits(0)?.says(kind)?.says(parent)?;
    vfioctl("mdev list")?
        .exits(0)?
        .says("no mediated devices")?;
    vfioctl("mdev create nosuchtype")?.exits(3)?;
    vfioctl(&format!("mdev create {kind} --uuid x"))?.exits(2)?;
    vfioctl(&format!("mdev create {kind} --uuid {uuid}"))?
        .exits(0)?
        .says(uuid)?;
    vfioctl(&format!("mdev create {kind} --uuid {uuid}"))?.exits(4)?;
    let list = vfioctl("mdev list --json")?.exits(0)?.json()?;
    expect(&list[0], "name", uuid)?;
    expect(&list[0]["mdev"], "parent", parent)?;
    expect(&list[0]["mdev"], "type", kind)?;
    vfioctl(&format!("why {}", uuid.to_uppercase()))?.exits(0)?;
    vfioctl(&format!("bind {uuid}"))?
        .exits(0)?
        .says("already")?;
    let number = list[0]["group"].as_u64().context("expected a group")?;
    let open = File::options()
        .read(true)
        .write(true)
        .open(format!("/dev/vfio/{number}"))?;
    vfioctl(&format!("mdev remove {uuid}"))?
        .exits(4)?
        .complains("guest-vfioctl")?;
    drop(open);
    vfioctl(&format!("mdev remove {uuid}"))?.exits(0)?;
    let random = vfioctl(&format!("mdev create {kind} --parent {parent}"))?.exits(0)?;
    vfioctl(&format!("mdev remove {}", random.out.trim()))?.exits(0)?;
    vfioctl("mdev list")?
        .exits(0)?
        .says("no mediated devices")?;
    vfioctl(&format!("mdev remove {uuid}"))?.exits(3)?;
    vfioctl(&format!("mdev remove {DISK}"))?
        .exits(4)?
        .complains("no mediated device")?;
    Ok(())
}

fn create(kind: &str) -> Result<String> {
    let said = vfioctl(&format!("mdev create {kind}"))?.exits(0)?;
    Ok(said.out.trim().to_owned())
}

fn no_peers() -> Result<()> {
    let (a, b) = (create("mtty-1")?, create("mtty-1")?);
    vfioctl("peers list")?
        .exits(0)?
        .says("No device can have peers")?;
    vfioctl(&format!("peers group {a} {b}"))?
        .exits(6)?
        .complains("vfio.ko")?;
    vfioctl(&format!("mdev remove {a}"))?.exits(0)?;
    vfioctl(&format!("mdev remove {b}"))?.exits(0)?;
    Ok(())
}

fn peers() -> Result<()> {
    let (a, b) = (create("vgpu_p2p-p2p-1x")?, create("vgpu_p2p-p2p-1x")?);
    let groups = || {
        let list = vfioctl("mdev list --json")?.exits(0)?.json()?;
        Ok::<_, anyhow::Error>((list[0]["group"].clone(), list[1]["group"].clone()))
    };
    let apart = |(first, second)| first != second;
    ensure!(apart(groups()?), "expected two groups at first");
    vfioctl(&format!("peers group {a} {b}"))?
        .exits(0)?
        .says(&a)?;
    ensure!(!apart(groups()?), "expected one group");
    let list = vfioctl("peers list --json")?.exits(0)?.json()?;
    ensure!(
        list.as_object().is_some_and(|groups| groups.len() == 1),
        "expected one group:\n{list:#}"
    );
    vfioctl(&format!("peers split {b}"))?.exits(0)?;
    ensure!(apart(groups()?), "expected two groups in the end");
    let other = create("vgpu_c-p2p-1x")?;
    let attribute = format!("/sys/bus/mdev/devices/{other}/peer_to_peer_resource_uuid");
    let before = fs::read_to_string(&attribute)?;
    vfioctl(&format!("peers group {a} {b} {other}"))?
        .exits(4)?
        .complains("can't share a group")?;
    let after = fs::read_to_string(&attribute)?;
    ensure!(after == before, "expected the former UUID");
    vfioctl(&format!("mdev remove {other}"))?.exits(0)?;
    ensure!(apart(groups()?), "expected that nothing was changed");
    for device in [a, b] {
        vfioctl(&format!("mdev remove {device}"))?.exits(0)?;
    }
    Ok(())
}
