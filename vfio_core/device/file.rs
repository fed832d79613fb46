// SPDX-License-Identifier: GPL-2.0

//! The files of open devices: those that a group's file returns, and what they share with device
//! files.

use kernel::{
    fs::{
        File,
        LocalFile, //
    },
    mm::virt::VmaNew,
    prelude::*,
    seq_file::SeqFile,
    uaccess::UserPtr, //
};
use kernel_ext::{
    anon_file::{
        InodeMapped,
        InodeRef, //
    },
    bindings::{
        self,
        vfio_device_bind_iommufd, //
    },
    file_ops::{
        Borrowed,
        FileOperations,
        FileTable, //
    },
    uapi::{
        ioctl,
        Argument,
        InfoCaps, //
    }, //
};

use super::{
    feature,
    set::OpenRef,
    Device, //
};
use crate::group::OpenDevice;

pub(crate) static FILES: FileTable<GroupDeviceFile> = FileTable::anonymous();

/// The file operations of a device that was opened through its group.
pub(crate) struct GroupDeviceFile;

#[vtable]
impl FileOperations for GroupDeviceFile {
    type OwnerModule = crate::LocalModule;
    type Data = KBox<OpenDevice>;

    #[inline]
    fn ioctl(open: &OpenDevice, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        let device = &open.device;
        if cmd == ioctl::VFIO_DEVICE_BIND_IOMMUFD {
            // Only device files support it, so the device is not resumed for it.
            return Err(if cfg!(CONFIG_VFIO_DEVICE_CDEV) {
                refuse_bind(UserPtr::from_addr(arg))
            } else {
                ENOTTY
            });
        }
        let _awake = device.resume()?;
        request(device, cmd, arg)
    }

    fn read(open: &OpenDevice, buf: UserPtr, count: usize, pos: &mut i64) -> Result<usize> {
        open.device.read(buf, count, pos)
    }

    fn write(open: &OpenDevice, buf: UserPtr, count: usize, pos: &mut i64) -> Result<usize> {
        open.device.write(buf, count, pos)
    }

    fn mmap(open: &OpenDevice, vma: &VmaNew) -> Result {
        open.device.mmap(vma)
    }

    fn show_fdinfo(open: &OpenDevice, m: &SeqFile) {
        show_fdinfo(&open.device, m);
    }
}

impl InodeMapped for GroupDeviceFile {
    fn inode<'a>(open: Borrowed<'a, Self>) -> InodeRef<'a> {
        open.device.inode()
    }
}

/// Returns the device of `file`, or `None` if `file` is not a device's file.
pub(crate) fn file_device(file: &LocalFile) -> Option<&Device> {
    if let Some(device) = super::cdev::file_device(file) {
        return Some(device);
    }
    Some(&FILES.data(file)?.device)
}

/// Returns the error of `VFIO_DEVICE_BIND_IOMMUFD`, with the argument `arg`, on the file of a
/// device that was opened through its group.
fn refuse_bind(arg: UserPtr) -> Error {
    vfio_device_bind_iommufd::read_extensible(arg)
        .err()
        .unwrap_or(EINVAL)
}

/// Handles a request to a device.
#[inline]
pub(super) fn request(device: &OpenRef, cmd: u32, arg: usize) -> Result<isize> {
    match cmd {
        ioctl::VFIO_DEVICE_FEATURE => feature::ioctl(device, UserPtr::from_addr(arg)),
        ioctl::VFIO_DEVICE_GET_REGION_INFO => {
            get_region_info(device, UserPtr::from_addr(arg)).map(|()| 0)
        }
        _ => device.ioctl(cmd, arg),
    }
}

/// Prints the lines of a device for `/proc/PID/fdinfo/FD`.
pub(super) fn show_fdinfo(device: &Device, m: &SeqFile) {
    device.with_sysfs_path(|path| {
        kernel::seq_print!(m, "vfio-device-syspath: /sys{}\n", path);
    });
}

/// `VFIO_DEVICE_GET_REGION_INFO`: writes the structure, followed by the capability chain if it
/// fits.
#[inline]
fn get_region_info(device: &OpenRef, arg: UserPtr) -> Result {
    let mut info = bindings::vfio_region_info::blank();
    let mut caps = InfoCaps::default();
    device.region_info(&mut info, &mut caps, |info| {
        info.read_in_place(arg)?;
        info.check_argsz(bindings::vfio_region_info::MIN_SIZE)
    })?;
    if !caps.is_empty() {
        info.flags |= bindings::VFIO_REGION_INFO_FLAG_CAPS;
        (info.argsz, info.cap_offset) =
            caps.write_behind::<bindings::vfio_region_info>(arg, info.argsz)?;
    }
    info.write(arg)
}
