// SPDX-License-Identifier: GPL-2.0

//! Containers with a PAMU backend: aperture, windows and MSI banks.
//!
//! C header: `include/uapi/vfio_pamu.h`

use crate::{
    Container, Errno, Error, Group, Interrupt, MapFlags, Memory, Result, abi,
    request::{
        number,
        own, //
    },
    structures::{
        DmaMap,
        argsz, //
    },
};
use std::os::fd::OwnedFd;
use zerocopy::{
    FromBytes,
    Immutable,
    IntoBytes, //
};

/// The extension number.
pub const EXTENSION: u32 = 1000;

/// Container request: get an attribute.
pub const GET_ATTR: u32 = number(15);
/// Container request: set an attribute.
pub const SET_ATTR: u32 = number(16);
/// Container request: get the number of MSI banks.
pub const GET_MSI_BANK_COUNT: u32 = number(17);
/// Container request: map an MSI bank.
pub const MAP_MSI_BANK: u32 = number(18);
/// Container request: unmap an MSI bank.
pub const UNMAP_MSI_BANK: u32 = number(19);
/// Group request: get a file whose pages represent MSI banks.
pub const GET_MSI_FD: u32 = own(0x50);
/// Container request: get the content of a window.
pub const GET_WINDOW: u32 = own(0x51);
/// Container request: set the eventfd that is signalled on each violation.
pub const SET_VIOLATION_EVENTFD: u32 = own(0x52);
/// Container request: get the violation of a device that is shut off.
pub const GET_VIOLATION: u32 = own(0x53);
/// Container request: revive a device that is shut off.
pub const REVIVE: u32 = own(0x54);

/// Attribute: the aperture.
pub const ATTR_GEOMETRY: u32 = 0;
/// Attribute: the number of windows.
pub const ATTR_WINDOWS: u32 = 1;
/// Attribute: the cache that device writes are stashed to.
pub const ATTR_STASH: u32 = 2;
/// Attribute: whether the kernel or the program maps the MSI banks.
pub const ATTR_MSI: u32 = 256;

/// The maximum number of windows that a kernel can have. A PAMU has at most 256.
const MOST_WINDOWS: u32 = 1 << 16;

/// Flag of MAP_DMA: map MSI banks that the kernel chooses.
pub const MAP_FLAG_MSI: u32 = 1 << 8;

/// The argument of the requests for attributes: `struct vfio_pamu_attr`.
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct Attribute {
    argsz: u32,
    flags: u32,
    attribute: u32,
    pad: u32,
    value: [u8; 16],
}

impl Attribute {
    fn new(attribute: u32) -> Self {
        Self {
            argsz: argsz::<Self>(),
            flags: 0,
            attribute,
            pad: 0,
            value: [0; 16],
        }
    }
}

/// The value of [`ATTR_GEOMETRY`]: `struct vfio_pamu_geo_attr`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Geometry {
    aperture_start: u64,
    aperture_end: u64,
}

/// The value of [`ATTR_STASH`]: `struct vfio_pamu_stash`.
#[derive(FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Stash {
    cpu: u32,
    cache: u32,
}

/// The argument of [`MAP_MSI_BANK`]: `struct vfio_pamu_msi_bank_map`.
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct BankMap {
    argsz: u32,
    flags: u32,
    msi_bank_index: u32,
    pad: u32,
    iova: u64,
}

/// The argument of [`UNMAP_MSI_BANK`]: `struct vfio_pamu_msi_bank_unmap`.
#[derive(FromBytes, IntoBytes)]
#[repr(C)]
struct BankUnmap {
    argsz: u32,
    flags: u32,
    iova: u64,
}

/// The argument of [`GET_WINDOW`]: `struct vfio_pamu_window`.
#[derive(Default, FromBytes, IntoBytes)]
#[repr(C)]
struct RawWindow {
    argsz: u32,
    flags: u32,
    window: u32,
    bank: u32,
    iova: u64,
    size: u64,
    paddr: u64,
}

const WINDOW_READ: u32 = 1 << 0;
const WINDOW_WRITE: u32 = 1 << 1;
const WINDOW_MEMORY: u32 = 1 << 2;
const WINDOW_MSI: u32 = 1 << 3;
const WINDOW_IMPLICIT: u32 = 1 << 4;

/// The argument of [`GET_VIOLATION`]: `struct vfio_pamu_violation`.
#[derive(Default, FromBytes, IntoBytes)]
#[repr(C)]
struct RawViolation {
    argsz: u32,
    flags: u32,
    liodn: u32,
    status: u32,
    iova: u64,
}

