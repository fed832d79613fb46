// SPDX-License-Identifier: GPL-2.0

//! Virtual machines with devices of three drivers and of several parents. A script gives all devices
//! of a machine one UUID, and knows nothing else about them.

use crate::harness::{
    Failure,
    cases, //
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    collections::BTreeSet,
    fs,
    process::Command as Process, //
};
use vfio_client::{
    Container,
    Errno,
    Group,
    mdev::type_folder_of, //
};
use vgpu_copy::{
    Command,
    Mdev,
    Operands,
    Status,
    Vgpu,
    new_uuid, //
};

cases! {
    machines_with_devices_of_three_drivers,
    script_fails_for_a_device_in_use,
    a_uuid_has_a_group_for_each_driver_and_parent,
    busy_group_does_not_delay_devices_of_other_drivers,
}

const SCRIPT: &str = include_str!("machine.sh");

/// Runs the script. Returns whether it succeeded.
fn script(words: &[&str], devices: &[&Mdev]) -> Result<bool> {
    let devices = devices.iter().map(|device| device.uuid());
    let status = Process::new("sh")
        .args(["-c", SCRIPT, "machine.sh"])
        .args(words)
        .args(devices)
        .status()
        .context("sh")?;
    Ok(status.success())
}

/// Creates a device of a card of the driver in Rust, or in C.
fn device(parent: &str, kind: &str) -> Result<Mdev> {
    let driver = parent.split('.').next().unwrap_or(parent);
    let folder = type_folder_of(parent, &format!("{driver}-{kind}"));
    Ok(Mdev::in_folder(&folder, &new_uuid()?)?)
}

/// The devices of a machine. Those that can be peers form one group for each of the first three
/// pairs.
struct Machine {
    uuid: String,
    pairs: [[Mdev; 2]; 3],
    alone: [Mdev; 3],
}

impl Machine {
    fn new() -> Result<Self> {
        let pair =
            |parent| -> Result<_> { Ok([device(parent, "p2p-1x")?, device(parent, "p2p-2x")?]) };
        Ok(Self {
            uuid: new_uuid()?,
            pairs: [pair("vgpu_p2p")?, pair("vgpu_p2p.1")?, pair("vgpu_c")?],
            alone: [
                device("mdev_null", "page")?,
                device("vgpu_p2p", "isolated")?,
                device("vgpu_c", "isolated")?,
            ],
        })
    }

    /// Returns the devices in an order in which those of one driver do not follow each other.
    fn devices(&self) -> Vec<&Mdev> {
        let [a, b, c] = &self.pairs;
        let [null, rust, isolated] = &self.alone;
        vec![
            &a[0], null, &b[0], &c[0], rust, &b[1], isolated, &a[1], &c[1],
        ]
    }

    fn start(&self) -> Result<Running<'_>> {
        ensure!(script(&["start", &self.uuid], &self.devices())?, "start");
        Running::new(self)
    }

    fn stop(&self) -> Result<()> {
        ensure!(script(&["stop"], &self.devices())?, "stop");
        let peers = self.pairs.iter().flatten();
        let groups = peers.map(Mdev::group_number);
        let groups = groups.collect::<vfio_client::Result<BTreeSet<_>>>()?;
        assert_eq!(groups.len(), 6, "each device has a group of its own again");
        Ok(())
    }

    /// Checks that each pair has a group, which sysfs shows.
    fn assert_grouped(&self) -> Result<()> {
        let mut numbers = BTreeSet::new();
        for [a, b] in &self.pairs {
            assert_eq!(a.group_number()?, b.group_number()?);
            assert!(numbers.insert(a.group_number()?), "two pairs share a group");
        }
        for device in self.pairs.iter().flatten() {
            assert_eq!(device.peer_uuid()?, self.uuid);
            assert_eq!(groups_of(device)?, numbers);
        }
        for device in &self.alone {
            assert!(!device.peer_file().exists());
            assert!(!groups_file(device).exists());
            assert!(numbers.insert(device.group_number()?));
        }
        Ok(())
    }
}

fn groups_file(device: &Mdev) -> std::path::PathBuf {
    device.folder().join("peer_to_peer_groups")
}

/// Returns the groups of all devices with the UUID of `device`.
fn groups_of(device: &Mdev) -> Result<BTreeSet<u32>> {
    let text = fs::read_to_string(groups_file(device))?;
    let numbers = text.split_whitespace().map(str::parse);
    Ok(numbers.collect::<Result<_, _>>()?)
}

/// A machine whose devices are open, in one container. The fields are in the order in which they
/// must be dropped.
struct Running<'a> {
    pairs: Vec<[Vgpu; 2]>,
    _groups: Vec<Group>,
    _container: Container,
    machine: &'a Machine,
}

impl<'a> Running<'a> {
    fn new(machine: &'a Machine) -> Result<Self> {
        machine.assert_grouped()?;
        let mut container = None;
        let (mut pairs, mut groups) = (Vec::new(), Vec::new());
        let first_of_pairs = machine.pairs.iter().map(|pair| &pair[0]);
        for device in first_of_pairs.chain(&machine.alone) {
            let group = match &container {
                None => {
                    let (new, group) = device.attach()?;
                    container = Some(new);
                    group
                }
                Some(container) => {
                    let group = device.group()?;
                    group.set_container(container)?;
                    group
                }
            };
            groups.push(group);
        }
        for (group, [a, b]) in groups.iter().zip(&machine.pairs) {
            pairs.push([Vgpu::open(group, a)?, Vgpu::open(group, b)?]);
        }
        for (group, device) in groups[machine.pairs.len()..].iter().zip(&machine.alone) {
            group.device(device.uuid())?;
        }
        Ok(Self {
            pairs,
            _groups: groups,
            _container: container.context("no group")?,
            machine,
        })
    }

