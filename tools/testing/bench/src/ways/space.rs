// SPDX-License-Identifier: GPL-2.0

//! A DMA address space with a device, in each of the ways that the kernel offers.

use crate::{
    edu,
    memory::Filled,
    request::{
        Attached,
        Request, //
    },
};
use anyhow::{
    Context,
    Result,
    ensure, //
};
use clap::ValueEnum;
use std::{
    mem::offset_of,
    os::fd::{
        AsFd,
        AsRawFd,
        BorrowedFd, //
    },
    path::{
        Path,
        PathBuf, //
    },
};
use support::devices;
use vfio_client::{
    Bytes, Container, Device, Group, Iommu, Iommufd, IovaRange, Memory, pci, request,
    structures::{
        DmaMap,
        DmaUnmap,
        IoasIovaRanges,
        IoasMap,
        IoasMapFile,
        IoasUnmap,
        argsz, //
    },
};

/// The flags of a mapping in an IOAS: at the given IOVA, for writing and reading.
const FLAGS: u32 = 7;

/// The ways to a DMA address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Way {
    /// A group in a container of type 1.
    Type1,
    /// A group whose container is an iommufd: the requests of a container, executed by IOMMUFD.
    Compat,
    /// A device file that is bound to an iommufd and attached to an IOAS.
    Iommufd,
}

/// The file that takes the requests for an address space.
pub enum Target {
    /// A container, or an iommufd in its place.
    Container(Container),
    /// An iommufd, and an IOAS in it.
    Ioas(Iommufd, u32),
}

impl AsFd for Target {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Container(container) => container.as_fd(),
            Self::Ioas(iommufd, _) => iommufd.as_fd(),
        }
    }
}

/// An open device in an address space. The fields are in the order in which they are closed.
pub struct Member {
    /// The device.
    pub device: Device,
    /// The group by which it was opened.
    _group: Option<Group>,
}

/// An address space with an open device.
pub struct Space {
    /// The first device.
    pub member: Member,
    /// The file for requests.
    pub target: Target,
}

impl Space {
    /// Opens a device, given by its PCI address or as a platform device, in a new address space.
    pub fn open(way: Way, name: &str) -> Result<Self> {
        match way {
            Way::Type1 => {
                let Attached { container, group } = Attached::new(name)?;
                Self::of_group(container, group, name)
            }
            Way::Compat => {
                let container = Iommufd::open()?.as_container()?;
                let group = devices::group(name)?;
                group.set_container(&container)?;
                container.set_iommu(Iommu::Type1v2)?;
                Self::of_group(container, group, name)
            }
            Way::Iommufd => {
                let iommufd = Iommufd::open()?;
                let ioas = iommufd.ioas()?;
                let member = Member::bind(&iommufd, ioas, name)?;
                let target = Target::Ioas(iommufd, ioas);
                Ok(Self { member, target })
            }
        }
    }

    fn of_group(container: Container, group: Group, name: &str) -> Result<Self> {
        let member = Member {
            device: group.device(name)?,
            _group: Some(group),
        };
        let target = Target::Container(container);
        Ok(Self { member, target })
    }

    /// Opens another device in this address space.
    pub fn add(&self, name: &str) -> Result<Member> {
        match &self.target {
            Target::Ioas(iommufd, ioas) => Member::bind(iommufd, *ioas, name),
            Target::Container(container) => {
                let group = devices::group(name)?;
                group.set_container(container)?;
                Ok(Member {
                    device: group.device(name)?,
                    _group: Some(group),
                })
            }
        }
    }

    /// Checks that the first device, an `edu`, can read and write the memory through a mapping of
    /// this address space.
    pub fn check(&self, memory: &Filled, size: u64) -> Result<()> {
        edu::check_mapped(&self.member.device, memory, size, |addr, iova, size| {
            self.map(addr, iova, size)?.send(self)
        })
    }

    /// Prepares a request that maps memory at an address for reading and writing.
    pub fn map(&self, addr: u64, iova: u64, size: u64) -> Result<Map> {
        match &self.target {
            Target::Container(_) => Ok(Map {
                request: Request::map(addr, iova, size)?,
                addr: offset_of!(DmaMap, vaddr),
                iova: offset_of!(DmaMap, iova),
            }),
            Target::Ioas(_, ioas) => {
                let map = IoasMap {
                    size: argsz::<IoasMap>(),
                    flags: FLAGS,
                    ioas_id: *ioas,
                    user_va: addr,
                    length: size,
                    iova,
                    ..IoasMap::default()
                };
                Ok(Map {
                    request: Request::new(request::IOMMU_IOAS_MAP, &Bytes::of(&map))?,
                    addr: offset_of!(IoasMap, user_va),
                    iova: offset_of!(IoasMap, iova),
                })
            }
        }
    }