/// The state of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Window {
    /// The window number.
    pub number: u32,
    /// The first address of the window.
    pub iova: u64,
    /// The number of bytes mapped.
    pub size: u64,
    /// The content that is mapped.
    pub content: Content,
    /// Whether devices can read.
    pub read: bool,
    /// Whether devices can write.
    pub write: bool,
    /// Whether the kernel created the mapping implicitly.
    pub implicit: bool,
    /// The physical address, for privileged callers.
    pub phys: u64,
}

/// The content of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    Free,
    /// Memory.
    Memory,
    /// An MSI bank.
    Bank(u32),
}

/// The violation of a device that is shut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The LIODN of the device.
    pub liodn: u32,
    /// The value of the PAMU register AVS1.
    pub status: u32,
    /// The address of the access.
    pub iova: u64,
}

/// A container with a PAMU backend.
#[derive(Debug)]
pub struct Pamu(Container);

impl Pamu {
    /// Sets the PAMU backend of a container that has a group.
    pub fn new(container: Container) -> Result<Self> {
        abi::ioctl_value(&container, crate::request::SET_IOMMU, u64::from(EXTENSION))
            .map_err(Error::during("SET_IOMMU"))?;
        Ok(Self(container))
    }

    /// Returns the container.
    pub fn container(&self) -> &Container {
        &self.0
    }

