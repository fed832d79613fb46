// SPDX-License-Identifier: GPL-2.0

//! Group requests that only the Rust modules have: listing the devices of a group and their users,
//! and sharing one address space among groups.
//!
//! On the C modules each of these requests must be unknown.

use crate::{
    env::{
        EDU,
        NVME,
        SHARED,
        SIBLING,
        attached,
        group, //
    },
    harness::{
        Failure,
        cases, //
    },
    helper::{
        receive,
        send,
        sockets, //
    },
    threads,
};
use anyhow::{
    Context,
    Result, //
};
use nix::unistd::{
    close,
    getpid, //
};
use std::{
    fs::File,
    os::fd::{
        AsFd,
        AsRawFd,
        OwnedFd, //
    },
    time::{
        Duration,
        Instant, //
    },
};
use support::helper::Helper;
use vfio_client::{
    Bytes,
    Container,
    Device,
    Errno,
    Group,
    Iommu,
    Iommufd,
    MapFlags,
    Memory,
    PAGE_SIZE,
    edu::{
        self,
        Edu, //
    },
    pci,
    raw,
    request, //
};
use zerocopy::{
    FromBytes,
    Immutable,
    IntoBytes, //
};

cases! {
    #[requires(core(C))] c_core_lacks_these_requests,
    #[requires(core(Rust))] get_devices_of_single_device_group,
    #[requires(core(Rust))] get_devices_of_shared_group,
    #[requires(core(Rust))] get_devices_reports_holder,
    #[requires(core(Rust), pid_namespaces)] get_devices_reports_holder_by_pid_namespace,
    #[requires(core(Rust))] get_devices_omits_process_that_has_exited,
    #[requires(core(Rust), device_files)] get_devices_of_device_file,
    #[requires(core(Rust))] get_devices_argsz,
    #[requires(core(Rust))] get_devices_beside_resets,
    #[requires(core(Rust))] debugfs_matches_get_devices,
    #[requires(core(Rust))] get_iommu_fd_creates_container,
    #[requires(core(Rust))] get_iommu_fd_twice_returns_same_container,
    #[requires(core(Rust))] get_iommu_fd_refuses_opened_container,
    #[requires(core(Rust))] get_iommu_fd_of_a_type,
    #[requires(core(Rust))] merged_groups_share_mappings,
    #[requires(core(Rust))] merge_arguments,
    #[requires(core(Rust))] merge_needs_group_without_container,
    #[requires(core(Rust))] merge_needs_viable_group,
    #[requires(core(Rust))] merge_equals_set_container,
    #[requires(core(Rust))] unmerge_arguments,
    #[requires(core(Rust))] unmerge_keeps_other_groups,
    #[requires(core(Rust))] merged_container_outlives_first_group,
}

/// `struct vfio_group_devices`
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Devices {
    argsz: u32,
    flags: u32,
    count: u32,
    reserved: u32,
}

/// `struct vfio_group_device`
#[derive(FromBytes)]
#[repr(C)]
struct RawMember {
    name: [u8; 64],
    driver: [u8; 32],
    state: u32,
    holder_pid: u32,
    holder_comm: [u8; 16],
    held_ms: u64,
}

const HEADER: usize = size_of::<Devices>();
const DEVICE: usize = size_of::<RawMember>();
const VFIO: u32 = 1;
const KERNEL: u32 = 3;

/// A member of a group, as the kernel reports it.
#[derive(Debug)]
struct Member {
    name: String,
    driver: String,
    state: u32,
    holder: u32,
    comm: String,
    held_ms: u64,
}

pub(super) fn devices_request(room: usize) -> Bytes {
    let header = Devices {
        argsz: (HEADER + room * DEVICE) as u32,
        flags: 0,
        count: 0,
        reserved: 0,
    };
    Bytes::of(&header).fill(0, room * DEVICE)
}

fn devices(file: &impl AsFd) -> Result<Vec<Member>> {
    let mut bytes = devices_request(8);
    raw::bytes(file, request::GROUP_GET_DEVICES, &mut bytes)?;
    let Devices { argsz, count, .. } = bytes.get(0);
    let count = count as usize;
    assert_eq!(argsz as usize, HEADER + count * DEVICE);
    Ok((0..count)
        .map(|i| member(&bytes.get(HEADER + i * DEVICE)))
        .collect())
}

