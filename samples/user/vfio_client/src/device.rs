// SPDX-License-Identifier: GPL-2.0

//! Devices: regions, interrupts, reset.

use crate::{
    Bytes, Capability, Errno, Error, Group, Interrupt, Memory, Register, Result, Word, abi, chain,
    query::query,
    request,
    structures::{
        self,
        HotReset,
        IrqSet,
        argsz,
        argsz_with, //
    },
    uapi::{
        VFIO_DEVICE_FLAGS_RESET,
        VFIO_IRQ_SET_ACTION_TRIGGER,
        VFIO_IRQ_SET_DATA_EVENTFD,
        VFIO_IRQ_SET_DATA_NONE, //
    },
};
use std::os::fd::{
    AsFd,
    AsRawFd,
    BorrowedFd,
    OwnedFd, //
};
use zerocopy::IntoBytes;

/// The result of DEVICE_GET_INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Flags, such as: can be reset, is PCI, has capabilities.
    pub flags: u32,
    /// The number of regions.
    pub regions: u32,
    /// The number of interrupt indexes.
    pub irqs: u32,
}

impl DeviceInfo {
    /// Returns whether the device can be reset on its own.
    pub fn can_reset(&self) -> bool {
        self.flags & VFIO_DEVICE_FLAGS_RESET != 0
    }
}

/// One region of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegionInfo {
    /// Flags: read, write, mmap, capabilities.
    pub flags: u32,
    /// The region index.
    pub index: u32,
    /// Its size in bytes.
    pub size: u64,
    /// The offset of the region in the device file.
    pub offset: u64,
    /// The capabilities of the region.
    pub caps: Vec<Capability>,
}

impl RegionInfo {
    /// Returns the offset in the device file of an offset in the region.
    fn at(&self, offset: u64, call: &'static str) -> Result<u64> {
        let at = self.offset.checked_add(offset);
        at.ok_or_else(|| Error::new(call, Errno::EOVERFLOW))
    }
}

/// One interrupt index of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IrqInfo {
    /// Flags: eventfd, maskable, automasked, cannot be resized.
    pub flags: u32,
    /// The number of interrupts.
    pub count: u32,
}

/// An open device.
///
/// A program opens a device through its group ([`Group::device`]), or by its own file
/// ([`Device::open_file`]), which it then binds to an [`Iommufd`](crate::Iommufd).
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
/// use vfio_client::{Group, Interrupt, Iommu, Register, pci};
///
/// const STATUS: Register<u32> = Register::at(0x08);
///
/// # fn main() -> vfio_client::Result {
/// let group = Group::open(pci::group_of("0000:01:00.0")?)?;
/// let _container = group.attach(Iommu::Type1v2)?;
/// let device = group.device("0000:01:00.0")?;
/// // The first region is that of the first base address register.
/// let registers = device.map_whole(0)?;
/// println!("{:#x}", registers.get(STATUS));
/// // The interrupt index 1 of a PCI device is MSI.
/// let interrupt = Interrupt::new()?;
/// device.enable_irqs(1, &[&interrupt])?;
/// interrupt.wait(Duration::from_secs(1))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Device(OwnedFd);

impl Device {
    /// Takes ownership of a descriptor.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Duplicates the descriptor. Both descriptors refer to the same open file.
    pub fn try_clone(&self) -> Result<Self> {
        self.0
            .try_clone()
            .map(Self)
            .map_err(|error| Error::from_io("dup", &error))
    }

    /// Queries the device information.
    pub fn info(&self) -> Result<DeviceInfo> {
        let mut info = structures::DeviceInfo {
            argsz: argsz::<structures::DeviceInfo>(),
            ..structures::DeviceInfo::default()
        };
        abi::ioctl_bytes(self, request::DEVICE_GET_INFO, info.as_mut_bytes())
            .map_err(Error::during("DEVICE_GET_INFO"))?;
        Ok(DeviceInfo {
            flags: info.flags,
            regions: info.num_regions,
            irqs: info.num_irqs,
        })
    }

    /// Queries one region and its capabilities.
    pub fn region(&self, index: u32) -> Result<RegionInfo> {
        let asked = structures::RegionInfo {
            index,
            ..structures::RegionInfo::default()
        };
        let nr = request::DEVICE_GET_REGION_INFO;
        let bytes = query(self, nr, "DEVICE_GET_REGION_INFO", &asked)?;
        let info: structures::RegionInfo = bytes.get(0);
        Ok(RegionInfo {
            flags: info.flags,
            index: info.index,
            size: info.size,
            offset: info.offset,
            caps: chain(bytes.as_ref(), info.cap_offset),
        })
    }

