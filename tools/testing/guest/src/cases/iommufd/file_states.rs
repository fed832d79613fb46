// SPDX-License-Identifier: GPL-2.0

//! What happens in each state of a device file, and of a group whose container is an iommufd, when
//! the process is killed, the driver is unbound, the device is removed, or a module is unloaded.

use super::{
    file_close::reload_driver,
    reaches, //
};
use crate::{
    env::{
        EDU,
        Rebind, //
    },
    harness::{
        Failure,
        cases, //
    },
    mdev::{
        Mdev,
        UUIDS, //
    },
    modules::{
        references,
        unload, //
    },
    requires,
    stall::LIMIT, //
};
use anyhow::{
    Context,
    Result,
    anyhow,
    ensure, //
};
use std::{
    fs,
    os::fd::{
        AsFd,
        AsRawFd, //
    },
    path::PathBuf,
    thread,
    time::Duration, //
};
use support::{
    helper::Helper,
    machine::pinned_pages, //
};
use vfio_client::{
    Device,
    Errno,
    Group,
    Iommufd,
    MapFlags,
    Memory,
    PAGE_SIZE,
    edu::Edu,
    pci,
    wait::until, //
};

cases! {
    #[rows("V10", "G13")] killed_in_each_state,
    #[rows("V10", "M7")] killed_with_mdev_in_each_state,
    #[rows("G21", "D27", "G22")] unbind_in_each_state,
    #[rows("G21", "G22")] remove_in_each_state,
    #[rows("M7", "G22")] mdev_is_removed_in_each_state,
    #[rows("K6")] #[requires(iommufd_module)] modules_in_each_state,
}

/// The IOVA of the memory.
const IOVA: u64 = 0x10_0000;
/// The number of pages of memory.
const PAGES: usize = 4;

/// The state of a device file or of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The file is open.
    Open,
    /// It is bound to an iommufd.
    Bound,
    /// It is attached to an IOAS.
    Attached,
    /// It is attached, and the attach of a PASID was refused.
    PasidRefused,
    /// The group is in an iommufd.
    InIommufd,
    /// The same, and the device was opened through the group.
    ThroughGroup,
}

const STATES: [State; 6] = [
    State::Open,
    State::Bound,
    State::Attached,
    State::PasidRefused,
    State::InIommufd,
    State::ThroughGroup,
];

/// Returns the states that the kernel has.
fn states() -> impl Iterator<Item = (usize, State)> {
    let all = STATES.into_iter().enumerate();
    all.filter(|(_, state)| requires::groups() || !state.is_of_group())
}

impl State {
    /// Returns whether the group is in the iommufd.
    fn is_of_group(self) -> bool {
        matches!(self, Self::InIommufd | Self::ThroughGroup)
    }

    /// Returns whether the device is open for use.
    fn is_usable(self) -> bool {
        !matches!(self, Self::Open | Self::InIommufd)
    }

    /// Returns whether the device has the memory.
    fn is_attached(self) -> bool {
        self.is_usable() && self != Self::Bound
    }

    /// Enters the state with a new iommufd.
    fn enter(self, subject: &Subject) -> Result<Held> {
        let iommufd = Iommufd::open()?;
        let ioas = iommufd.ioas()?;
        iommufd.set_compat_ioas(ioas)?;
        let memory = Memory::anonymous(PAGES * PAGE_SIZE)?;
        iommufd.map(ioas, IOVA, &memory, MapFlags::ReadWrite)?;
        let (mut device, mut group) = (None, None);
        if self.is_of_group() {
            let opened = subject.group()?;
            opened.set_container_fd(iommufd.as_fd().as_raw_fd())?;
            if self == Self::ThroughGroup {
                device = Some(opened.device(subject.name)?);
            }
            group = Some(opened);
        } else {
            let opened = Device::open_file(&subject.folder)?;
            if self != Self::Open {
                opened.bind(&iommufd)?;
            }
            if self.is_attached() {
                opened.attach(ioas)?;
            }
            if self == Self::PasidRefused {
                let errno = match subject.is_mdev() {
                    true => Errno::EOPNOTSUPP,
                    false => Errno::EINVAL,
                };
                assert_eq!(opened.attach_pasid(1, ioas).errno(), errno);
            }
            device = Some(opened);
        }
        Ok(Held {
            state: self,
            device,
            group,
            is_mdev: subject.is_mdev(),
            _iommufd: iommufd,
            memory,
        })
    }
}

