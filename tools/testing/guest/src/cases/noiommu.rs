// SPDX-License-Identifier: GPL-2.0

//! Devices without an IOMMU, enabled by a module parameter, on a machine without an IOMMU.

use super::sysfs::group_and_container_nodes;
use crate::{
    env::{
        EDU,
        NVME,
        SHARED, //
    },
    harness::{
        Failure,
        cases, //
    },
    mdev::{
        Mdev,
        UUIDS, //
    },
    requires,
    stall::LIMIT, //
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    fs::{
        self,
        File, //
    },
    os::{
        fd::{
            AsFd,
            AsRawFd, //
        },
        unix::fs::{
            FileExt,
            FileTypeExt,
            MetadataExt, //
        },
    },
    path::Path, //
};
use support::{
    helper::Helper,
    kmsg::Log, //
};
use vfio_client::{
    Container,
    Device,
    Errno,
    Group,
    Interrupt,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    edu::Edu,
    pci,
    raw,
    request,
    wait::until, //
};

cases! {
    #[rows("K4")] parameter_values,
    #[rows("C5")] noiommu_extension,
    #[rows("S2")] noiommu_nodes,
    #[rows("S4")] class_device_names,
    #[rows("S6")] iommu_group_name,
    #[rows("S10")] kernel_is_tainted,
    #[rows("G1")] second_open_is_busy,
    #[rows("G3")] open_needs_cap_sys_rawio,
    #[rows("G5")] get_status,
    #[rows("G8")] several_groups_in_one_container,
    #[rows("G18")] probe_fails_without_parameter,
    #[rows("C6")] set_iommu_needs_a_group,
    #[rows("C8")] set_iommu_refuses_other_types,
    #[rows("C16")] set_iommu_noiommu,
    #[rows("C16")] container_requests,
    #[rows("C16")] set_iommu_needs_cap_sys_rawio,
    #[rows("C3")] #[requires(has_type1)] extensions_with_a_group,
    #[rows("C13")] #[requires(has_type1)] container_can_be_reused,
    #[rows("C17")] no_emulated_group_in_same_container,
    #[requires(has_type1)] emulated_groups_work,
    #[rows("N1")] device_works,
    #[rows("N1")] dma_by_physical_addresses,
    #[rows("N1")] log_message_names_device,
    #[requires(core(Rust))] log_messages_are_rate_limited,
    #[rows("N1")] close_in_every_order,
}

const PARAMETER: &str = "/sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
const NOIOMMU: u64 = 8;

/// Opens the group of a device. The node of such a group has another name.
pub fn group(bdf: &str) -> vfio_client::Result<Group> {
    let number = pci::group_of(bdf)?;
    let path = format!("/dev/vfio/noiommu-{number}");
    File::options()
        .read(true)
        .write(true)
        .open(&path)
        .map(|file| Group::from_fd(file.into()))
        .map_err(|error| vfio_client::Error::from_io(path, &error))
}

fn set_iommu(container: &Container, number: u64) -> Result<i32, Errno> {
    raw::value(container, request::SET_IOMMU, number)
}

/// Returns a container with a group and the only backend that such a container may have.
fn attached(bdf: &str) -> Result<(Container, Group)> {
    let container = Container::open()?;
    let group = group(bdf)?;
    group.set_container(&container)?;
    set_iommu(&container, NOIOMMU)?;
    Ok((container, group))
}

fn opened() -> Result<(Device, Group, Container)> {
    let (container, group) = attached(EDU)?;
    let device = group.device(EDU)?;
    Ok((device, group, container))
}

/// Runs `body` while the parameter is off.
pub(super) fn while_off(body: impl FnOnce() -> Result<()>) -> Result<()> {
    fs::write(PARAMETER, "N")?;
    let outcome = body();
    fs::write(PARAMETER, "Y")?;
    outcome
}