    fn send<T>(&self, call: &'static str, nr: u32, argument: &mut T) -> Result<i32>
    where
        T: FromBytes + IntoBytes,
    {
        abi::ioctl_bytes(&self.0, nr, argument.as_mut_bytes()).map_err(Error::during(call))
    }

    fn get<T: FromBytes + IntoBytes>(&self, attribute: u32) -> Result<T> {
        let mut argument = Attribute::new(attribute);
        self.send("PAMU_GET_ATTR", GET_ATTR, &mut argument)?;
        T::read_from_prefix(&argument.value)
            .map(|(value, _)| value)
            .map_err(|_| Error::malformed("PAMU_GET_ATTR"))
    }

    fn set(&self, attribute: u32, value: &(impl IntoBytes + Immutable)) -> Result {
        let mut argument = Attribute::new(attribute);
        for (to, from) in argument.value.iter_mut().zip(value.as_bytes()) {
            *to = *from;
        }
        self.send("PAMU_SET_ATTR", SET_ATTR, &mut argument)
            .map(drop)
    }

    /// Returns the first and the last address of the aperture.
    pub fn geometry(&self) -> Result<(u64, u64)> {
        let geometry: Geometry = self.get(ATTR_GEOMETRY)?;
        Ok((geometry.aperture_start, geometry.aperture_end))
    }

    /// Sets the aperture by its first and last address.
    pub fn set_geometry(&self, start: u64, end: u64) -> Result {
        let geometry = Geometry {
            aperture_start: start,
            aperture_end: end,
        };
        self.set(ATTR_GEOMETRY, &geometry)
    }

    /// Returns the number of windows. If none was set, returns the maximum.
    pub fn windows(&self) -> Result<u32> {
        self.get(ATTR_WINDOWS)
    }

    /// Divides the aperture into windows.
    pub fn set_windows(&self, count: u32) -> Result {
        self.set(ATTR_WINDOWS, &count)
    }

    /// Returns the CPU and the level of the cache that device writes are stashed to.
    pub fn stash(&self) -> Result<(u32, u32)> {
        let stash: Stash = self.get(ATTR_STASH)?;
        Ok((stash.cpu, stash.cache))
    }

    /// Sets the cache that device writes are stashed to.
    pub fn set_stash(&self, cpu: u32, cache: u32) -> Result {
        self.set(ATTR_STASH, &Stash { cpu, cache })
    }

    /// Returns whether the kernel maps the MSI banks.
    pub fn implicit(&self) -> Result<bool> {
        Ok(self.get::<u32>(ATTR_MSI)? != 0)
    }

    /// Sets whether the kernel maps the MSI banks.
    pub fn set_implicit(&self, implicit: bool) -> Result {
        self.set(ATTR_MSI, &u32::from(implicit))
    }

    /// Maps all of `memory` at `iova`.
    pub fn map(&self, iova: u64, memory: &Memory, flags: MapFlags) -> Result {
        self.0.map(iova, memory, flags)
    }

    /// Maps `len` bytes from `offset` of `memory` at `iova`.
    pub fn map_part(
        &self,
        iova: u64,
        memory: &Memory,
        offset: usize,
        len: usize,
        flags: MapFlags,
    ) -> Result {
        self.0.map_part(iova, memory, offset, len, flags)
    }

    /// Unmaps memory and banks. Returns the number of bytes unmapped.
    pub fn unmap(&self, iova: u64, size: u64) -> Result<u64> {
        self.0.unmap(iova, size)
    }

    /// Maps banks that the kernel chooses, for writing.
    pub fn map_any_banks(&self, iova: u64, size: u64) -> Result {
        let mut map = DmaMap {
            argsz: argsz::<DmaMap>(),
            flags: MapFlags::Write.bits() | MAP_FLAG_MSI,
            vaddr: 0,
            iova,
            size,
        };
        self.send("IOMMU_MAP_DMA", crate::request::IOMMU_MAP_DMA, &mut map)
            .map(drop)
    }

    /// Returns the number of MSI banks.
    pub fn bank_count(&self) -> Result<u32> {
        abi::ioctl_value(&self.0, GET_MSI_BANK_COUNT, 0)
            .map(|count| count as u32)
            .map_err(Error::during("PAMU_GET_MSI_BANK_COUNT"))
    }

    /// Maps an MSI bank.
    pub fn map_bank(&self, bank: u32, iova: u64, flags: MapFlags) -> Result {
        let mut map = BankMap {
            argsz: argsz::<BankMap>(),
            flags: flags.bits(),
            msi_bank_index: bank,
            pad: 0,
            iova,
        };
        self.send("PAMU_MAP_MSI_BANK", MAP_MSI_BANK, &mut map)
            .map(drop)
    }

    /// Unmaps an MSI bank.
    pub fn unmap_bank(&self, iova: u64) -> Result {
        let mut unmap = BankUnmap {
            argsz: argsz::<BankUnmap>(),
            flags: 0,
            iova,
        };
        self.send("PAMU_UNMAP_MSI_BANK", UNMAP_MSI_BANK, &mut unmap)
            .map(drop)
    }

    /// Returns the state of a window.
    pub fn window(&self, number: u32) -> Result<Window> {
        let mut window = RawWindow {
            argsz: argsz::<RawWindow>(),
            window: number,
            ..RawWindow::default()
        };
        self.send("PAMU_GET_WINDOW", GET_WINDOW, &mut window)?;
        let has = |flag| window.flags & flag != 0;
        let content = match (has(WINDOW_MEMORY), has(WINDOW_MSI)) {
            (_, true) => Content::Bank(window.bank),
            (true, false) => Content::Memory,
            (false, false) => Content::Free,
        };
        Ok(Window {
            number,
            iova: window.iova,
            size: window.size,
            content,
            read: has(WINDOW_READ),
            write: has(WINDOW_WRITE),
            implicit: has(WINDOW_IMPLICIT),
            phys: window.paddr,
        })
    }

    /// Returns the state of each window.
    pub fn all_windows(&self) -> Result<Vec<Window>> {
        let count = self.windows()?;
        if count > MOST_WINDOWS {
            return Err(Error::malformed("PAMU_GET_ATTR"));
        }
        (0..count).map(|number| self.window(number)).collect()
    }

    /// Sets the event that is signalled on each violation. `None` removes it.
    pub fn set_violation_event(&self, event: Option<&Interrupt>) -> Result {
        let mut fd = event.map_or(-1, Interrupt::number);
        let call = "PAMU_SET_VIOLATION_EVENTFD";
        self.send(call, SET_VIOLATION_EVENTFD, &mut fd).map(drop)
    }

    /// Returns the violation of the first device that is shut off, searching from LIODN `from`.
    pub fn violation(&self, from: u32) -> Result<Option<Violation>> {
        let mut violation = RawViolation {
            argsz: argsz::<RawViolation>(),
            liodn: from,
            ..RawViolation::default()
        };
        match self.send("PAMU_GET_VIOLATION", GET_VIOLATION, &mut violation) {
            Err(error) if error.errno() == Errno::ENOENT => Ok(None),
            Err(error) => Err(error),
            Ok(_) => Ok(Some(Violation {
                liodn: violation.liodn,
                status: violation.status,
                iova: violation.iova,
            })),
        }
    }

    /// Revives a device that is shut off.
    pub fn revive(&self, mut liodn: u32) -> Result {
        self.send("PAMU_REVIVE", REVIVE, &mut liodn).map(drop)
    }
}

/// Opens the file of a group whose pages represent MSI banks.
pub fn msi_file(group: &Group) -> Result<OwnedFd> {
    abi::fd_of(group, GET_MSI_FD).map_err(Error::during("GROUP_GET_MSI_FD"))
}

/// Like [`msi_file`], but uses the group's container.
pub fn msi_file_of_container(container: &Container) -> Result<OwnedFd> {
    abi::fd_of(container, GET_MSI_FD).map_err(Error::during("GROUP_GET_MSI_FD"))
}