    /// Maps a part of a region into the process.
    pub fn map_region(&self, region: &RegionInfo, offset: u64, len: usize) -> Result<Memory> {
        Memory::from_file(self, region.at(offset, "mmap")?, len, true)
    }

    /// Maps all of region `index` into the process.
    pub fn map_whole(&self, index: u32) -> Result<Memory> {
        let region = self.region(index)?;
        let size = usize::try_from(region.size);
        let size = size.map_err(|_| Error::new("mmap", Errno::EOVERFLOW))?;
        self.map_region(&region, 0, size)
    }

    /// Reads from a region.
    pub fn read(&self, region: &RegionInfo, offset: u64, out: &mut [u8]) -> Result {
        let at = region.at(offset, "read of region")?;
        let done = abi::pread(self, out, at).map_err(Error::during("read of region"))?;
        full(done, out.len(), "read of region")
    }

    /// Writes to a region.
    pub fn write(&self, region: &RegionInfo, offset: u64, data: &[u8]) -> Result {
        let at = region.at(offset, "write to region")?;
        let done = abi::pwrite(self, data, at).map_err(Error::during("write to region"))?;
        full(done, data.len(), "write to region")
    }

    /// Reads a register of a region that is not mapped.
    pub fn get<T: Word>(&self, region: &RegionInfo, register: Register<T>) -> Result<T> {
        let mut word = T::new_zeroed();
        self.read(region, register.offset() as u64, word.as_mut_bytes())?;
        Ok(T::from_le(word))
    }

    /// Writes a register of a region that is not mapped.
    pub fn set<T: Word>(&self, region: &RegionInfo, register: Register<T>, value: T) -> Result {
        let word = value.to_le();
        self.write(region, register.offset() as u64, word.as_bytes())
    }

    /// Queries one interrupt index.
    pub fn irq(&self, index: u32) -> Result<IrqInfo> {
        let mut info = structures::IrqInfo {
            argsz: argsz::<structures::IrqInfo>(),
            index,
            ..structures::IrqInfo::default()
        };
        abi::ioctl_bytes(self, request::DEVICE_GET_IRQ_INFO, info.as_mut_bytes())
            .map_err(Error::during("DEVICE_GET_IRQ_INFO"))?;
        Ok(IrqInfo {
            flags: info.flags,
            count: info.count,
        })
    }

    /// Connects the first interrupts of an index to eventfds.
    pub fn enable_irqs(&self, index: u32, interrupts: &[&Interrupt]) -> Result {
        let numbers: Vec<_> = interrupts.iter().map(|irq| irq.number()).collect();
        let set = IrqSet {
            argsz: argsz_with::<IrqSet>(&numbers),
            flags: VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
            index,
            start: 0,
            count: numbers.len() as u32,
        };
        self.set_irqs(Bytes::of(&set).append(numbers.as_slice()))
    }

    /// Disables an interrupt index.
    pub fn disable_irqs(&self, index: u32) -> Result {
        self.set_irqs(Bytes::of(&IrqSet {
            argsz: argsz::<IrqSet>(),
            flags: VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
            index,
            start: 0,
            count: 0,
        }))
    }

    fn set_irqs(&self, mut bytes: Bytes) -> Result {
        abi::ioctl_bytes(self, request::DEVICE_SET_IRQS, bytes.as_mut())
            .map(drop)
            .map_err(Error::during("DEVICE_SET_IRQS"))
    }

    /// Resets the device only.
    pub fn reset(&self) -> Result {
        abi::ioctl_value(self, request::DEVICE_RESET, 0)
            .map(drop)
            .map_err(Error::during("DEVICE_RESET"))
    }

    /// Resets the slot or bus of the device. `groups` are all groups with devices on it.
    pub fn hot_reset(&self, groups: &[&Group]) -> Result {
        let numbers: Vec<_> = groups
            .iter()
            .map(|group| group.as_fd().as_raw_fd())
            .collect();
        let reset = HotReset {
            argsz: argsz_with::<HotReset>(&numbers),
            flags: 0,
            count: numbers.len() as u32,
        };
        let mut bytes = Bytes::of(&reset).append(numbers.as_slice());
        abi::ioctl_bytes(self, request::DEVICE_PCI_HOT_RESET, bytes.as_mut())
            .map(drop)
            .map_err(Error::during("DEVICE_PCI_HOT_RESET"))
    }
}

fn full(done: usize, wanted: usize, call: &'static str) -> Result {
    if done == wanted {
        Ok(())
    } else {
        Err(Error::new(call, Errno::EIO))
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