fn parameter_values() -> Result<()> {
    assert_eq!(fs::metadata(PARAMETER)?.mode() & 0o777, 0o644);
    assert_eq!(fs::read_to_string(PARAMETER)?, "Y\n");
    for text in ["x", "2", "\n"] {
        assert_eq!(
            fs::write(PARAMETER, text).errno(),
            Errno::EINVAL,
            "{text:?}"
        );
    }
    for (text, reads) in [("0", "N\n"), ("1", "Y\n"), ("off", "N\n"), ("on\n", "Y\n")] {
        fs::write(PARAMETER, text)?;
        assert_eq!(fs::read_to_string(PARAMETER)?, reads);
    }
    Ok(())
}

fn noiommu_extension() -> Result<()> {
    let container = Container::open()?;
    assert_eq!(container.check_extension(8)?, 1);
    while_off(|| {
        assert_eq!(container.check_extension(8)?, 0);
        // Existing groups stay, but cannot choose a backend.
        let group = group(EDU)?;
        group.set_container(&container)?;
        assert_eq!(container.check_extension(8)?, 0);
        assert_eq!(set_iommu(&container, NOIOMMU), Err(Errno::ENODEV));
        Ok(())
    })
}

fn noiommu_nodes() -> Result<()> {
    for bdf in [EDU, NVME, SHARED] {
        let number = pci::group_of(bdf)?;
        let node = fs::metadata(format!("/dev/vfio/noiommu-{number}"))?;
        assert!(node.file_type().is_char_device());
        assert_eq!(node.mode() & 0o7777, 0o600);
        assert!(!Path::new(&format!("/dev/vfio/{number}")).exists());
    }
    assert_eq!(group_and_container_nodes()?, 4);
    Ok(())
}

fn class_device_names() -> Result<()> {
    let number = pci::group_of(EDU)?;
    let folder = format!("/sys/class/vfio/noiommu-{number}");
    let uevent = fs::read_to_string(format!("{folder}/uevent"))?;
    let name = format!("DEVNAME=vfio/noiommu-{number}");
    assert!(uevent.lines().any(|line| line == name), "{uevent}");
    // Without a device file, the device of the class vfio-dev has its usual name.
    let start = if requires::noiommu_device_files() {
        "noiommu-vfio"
    } else {
        "vfio"
    };
    let device = fs::read_dir(pci::sysfs(EDU).join("vfio-dev"))?.next();
    let device = device.context("no vfio-dev")??.file_name();
    let digits = device.to_str().and_then(|name| name.strip_prefix(start));
    assert!(
        digits.is_some_and(|digits| digits.parse::<u32>().is_ok()),
        "{device:?}"
    );
    Ok(())
}

fn iommu_group_name() -> Result<()> {
    for bdf in [EDU, NVME, SHARED] {
        let folder = format!("/sys/kernel/iommu_groups/{}", pci::group_of(bdf)?);
        assert_eq!(
            fs::read_to_string(format!("{folder}/name"))?,
            "vfio-noiommu\n"
        );
        let members: Vec<_> = fs::read_dir(format!("{folder}/devices"))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        assert_eq!(members, [bdf], "a group of its own for each device");
    }
    Ok(())
}

fn kernel_is_tainted() -> Result<()> {
    let text = fs::read_to_string("/proc/sys/kernel/tainted")?;
    let bits: u64 = text.trim().parse()?;
    assert_eq!(bits & (1 << 6), 1 << 6, "{bits:#x}");
    Ok(())
}

fn second_open_is_busy() -> Result<()> {
    let first = group(EDU)?;
    assert_eq!(group(EDU).errno(), Errno::EBUSY);
    drop(first);
    group(EDU)?;
    Ok(())
}

fn open_needs_cap_sys_rawio() -> Result<()> {
    let mut helper = Helper::spawn(&["noiommu-open"], &[])?;
    assert_eq!(helper.line()?, "with: OK");
    assert_eq!(helper.line()?, "without: EPERM");
    helper.finish()
}