fn member(raw: &RawMember) -> Member {
    let text = |field: &[u8]| {
        let end = field.iter().position(|&byte| byte == 0);
        String::from_utf8_lossy(&field[..end.expect("a terminator")]).into_owned()
    };
    Member {
        name: text(&raw.name),
        driver: text(&raw.driver),
        state: raw.state,
        holder: raw.holder_pid,
        comm: text(&raw.holder_comm),
        held_ms: raw.held_ms,
    }
}

fn merge(group: &Group, fd: i32) -> Result<i32, Errno> {
    raw::bytes(group, request::GROUP_MERGE, &mut Bytes::of(&fd))
}

/// Merges two groups.
pub(super) fn merge_group(group: &Group, other: &Group) -> Result<i32, Errno> {
    merge(group, other.as_fd().as_raw_fd())
}

fn unmerge(group: &Group) -> Result<i32, Errno> {
    raw::none(group, request::GROUP_UNMERGE)
}

/// Returns the container that request::GROUP_GET_IOMMU_FD opens.
pub(super) fn iommu_fd(group: &Group) -> Result<Container> {
    container_of(raw::none(group, request::GROUP_GET_IOMMU_FD)?)
}

/// Returns the container of a file descriptor that the kernel has returned.
fn container_of(number: i32) -> Result<Container> {
    let own = raw::duplicate(number)?;
    close(number)?;
    Ok(Container::from_fd(own))
}

fn c_core_lacks_these_requests() -> Result<()> {
    let group = group(EDU)?;
    let mut bytes = devices_request(1);
    assert_eq!(
        raw::bytes(&group, request::GROUP_GET_DEVICES, &mut bytes).errno(),
        Errno::ENOTTY
    );
    assert_eq!(merge(&group, -1).errno(), Errno::ENOTTY);
    assert_eq!(unmerge(&group).errno(), Errno::ENOTTY);
    assert_eq!(
        raw::none(&group, request::GROUP_GET_IOMMU_FD).errno(),
        Errno::ENOTTY
    );
    Ok(())
}

fn get_devices_of_single_device_group() -> Result<()> {
    let members = devices(&group(EDU)?)?;
    assert_eq!(members.len(), 1);
    assert_eq!(members[0].name, EDU);
    assert_eq!(members[0].driver, "vfio-pci");
    assert_eq!(members[0].state, VFIO);
    assert_eq!(members[0].holder, 0);
    Ok(())
}

fn get_devices_of_shared_group() -> Result<()> {
    let members = devices(&group(SHARED)?)?;
    assert_eq!(members.len(), 2);
    let find = |name| members.iter().find(|member| member.name == name);
    let ours = find(SHARED).context("the device bound to vfio-pci is not listed")?;
    let theirs = find(SIBLING).context("the device of the host driver is not listed")?;
    assert_eq!((ours.state, theirs.state), (VFIO, KERNEL));
    assert_eq!(Some(&theirs.driver), pci::driver(SIBLING).as_ref());
    Ok(())
}

fn get_devices_reports_holder() -> Result<()> {
    let group = group(EDU)?;
    let _container = iommu_fd(&group)?;
    let device = group.device(EDU)?;
    let members = devices(&group)?;
    assert_eq!(members[0].holder, getpid().as_raw() as u32);
    assert!(!members[0].comm.is_empty());
    assert!(members[0].held_ms > 0);
    drop(device);
    let closed = &devices(&group)?[0];
    assert_eq!((closed.holder, closed.held_ms), (0, 0));
    Ok(())
}

