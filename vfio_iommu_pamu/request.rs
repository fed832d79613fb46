// SPDX-License-Identifier: GPL-2.0

//! Reads and checks the arguments of ioctls, as far as that needs no container.

use core::mem::{
    offset_of,
    size_of, //
};

use kernel::{
    prelude::*,
    uaccess::UserPtr, //
};

use kernel_ext::{
    bindings,
    iommu::Prot,
    uapi::{
        self,
        Argument, //
    }, //
};

use crate::{
    paace::Aperture,
    windows::Policy, //
};

/// The flag to map banks instead of memory.
pub(crate) const MAP_FLAG_MSI: u32 = bindings::VFIO_DMA_MAP_FLAG_MSI;

/// Returns the permissions of `VFIO_DMA_MAP_FLAG_*`.
///
/// # Errors
///
/// `EINVAL` if there is no permission, or if there are other flags.
fn prot(flags: u32) -> Result<Prot> {
    let prot = uapi::prot(flags);
    let known = bindings::VFIO_DMA_MAP_FLAG_READ | bindings::VFIO_DMA_MAP_FLAG_WRITE;
    if prot == Prot::default() || flags & !known != 0 {
        return Err(EINVAL);
    }
    Ok(prot)
}

/// The arguments of a map request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MapRequest {
    /// The first device address.
    pub(crate) iova: u64,
    /// The number of bytes.
    pub(crate) size: u64,
    /// The permissions of devices.
    pub(crate) prot: Prot,
    /// The user address of the memory, or `None` for banks that the kernel chooses.
    pub(crate) vaddr: Option<usize>,
}

impl MapRequest {
    /// Reads a `struct vfio_iommu_type1_dma_map`.
    ///
    /// # Errors
    ///
    /// `EFAULT`, and those of [`new`](Self::new).
    pub(crate) fn read(arg: UserPtr) -> Result<Self> {
        let user = bindings::vfio_iommu_type1_dma_map::read(arg)?;
        Self::new(user.flags, user.vaddr, user.iova, user.size)
    }

    /// Checks the fields.
    ///
    /// # Errors
    ///
    /// `EINVAL` for unknown flags, for no permission, for a range that is empty or wraps, for
    /// memory that isn't page aligned or isn't in the address space of a process, and for banks
    /// with an address of memory.
    fn new(flags: u32, vaddr: u64, iova: u64, size: u64) -> Result<Self> {
        let prot = prot(flags & !MAP_FLAG_MSI)?;
        let last = size.checked_sub(1).ok_or(EINVAL)?;
        iova.checked_add(last).ok_or(EINVAL)?;
        let end = vaddr.checked_add(last).ok_or(EINVAL)?;
        usize::try_from(end).map_err(|_| EINVAL)?;
        let vaddr = match flags & MAP_FLAG_MSI {
            0 if vaddr % kernel::page::PAGE_SIZE as u64 != 0 => return Err(EINVAL),
            0 => Some(usize::try_from(vaddr).map_err(|_| EINVAL)?),
            _ if vaddr != 0 => return Err(EINVAL),
            _ => None,
        };
        Ok(Self {
            iova,
            size,
            prot,
            vaddr,
        })
    }
}

/// The arguments of an unmap request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnmapRequest {
    /// The first device address.
    pub(crate) iova: u64,
    /// The number of bytes.
    pub(crate) size: u64,
}

impl UnmapRequest {
    /// The offset of the size field, which also returns the number of bytes unmapped.
    pub(crate) const SIZE_OFFSET: usize = offset_of!(bindings::vfio_iommu_type1_dma_unmap, size);

    /// Reads a `struct vfio_iommu_type1_dma_unmap`.
    ///
    /// # Errors
    ///
    /// `EFAULT`; `EINVAL` for a short argument or flags.
    pub(crate) fn read(arg: UserPtr) -> Result<Self> {
        let user: bindings::vfio_iommu_type1_dma_unmap = read_without_flags(arg)?;
        Ok(Self {
            iova: user.iova,
            size: user.size,
        })
    }
}

