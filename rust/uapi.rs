// SPDX-License-Identifier: GPL-2.0

//! The ioctls of VFIO: their numbers ([`ioctl`]), the structures that they take ([`Argument`]),
//! and the capability chains that follow some of these ([`InfoCaps`]).
//!
//! The structures are those of `<linux/vfio.h>`, `include/uapi/vfio_group.h` and
//! `include/uapi/vfio_pamu.h`. User memory may change at any time, so a structure is copied once
//! and checked afterwards.

mod capability;
pub mod ioctl;

use core::mem::{
    size_of,
    MaybeUninit, //
};

use kernel::{
    prelude::*,
    transmute::{
        AsBytes,
        FromBytes, //
    },
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};

use crate::{
    bindings,
    iommu::{
        Access,
        Prot, //
    }, //
};

pub use capability::{
    Capability,
    InfoCaps,
    MigrationCap, //
};

/// Reads a value from user memory.
///
/// # Errors
///
/// `EFAULT`.
pub fn read<T: FromBytes>(from: UserPtr) -> Result<T> {
    UserSlice::new(from, size_of::<T>()).reader().read()
}

/// Reads the first `size` bytes of `value`, or all of it if it is smaller. The rest stays as it is.
///
/// # Errors
///
/// `EFAULT`; the bytes that were to be read may have changed.
#[inline]
fn read_start<T: FromBytes>(value: &mut T, from: UserPtr, size: usize) -> Result {
    let size = size.min(size_of::<T>());
    // `copy_from_user()` would check whether `value` is one object, which it is.
    // SAFETY: `value` has at least `size` bytes, and `FromBytes` allows every bit pattern. The
    // function checks the user address.
    let left =
        unsafe { bindings::_copy_from_user((&raw mut *value).cast(), from.as_const_ptr(), size) };
    if left != 0 {
        return Err(EFAULT);
    }
    Ok(())
}

/// Writes a value to user memory.
///
/// # Errors
///
/// `EFAULT`.
pub fn write<T: AsBytes>(to: UserPtr, value: &T) -> Result {
    write_bytes(to, value.as_bytes())
}

/// Writes bytes to user memory.
///
/// # Errors
///
/// `EFAULT`; a part may be written then.
#[inline]
pub fn write_bytes(to: UserPtr, bytes: &[u8]) -> Result {
    // `copy_to_user()` would check whether the bytes are in one object, as those of a slice are.
    // SAFETY: The bytes can be read. The function checks the user address.
    let left =
        unsafe { bindings::_copy_to_user(to.as_mut_ptr(), bytes.as_ptr().cast(), bytes.len()) };
    if left != 0 {
        return Err(EFAULT);
    }
    Ok(())
}

/// A structure that an ioctl takes. It begins with `argsz`, its size in bytes as the caller knows
/// it, and `flags`.
pub trait Argument: FromBytes + Sized {
    /// The size in bytes of the part that is read (`minsz` in C). The caller need not know the
    /// fields after it.
    const MIN_SIZE: usize;

    /// Returns the field `argsz`.
    fn argsz(&self) -> u32;

    /// Returns the field `flags`.
    fn flags(&self) -> u32;

    /// Reads the first [`MIN_SIZE`](Self::MIN_SIZE) bytes. Fields after them are zero.
    ///
    /// # Errors
    ///
    /// `EFAULT`; `EINVAL` if `argsz` is smaller than that.
    fn read(arg: UserPtr) -> Result<Self> {
        let mut this = Self::blank();
        this.read_in_place(arg)?;
        this.check_argsz(Self::MIN_SIZE)?;
        Ok(this)
    }

    /// Returns a structure whose bytes are all zero.
    #[inline]
    fn blank() -> Self {
        // SAFETY: `FromBytes` allows every bit pattern.
        unsafe { MaybeUninit::zeroed().assume_init() }
    }

    /// Replaces the first [`MIN_SIZE`](Self::MIN_SIZE) bytes by those at `arg`. Does not check
    /// `argsz`. For requests that are frequent: a [`Result`] with a structure is copied.
    ///
    /// # Errors
    ///
    /// `EFAULT`; the bytes may have changed.
    #[inline]
    fn read_in_place(&mut self, arg: UserPtr) -> Result {
        const { assert!(Self::MIN_SIZE <= size_of::<Self>()) };
        read_start(self, arg, Self::MIN_SIZE)
    }

    /// Reads as much of the structure as the caller knows. Fields that it does not know are zero,
    /// and what it passes after the structure must be zero.
    ///
    /// # Errors
    ///
    /// `EFAULT`; `EINVAL` if `argsz` is smaller than [`MIN_SIZE`](Self::MIN_SIZE); `E2BIG` if there
    /// is something else than zeros after the structure.
    fn read_extensible(arg: UserPtr) -> Result<Self> {
        let argsz = read::<u32>(arg)? as usize;
        if argsz < Self::MIN_SIZE {
            return Err(EINVAL);
        }
        let rest = argsz.saturating_sub(size_of::<Self>());
        let end = arg.wrapping_byte_add(size_of::<Self>());
        // SAFETY: There are no requirements: the function checks the address.
        match unsafe { bindings::check_zeroed_user(end.as_const_ptr().cast(), rest) } {
            ..0 => return Err(EFAULT),
            0 => return Err(E2BIG),
            1.. => {}
        }
        let mut this = Self::blank();
        read_start(&mut this, arg, argsz)?;
        Ok(this)
    }