    /// Copies from each device to each other one. That works within the pairs only.
    fn assert_peers(&self) -> Result<()> {
        for (from, source) in self.pairs.iter().flatten().enumerate() {
            source.memory().write(0, &[from as u8 + 1; 64]);
            let peer = self.machine.pairs[from / 2][from % 2].uuid_bytes();
            for (to, target) in self.pairs.iter().flatten().enumerate() {
                if from == to {
                    continue;
                }
                let operands = Operands {
                    offset: 4096,
                    length: 64,
                    peer,
                    ..Operands::default()
                };
                let status = target.run(Command::CopyFromPeer, &operands)?;
                let expected = if from / 2 == to / 2 {
                    assert_eq!(target.memory().to_vec(4096, 64), [from as u8 + 1; 64]);
                    Status::Done
                } else {
                    Status::NoPeer
                };
                assert_eq!(status, expected, "from {from} to {to}");
            }
        }
        for pair in &self.pairs {
            assert_eq!(pair[0].peers()?, 2);
            assert!(pair[0].link()?.is_some());
            assert_eq!(pair[0].link()?, pair[1].link()?);
        }
        Ok(())
    }
}

fn machines_with_devices_of_three_drivers() -> Result<()> {
    let machines = [Machine::new()?, Machine::new()?];
    for _ in 0..3 {
        let running = [machines[0].start()?, machines[1].start()?];
        running[0].assert_peers()?;
        running[1].assert_peers()?;
        let [first, second] = running;
        drop(first);
        machines[0].stop()?;
        // The other machine goes on.
        second.assert_peers()?;
        second.machine.assert_grouped()?;
        drop(second);
        machines[1].stop()?;
    }
    Ok(())
}

/// The device in use is neither the first one nor the last one, so the script changes devices before
/// it fails, and does not go on after that.
fn script_fails_for_a_device_in_use() -> Result<()> {
    let machine = Machine::new()?;
    ensure!(script(&["start", &machine.uuid], &machine.devices())?);
    machine.assert_grouped()?;
    let [a, b, c] = &machine.pairs;
    let open = c[1].open()?;
    let other = new_uuid()?;
    for words in [&["start", &other][..], &["stop"]] {
        ensure!(!script(words, &machine.devices())?, "{words:?} in use");
        for changed in [&a[0], &b[0]] {
            assert_ne!(changed.peer_uuid()?, machine.uuid);
            assert_eq!(changed.peer_uuid()? == other, words[0] == "start");
        }
        for unchanged in [&a[1], &b[1], &c[0], &c[1]] {
            assert_eq!(unchanged.peer_uuid()?, machine.uuid);
        }
        assert_eq!(c[0].group_number()?, c[1].group_number()?);
        // The script can start again, because the device in use has the UUID already.
        ensure!(script(&["start", &machine.uuid], &machine.devices())?);
        machine.assert_grouped()?;
    }
    drop(open);
    let running = Running::new(&machine)?;
    running.assert_peers()?;
    // To start what runs already changes nothing.
    ensure!(script(&["start", &machine.uuid], &machine.devices())?);
    running.assert_peers()?;
    drop(running);
    machine.stop()
}

fn a_uuid_has_a_group_for_each_driver_and_parent() -> Result<()> {
    let uuid = new_uuid()?;
    let mut groups = BTreeSet::new();
    let mut devices = Vec::new();
    for (index, parent) in ["vgpu_p2p", "vgpu_p2p.1", "vgpu_c"].into_iter().enumerate() {
        for _ in 0..3 {
            let device = device(parent, "p2p-1x")?;
            assert_eq!(
                groups_of(&device)?,
                BTreeSet::from([device.group_number()?])
            );
            device.set_peer_uuid(&uuid)?;
            groups.insert(device.group_number()?);
            assert_eq!(groups.len(), index + 1);
            assert_eq!(groups_of(&device)?, groups);
            devices.push(device);
        }
    }
    // A group goes with its last device. The others stay, and a device can come back.
    let mut rest = devices.split_off(6);
    for device in rest.drain(1..) {
        device.remove()?;
        device.keep();
    }
    assert_eq!(groups_of(&devices[0])?, groups);
    rest[0].set_peer_uuid(&new_uuid()?)?;
    assert_eq!(groups_of(&devices[0])?.len(), 2);
    rest[0].set_peer_uuid(&uuid)?;
    assert_eq!(groups_of(&devices[0])?.len(), 3);
    Ok(())
}

/// A machine runs, and gets one more device of another driver.
fn busy_group_does_not_delay_devices_of_other_drivers() -> Result<()> {
    let uuid = new_uuid()?;
    let first = device("vgpu_p2p", "p2p-1x")?;
    first.set_peer_uuid(&uuid)?;
    let _open = first.open()?;
    let second = device("vgpu_p2p", "p2p-1x")?;
    assert_eq!(second.set_peer_uuid(&uuid).errno(), Errno::EBUSY);
    for parent in ["vgpu_p2p.1", "vgpu_c"] {
        let other = device(parent, "p2p-1x")?;
        other.set_peer_uuid(&uuid)?;
        drop(other.open()?);
    }
    Ok(())
}