/// A device.
struct Subject {
    name: &'static str,
    folder: PathBuf,
}

impl Subject {
    fn edu() -> Self {
        Self {
            name: EDU,
            folder: pci::sysfs(EDU),
        }
    }

    /// The mediated device with the first of the [`UUIDS`].
    fn mdev() -> Result<Self> {
        let mdev = Mdev::existing(UUIDS[0])?;
        let folder = mdev.folder();
        mdev.keep();
        Ok(Self {
            name: UUIDS[0],
            folder,
        })
    }

    fn named(name: &str) -> Result<Self> {
        match name {
            EDU => Ok(Self::edu()),
            _ => Self::mdev(),
        }
    }

    fn is_mdev(&self) -> bool {
        self.name != EDU
    }

    fn group(&self) -> Result<Group> {
        Ok(Group::open(Group::number_of(&self.folder)?)?)
    }

    /// Checks that the device can be bound, and its group opened: nothing has it.
    fn is_free(&self) -> Result<()> {
        if requires::groups() {
            self.group()?;
        }
        Device::open_file(&self.folder)?.bind(&Iommufd::open()?)?;
        Ok(())
    }
}

/// The open files of a state.
struct Held {
    state: State,
    device: Option<Device>,
    group: Option<Group>,
    is_mdev: bool,
    _iommufd: Iommufd,
    memory: Memory,
}

impl Held {
    /// Checks that the state is as it was entered.
    fn check(&self) -> Result<()> {
        let Some(device) = &self.device else {
            return Ok(());
        };
        if !self.state.is_usable() {
            assert_eq!(device.info().errno(), Errno::EINVAL, "{:?}", self.state);
            return Ok(());
        }
        device.info()?;
        // The mediated device does no DMA.
        if !self.is_mdev {
            let edu = Edu::new(device)?;
            let has_memory = reaches(&edu, &self.memory, IOVA)?;
            assert_eq!(has_memory, self.state.is_attached(), "{:?}", self.state);
        }
        Ok(())
    }
}

/// Kills processes that use a device, each in one of the states.
fn killed(subject: &Subject) -> Result<()> {
    let mut modules = vec!["vfio", "vfio_pci"];
    if requires::iommufd_module() {
        modules.push("iommufd");
    }
    let count = || -> Result<Vec<_>> { modules.iter().map(|name| references(name)).collect() };
    let before = (count()?, pinned_pages()?);
    for (nth, state) in states() {
        let words = ["iommufd", "state", subject.name, &nth.to_string()];
        let mut helper = Helper::spawn(&words, &[])?;
        let line = helper.line()?;
        ensure!(line == "ready", "{state:?}: {line}");
        let is_busy = state != State::Open;
        if requires::groups() {
            assert_eq!(subject.group().is_err(), is_busy, "{state:?}");
        }
        // Only DMA pins memory.
        let has_memory = state.is_attached() && !subject.is_mdev();
        let pinned = if has_memory { PAGES as i64 } else { 0 };
        assert_eq!(pinned_pages()? - before.1, pinned, "{state:?}");
        helper.kill()?;
        ensure!(
            until(LIMIT, || anyhow::Ok(subject.is_free().is_ok()))?,
            "{state:?}: the device is not free"
        );
        assert_eq!((count()?, pinned_pages()?), before, "{state:?}");
    }
    Ok(())
}

fn killed_in_each_state() -> Result<()> {
    killed(&Subject::edu())
}

fn killed_with_mdev_in_each_state() -> Result<()> {
    let _mdev = Mdev::new("mtty-1", UUIDS[0])?;
    killed(&Subject::mdev()?)
}

