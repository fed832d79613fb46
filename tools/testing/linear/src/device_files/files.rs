// SPDX-License-Identifier: GPL-2.0

//! The open files of a process, and the requests of a thread.

use super::op::{
    Ask,
    DEVICES,
    Device,
    Door,
    File,
    Flaw,
    GROUPS,
    Given,
    Group,
    IOASES,
    IOMMUFDS,
    Op,
    UNKNOWN,
    mark, //
};
use crate::op::Answer;
use anyhow::{
    Context,
    Result,
    ensure, //
};
use std::{
    fs,
    os::fd::{
        AsFd,
        AsRawFd,
        RawFd, //
    },
    path::PathBuf,
    sync::{
        Arc,
        RwLock,
        RwLockReadGuard,
        RwLockWriteGuard, //
    },
};
use support::{
    PAGE, devices,
    pin::{
        self,
        Pages, //
    },
    requests::{
        AttachPt,
        BindIommufd,
        DetachPt, //
    },
};
use vfio_client::{
    Bytes,
    Container,
    Device as DeviceFile,
    Errno,
    Group as GroupFile,
    Iommu,
    Iommufd,
    MapFlags,
    Memory,
    mdev::Mdev,
    raw,
    request,
    uapi::VFIO_PCI_CONFIG_REGION_INDEX, //
};

/// The `edu` in the group of [`devices::SHARED`], which is bound to vfio-pci, too.
const SECOND: &str = "0000:00:05.1";
/// The UUID of the mediated device.
const MEDIATED: &str = "3b9d2c1e-54f0-4d0c-8f4e-6d1c2b7a9e10";
/// Its type.
const MEDIATED_TYPE: &str = "mtty-1";

/// The address of the mark in each IOAS.
const MARK_AT: u64 = 0x10_0000;
/// An id that no iommufd has.
const UNKNOWN_ID: u32 = 0x7fff_0000;
/// A descriptor that is never in use.
const CLOSED: RawFd = 1000;
/// An address at which no process has memory.
const UNREADABLE: u64 = 0x1000;
/// The offset of the configuration space in the file of a device.
const CONFIG: u64 = (VFIO_PCI_CONFIG_REGION_INDEX as u64) << 40;
/// The PASID of the requests about one.
const PASID: u32 = 1;

/// Returns the name of a device.
fn name(device: Device) -> &'static str {
    match device {
        Device::Edu => devices::EDU,
        Device::First => devices::SHARED,
        Device::Second => SECOND,
        Device::Emulated => pin::IN_C,
        Device::Mediated => MEDIATED,
    }
}

/// Returns the sysfs directory of a device.
fn folder(device: Device) -> PathBuf {
    let bus = match device {
        Device::Edu | Device::First | Device::Second => "pci",
        Device::Emulated => "platform",
        Device::Mediated => "mdev",
    };
    format!("/sys/bus/{bus}/devices/{}", name(device)).into()
}

/// Returns the index of a device, a group or an iommufd.
fn index(nth: impl Into<usize>) -> usize {
    nth.into()
}

/// A file that all threads use, until it is closed. Requests hold the lock for reading, so a close
/// comes between requests of the same process.
#[derive(Debug)]
pub struct Slot<T>(RwLock<Option<T>>);

impl<T> Slot<T> {
    /// Creates a slot with a file, or an empty one.
    pub fn new(file: Option<T>) -> Self {
        Self(RwLock::new(file))
    }