/// The arguments of a request to map a bank.
pub(crate) struct MapBankRequest {
    /// The number of the bank.
    pub(crate) bank: u32,
    /// The device address.
    pub(crate) iova: u64,
    /// The permissions of devices.
    pub(crate) prot: Prot,
}

impl MapBankRequest {
    /// Reads a `struct vfio_pamu_msi_bank_map`.
    ///
    /// # Errors
    ///
    /// `EFAULT`; `EINVAL` for a short argument, for unknown flags and for no permission.
    pub(crate) fn read(arg: UserPtr) -> Result<Self> {
        let user = bindings::vfio_pamu_msi_bank_map::read(arg)?;
        Ok(Self {
            bank: user.msi_bank_index,
            iova: user.iova,
            prot: prot(user.flags)?,
        })
    }
}

/// Reads a `struct vfio_pamu_msi_bank_unmap`. Returns the device address of the bank.
///
/// # Errors
///
/// `EFAULT`; `EINVAL` for a short argument or flags.
pub(crate) fn read_unmap_bank(arg: UserPtr) -> Result<u64> {
    let user: bindings::vfio_pamu_msi_bank_unmap = read_without_flags(arg)?;
    Ok(user.iova)
}

/// A cache of a CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StashTarget {
    /// The number of the CPU.
    pub(crate) cpu: u32,
    /// The level of the cache.
    pub(crate) cache: u32,
}

/// The attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attribute {
    /// The aperture.
    Geometry,
    /// The number of windows.
    Windows,
    /// The cache that device writes are stashed in.
    Stash,
    /// The policy for mapping banks.
    Msi,
}

/// An attribute and its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// The aperture.
    Geometry(Aperture),
    /// The number of windows.
    Windows(u32),
    /// The cache that device writes are stashed in.
    Stash(StashTarget),
    /// The policy for mapping banks.
    Msi(Policy),
}

/// The offset of the value in `struct vfio_pamu_attr`.
const VALUE_OFFSET: usize = offset_of!(bindings::vfio_pamu_attr, attr_info);

impl Attribute {
    /// Reads the header of a `struct vfio_pamu_attr`.
    ///
    /// # Errors
    ///
    /// `EFAULT`; `EINVAL` for a short argument, for flags and for an unknown attribute.
    pub(crate) fn read(arg: UserPtr) -> Result<Self> {
        let user: bindings::vfio_pamu_attr = read_without_flags(arg)?;
        match user.attribute {
            bindings::VFIO_ATTR_GEOMETRY => Ok(Self::Geometry),
            bindings::VFIO_ATTR_WINDOWS => Ok(Self::Windows),
            bindings::VFIO_ATTR_PAMU_STASH => Ok(Self::Stash),
            bindings::VFIO_ATTR_PAMU_MSI => Ok(Self::Msi),
            _ => Err(EINVAL),
        }
    }
}

impl Value {
    /// Reads a `struct vfio_pamu_attr`.
    ///
    /// # Errors
    ///
    /// Those of [`Attribute::read`]; `EINVAL` for an invalid value.
    pub(crate) fn read(arg: UserPtr) -> Result<Self> {
        let attribute = Attribute::read(arg)?;
        let value = arg.wrapping_byte_add(VALUE_OFFSET);
        Ok(match attribute {
            Attribute::Geometry => {
                let geometry: bindings::vfio_pamu_geo_attr = uapi::read(value)?;
                let (start, end) = (geometry.aperture_start, geometry.aperture_end);
                Self::Geometry(Aperture::new(start, end)?)
            }
            Attribute::Windows => Self::Windows(uapi::read(value)?),
            Attribute::Stash => {
                let bindings::vfio_pamu_stash { cpu, cache } = uapi::read(value)?;
                Self::Stash(StashTarget { cpu, cache })
            }
            Attribute::Msi => match uapi::read(value)? {
                bindings::VFIO_PAMU_MSI_EXPLICIT => Self::Msi(Policy::Explicit),
                bindings::VFIO_PAMU_MSI_IMPLICIT => Self::Msi(Policy::Implicit),
                _ => return Err(EINVAL),
            },
        })
    }

