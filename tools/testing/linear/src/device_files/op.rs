// SPDX-License-Identifier: GPL-2.0

//! Requests to device files, groups and iommufds.

use std::fmt;

/// The number of iommufds.
pub const IOMMUFDS: usize = 2;
/// The number of IOASes that each iommufd has at the start of a round.
pub const IOASES: u8 = 2;
/// The index that stands for an id which an iommufd does not have.
pub const UNKNOWN: u8 = u8::MAX;

/// A device of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// An `edu` that is alone in its group.
    Edu = 0,
    /// An `edu` whose group also has [`Second`](Self::Second).
    First = 1,
    /// The other `edu` of that group.
    Second = 2,
    /// A device without an IOMMU, of the test driver that pins pages.
    Emulated = 3,
    /// A mediated device of a sample driver.
    Mediated = 4,
}

/// All devices, by index.
pub const DEVICES: [Device; 5] = [
    Device::Edu,
    Device::First,
    Device::Second,
    Device::Emulated,
    Device::Mediated,
];

impl Device {
    /// Returns its group.
    pub fn group(self) -> Group {
        match self {
            Self::Edu => Group::Edu,
            Self::First | Self::Second => Group::Pair,
            Self::Emulated => Group::Emulated,
            Self::Mediated => Group::Mediated,
        }
    }

    /// Returns whether it has no IOMMU.
    pub fn is_emulated(self) -> bool {
        matches!(self, Self::Emulated | Self::Mediated)
    }

    /// Returns all devices of its group.
    pub fn members(self) -> impl Iterator<Item = Self> {
        let group = self.group();
        DEVICES.into_iter().filter(move |d| d.group() == group)
    }
}

/// A group of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Group {
    /// That of [`Device::Edu`].
    Edu = 0,
    /// That of [`Device::First`] and [`Device::Second`].
    Pair = 1,
    /// That of [`Device::Emulated`].
    Emulated = 2,
    /// That of [`Device::Mediated`].
    Mediated = 3,
}

/// All groups, by index.
pub const GROUPS: [Group; 4] = [Group::Edu, Group::Pair, Group::Emulated, Group::Mediated];

impl Group {
    /// Returns its devices.
    pub fn devices(self) -> impl Iterator<Item = Device> {
        DEVICES.into_iter().filter(move |d| d.group() == self)
    }

    /// Returns whether its devices have no IOMMU.
    pub fn is_emulated(self) -> bool {
        matches!(self, Self::Emulated | Self::Mediated)
    }
}

/// An open device file, or the open file of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum File {
    /// The thread opened it.
    Own,
    /// It was opened before the threads started, and all threads of both processes use it.
    Shared,
}

/// The way in which a device was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Door {
    /// By a device file.
    File(File),
    /// Through its group, by the same thread.
    Group,
}

/// The file whose descriptor is the argument of SET_CONTAINER or BIND_IOMMUFD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Given {
    /// The container.
    Container,
    /// One of the iommufds.
    Iommufd(u8),
    /// A file unrelated to VFIO.
    Null,
    /// No file: the descriptor is not in use.
    Closed,
}

/// A structure that is wrong, whatever the state of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// It is too short.
    Short,
    /// It has an unknown flag.
    Flags,
    /// It cannot be read.
    Unreadable,
    /// It is longer than the kernel knows, and the rest is not zero.
    Tail,
    /// It ends before the PASID, or its descriptor is negative.
    Value,
}

/// All flaws.
pub const FLAWS: [Flaw; 5] = [
    Flaw::Short,
    Flaw::Flags,
    Flaw::Unreadable,
    Flaw::Tail,
    Flaw::Value,
];

/// A request with a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ask {
    /// BIND_IOMMUFD.
    Bind,
    /// ATTACH_IOMMUFD_PT.
    Attach,
    /// DETACH_IOMMUFD_PT.
    Detach,
}

/// All requests with a structure.
pub const ASKS: [Ask; 3] = [Ask::Bind, Ask::Attach, Ask::Detach];

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// Open a device file.
    OpenFile(Device, File),
    /// Close a descriptor of a device file.
    CloseFile(Device, File),
    /// BIND_IOMMUFD.
    Bind {
        /// The device.
        device: Device,
        /// The file.
        file: File,
        /// The descriptor.
        given: Given,
        /// The id cannot be written to the structure.
        unwritable: bool,
        /// There is a token, which cannot be read.
        token: bool,
    },
    /// A request whose structure is wrong.
    Flawed(Device, File, Ask, Flaw),
    /// ATTACH_IOMMUFD_PT.
    Attach {
        /// The device.
        device: Device,
        /// The file.
        file: File,
        /// The index of the IOAS in the iommufd to which the device is bound.
        ioas: u8,
        /// Attach a PASID. No device of the machine has PASIDs.
        pasid: bool,
        /// The id of the page table cannot be written to the structure.
        unwritable: bool,
    },
    /// DETACH_IOMMUFD_PT.
    Detach {
        /// The device.
        device: Device,
        /// The file.
        file: File,
        /// Detach a PASID.
        pasid: bool,
    },
    /// DEVICE_GET_INFO.
    Info(Device, Door),
    /// Read a word of the device's configuration space by `pread()`.
    Config(Device, Door),
    /// The driver calls `vfio_dma_rw()` and reads the mark of the IOAS.
    Read(Door),
    /// The driver calls `vfio_pin_pages()` for the page with the mark.
    Pin(Door),
    /// The driver calls `vfio_unpin_pages()` if it has pinned that page.
    Unpin(Door),
    /// Open a group.
    OpenGroup(Group, File),
    /// Close a descriptor of a group.
    CloseGroup(Group, File),
    /// GROUP_SET_CONTAINER.
    SetContainer(Group, File, Given),
    /// GROUP_UNSET_CONTAINER.
    UnsetContainer(Group, File),
    /// GROUP_GET_STATUS.
    Status(Group, File),
    /// GROUP_GET_DEVICE_FD.
    GetDevice(Device, File),
    /// BIND_IOMMUFD of a device that was opened through its group.
    BindGroupDevice(Device),
    /// Close a device that the thread opened through its group.
    CloseDevice(Device),
    /// SET_IOMMU of the container.
    SetIommu,
    /// IOMMU_VFIO_IOAS: choose an IOAS of an iommufd for groups, or none.
    SetCompat(u8, Option<u8>),
    /// IOMMU_DESTROY of an IOAS.
    Destroy(u8, u8),
}