fn get_devices_of_device_file() -> Result<()> {
    let file = Device::open_file(&pci::sysfs(EDU))?;
    let refused = raw::bytes(&file, request::GROUP_GET_DEVICES, &mut devices_request(8));
    assert_eq!(refused, Err(Errno::EINVAL), "the file is not bound");
    let iommufd = Iommufd::open()?;
    file.bind(&iommufd)?;
    let member = &devices(&file)?[0];
    assert_eq!((member.name.as_str(), member.state), (EDU, VFIO));
    assert_eq!(member.holder, getpid().as_raw() as u32);
    assert!(member.held_ms > 0);
    drop(file);
    let closed = &devices(&group(EDU)?)?[0];
    assert_eq!((closed.holder, closed.held_ms), (0, 0));
    Ok(())
}

fn get_devices_reports_holder_by_pid_namespace() -> Result<()> {
    let group = group(EDU)?;
    let _container = iommu_fd(&group)?;
    let device = group.device(EDU)?;
    let inherited = raw::duplicate(group.as_fd().as_raw_fd())?;
    let number = inherited.as_raw_fd().to_string();
    let mut helper = Helper::spawn(&["pid-outside", &number], &[&inherited])?;
    assert_eq!(
        helper.line()?,
        "0 held true",
        "the holder is outside of the PID namespace"
    );
    drop(device);
    helper.proceed()?;
    assert_eq!(helper.line()?, "1 held true", "the helper itself");
    let id: u32 = helper.line()?.parse()?;
    assert_eq!(devices(&group)?[0].holder, id);
    helper.finish()
}

fn get_devices_omits_process_that_has_exited() -> Result<()> {
    let group = group(EDU)?;
    let _container = iommu_fd(&group)?;
    let inherited = raw::duplicate(group.as_fd().as_raw_fd())?;
    let (ours, theirs) = sockets()?;
    let numbers = [&inherited, &theirs].map(|fd| fd.as_raw_fd().to_string());
    let words = ["open-and-send", &numbers[0], &numbers[1]];
    let mut helper = Helper::spawn(&words, &[&inherited, &theirs])?;
    let device = receive(&ours)?;
    assert_eq!(devices(&group)?[0].holder, helper.id());
    helper.proceed()?;
    helper.finish()?;
    let member = &devices(&group)?[0];
    assert_eq!(member.holder, 0, "another process can get this PID");
    assert!(member.held_ms > 0);
    drop(device);
    assert_eq!(devices(&group)?[0].held_ms, 0);
    Ok(())
}

/// The helper processes of these cases.
pub mod helper {
    use super::*;
    use crate::helper::{
        pause,
        say, //
    };
    use nix::sched::{
        CloneFlags,
        unshare, //
    };

    /// Starts a helper in a new PID namespace and forwards its output.
    pub fn outside(group: &str) -> Result<()> {
        unshare(CloneFlags::CLONE_NEWPID)?;
        let inherited = raw::duplicate(group.parse()?)?;
        let number = inherited.as_raw_fd().to_string();
        let mut inside = Helper::spawn(&["pid-inside", &number], &[&inherited])?;
        say(inside.line()?);
        pause();
        inside.proceed()?;
        say(inside.line()?);
        say(inside.id());
        pause();
        inside.finish()
    }

    /// Opens the device, sends it through a socket, and waits until that has been received.
    pub fn open_and_send(group: &Group, socket: &OwnedFd) -> Result<()> {
        let device = group.device(EDU)?;
        send(socket, device.as_fd())?;
        pause();
        Ok(())
    }

    /// Reports the process id under which it sees the holder of the device, then holds the device
    /// itself.
    pub fn inside(group: &Group) -> Result<()> {
        let tell = || -> Result<()> {
            let member = &devices(group)?[0];
            say(format!("{} held {}", member.holder, member.held_ms > 0));
            Ok(())
        };
        tell()?;
        pause();
        let _device = group.device(EDU)?;
        tell()?;
        pause();
        Ok(())
    }
}