    /// Writes the value into a `struct vfio_pamu_attr`.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    pub(crate) fn write(self, arg: UserPtr) -> Result {
        let value = arg.wrapping_byte_add(VALUE_OFFSET);
        match self {
            Self::Geometry(aperture) => {
                let geometry = bindings::vfio_pamu_geo_attr {
                    aperture_start: aperture.start(),
                    aperture_end: aperture.last(),
                };
                uapi::write(value, &geometry)
            }
            Self::Windows(count) => uapi::write(value, &count),
            Self::Stash(StashTarget { cpu, cache }) => {
                uapi::write(value, &bindings::vfio_pamu_stash { cpu, cache })
            }
            Self::Msi(Policy::Explicit) => uapi::write(value, &bindings::VFIO_PAMU_MSI_EXPLICIT),
            Self::Msi(Policy::Implicit) => uapi::write(value, &bindings::VFIO_PAMU_MSI_IMPLICIT),
        }
    }
}

/// Reads an argument that has no flags.
///
/// # Errors
///
/// `EFAULT`; `EINVAL` if `argsz` is smaller than the whole structure, or for flags.
pub(crate) fn read_without_flags<T: Argument>(arg: UserPtr) -> Result<T> {
    let argument = T::read(arg)?;
    argument.check_argsz(size_of::<T>())?;
    if argument.flags() != 0 {
        return Err(EINVAL);
    }
    Ok(argument)
}

#[kunit_tests(vfio_pamu_request)]
mod tests {
    use super::*;
    use kernel_ext::iommu::Access;

    const R: u32 = bindings::VFIO_DMA_MAP_FLAG_READ;
    const W: u32 = bindings::VFIO_DMA_MAP_FLAG_WRITE;
    const V: u32 = bindings::VFIO_DMA_MAP_FLAG_VADDR;

    #[test]
    fn permissions() {
        for flags in 0..64 {
            let expected = match flags {
                R => Some(Access::Read.into()),
                W => Some(Access::Write.into()),
                3 => Some(Access::Read | Access::Write),
                _ => None,
            };
            assert_eq!(prot(flags).ok(), expected);
        }
    }

    /// The last page of a process' addresses.
    const LAST_PAGE: u64 = usize::MAX as u64 - 0xfff;

    #[test]
    fn map_requests() {
        for (flags, vaddr, iova, size, good) in [
            (R, 0x1000, 0, 0x1000, true),
            (R | W, 0, 0x1000, 0x1000, true),
            (W | MAP_FLAG_MSI, 0, 0x1000, 0x1000, true),
            (W | MAP_FLAG_MSI, 0x1000, 0x1000, 0x1000, false),
            (MAP_FLAG_MSI, 0, 0x1000, 0x1000, false),
            (R | V, 0x1000, 0, 0x1000, false),
            (R | 1 << 9, 0x1000, 0, 0x1000, false),
            (0, 0x1000, 0, 0x1000, false),
            (R, 0x1000, 0, 0, false),
            (R, 0x1800, 0, 0x1000, false),
            (R, 0x1000, u64::MAX - 0xfff, 0x1000, true),
            (R, 0x1000, u64::MAX - 0xfff, 0x1001, false),
            (R, LAST_PAGE, 0, 0x1000, true),
            (R, LAST_PAGE, 0, 0x2000, false),
        ] {
            assert_eq!(MapRequest::new(flags, vaddr, iova, size).is_ok(), good);
        }
    }
}
