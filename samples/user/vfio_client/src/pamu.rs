// SPDX-License-Identifier: GPL-2.0

//! Containers with a PAMU backend: aperture, windows and MSI banks.
//!
//! C header: `include/uapi/vfio_pamu.h`

use crate::{
    Bytes,
    Container,
    Errno,
    Error,
    Group,
    Interrupt,
    MapFlags,
    Memory,
    Result,
    abi,
    request::number, //
};
use std::os::fd::OwnedFd;

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
pub const GET_MSI_FD: u32 = number(80);
/// Container request: get the content of a window.
pub const GET_WINDOW: u32 = number(81);
/// Container request: set the eventfd that is signalled on each violation.
pub const SET_VIOLATION_EVENTFD: u32 = number(82);
/// Container request: get the violation of a device that is shut off.
pub const GET_VIOLATION: u32 = number(83);
/// Container request: revive a device that is shut off.
pub const REVIVE: u32 = number(84);

/// Attribute: the aperture.
pub const ATTR_GEOMETRY: u32 = 0;
/// Attribute: the number of windows.
pub const ATTR_WINDOWS: u32 = 1;
/// Attribute: the cache that device writes are stashed to.
pub const ATTR_STASH: u32 = 2;
/// Attribute: whether the kernel or the program maps the MSI banks.
pub const ATTR_MSI: u32 = 256;

/// Flag of MAP_DMA: map MSI banks that the kernel chooses.
pub const MAP_FLAG_MSI: u32 = 1 << 8;

/// The state of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    fn send(&self, call: &'static str, nr: u32, bytes: &mut Bytes) -> Result<i32> {
        abi::ioctl_bytes(&self.0, nr, bytes.as_mut()).map_err(Error::during(call))
    }

    fn get(&self, attribute: u32) -> Result<Bytes> {
        let mut bytes = Bytes::new().u32(32).u32(0).u32(attribute).fill(0, 20);
        self.send("PAMU_GET_ATTR", GET_ATTR, &mut bytes)?;
        Ok(bytes)
    }

    fn set(&self, attribute: u32, value: Bytes) -> Result {
        let mut bytes = Bytes::new().u32(32).u32(0).u32(attribute).u32(0);
        bytes = bytes.raw(value.as_ref()).fill(0, 16 - value.len());
        self.send("PAMU_SET_ATTR", SET_ATTR, &mut bytes).map(drop)
    }

    /// Returns the first and the last address of the aperture.
    pub fn geometry(&self) -> Result<(u64, u64)> {
        let bytes = self.get(ATTR_GEOMETRY)?;
        Ok((bytes.get_u64(16), bytes.get_u64(24)))
    }

    /// Sets the aperture by its first and last address.
    pub fn set_geometry(&self, start: u64, end: u64) -> Result {
        self.set(ATTR_GEOMETRY, Bytes::new().u64(start).u64(end))
    }

    /// Returns the number of windows. If none was set, returns the maximum.
    pub fn windows(&self) -> Result<u32> {
        Ok(self.get(ATTR_WINDOWS)?.get_u32(16))
    }

    /// Divides the aperture into windows.
    pub fn set_windows(&self, count: u32) -> Result {
        self.set(ATTR_WINDOWS, Bytes::new().u32(count))
    }

    /// Returns the CPU and the level of the cache that device writes are stashed to.
    pub fn stash(&self) -> Result<(u32, u32)> {
        let bytes = self.get(ATTR_STASH)?;
        Ok((bytes.get_u32(16), bytes.get_u32(20)))
    }

    /// Sets the cache that device writes are stashed to.
    pub fn set_stash(&self, cpu: u32, cache: u32) -> Result {
        self.set(ATTR_STASH, Bytes::new().u32(cpu).u32(cache))
    }

    /// Returns whether the kernel maps the MSI banks.
    pub fn implicit(&self) -> Result<bool> {
        Ok(self.get(ATTR_MSI)?.get_u32(16) != 0)
    }

    /// Sets whether the kernel maps the MSI banks.
    pub fn set_implicit(&self, implicit: bool) -> Result {
        self.set(ATTR_MSI, Bytes::new().u32(implicit.into()))
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
        let mut bytes = Bytes::new()
            .u32(32)
            .u32(MapFlags::Write.bits() | MAP_FLAG_MSI)
            .u64(0)
            .u64(iova)
            .u64(size);
        self.send("IOMMU_MAP_DMA", crate::request::IOMMU_MAP_DMA, &mut bytes)
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
        let mut bytes = Bytes::new().u32(24).u32(flags.bits()).u32(bank).u32(0);
        bytes = bytes.u64(iova);
        self.send("PAMU_MAP_MSI_BANK", MAP_MSI_BANK, &mut bytes)
            .map(drop)
    }

    /// Unmaps an MSI bank.
    pub fn unmap_bank(&self, iova: u64) -> Result {
        let mut bytes = Bytes::new().u32(16).u32(0).u64(iova);
        self.send("PAMU_UNMAP_MSI_BANK", UNMAP_MSI_BANK, &mut bytes)
            .map(drop)
    }

    /// Returns the state of a window.
    pub fn window(&self, number: u32) -> Result<Window> {
        let mut bytes = Bytes::new().u32(40).u32(0).u32(number).fill(0, 28);
        self.send("PAMU_GET_WINDOW", GET_WINDOW, &mut bytes)?;
        let flags = bytes.get_u32(4);
        let content = match flags & 0xc {
            0 => Content::Free,
            4 => Content::Memory,
            _ => Content::Bank(bytes.get_u32(12)),
        };
        Ok(Window {
            number,
            iova: bytes.get_u64(16),
            size: bytes.get_u64(24),
            content,
            read: flags & 1 != 0,
            write: flags & 2 != 0,
            implicit: flags & 16 != 0,
            phys: bytes.get_u64(32),
        })
    }

    /// Returns the state of each window.
    pub fn all_windows(&self) -> Result<Vec<Window>> {
        (0..self.windows()?)
            .map(|number| self.window(number))
            .collect()
    }

    /// Sets the event that is signalled on each violation. `None` removes it.
    pub fn set_violation_event(&self, event: Option<&Interrupt>) -> Result {
        let fd = event.map_or(-1, Interrupt::number);
        let mut bytes = Bytes::new().raw(&fd.to_ne_bytes());
        self.send(
            "PAMU_SET_VIOLATION_EVENTFD",
            SET_VIOLATION_EVENTFD,
            &mut bytes,
        )
        .map(drop)
    }

    /// Returns the violation of the first device that is shut off, searching from LIODN `from`.
    pub fn violation(&self, from: u32) -> Result<Option<Violation>> {
        let mut bytes = Bytes::new().u32(24).u32(0).u32(from).u32(0).u64(0);
        match self.send("PAMU_GET_VIOLATION", GET_VIOLATION, &mut bytes) {
            Err(error) if error.errno() == Errno::ENOENT => Ok(None),
            Err(error) => Err(error),
            Ok(_) => Ok(Some(Violation {
                liodn: bytes.get_u32(8),
                status: bytes.get_u32(12),
                iova: bytes.get_u64(16),
            })),
        }
    }

    /// Revives a device that is shut off.
    pub fn revive(&self, liodn: u32) -> Result {
        let mut bytes = Bytes::new().u32(liodn);
        self.send("PAMU_REVIVE", REVIVE, &mut bytes).map(drop)
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