fn get_devices_argsz() -> Result<()> {
    let group = group(SHARED)?;
    let all = (HEADER + 2 * DEVICE) as u32;
    for argsz in [0, 8, HEADER as u32 - 1] {
        let mut bytes = Bytes::new().u32(argsz).fill(0, HEADER);
        assert_eq!(
            raw::bytes(&group, request::GROUP_GET_DEVICES, &mut bytes).errno(),
            Errno::EINVAL
        );
    }
    let mut flags = Bytes::new().u32(all).u32(1).fill(0, all as usize);
    assert_eq!(
        raw::bytes(&group, request::GROUP_GET_DEVICES, &mut flags).errno(),
        Errno::EINVAL
    );
    assert_eq!(
        raw::value(&group, request::GROUP_GET_DEVICES, 1).errno(),
        Errno::EFAULT
    );
    // The kernel fills as many entries as fit, and writes nothing beyond them.
    for room in 0..4 {
        let mut bytes = devices_request(room).fill(0xaa, DEVICE);
        raw::bytes(&group, request::GROUP_GET_DEVICES, &mut bytes)?;
        let Devices { argsz, count, .. } = bytes.get(0);
        assert_eq!((argsz, count), (all, 2));
        let written = HEADER + room.min(2) * DEVICE;
        let end = HEADER + room * DEVICE;
        assert!(bytes.as_ref()[written..end].iter().all(|&byte| byte == 0));
        assert!(bytes.as_ref()[end..].iter().all(|&byte| byte == 0xaa));
    }
    Ok(())
}

/// How long resets run beside other requests.
const TIME: Duration = Duration::from_secs(5);

/// The driver resets a device only if it can lock it at once.
fn get_devices_beside_resets() -> Result<()> {
    let (_container, group) = attached(NVME, Iommu::Type1v2)?;
    let device = group.device(NVME)?;
    let end = Instant::now() + TIME;
    let list = || -> Result<u32> {
        while Instant::now() < end {
            assert_eq!(devices(&group)?[0].state, VFIO);
        }
        Ok(0)
    };
    let reset = || -> Result<u32> {
        let mut resets = 0;
        while Instant::now() < end {
            device
                .reset()
                .with_context(|| format!("after {resets} resets"))?;
            resets += 1;
        }
        Ok(resets)
    };
    let resets = threads::run(vec![
        Box::new(reset),
        Box::new(list),
        Box::new(list),
        Box::new(list),
    ])?;
    assert!(resets[0] > 0);
    Ok(())
}

fn debugfs_matches_get_devices() -> Result<()> {
    let number = pci::group_of(SHARED)?;
    let path = format!("/sys/kernel/debug/vfio/groups/{number}");
    let closed = std::fs::read_to_string(&path).context(path.clone())?;
    assert!(closed.contains("viable: no\n"), "{closed}");
    assert!(closed.contains("open: no\n"), "{closed}");
    let line = |name: &str| closed.lines().find(|line| line.starts_with(name));
    let sibling = line(SIBLING).context("no line for the device of the host driver")?;
    assert!(sibling.contains("blocks the group"), "{sibling}");
    let _group = group(SHARED)?;
    let open = std::fs::read_to_string(&path)?;
    assert!(open.contains(&format!("({})", getpid())), "{open}");
    Ok(())
}

fn get_iommu_fd_creates_container() -> Result<()> {
    let group = group(EDU)?;
    let container = iommu_fd(&group)?;
    assert_eq!(group.status()?, 3);
    assert_eq!(container.api_version()?, 0);
    assert_eq!(
        container.set_iommu(Iommu::Type1v2).errno(),
        Errno::EINVAL,
        "the container has an IOMMU driver already"
    );
    let memory = Memory::anonymous(PAGE_SIZE)?;
    container.map(0x10_0000, &memory, MapFlags::ReadWrite)?;
    let device = group.device(EDU)?;
    let edu = Edu::new(&device)?;
    edu.load(0x10_0000, edu::MEMORY as u64)?;
    Ok(())
}

fn get_iommu_fd_twice_returns_same_container() -> Result<()> {
    let group = group(EDU)?;
    let (first, second) = (iommu_fd(&group)?, iommu_fd(&group)?);
    let memory = Memory::anonymous(PAGE_SIZE)?;
    first.map(0x10_0000, &memory, MapFlags::ReadWrite)?;
    assert_eq!(second.unmap(0x10_0000, PAGE_SIZE as u64)?, PAGE_SIZE as u64);
    Ok(())
}

