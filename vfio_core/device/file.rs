// SPDX-License-Identifier: GPL-2.0

//! The file of an open device.

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
    bindings,
    file_ops::{
        Borrowed,
        FileOperations,
        FileTable, //
    },
    uapi::{
        ioctl,
        Argument, //
    }, //
};

use super::{
    feature,
    Device, //
};
use crate::group::OpenDevice;

pub(crate) static FILES: FileTable<DeviceFile> = FileTable::anonymous();

/// Returns the device of `file`, or `None` if `file` is not a device's file.
pub(crate) fn file_device(file: &LocalFile) -> Option<&Device> {
    Some(FILES.data(file)?.device())
}

/// The file operations of a device.
pub(crate) struct DeviceFile;

#[vtable]
impl FileOperations for DeviceFile {
    type Data = KBox<OpenDevice>;

    fn ioctl(open: &OpenDevice, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        let device = open.device();
        if cmd == ioctl::VFIO_DEVICE_BIND_IOMMUFD {
            // No driver supports it, so the device is not resumed for it.
            return Err(ENOTTY);
        }
        let _awake = device.resume()?;
        match cmd {
            ioctl::VFIO_DEVICE_FEATURE => feature::ioctl(device, UserPtr::from_addr(arg)),
            ioctl::VFIO_DEVICE_GET_REGION_INFO => {
                get_region_info(device, UserPtr::from_addr(arg)).map(|()| 0)
            }
            _ => device.ioctl(cmd, arg),
        }
    }

    fn read(open: &OpenDevice, buf: UserPtr, count: usize, pos: &mut i64) -> Result<usize> {
        open.device().read(buf, count, pos)
    }

    fn write(open: &OpenDevice, buf: UserPtr, count: usize, pos: &mut i64) -> Result<usize> {
        open.device().write(buf, count, pos)
    }

    fn mmap(open: &OpenDevice, vma: &VmaNew) -> Result {
        open.device().mmap(vma)
    }

    fn show_fdinfo(open: &OpenDevice, m: &SeqFile) {
        open.device().with_sysfs_path(|path| {
            kernel::seq_print!(m, "vfio-device-syspath: /sys{}\n", path);
        });
    }
}

impl InodeMapped for DeviceFile {
    fn inode<'a>(open: Borrowed<'a, Self>) -> InodeRef<'a> {
        open.device().inode()
    }
}

/// `VFIO_DEVICE_GET_REGION_INFO`: writes the structure, followed by the capability chain if it
/// fits.
fn get_region_info(device: &Device, arg: UserPtr) -> Result {
    let (mut info, caps) = device.region_info(|| bindings::vfio_region_info::read(arg))?;
    if !caps.is_empty() {
        info.flags |= bindings::VFIO_REGION_INFO_FLAG_CAPS;
        (info.argsz, info.cap_offset) =
            caps.write_behind::<bindings::vfio_region_info>(arg, info.argsz)?;
    }
    info.write(arg)
}