/// Removes the driver from a device in each of the states by `remove`, and restores it by
/// `restore`.
fn removed(
    subject: &Subject,
    remove: fn() -> Result<()>,
    restore: fn() -> Result<()>,
) -> Result<()> {
    let pinned = pinned_pages()?;
    for (_, state) in states() {
        let mut held = state.enter(subject)?;
        held.check()?;
        let node = Device::file_of(&subject.folder)?;
        let removal = thread::spawn(remove);
        assert!(until(LIMIT, || anyhow::Ok(!node.exists()))?, "{state:?}");
        if held.device.is_some() {
            let waits = |what| {
                thread::sleep(Duration::from_millis(100));
                assert!(!removal.is_finished(), "{state:?}: it waits for {what}");
            };
            waits("the device");
            held.check()?;
            held.group = None;
            waits("the device without the group");
            held.check()?;
            held.device = None;
        }
        removal.join().map_err(|_| anyhow!("panic"))??;
        if let Some(group) = &held.group {
            assert_eq!(group.status().errno(), Errno::ENODEV, "{state:?}");
            assert_eq!(group.device(subject.name).errno(), Errno::ENODEV);
        }
        drop(held);
        assert_eq!(pinned_pages()?, pinned, "{state:?}");
        restore().with_context(|| format!("{state:?}"))?;
        subject.is_free().with_context(|| format!("{state:?}"))?;
    }
    Ok(())
}

fn unbind_in_each_state() -> Result<()> {
    let _rebind = Rebind(&[EDU]);
    let unbind = || -> Result<()> { Ok(pci::unbind(EDU)?) };
    removed(&Subject::edu(), unbind, || Ok(pci::bind(EDU, "vfio-pci")?))
}

/// Lets the kernel find devices that were removed.
fn rescan() -> Result<()> {
    fs::write("/sys/bus/pci/rescan", "1")?;
    Ok(pci::bind(EDU, "vfio-pci")?)
}

/// A removal by sysfs, which the kernel does in the same way when it notices that a device was
/// unplugged.
fn remove_in_each_state() -> Result<()> {
    let remove = || -> Result<()> { Ok(pci::write_attribute(EDU, "remove", "1")?) };
    let done = removed(&Subject::edu(), remove, rescan);
    if !pci::sysfs(EDU).exists() {
        rescan()?;
    }
    done
}

fn mdev_is_removed_in_each_state() -> Result<()> {
    let create = || -> Result<()> {
        Mdev::new("mtty-1", UUIDS[0])?.keep();
        Ok(())
    };
    create()?;
    let remove = || -> Result<()> {
        let mdev = Mdev::existing(UUIDS[0])?;
        let removed = mdev.remove();
        mdev.keep();
        Ok(removed?)
    };
    let done = removed(&Subject::mdev()?, remove, create);
    drop(Mdev::existing(UUIDS[0]));
    done
}

fn modules_in_each_state() -> Result<()> {
    let subject = Subject::edu();
    let before = (references("vfio")?, references("iommufd")?);
    for (_, state) in states() {
        let mut held = state.enter(&subject)?;
        assert!(references("vfio")? > before.0, "{state:?}");
        assert!(references("iommufd")? > before.1, "{state:?}");
        for module in [c"vfio", c"iommufd", c"vfio_pci_core"] {
            assert_eq!(unload(module), Err(Errno::EAGAIN), "{state:?}: {module:?}");
        }
        if state.is_usable() {
            assert_eq!(unload(c"vfio_pci"), Err(Errno::EAGAIN), "{state:?}");
            held.check()?;
            held.group = None;
            assert_eq!(unload(c"vfio_pci"), Err(Errno::EAGAIN), "{state:?}");
        } else {
            // Nothing refers to the driver, but an open file delays the removal of its device.
            let unloads = thread::spawn(|| unload(c"vfio_pci"));
            let is_gone = || anyhow::Ok(Device::file_of(&subject.folder).is_err());
            assert!(until(LIMIT, is_gone)?, "{state:?}");
            if held.device.is_some() {
                thread::sleep(Duration::from_millis(100));
                assert!(!unloads.is_finished(), "{state:?}");
                held.device = None;
            }
            unloads.join().map_err(|_| anyhow!("panic"))??;
            if let Some(group) = &held.group {
                assert_eq!(group.status().errno(), Errno::ENODEV);
            }
            reload_driver()?;
        }
        drop(held);
        subject.is_free()?;
        let after = (references("vfio")?, references("iommufd")?);
        assert_eq!(after, before, "{state:?}");
    }
    Ok(())
}

/// The helper of [`killed`].
pub fn hold(name: &str, state: &str) -> Result<()> {
    let state: usize = state.parse()?;
    let state = STATES.get(state).context("there is no such state")?;
    let held = state.enter(&Subject::named(name)?)?;
    held.check()?;
    crate::helper::say("ready");
    crate::helper::pause();
    Ok(())
}