/// With type 1 in its first version, an unmap of half a mapping removes all of it. The second version
/// refuses that.
fn get_iommu_fd_of_a_type() -> Result<()> {
    let group = group(EDU)?;
    let of_type = |number: u64| raw::value(&group, request::GROUP_GET_IOMMU_FD, number);
    let memory = Memory::anonymous(2 * PAGE_SIZE)?;
    let [first, second] = [Iommu::Type1, Iommu::Type1v2].map(|iommu| u64::from(iommu.number()));
    for (number, removed) in [
        (0, Err(Errno::EINVAL)),
        (first, Ok(2 * PAGE_SIZE as u64)),
        (second, Err(Errno::EINVAL)),
    ] {
        // No backend has this type. The group stays without a container.
        assert_eq!(of_type(999), Err(Errno::ENODEV));
        assert_eq!(group.status()?, 1);
        let container = container_of(of_type(number)?)?;
        container.map(0x10_0000, &memory, MapFlags::ReadWrite)?;
        let half = container.unmap(0x10_0000, PAGE_SIZE as u64);
        assert_eq!(half.map_err(|error| error.errno()), removed);
        // Later requests get the same container, if they name its type or none.
        let (same, other) = if number == first {
            (first, second)
        } else {
            (second, first)
        };
        for number in [0, same] {
            drop(container_of(of_type(number)?)?);
        }
        for number in [other, 999] {
            assert_eq!(of_type(number), Err(Errno::EINVAL));
        }
        container.unmap_all()?;
        group.unset_container()?;
    }
    Ok(())
}

/// A group file gives no access to a container that the process opened itself.
fn get_iommu_fd_refuses_opened_container() -> Result<()> {
    let (first, second) = (group(EDU)?, group(NVME)?);
    let container = Container::open()?;
    first.set_container(&container)?;
    assert_eq!(
        raw::none(&first, request::GROUP_GET_IOMMU_FD).errno(),
        Errno::EPERM
    );
    container.set_iommu(Iommu::Type1v2)?;
    assert_eq!(
        raw::none(&first, request::GROUP_GET_IOMMU_FD).errno(),
        Errno::EPERM
    );
    // Neither does the file of a group that was merged with it.
    merge_group(&first, &second)?;
    assert_eq!(
        raw::none(&second, request::GROUP_GET_IOMMU_FD).errno(),
        Errno::EPERM
    );
    assert_eq!((first.status()?, second.status()?), (3, 3));
    // A group that has left gets a container of its own.
    first.unset_container()?;
    let own = iommu_fd(&first)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    container.map(0x10_0000, &memory, MapFlags::ReadWrite)?;
    assert_eq!(own.unmap_all()?, 0);
    // A container obtained from a group can also be used through its own descriptor, and remains
    // valid.
    second.unset_container()?;
    second.set_container(&own)?;
    iommu_fd(&second)?;
    Ok(())
}

fn merged_groups_share_mappings() -> Result<()> {
    let (first, second) = (group(EDU)?, group(NVME)?);
    let container = iommu_fd(&first)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    container.map(0x10_0000, &memory, MapFlags::ReadWrite)?;
    let device = first.device(EDU)?;
    merge_group(&first, &second)?;
    assert_eq!((first.status()?, second.status()?), (3, 3));
    // Each group gives access to all mappings, and to its own device.
    let other = iommu_fd(&second)?;
    second.device(NVME)?;
    let edu = Edu::new(&device)?;
    edu.load(0x10_0000, edu::MEMORY as u64)?;
    assert_eq!(other.unmap(0x10_0000, PAGE_SIZE as u64)?, PAGE_SIZE as u64);
    assert_eq!(container.unmap_all()?, 0);
    Ok(())
}