fn get_status() -> Result<()> {
    let group = group(EDU)?;
    assert_eq!(group.status()?, 1);
    let container = Container::open()?;
    group.set_container(&container)?;
    assert_eq!(group.status()?, 3);
    set_iommu(&container, NOIOMMU)?;
    assert_eq!(group.status()?, 3);
    group.unset_container()?;
    assert_eq!(group.status()?, 1);
    Ok(())
}

fn several_groups_in_one_container() -> Result<()> {
    let (container, first) = attached(EDU)?;
    let second = group(NVME)?;
    second.set_container(&container)?;
    let (edu, nvme) = (first.device(EDU)?, second.device(NVME)?);
    assert_eq!((edu.info()?.regions, nvme.info()?.regions), (9, 9));
    assert_eq!(first.unset_container().errno(), Errno::EBUSY);
    drop(edu);
    first.unset_container()?;
    assert_eq!(nvme.info()?.regions, 9);
    Ok(())
}

/// Without the parameter, a device without a group is rejected.
fn probe_fails_without_parameter() -> Result<()> {
    let before = pci::group_of(NVME)?;
    let outcome = while_off(|| {
        pci::unbind(NVME)?;
        assert!(
            pci::group_of(NVME).is_err(),
            "the group goes with its device"
        );
        assert!(!Path::new(&format!("/dev/vfio/noiommu-{before}")).exists());
        let _ = pci::bind(NVME, "vfio-pci");
        assert_eq!(pci::driver(NVME), None);
        Ok(())
    });
    pci::bind(NVME, "vfio-pci")?;
    assert_eq!(pci::driver(NVME).as_deref(), Some("vfio-pci"));
    group(NVME)?;
    outcome
}

fn set_iommu_needs_a_group() -> Result<()> {
    let container = Container::open()?;
    assert_eq!(set_iommu(&container, NOIOMMU), Err(Errno::EINVAL));
    Ok(())
}

fn set_iommu_refuses_other_types() -> Result<()> {
    let container = Container::open()?;
    let group = group(EDU)?;
    group.set_container(&container)?;
    for number in [0, 1, 2, 3, 4, 6, 7, 9, 10] {
        assert_eq!(
            set_iommu(&container, number),
            Err(Errno::ENODEV),
            "{number}"
        );
    }
    assert_eq!(set_iommu(&container, NOIOMMU), Ok(0));
    Ok(())
}

fn set_iommu_noiommu() -> Result<()> {
    let (container, _group) = attached(EDU)?;
    for number in [NOIOMMU, 1, 3] {
        assert_eq!(
            set_iommu(&container, number),
            Err(Errno::EINVAL),
            "it has one"
        );
    }
    Ok(())
}

fn container_requests() -> Result<()> {
    let (container, _group) = attached(EDU)?;
    let memory = Memory::anonymous(PAGE_SIZE)?;
    let map = container.map(0, &memory, MapFlags::ReadWrite);
    assert_eq!(map.errno(), Errno::ENOTTY);
    assert_eq!(container.info().errno(), Errno::ENOTTY);
    assert_eq!(container.unmap_all().errno(), Errno::ENOTTY);
    for number in [
        request::IOMMU_DIRTY_PAGES,
        request::UNKNOWN,
        0,
        request::number(18),
    ] {
        assert_eq!(
            raw::none(&container, number),
            Err(Errno::ENOTTY),
            "{number:#x}"
        );
    }
    assert_eq!(
        raw::value(&container, request::IOMMU_GET_INFO, 1),
        Err(Errno::ENOTTY)
    );
    assert_eq!(container.api_version()?, 0);
    Ok(())
}

