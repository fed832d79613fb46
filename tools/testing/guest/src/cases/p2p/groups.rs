// SPDX-License-Identifier: GPL-2.0

//! Reading and writing `peer_to_peer_resource_uuid`.

use super::{
    node_exists,
    open,
    peers,
    two, //
};
use crate::harness::{
    Failure,
    cases, //
};
use anyhow::{
    Result,
    ensure, //
};
use std::{
    fs,
    os::unix::fs::PermissionsExt, //
};
use vfio_client::{
    Errno,
    mdev::type_folder_of, //
};
use vgpu_copy::{
    Kind,
    Mdev,
    new_uuid, //
};

cases! {
    attribute_exists_for_peer_types_only,
    initial_uuid_is_random,
    uuid_is_shown_in_lower_case,
    malformed_uuid,
    same_uuid_again,
    uuid_of_peer_joins_its_group,
    new_uuid_for_both_joins_groups,
    new_uuid_splits_group,
    last_member_removes_group,
    removed_member_keeps_other_members,
    busy_while_the_group_is_open,
    busy_while_in_a_container,
    busy_while_a_device_is_open,
    parent_refuses_a_ninth_peer,
    devices_of_another_parent_get_another_group,
}

/// Asserts that a write fails and changes nothing.
#[track_caller]
fn refused(mdev: &Mdev, value: &str, why: Errno) -> Result<()> {
    let before = (mdev.peer_uuid()?, mdev.group_number()?);
    assert_eq!(mdev.set_peer_uuid(value).errno(), why, "{value:?}");
    assert_eq!((mdev.peer_uuid()?, mdev.group_number()?), before);
    Ok(())
}

fn attribute_exists_for_peer_types_only() -> Result<()> {
    let peer = Mdev::with_new_uuid(Kind::Single)?;
    let isolated = Mdev::with_new_uuid(Kind::Isolated)?;
    assert!(!isolated.peer_file().exists());
    let mode = fs::metadata(peer.peer_file())?.permissions().mode();
    assert_eq!(mode & 0o7777, 0o644);
    Ok(())
}

fn initial_uuid_is_random() -> Result<()> {
    let [a, b] = two()?;
    let (first, second) = (a.peer_uuid()?, b.peer_uuid()?);
    assert_ne!(first, second);
    for uuid in [first, second] {
        ensure!(uuid != a.uuid() && uuid != b.uuid());
        assert_eq!(&uuid[14..15], "4", "not a random UUID: {uuid}");
        assert!("89ab".contains(&uuid[19..20]), "not a random UUID: {uuid}");
    }
    assert_ne!(a.group_number()?, b.group_number()?);
    Ok(())
}

fn uuid_is_shown_in_lower_case() -> Result<()> {
    let mdev = Mdev::with_new_uuid(Kind::Single)?;
    let uuid = new_uuid()?;
    mdev.set_peer_uuid(&format!("{}\n", uuid.to_uppercase()))?;
    assert_eq!(fs::read_to_string(mdev.peer_file())?, format!("{uuid}\n"));
    Ok(())
}

fn malformed_uuid() -> Result<()> {
    let mdev = Mdev::with_new_uuid(Kind::Single)?;
    let uuid = new_uuid()?;
    let long = "a".repeat(4096);
    for text in [
        "\n",
        "x",
        &uuid[1..],
        &format!("{uuid}0"),
        &format!("{uuid}\n\n"),
        &format!(" {uuid}"),
        &format!("{{{uuid}}}"),
        &uuid.replace('-', "_"),
        &uuid.replace('-', ""),
        &format!("g{}", &uuid[1..]),
        &long,
    ] {
        refused(&mdev, text, Errno::EINVAL)?;
    }
    Ok(())
}

fn same_uuid_again() -> Result<()> {
    let [a, b] = peers()?;
    let group = a.group_number()?;
    for mdev in [&a, &b] {
        mdev.set_peer_uuid(&mdev.peer_uuid()?)?;
        assert_eq!(mdev.group_number()?, group);
    }
    // This succeeds even while the device is in use, because nothing changes.
    let _open = open(&a)?;
    a.set_peer_uuid(&b.peer_uuid()?)?;
    Ok(())
}

fn uuid_of_peer_joins_its_group() -> Result<()> {
    let [a, b] = two()?;
    let (old, new) = (b.group_number()?, a.group_number()?);
    b.set_peer_uuid(&a.peer_uuid()?)?;
    assert_eq!(b.group_number()?, new);
    assert_eq!(a.group_number()?, new);
    assert!(node_exists(new) && !node_exists(old));
    Ok(())
}