fn merge_arguments() -> Result<()> {
    let first = group(EDU)?;
    let null = File::open("/dev/null")?;
    let container = Container::open()?;
    assert_eq!(
        raw::value(&first, request::GROUP_MERGE, 1).errno(),
        Errno::EFAULT
    );
    assert_eq!(merge(&first, -1).errno(), Errno::EINVAL);
    assert_eq!(merge(&first, 1000).errno(), Errno::EBADF);
    assert_eq!(merge(&first, null.as_raw_fd()).errno(), Errno::EINVAL);
    assert_eq!(
        merge(&first, container.as_fd().as_raw_fd()).errno(),
        Errno::EINVAL
    );
    assert_eq!(merge_group(&first, &first).errno(), Errno::EINVAL);
    assert_eq!(
        merge_group(&first, &first.try_clone()?).errno(),
        Errno::EINVAL
    );
    assert_eq!(first.status()?, 1, "the group is unchanged");
    Ok(())
}

fn merge_needs_group_without_container() -> Result<()> {
    let (first, second) = (group(EDU)?, group(NVME)?);
    let container = Container::open()?;
    second.set_container(&container)?;
    assert_eq!(merge_group(&first, &second).errno(), Errno::EINVAL);
    assert_eq!((first.status()?, second.status()?), (1, 3));
    second.unset_container()?;
    merge_group(&first, &second)?;
    assert_eq!(
        merge_group(&first, &second).errno(),
        Errno::EINVAL,
        "the groups are merged already"
    );
    assert_eq!(
        merge_group(&second, &first).errno(),
        Errno::EINVAL,
        "in both directions"
    );
    Ok(())
}

fn merge_needs_viable_group() -> Result<()> {
    let (viable, shared) = (group(EDU)?, group(SHARED)?);
    assert_eq!(merge_group(&viable, &shared).errno(), Errno::EBUSY);
    assert_eq!((viable.status()?, shared.status()?), (1, 0));
    assert_eq!(merge_group(&shared, &viable).errno(), Errno::EBUSY);
    assert_eq!((viable.status()?, shared.status()?), (1, 0));
    assert_eq!(
        raw::none(&shared, request::GROUP_GET_IOMMU_FD).errno(),
        Errno::EBUSY
    );
    Ok(())
}

fn merge_equals_set_container() -> Result<()> {
    let (first, second) = (group(EDU)?, group(NVME)?);
    let container = first.attach(Iommu::Type1v2)?;
    second.set_container(&container)?;
    unmerge(&second)?;
    merge_group(&first, &second)?;
    second.unset_container()?;
    assert_eq!((first.status()?, second.status()?), (3, 1));
    Ok(())
}

fn unmerge_arguments() -> Result<()> {
    let (first, second) = (group(EDU)?, group(NVME)?);
    assert_eq!(unmerge(&first).errno(), Errno::EINVAL, "in no container");
    let container = iommu_fd(&first)?;
    assert_eq!(
        unmerge(&first).errno(),
        Errno::EINVAL,
        "alone in its container"
    );
    merge_group(&first, &second)?;
    let device = second.device(NVME)?;
    assert_eq!(unmerge(&second).errno(), Errno::EBUSY);
    drop(device);
    unmerge(&second)?;
    assert_eq!(unmerge(&first).errno(), Errno::EINVAL, "alone again");
    drop(container);
    Ok(())
}

fn unmerge_keeps_other_groups() -> Result<()> {
    let (first, second) = (group(EDU)?, group(NVME)?);
    merge_group(&first, &second)?;
    let container = iommu_fd(&first)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    container.map(0x10_0000, &memory, MapFlags::ReadWrite)?;
    unmerge(&second)?;
    assert_eq!((first.status()?, second.status()?), (3, 1));
    // The group that left gets a new, empty address space.
    let fresh = iommu_fd(&second)?;
    assert_eq!(fresh.unmap_all()?, 0);
    assert_eq!(container.unmap_all()?, PAGE_SIZE as u64);
    Ok(())
}

fn merged_container_outlives_first_group() -> Result<()> {
    let (first, second) = (group(EDU)?, group(NVME)?);
    let container = iommu_fd(&first)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    container.map(0x10_0000, &memory, MapFlags::ReadWrite)?;
    merge_group(&first, &second)?;
    drop(first);
    assert_eq!(second.status()?, 3);
    assert_eq!(container.unmap_all()?, PAGE_SIZE as u64);
    Ok(())
}