    /// Checks that `argsz` is at least `size` bytes.
    ///
    /// # Errors
    ///
    /// `EINVAL`.
    #[inline]
    fn check_argsz(&self, size: usize) -> Result {
        if (self.argsz() as usize) < size {
            return Err(EINVAL);
        }
        Ok(())
    }

    /// Writes the first [`MIN_SIZE`](Self::MIN_SIZE) bytes.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    #[inline]
    fn write(&self, arg: UserPtr) -> Result
    where
        Self: AsBytes,
    {
        self.write_prefix(arg, Self::MIN_SIZE)
    }

    /// Writes the first `size` bytes, or the whole structure if it is smaller.
    ///
    /// # Errors
    ///
    /// `EFAULT`.
    #[inline]
    fn write_prefix(&self, arg: UserPtr, size: usize) -> Result
    where
        Self: AsBytes,
    {
        let bytes = self.as_bytes();
        write_bytes(arg, bytes.get(..size).unwrap_or(bytes))
    }
}

/// Returns the permissions in `VFIO_DMA_MAP_FLAG_*`. Other flags are ignored.
pub fn prot(flags: u32) -> Prot {
    let mut prot = Prot::default();
    if flags & bindings::VFIO_DMA_MAP_FLAG_READ != 0 {
        prot |= Access::Read;
    }
    if flags & bindings::VFIO_DMA_MAP_FLAG_WRITE != 0 {
        prot |= Access::Write;
    }
    prot
}

/// Implements [`FromBytes`] and [`AsBytes`] for structures, given the sum of the sizes of their
/// fields in bytes.
macro_rules! bytes {
    ($($name:ident: $size:literal;)*) => {$(
        const _: () = assert!(size_of::<bindings::$name>() == $size);

        // SAFETY: The structure consists of integers and of arrays and structures of integers, for
        // which every bit pattern is valid.
        unsafe impl FromBytes for bindings::$name {}

        // SAFETY: The structure has no padding: by the assertion above its size is the sum of the
        // sizes of its fields.
        unsafe impl AsBytes for bindings::$name {}
    )*};
}

bytes! {
    vfio_device_feature_dma_logging_control: 24;
    vfio_device_feature_dma_logging_range: 16;
    vfio_device_feature_dma_logging_report: 32;
    vfio_device_feature_mig_data_size: 8;
    vfio_device_feature_mig_state: 8;
    vfio_device_feature_migration: 8;
    vfio_group_device: 128;
    vfio_iommu_type1_info_cap_iova_range: 16;
    vfio_iommu_type1_info_dma_avail: 12;
    vfio_iova_range: 16;
    vfio_pamu_geo_attr: 16;
    vfio_pamu_stash: 8;
}

// SAFETY: The structure consists of integers and a pointer to user memory: every bit pattern is
// valid.
unsafe impl FromBytes for bindings::vfio_bitmap {}

// SAFETY: The structure consists of integers and a `vfio_bitmap`: every bit pattern is valid.
unsafe impl FromBytes for bindings::vfio_iommu_type1_dirty_bitmap_get {}

// SAFETY: The structure consists of integers and a union of structures of integers: every bit
// pattern is valid.
unsafe impl FromBytes for bindings::vfio_pamu_attr {}

/// Implements [`Argument`] for structures, given the last field that is read.
macro_rules! arguments {
    ($($name:ident: ..=$last:ident;)*) => {$(
        impl Argument for bindings::$name {
            const MIN_SIZE: usize = core::mem::offset_of!(Self, $last)
                + size_of_field(|this: &Self| &this.$last);

            fn argsz(&self) -> u32 {
                self.argsz
            }

            fn flags(&self) -> u32 {
                self.flags
            }
        }
    )*};
}

/// Returns the size in bytes of the field that `_field` returns.
const fn size_of_field<S, F>(_field: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

bytes! {
    vfio_device_attach_iommufd_pt: 16;
    vfio_device_bind_iommufd: 24;
    vfio_device_detach_iommufd_pt: 12;
    vfio_device_feature: 8;
    vfio_device_info: 24;
    vfio_group_devices: 16;
    vfio_group_status: 8;
    vfio_iommu_type1_dirty_bitmap: 8;
    vfio_iommu_type1_dma_map: 32;
    vfio_iommu_type1_dma_unmap: 24;
    vfio_iommu_type1_info: 24;
    vfio_irq_info: 16;
    vfio_irq_set: 20;
    vfio_pamu_msi_bank_map: 24;
    vfio_pamu_msi_bank_unmap: 16;
    vfio_pamu_violation: 24;
    vfio_pamu_window: 40;
    vfio_precopy_info: 24;
    vfio_region_info: 32;
}

arguments! {
    vfio_device_attach_iommufd_pt: ..=pt_id;
    vfio_device_bind_iommufd: ..=out_devid;
    vfio_device_detach_iommufd_pt: ..=flags;
    vfio_device_feature: ..=flags;
    vfio_device_info: ..=num_irqs;
    vfio_group_devices: ..=flags;
    vfio_group_status: ..=flags;
    vfio_iommu_type1_dirty_bitmap: ..=flags;
    vfio_iommu_type1_dma_map: ..=size;
    vfio_iommu_type1_dma_unmap: ..=size;
    vfio_iommu_type1_info: ..=iova_pgsizes;
    vfio_irq_info: ..=count;
    vfio_irq_set: ..=count;
    vfio_pamu_attr: ..=attribute;
    vfio_pamu_msi_bank_map: ..=iova;
    vfio_pamu_msi_bank_unmap: ..=iova;
    vfio_pamu_violation: ..=liodn;
    vfio_pamu_window: ..=window;
    vfio_precopy_info: ..=dirty_bytes;
    vfio_region_info: ..=offset;
}