fn new_uuid_for_both_joins_groups() -> Result<()> {
    let [a, b] = two()?;
    let uuid = new_uuid()?;
    a.set_peer_uuid(&uuid)?;
    assert_ne!(a.group_number()?, b.group_number()?);
    b.set_peer_uuid(&uuid)?;
    assert_eq!(a.group_number()?, b.group_number()?);
    let (_container, group) = a.attach()?;
    group.device(a.uuid())?;
    group.device(b.uuid())?;
    Ok(())
}

fn new_uuid_splits_group() -> Result<()> {
    let [a, b] = peers()?;
    a.set_peer_uuid(&new_uuid()?)?;
    assert_ne!(a.group_number()?, b.group_number()?);
    for (mdev, other) in [(&a, &b), (&b, &a)] {
        let (_container, group) = mdev.attach()?;
        group.device(mdev.uuid())?;
        let refusal = group.device(other.uuid()).err();
        assert_eq!(refusal.map(|error| error.errno()), Some(Errno::ENODEV));
    }
    Ok(())
}

fn last_member_removes_group() -> Result<()> {
    let [a, b] = peers()?;
    let group = a.group_number()?;
    drop(a);
    assert!(node_exists(group));
    drop(b);
    assert!(!node_exists(group));
    Ok(())
}

fn removed_member_keeps_other_members() -> Result<()> {
    let [a, b] = peers()?;
    let (device, group, _container) = open(&b)?;
    assert_eq!(device.peers()?, 2);
    drop(a);
    assert_eq!(device.peers()?, 1);
    assert!(device.identified()?);
    drop(group);
    Ok(())
}

fn busy_while_the_group_is_open() -> Result<()> {
    let [a, b] = two()?;
    let fresh = new_uuid()?;
    {
        let _group = a.group()?;
        refused(&a, &fresh, Errno::EBUSY)?;
        refused(&a, &b.peer_uuid()?, Errno::EBUSY)?;
        refused(&b, &a.peer_uuid()?, Errno::EBUSY)?;
        // The group of `b` is not open, so `b` can be moved.
        b.set_peer_uuid(&fresh)?;
    }
    b.set_peer_uuid(&a.peer_uuid()?)?;
    Ok(())
}

fn busy_while_in_a_container() -> Result<()> {
    let [a, b] = two()?;
    let attached = a.attach()?;
    refused(&a, &b.peer_uuid()?, Errno::EBUSY)?;
    refused(&b, &a.peer_uuid()?, Errno::EBUSY)?;
    drop(attached);
    b.set_peer_uuid(&a.peer_uuid()?)?;
    Ok(())
}

fn busy_while_a_device_is_open() -> Result<()> {
    let [a, b] = peers()?;
    let c = Mdev::with_new_uuid(Kind::Single)?;
    let (device, group, container) = open(&a)?;
    // Only the device holds the group.
    drop(group);
    drop(container);
    refused(&a, &new_uuid()?, Errno::EBUSY)?;
    refused(&b, &new_uuid()?, Errno::EBUSY)?;
    refused(&c, &a.peer_uuid()?, Errno::EBUSY)?;
    drop(device);
    c.set_peer_uuid(&a.peer_uuid()?)?;
    assert_eq!(c.group_number()?, b.group_number()?);
    Ok(())
}

fn parent_refuses_a_ninth_peer() -> Result<()> {
    let devices = (0..9)
        .map(|_| Mdev::with_new_uuid(Kind::Single))
        .collect::<vfio_client::Result<Vec<_>>>()?;
    let uuid = devices[0].peer_uuid()?;
    for mdev in &devices[1..8] {
        mdev.set_peer_uuid(&uuid)?;
    }
    refused(&devices[8], &uuid, Errno::ENOSPC)
}

/// The second parent is `vgpu_p2p.1`.
fn devices_of_another_parent_get_another_group() -> Result<()> {
    let [a, b] = peers()?;
    let folder = type_folder_of("vgpu_p2p.1", Kind::Single.as_ref());
    let other = Mdev::in_folder(&folder, &new_uuid()?)?;
    other.set_peer_uuid(&a.peer_uuid()?)?;
    assert_eq!(other.peer_uuid()?, a.peer_uuid()?);
    assert_ne!(other.group_number()?, a.group_number()?);
    assert_eq!(b.group_number()?, a.group_number()?);
    // On its own card, a device joins.
    let second = Mdev::in_folder(&folder, &new_uuid()?)?;
    second.set_peer_uuid(&a.peer_uuid()?)?;
    assert_eq!(second.group_number()?, other.group_number()?);
    // Each group can be open on its own.
    let first = open(&a)?;
    let _second = open(&other)?;
    refused(&b, &new_uuid()?, Errno::EBUSY)?;
    drop(first);
    b.set_peer_uuid(&new_uuid()?)?;
    refused(&second, &new_uuid()?, Errno::EBUSY)
}