    /// Prepares a request that maps memory by its file. Only an IOAS has it.
    pub fn map_file(&self, memory: &Filled, iova: u64, size: u64) -> Result<Option<Map>> {
        let Target::Ioas(_, ioas) = &self.target else {
            return Ok(None);
        };
        let (file, start) = memory.file().context("the memory has no file")?;
        let map = IoasMapFile {
            size: argsz::<IoasMapFile>(),
            flags: FLAGS,
            ioas_id: *ioas,
            fd: file.as_raw_fd(),
            start,
            length: size,
            iova,
        };
        Ok(Some(Map {
            request: Request::new(request::IOMMU_IOAS_MAP_FILE, &Bytes::of(&map))?,
            addr: offset_of!(IoasMapFile, start),
            iova: offset_of!(IoasMapFile, iova),
        }))
    }

    /// Prepares a request that unmaps a range.
    pub fn unmap(&self, iova: u64, size: u64) -> Result<Unmap> {
        match &self.target {
            Target::Container(_) => Ok(Unmap {
                request: Request::unmap(iova, size)?,
                iova: offset_of!(DmaUnmap, iova),
                size: offset_of!(DmaUnmap, size),
                asked: size,
            }),
            Target::Ioas(_, ioas) => Unmap::of_ioas(*ioas, iova, size),
        }
    }

    /// Prepares a request that unmaps everything.
    pub fn unmap_all(&self) -> Result<Unmap> {
        match &self.target {
            Target::Container(_) => Ok(Unmap {
                request: Request::unmap_all()?,
                iova: offset_of!(DmaUnmap, iova),
                size: offset_of!(DmaUnmap, size),
                asked: 0,
            }),
            Target::Ioas(_, ioas) => Unmap::of_ioas(*ioas, 0, u64::MAX),
        }
    }

    /// Prepares a request for the IOVA ranges, among other information, that changes nothing.
    pub fn info(&self) -> Result<Info> {
        match &self.target {
            Target::Container(_) => Ok(Info {
                request: Request::info(request::IOMMU_GET_INFO)?,
                _ranges: None,
            }),
            Target::Ioas(_, ioas) => {
                const ROOM: usize = 8;
                let ranges = Memory::anonymous(ROOM * size_of::<IovaRange>())?;
                let query = IoasIovaRanges {
                    size: argsz::<IoasIovaRanges>(),
                    ioas_id: *ioas,
                    num_iovas: ROOM as u32,
                    allowed_iovas: ranges.addr(),
                    ..IoasIovaRanges::default()
                };
                Ok(Info {
                    request: Request::new(request::IOMMU_IOAS_IOVA_RANGES, &Bytes::of(&query))?,
                    _ranges: Some(ranges),
                })
            }
        }
    }
}

impl Member {
    fn bind(iommufd: &Iommufd, ioas: u32, name: &str) -> Result<Self> {
        let device = Device::open_file(&folder(name))?;
        device.bind(iommufd)?;
        device.attach(ioas)?;
        Ok(Self {
            device,
            _group: None,
        })
    }
}

/// Returns the sysfs directory of a device.
fn folder(name: &str) -> PathBuf {
    if name.contains(':') {
        pci::sysfs(name)
    } else {
        Path::new("/sys/bus/platform/devices").join(name)
    }
}

/// A prepared request that maps.
pub struct Map {
    request: Request,
    addr: usize,
    iova: usize,
}

impl Map {
    /// Sends the request.
    pub fn send(&mut self, space: &Space) -> Result<()> {
        self.request.send(&space.target).map(drop)
    }

    /// Maps other memory at another IOVA, of the same size.
    pub fn send_at(&mut self, space: &Space, addr: u64, iova: u64) -> Result<()> {
        self.request.set_u64(self.addr, addr);
        self.request.set_u64(self.iova, iova);
        self.send(space)
    }
}

/// A prepared request that unmaps.
pub struct Unmap {
    request: Request,
    iova: usize,
    size: usize,
    /// The value of the size field, which the kernel overwrites with its result.
    asked: u64,
}

impl Unmap {
    fn of_ioas(ioas_id: u32, iova: u64, length: u64) -> Result<Self> {
        let unmap = IoasUnmap {
            size: argsz::<IoasUnmap>(),
            ioas_id,
            iova,
            length,
        };
        Ok(Self {
            request: Request::new(request::IOMMU_IOAS_UNMAP, &Bytes::of(&unmap))?,
            iova: offset_of!(IoasUnmap, iova),
            size: offset_of!(IoasUnmap, length),
            asked: length,
        })
    }

    /// Sends the request, and checks that it unmapped `size` bytes.
    pub fn send(&mut self, space: &Space, size: u64) -> Result<()> {
        self.request.set_u64(self.size, self.asked);
        self.request.send(&space.target)?;
        let gone = self.request.get_u64(self.size);
        ensure!(gone == size, "{gone:#x} bytes went, not {size:#x}");
        Ok(())
    }

    /// Unmaps a range of the same size at another IOVA.
    pub fn send_at(&mut self, space: &Space, iova: u64) -> Result<()> {
        self.request.set_u64(self.iova, iova);
        self.send(space, self.asked)
    }
}

/// A prepared request for information.
pub struct Info {
    request: Request,
    /// The kernel writes the ranges there.
    _ranges: Option<Memory>,
}

impl Info {
    /// Sends the request.
    pub fn send(&mut self, space: &Space) -> Result<()> {
        self.request.send(&space.target).map(drop)
    }
}