fn set_iommu_needs_cap_sys_rawio() -> Result<()> {
    let group = group(EDU)?;
    let container = Container::open()?;
    let fds = [
        group.as_fd().try_clone_to_owned()?,
        container.as_fd().try_clone_to_owned()?,
    ];
    let numbers: Vec<_> = fds.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
    let words = ["noiommu-use", &numbers[0], &numbers[1]];
    let mut helper = Helper::spawn(&words, &[&fds[0], &fds[1]])?;
    assert_eq!(helper.line()?, "SET_CONTAINER: EPERM");
    assert_eq!(group.status()?, 1);
    group.set_container(&container)?;
    helper.proceed()?;
    assert_eq!(helper.line()?, "SET_IOMMU: EPERM");
    set_iommu(&container, NOIOMMU)?;
    helper.proceed()?;
    assert_eq!(helper.line()?, "GET_DEVICE_FD: EPERM");
    assert_eq!(helper.line()?, "GET_STATUS: 3");
    helper.finish()
}

fn extensions_with_a_group() -> Result<()> {
    let container = Container::open()?;
    let extensions = |container: &Container| {
        [1, 3, 4, 8, 9, 10]
            .map(|number| container.check_extension(number))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
    };
    assert_eq!(extensions(&container)?, [1, 1, 0, 1, 1, 0]);
    let group = group(EDU)?;
    group.set_container(&container)?;
    assert_eq!(extensions(&container)?, [0, 0, 0, 1, 0, 0]);
    set_iommu(&container, NOIOMMU)?;
    assert_eq!(extensions(&container)?, [0, 0, 0, 1, 0, 0]);
    Ok(())
}

fn container_can_be_reused() -> Result<()> {
    let (container, first) = attached(EDU)?;
    first.unset_container()?;
    assert_eq!(container.check_extension(1)?, 1);
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let emulated = mdev.group()?;
    emulated.set_container(&container)?;
    container.set_iommu(Iommu::Type1v2)?;
    emulated.unset_container()?;
    first.set_container(&container)?;
    assert_eq!(set_iommu(&container, NOIOMMU), Ok(0));
    Ok(())
}

fn no_emulated_group_in_same_container() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let (unsafe_group, emulated) = (group(EDU)?, mdev.group()?);
    for (first, second) in [(&unsafe_group, &emulated), (&emulated, &unsafe_group)] {
        let container = Container::open()?;
        first.set_container(&container)?;
        assert_eq!(second.set_container(&container).errno(), Errno::EPERM);
        assert_eq!((first.status()?, second.status()?), (3, 1));
        first.unset_container()?;
        second.set_container(&container)?;
        second.unset_container()?;
    }
    Ok(())
}

fn emulated_groups_work() -> Result<()> {
    let mdev = Mdev::new("mtty-1", UUIDS[0])?;
    let open = mdev.open()?;
    assert_eq!(open.device.info()?.irqs, 5);
    let memory = Memory::anonymous(PAGE_SIZE)?;
    open.container.map(0, &memory, MapFlags::ReadWrite)?;
    assert_eq!(set_iommu(&open.container, NOIOMMU), Err(Errno::EINVAL));
    drop(open);
    let (container, group) = (Container::open()?, mdev.group()?);
    group.set_container(&container)?;
    assert_eq!(container.check_extension(8)?, 0);
    assert_eq!(set_iommu(&container, NOIOMMU), Err(Errno::ENODEV));
    Ok(())
}

fn device_works() -> Result<()> {
    let (device, _group, _container) = opened()?;
    let edu = Edu::new(&device)?;
    assert!(edu.is_alive());
    let interrupt = Interrupt::new()?;
    device.enable_irqs(1, &[&interrupt])?;
    edu.raise(1);
    assert_eq!(interrupt.wait(LIMIT)?, 1);
    assert_eq!(edu.acknowledge(), 1);
    device.disable_irqs(1)?;
    Ok(())
}

/// Returns the physical address of the first page.
fn physical(memory: &Memory) -> Result<u64> {
    let mut entry = [0; 8];
    let at = memory.addr() / PAGE_SIZE as u64 * 8;
    File::open("/proc/self/pagemap")?.read_exact_at(&mut entry, at)?;
    let entry = u64::from_ne_bytes(entry);
    ensure!(entry >> 63 == 1, "the page is not there: {entry:#x}");
    Ok((entry & ((1 << 55) - 1)) * PAGE_SIZE as u64)
}