/// The mark of the memory that an IOAS maps.
pub fn mark(iommufd: u8, ioas: u8) -> u64 {
    0x100 + u64::from(iommufd) * u64::from(IOASES) + u64::from(ioas)
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Edu => "edu",
            Self::First => "first-of-pair",
            Self::Second => "second-of-pair",
            Self::Emulated => "emulated",
            Self::Mediated => "mediated",
        })
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Edu => "group(edu)",
            Self::Pair => "group(pair)",
            Self::Emulated => "group(emulated)",
            Self::Mediated => "group(mediated)",
        })
    }
}

impl fmt::Display for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "own",
            Self::Shared => "shared",
        })
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "{file} file"),
            Self::Group => f.write_str("through the group"),
        }
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container => f.write_str("container"),
            Self::Iommufd(nth) => write!(f, "iommufd {nth}"),
            Self::Null => f.write_str("/dev/null"),
            Self::Closed => f.write_str("a closed descriptor"),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unwritable = |is| if is { ", id not writable" } else { "" };
        let of_pasid = |is| if is { " of a PASID" } else { "" };
        match *self {
            Self::OpenFile(device, file) => write!(f, "open {file} file of {device}"),
            Self::CloseFile(device, file) => write!(f, "close {file} file of {device}"),
            Self::Bind {
                device,
                file,
                given,
                unwritable: is,
                token,
            } => write!(
                f,
                "BIND_IOMMUFD {file} file of {device} to {given}{}{}",
                unwritable(is),
                if token { ", token not readable" } else { "" }
            ),
            Self::Flawed(device, file, ask, flaw) => {
                let name = match ask {
                    Ask::Bind => "BIND_IOMMUFD",
                    Ask::Attach => "ATTACH_IOMMUFD_PT",
                    Ask::Detach => "DETACH_IOMMUFD_PT",
                };
                write!(
                    f,
                    "{name} {file} file of {device}, wrong structure: {flaw:?}"
                )
            }
            Self::Attach {
                device,
                file,
                ioas,
                pasid,
                unwritable: is,
            } => {
                write!(
                    f,
                    "ATTACH_IOMMUFD_PT{} {file} file of {device} to ",
                    of_pasid(pasid)
                )?;
                match ioas {
                    UNKNOWN => f.write_str("an unknown id")?,
                    ioas => write!(f, "IOAS {ioas}")?,
                }
                f.write_str(unwritable(is))
            }
            Self::Detach {
                device,
                file,
                pasid,
            } => write!(
                f,
                "DETACH_IOMMUFD_PT{} {file} file of {device}",
                of_pasid(pasid)
            ),
            Self::Info(device, door) => write!(f, "DEVICE_GET_INFO {device}, {door}"),
            Self::Config(device, door) => {
                write!(f, "pread of the configuration space of {device}, {door}")
            }
            Self::Read(door) => write!(f, "vfio_dma_rw read by emulated, {door}"),
            Self::Pin(door) => write!(f, "vfio_pin_pages by emulated, {door}"),
            Self::Unpin(door) => write!(f, "vfio_unpin_pages by emulated, {door}"),
            Self::OpenGroup(group, file) => write!(f, "open {file} {group}"),
            Self::CloseGroup(group, file) => write!(f, "close {file} {group}"),
            Self::SetContainer(group, file, given) => {
                write!(f, "SET_CONTAINER {file} {group} to {given}")
            }
            Self::UnsetContainer(group, file) => write!(f, "UNSET_CONTAINER {file} {group}"),
            Self::Status(group, file) => write!(f, "GROUP_GET_STATUS {file} {group}"),
            Self::GetDevice(device, file) => {
                write!(f, "GET_DEVICE_FD {device}, {file} {}", device.group())
            }
            Self::BindGroupDevice(device) => {
                write!(f, "BIND_IOMMUFD {device}, opened through its group")
            }
            Self::CloseDevice(device) => write!(f, "close {device}, opened through its group"),
            Self::SetIommu => f.write_str("SET_IOMMU"),
            Self::SetCompat(iommufd, Some(ioas)) => {
                write!(f, "VFIO_IOAS_SET iommufd {iommufd} IOAS {ioas}")
            }
            Self::SetCompat(iommufd, None) => write!(f, "VFIO_IOAS_CLEAR iommufd {iommufd}"),
            Self::Destroy(iommufd, ioas) => {
                write!(f, "IOMMU_DESTROY iommufd {iommufd} IOAS {ioas}")
            }
        }
    }
}