    /// Locks the slot for reading.
    pub fn read(&self) -> RwLockReadGuard<'_, Option<T>> {
        self.0
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<T>> {
        self.0
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// The files that both processes have in a round.
#[derive(Debug)]
pub struct Files {
    /// The container.
    pub container: Container,
    /// The iommufds.
    pub iommufds: [Iommufd; IOMMUFDS],
    /// The ids of the IOASes, which are the same in all iommufds.
    pub ioases: [u32; IOASES as usize],
    /// A file unrelated to VFIO.
    pub null: fs::File,
    /// The shared device files, by device.
    pub devices: [Slot<DeviceFile>; DEVICES.len()],
    /// The shared files of groups, by group.
    pub groups: [Slot<GroupFile>; GROUPS.len()],
}

/// The state of a thread.
#[derive(Debug)]
pub struct Worker {
    files: Arc<Files>,
    /// The device files that the thread opened, by device.
    own: [Option<DeviceFile>; DEVICES.len()],
    /// The groups that the thread opened.
    groups: [Option<GroupFile>; GROUPS.len()],
    /// The devices that the thread opened through their groups, once for each time.
    opened: [Vec<DeviceFile>; DEVICES.len()],
}

impl Worker {
    /// Creates the state of a thread with nothing open.
    pub fn new(files: Arc<Files>) -> Self {
        Self {
            files,
            own: Default::default(),
            groups: Default::default(),
            opened: Default::default(),
        }
    }

    /// Returns whether the thread has the file of a device open.
    fn has_file(&self, device: Device, file: File) -> bool {
        match file {
            File::Own => self.own[device as usize].is_some(),
            File::Shared => self.files.devices[device as usize].read().is_some(),
        }
    }

    fn has_group(&self, group: Group, file: File) -> bool {
        match file {
            File::Own => self.groups[group as usize].is_some(),
            File::Shared => self.files.groups[group as usize].read().is_some(),
        }
    }

    fn has_door(&self, device: Device, door: Door) -> bool {
        match door {
            Door::File(file) => self.has_file(device, file),
            Door::Group => !self.opened[device as usize].is_empty(),
        }
    }

    /// Calls a function with the open file of a device. Returns `None` if it is closed.
    fn with_file<R>(
        &self,
        device: Device,
        file: File,
        body: impl FnOnce(&DeviceFile) -> R,
    ) -> Option<R> {
        match file {
            File::Own => self.own[device as usize].as_ref().map(body),
            File::Shared => self.files.devices[device as usize]
                .read()
                .as_ref()
                .map(body),
        }
    }

    /// The same for the file of a group.
    fn with_group<R>(
        &self,
        group: Group,
        file: File,
        body: impl FnOnce(&GroupFile) -> R,
    ) -> Option<R> {
        match file {
            File::Own => self.groups[group as usize].as_ref().map(body),
            File::Shared => self.files.groups[group as usize].read().as_ref().map(body),
        }
    }

    /// The same for an open device.
    fn with_door<R>(
        &self,
        device: Device,
        door: Door,
        body: impl FnOnce(&DeviceFile) -> R,
    ) -> Option<R> {
        match door {
            Door::File(file) => self.with_file(device, file, body),
            Door::Group => self.opened[device as usize].last().map(body),
        }
    }

    /// Returns the descriptor of a file.
    fn descriptor(&self, given: Given) -> RawFd {
        match given {
            Given::Container => self.files.container.as_fd().as_raw_fd(),
            Given::Iommufd(nth) => self.files.iommufds[index(nth)].as_fd().as_raw_fd(),
            Given::Null => self.files.null.as_raw_fd(),
            Given::Closed => CLOSED,
        }
    }

    /// Sends a structure to the file of a device. The kernel can write it or not.
    fn send(
        &self,
        device: Device,
        file: File,
        nr: u32,
        mut bytes: Bytes,
        unwritable: bool,
    ) -> Result<Option<Answer>> {
        let sent = if unwritable {
            let mut memory = Memory::anonymous(PAGE as usize)?;
            memory.write(0, bytes.as_ref());
            memory.protect(true, false)?;
            self.with_file(device, file, |file| raw::at(file, nr, &mut memory, 0))
        } else {
            self.with_file(device, file, |file| raw::bytes(file, nr, &mut bytes))
        };
        Ok(sent.map(nothing))
    }

    fn bind(
        &self,
        device: Device,
        file: File,
        given: Given,
        unwritable: bool,
        token: bool,
    ) -> Result<Option<Answer>> {
        let bind = BindIommufd {
            iommufd: self.descriptor(given),
            flags: if token { BindIommufd::TOKEN } else { 0 },
            token: if token { UNREADABLE } else { 0 },
            ..BindIommufd::default()
        };
        let nr = request::DEVICE_BIND_IOMMUFD;
        self.send(device, file, nr, bind.bytes(), unwritable)
    }

    fn attach(
        &self,
        device: Device,
        file: File,
        ioas: u8,
        pasid: bool,
        unwritable: bool,
    ) -> Result<Option<Answer>> {
        let id = match ioas {
            UNKNOWN => UNKNOWN_ID,
            nth => self.files.ioases[index(nth)],
        };
        let attach = AttachPt {
            flags: if pasid { AttachPt::PASID } else { 0 },
            pasid: PASID,
            ..AttachPt::to(id)
        };
        let nr = request::DEVICE_ATTACH_IOMMUFD_PT;
        self.send(device, file, nr, attach.bytes(), unwritable)
    }

    /// Sends a request whose structure is wrong, and otherwise right.
    fn send_flawed(
        &self,
        device: Device,
        file: File,
        ask: Ask,
        flaw: Flaw,
    ) -> Result<Option<Answer>> {
        let unknown = |flags| match flaw {
            Flaw::Flags => flags | (1 << 31),
            _ => flags,
        };
        let argsz = |size| match flaw {
            Flaw::Short => 8,
            Flaw::Tail => size + 8,
            _ => size,
        };
        let (nr, bytes) = match ask {
            Ask::Bind => {
                let iommufd = self.descriptor(Given::Iommufd(0));
                let bind = BindIommufd {
                    argsz: argsz(BindIommufd::SIZE),
                    flags: unknown(0),
                    iommufd: if flaw == Flaw::Value { -1 } else { iommufd },
                    token: 0,
                };
                (request::DEVICE_BIND_IOMMUFD, bind.bytes().fill(1, 8))
            }
            Ask::Attach => {
                let mut attach = AttachPt {
                    argsz: argsz(AttachPt::SIZE),
                    flags: unknown(0),
                    ..AttachPt::to(self.files.ioases[0])
                };
                if flaw == Flaw::Value {
                    attach.argsz = AttachPt::SIZE_WITHOUT_PASID;
                    attach.flags = AttachPt::PASID;
                }
                (request::DEVICE_ATTACH_IOMMUFD_PT, attach.bytes())
            }
            Ask::Detach => {
                let mut detach = DetachPt {
                    argsz: argsz(DetachPt::SIZE),
                    flags: unknown(0),
                    pasid: 0,
                };
                match flaw {
                    Flaw::Value => {
                        detach.argsz = DetachPt::SIZE_WITHOUT_PASID;
                        detach.flags = DetachPt::PASID;
                    }
                    // Without the flags.
                    Flaw::Short => detach.argsz = 4,
                    _ => (),
                }
                (request::DEVICE_DETACH_IOMMUFD_PT, detach.bytes())
            }
        };
        if flaw == Flaw::Unreadable {
            let sent = self.with_file(device, file, |file| raw::value(file, nr, UNREADABLE));
            return Ok(sent.map(nothing));
        }
        self.send(device, file, nr, bytes, false)
    }

    /// Sends a request to the driver of [`Device::Emulated`] about the page with the mark.
    fn ask_driver(&self, op: &Op) -> Option<Answer> {
        let pages = |count, prot| Pages {
            iova: MARK_AT,
            count,
            prot,
            word: 0,
        };
        let (door, number, mut bytes) = match op {
            Op::Pin(door) => (*door, pin::Ask::Pin, pages(1, pin::READ).bytes()),
            Op::Unpin(door) => (*door, pin::Ask::Unpin, pages(1, 0).bytes()),
            Op::Read(door) => (*door, pin::Ask::Read, pages(8, 0).bytes().fill(0xa5, 8)),
            _ => return None,
        };
        self.with_door(Device::Emulated, door, |device| {
            let returned = raw::bytes(device, number.number(), &mut bytes)?;
            Ok(match op {
                Op::Pin(_) => vec![returned as u64],
                Op::Read(_) => vec![bytes.get_u64(size_of::<Pages>())],
                _ => Vec::new(),
            })
        })
    }

    fn open_file(&mut self, device: Device, file: File) -> Answer {
        let opened = DeviceFile::open_file(&folder(device)).map_err(|e| e.errno())?;
        match file {
            File::Own => self.own[device as usize] = Some(opened),
            File::Shared => *self.files.devices[device as usize].write() = Some(opened),
        }
        Ok(Vec::new())
    }

    fn open_group(&mut self, group: Group, file: File) -> Result<Answer> {
        let device = group.devices().next().context("the group has no device")?;
        let opened = match GroupFile::open(GroupFile::number_of(&folder(device))?) {
            Ok(opened) => opened,
            Err(error) => return Ok(Err(error.errno())),
        };
        match file {
            File::Own => self.groups[group as usize] = Some(opened),
            File::Shared => *self.files.groups[group as usize].write() = Some(opened),
        }
        Ok(Ok(Vec::new()))
    }
}

fn nothing<T>(returned: Result<T, Errno>) -> Answer {
    returned.map(|_| Vec::new())
}

/// Returns the answer of a request that the client library sent.
fn answer<T>(returned: vfio_client::Result<T>) -> Answer {
    nothing(returned.map_err(|error| error.errno()))
}

impl Worker {
    /// Returns whether a request can be sent: some requests need an open file.
    pub fn can(&self, op: &Op) -> bool {
        match *op {
            Op::OpenFile(device, File::Own) => !self.has_file(device, File::Own),
            Op::OpenGroup(group, File::Own) => !self.has_group(group, File::Own),
            Op::OpenFile(_, File::Shared) | Op::OpenGroup(_, File::Shared) => true,
            Op::CloseFile(device, file)
            | Op::Flawed(device, file, ..)
            | Op::Bind { device, file, .. }
            | Op::Attach { device, file, .. }
            | Op::Detach { device, file, .. } => self.has_file(device, file),
            Op::Info(device, door) | Op::Config(device, door) => self.has_door(device, door),
            Op::Read(door) | Op::Pin(door) | Op::Unpin(door) => {
                self.has_door(Device::Emulated, door)
            }
            Op::CloseGroup(group, file)
            | Op::SetContainer(group, file, _)
            | Op::UnsetContainer(group, file)
            | Op::Status(group, file) => self.has_group(group, file),
            Op::GetDevice(device, file) => self.has_group(device.group(), file),
            Op::BindGroupDevice(device) | Op::CloseDevice(device) => {
                self.has_door(device, Door::Group)
            }
            Op::SetIommu | Op::SetCompat(..) | Op::Destroy(..) => true,
        }
    }

    /// Sends a request. Returns `None` if another thread has closed the file meanwhile, so that
    /// nothing was sent. An error means that it cannot be sent at all.
    pub fn perform(&mut self, op: &Op) -> Result<Option<Answer>> {
        let files = self.files.clone();
        Ok(match *op {
            Op::OpenFile(device, file) => Some(self.open_file(device, file)),
            Op::CloseFile(device, File::Own) => closed(self.own[device as usize].take()),
            Op::CloseFile(device, File::Shared) => {
                let mut slot = files.devices[device as usize].write();
                closed(slot.take())
            }
            Op::Bind {
                device,
                file,
                given,
                unwritable,
                token,
            } => self.bind(device, file, given, unwritable, token)?,
            Op::Flawed(device, file, ask, flaw) => self.send_flawed(device, file, ask, flaw)?,
            Op::Attach {
                device,
                file,
                ioas,
                pasid,
                unwritable,
            } => self.attach(device, file, ioas, pasid, unwritable)?,
            Op::Detach {
                device,
                file,
                pasid,
            } => {
                let detach = DetachPt {
                    flags: if pasid { DetachPt::PASID } else { 0 },
                    pasid: PASID,
                    ..DetachPt::default()
                };
                let nr = request::DEVICE_DETACH_IOMMUFD_PT;
                self.send(device, file, nr, detach.bytes(), false)?
            }
            Op::Info(device, door) => self.with_door(device, door, |device| answer(device.info())),
            Op::Config(device, door) => {
                let mut word = [0; 4];
                self.with_door(device, door, |device| {
                    nothing(raw::pread(device, &mut word, CONFIG))
                })
            }
            Op::Read(_) | Op::Pin(_) | Op::Unpin(_) => self.ask_driver(op),
            Op::OpenGroup(group, file) => Some(self.open_group(group, file)?),
            Op::CloseGroup(group, File::Own) => closed(self.groups[group as usize].take()),
            Op::CloseGroup(group, File::Shared) => {
                let mut slot = files.groups[group as usize].write();
                closed(slot.take())
            }
            Op::SetContainer(group, file, given) => {
                let fd = self.descriptor(given);
                self.with_group(group, file, |group| answer(group.set_container_fd(fd)))
            }
            Op::UnsetContainer(group, file) => {
                self.with_group(group, file, |group| answer(group.unset_container()))
            }
            Op::Status(group, file) => self.with_group(group, file, |group| {
                let status = group.status().map_err(|error| error.errno());
                status.map(|flags| vec![flags.into()])
            }),
            Op::GetDevice(device, file) => {
                let opened = self.with_group(device.group(), file, |group| {
                    group.device(name(device)).map_err(|error| error.errno())
                });
                opened.map(|opened| {
                    self.opened[device as usize].push(opened?);
                    Ok(Vec::new())
                })
            }
            Op::BindGroupDevice(device) => {
                let bind = BindIommufd {
                    iommufd: self.descriptor(Given::Iommufd(0)),
                    ..BindIommufd::default()
                };
                self.with_door(device, Door::Group, |device| nothing(bind.send(device)))
            }
            Op::CloseDevice(device) => closed(self.opened[device as usize].pop()),
            Op::SetIommu => Some(answer(files.container.set_iommu(Iommu::Type1v2))),
            Op::SetCompat(nth, ioas) => {
                let iommufd = &files.iommufds[index(nth)];
                Some(answer(match ioas {
                    Some(ioas) => iommufd.set_compat_ioas(files.ioases[index(ioas)]),
                    None => iommufd.clear_compat_ioas(),
                }))
            }
            Op::Destroy(nth, ioas) => {
                let id = files.ioases[index(ioas)];
                Some(answer(files.iommufds[index(nth)].destroy(id)))
            }
        })
    }
}

/// Closes a file. Returns `None` if it is closed.
fn closed<T>(file: Option<T>) -> Option<Answer> {
    file.map(|file| {
        drop(file);
        Ok(Vec::new())
    })
}

/// The machine: what all iommufds map, and the mediated device.
#[derive(Debug)]
pub struct Machine {
    /// What the IOASes map, by iommufd and IOAS.
    marks: Memory,
    /// Removed when this is dropped.
    _mediated: Mdev,
}

impl Machine {
    /// Creates the mediated device.
    pub fn new() -> Result<Self> {
        check_descriptor()?;
        let count = IOMMUFDS * IOASES as usize;
        let marks = Memory::anonymous(count * PAGE as usize)?;
        for iommufd in 0..IOMMUFDS as u8 {
            for ioas in 0..IOASES {
                let place = index(iommufd) * IOASES as usize + index(ioas);
                marks.write_u64(place * PAGE as usize, mark(iommufd, ioas));
            }
        }
        Ok(Self {
            marks,
            _mediated: Mdev::new(MEDIATED_TYPE, MEDIATED)?,
        })
    }

    /// Opens new iommufds and a new container. All IOASes map their mark.
    pub fn open_files(&self) -> Result<Files> {
        let marks = &self.marks;
        let iommufds = [Iommufd::open()?, Iommufd::open()?];
        let ids = |iommufd: &Iommufd| -> Result<[u32; IOASES as usize]> {
            Ok([iommufd.ioas()?, iommufd.ioas()?])
        };
        let ioases = ids(&iommufds[0])?;
        let others = ids(&iommufds[1])?;
        ensure!(
            ioases == others,
            "expected the same ids in both iommufds, got {ioases:?} and {others:?}"
        );
        for (nth, iommufd) in iommufds.iter().enumerate() {
            for (i, ioas) in ioases.into_iter().enumerate() {
                let place = (nth * ioases.len() + i) * PAGE as usize;
                iommufd.map_part(
                    ioas,
                    MARK_AT,
                    marks,
                    place,
                    PAGE as usize,
                    MapFlags::ReadWrite,
                )?;
            }
        }
        Ok(Files {
            container: Container::open()?,
            iommufds,
            ioases,
            null: fs::File::open("/dev/null")?,
            devices: [const { None }; DEVICES.len()].map(Slot::new),
            groups: [const { None }; GROUPS.len()].map(Slot::new),
        })
    }
}

/// Checks that the descriptor which stands for a closed file is not in use.
pub fn check_descriptor() -> Result<()> {
    ensure!(
        raw::duplicate(CLOSED).is_err(),
        "descriptor {CLOSED} is in use"
    );
    Ok(())
}