fn dma_by_physical_addresses() -> Result<()> {
    let (device, _group, _container) = opened()?;
    let edu = Edu::new(&device)?;
    let (from, to) = (Memory::anonymous(PAGE_SIZE)?, Memory::anonymous(PAGE_SIZE)?);
    from.fill(0, PAGE_SIZE, 0x6b);
    to.fill(0, PAGE_SIZE, 1);
    edu.load(physical(&from)?, PAGE_SIZE as u64)?;
    edu.store(physical(&to)?, PAGE_SIZE as u64)?;
    assert_eq!(to.to_vec(0, PAGE_SIZE), [0x6b; PAGE_SIZE]);
    Ok(())
}

fn log_message_names_device() -> Result<()> {
    let mut log = Log::follow()?;
    let task = nix::unistd::gettid();
    let process = fs::read_to_string("/proc/self/comm")?;
    let thread = fs::read_to_string(format!("/proc/self/task/{task}/comm"))?;
    let device = format!("vfio-pci {EDU}: vfio-noiommu device");
    let users = [process, thread].map(|comm| format!("opened by user ({}:{task})", comm.trim()));
    // The Rust module limits the rate of the message.
    let said = until(LIMIT, || {
        drop(opened()?);
        anyhow::Ok(users.iter().any(|user| log.has(&[&device, user])))
    })?;
    assert!(said, "{}", log.text());
    Ok(())
}

/// The C module logs each open.
fn log_messages_are_rate_limited() -> Result<()> {
    let (_device, group, _container) = opened()?;
    let mut log = Log::follow()?;
    for _ in 0..500 {
        group.device(EDU)?;
    }
    let lines = log.text().matches("opened by user").count();
    ensure!(
        lines <= 40,
        "expected at most 40 log messages for 500 opens, got {lines}"
    );
    Ok(())
}

fn close_in_every_order() -> Result<()> {
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let (device, group, container) = opened()?;
        let (mut device, mut group, mut container) = (Some(device), Some(group), Some(container));
        for step in order {
            match step {
                0 => drop(device.take()),
                1 => drop(group.take()),
                _ => drop(container.take()),
            }
            if let Some(device) = &device {
                assert_eq!(device.info()?.regions, 9);
            }
        }
    }
    Ok(())
}

/// The helper processes of these cases.
pub mod helper {
    use super::*;
    use crate::helper::{
        pause,
        say, //
    };

    /// Drops CAP_SYS_RAWIO.
    pub fn drop_right() -> Result<()> {
        for set in [
            caps::CapSet::Effective,
            caps::CapSet::Permitted,
            caps::CapSet::Inheritable,
        ] {
            caps::drop(None, set, caps::Capability::CAP_SYS_RAWIO)?;
        }
        Ok(())
    }

    /// Returns the errno of a result, or `OK`.
    pub fn word<T>(result: vfio_client::Result<T>) -> String {
        match result {
            Ok(_) => "OK".to_owned(),
            Err(error) => format!("{:?}", error.errno()),
        }
    }

    /// Opens a group with the capability and without it.
    pub fn open() -> Result<()> {
        say(format!("with: {}", word(group(EDU))));
        drop_right()?;
        say(format!("without: {}", word(group(EDU))));
        Ok(())
    }

    /// Uses a group and a container that were opened by a process with more privileges.
    pub fn attach(group: Group, container: Container) -> Result<()> {
        drop_right()?;
        say(format!(
            "SET_CONTAINER: {}",
            word(group.set_container(&container))
        ));
        pause();
        let set = set_iommu(&container, NOIOMMU).err();
        say(format!(
            "SET_IOMMU: {:?}",
            set.unwrap_or(Errno::UnknownErrno)
        ));
        pause();
        say(format!("GET_DEVICE_FD: {}", word(group.device(EDU))));
        say(format!("GET_STATUS: {}", group.status()?));
        Ok(())
    }
}
