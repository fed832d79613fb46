// SPDX-License-Identifier: GPL-2.0

//! `struct vfio_device_ops`: the callbacks by which a driver handles the requests of userspace.

use kernel::{
    error::to_result,
    ffi::c_ulong,
    mm::virt::VmaNew,
    prelude::*,
    uaccess::UserPtr, //
};
use kernel_ext::{
    bindings,
    mm::may_warn,
    uapi::InfoCaps,
    user_string::UserString, //
};

use super::{
    set::OpenRef,
    Device, //
};

impl Device {
    /// Returns whether `name` selects this device. The driver may modify the name.
    ///
    /// # Errors
    ///
    /// Returns the driver's error if `name` is meant for the driver but is incomplete.
    pub(crate) fn matches(&self, name: &mut UserString) -> Result<bool> {
        let Some(match_) = self.ops().match_ else {
            return Ok(self.parent().name().to_bytes_with_nul() == &**name);
        };
        // SAFETY: The name is a string, which a driver modifies only up to its terminator.
        let ret = unsafe { match_(self.as_ptr(), name.as_mut_ptr()) };
        to_result(ret.min(0))?;
        Ok(ret != 0)
    }

    /// Calls `show` with the sysfs path of the parent, which starts with `/devices`.
    pub(super) fn with_sysfs_path(&self, show: impl FnOnce(&CStr)) {
        // SAFETY: The parent is valid.
        let path = unsafe {
            bindings::kobject_get_path(
                &raw const (*(*self.as_ptr()).dev).kobj,
                bindings::GFP_KERNEL,
            )
        };
        if !path.is_null() {
            // SAFETY: The path is a newly allocated C string, which this function owns and frees.
            unsafe {
                show(CStr::from_char_ptr(path));
                bindings::kfree(path.cast());
            }
        }
    }
}

impl OpenRef {
    /// Forwards an ioctl to the driver. `arg` is not interpreted.
    pub(super) fn ioctl(&self, cmd: u32, arg: usize) -> Result<isize> {
        let ioctl = self.ops().ioctl.ok_or(EINVAL)?;
        // SAFETY: The device is open.
        let ret = unsafe { ioctl(self.as_ptr(), cmd, arg as c_ulong) };
        // The C core also keeps only the low 32 bits of the driver's result.
        result(ret as i32)
    }

    /// Forwards `VFIO_DEVICE_FEATURE` to the driver. The payload has `size` bytes at `data`.
    pub(super) fn feature(&self, flags: u32, data: UserPtr, size: usize) -> Result<isize> {
        let feature = self.ops().device_feature.ok_or(ENOTTY)?;
        // SAFETY: The device is open.
        result(unsafe { feature(self.as_ptr(), flags, data.as_mut_ptr(), size) })
    }

    /// Requests information about a region from the driver. `read` reads the structure that
    /// userspace passed, which selects the region. Stores the driver's description in `info`, and
    /// in `caps` the capability chain that follows it.
    ///
    /// # Errors
    ///
    /// Returns `EINVAL`, without calling `read`, if the driver has no regions; the error of `read`;
    /// or the driver's error.
    #[inline]
    pub(super) fn region_info(
        &self,
        info: &mut bindings::vfio_region_info,
        caps: &mut InfoCaps,
        read: impl FnOnce(&mut bindings::vfio_region_info) -> Result,
    ) -> Result {
        let get = self.ops().get_region_info_caps.ok_or(EINVAL)?;
        read(info)?;
        // SAFETY: The device is open and both structures are valid.
        result(unsafe { get(self.as_ptr(), info, caps.as_raw()) })?;
        Ok(())
    }

    /// Forwards a read to the driver.
    pub(super) fn read(&self, buf: UserPtr, count: usize, pos: &mut i64) -> Result<usize> {
        let read = self.ops().read.ok_or(EINVAL)?;
        // SAFETY: The device is open.
        transferred(unsafe { read(self.as_ptr(), buf.as_mut_ptr().cast(), count, pos) })
    }

    /// Forwards a write to the driver.
    pub(super) fn write(&self, buf: UserPtr, count: usize, pos: &mut i64) -> Result<usize> {
        let write = self.ops().write.ok_or(EINVAL)?;
        // SAFETY: The device is open.
        transferred(unsafe { write(self.as_ptr(), buf.as_const_ptr().cast(), count, pos) })
    }

    /// Calls the driver to set up a new memory mapping.
    pub(super) fn mmap(&self, vma: &VmaNew) -> Result {
        let mmap = self.ops().mmap.ok_or(EINVAL)?;
        // SAFETY: The device is open, and the mapping is being set up.
        to_result(unsafe { mmap(self.as_ptr(), vma.as_ptr()) })
    }

    /// Resumes the parent, and keeps it active until the result is dropped. Returns `None` if the
    /// parent's driver has no power management callbacks.
    ///
    /// # Errors
    ///
    /// Returns `EIO` if the parent cannot be resumed.
    #[inline]
    pub(super) fn resume(&self) -> Result<Option<PmRuntimeRef<'_>>> {
        // SAFETY: The parent of an open device is bound, and its driver's table is static.
        let managed = unsafe {
            let driver = (*(*self.as_ptr()).dev).driver;
            !driver.is_null() && !(*driver).pm.is_null()
        };
        if !managed {
            return Ok(None);
        }
        // SAFETY: The parent is valid.
        match unsafe { bindings::kernel_ext_pm_runtime_get((*self.as_ptr()).dev) } {
            0 => Ok(Some(PmRuntimeRef(self))),
            errno => {
                self.warn_resume(errno);
                Err(EIO)
            }
        }
    }

    /// Logs that the parent cannot be resumed.
    #[cold]
    fn warn_resume(&self, errno: i32) {
        if may_warn() {
            dev_info!(self.parent(), "vfio: runtime resume failed {}\n", errno);
        }
    }
}

/// Converts the result of a callback, an error if it is negative.
#[inline]
fn result(ret: i32) -> Result<isize> {
    if ret < 0 {
        return Err(Error::from_errno(ret));
    }
    Ok(ret as isize)
}

fn transferred(ret: isize) -> Result<usize> {
    usize::try_from(ret).map_err(|_| Error::from_errno(ret as i32))
}

/// Keeps the parent of a device from being runtime-suspended.
///
/// # Invariants
///
/// Holds one runtime power management reference to the parent.
pub(super) struct PmRuntimeRef<'a>(&'a Device);

impl Drop for PmRuntimeRef<'_> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { bindings::kernel_ext_pm_runtime_put((*self.0.as_ptr()).dev) }
    }
}
