// SPDX-License-Identifier: GPL-2.0

//! The file of an open device.

use kernel::{
    alloc::flags::GFP_KERNEL_ACCOUNT,
    fs::{
        File,
        LocalFile, //
    },
    ioctl::_IO,
    mm::virt::VmaNew,
    prelude::*,
    seq_file::SeqFile,
    sync::{
        aref::ARef,
        Arc, //
    },
    uaccess::{
        UserPtr,
        UserSlice, //
    }, //
};
use kernel_ext::{
    anon_file::{
        self,
        InodeMapped,
        InodeRef, //
    },
    bindings,
    file_ops::{
        Borrowed,
        FileOperations,
        FileTable, //
    },
    iommu_driver::GroupKind,
    task::TaskLabel, //
};

use super::feature;
use crate::{
    abi::{
        caps::RegionInfo,
        device::Device,
        registration::Registered, //
    },
    group::Group, //
};

const TYPE: u32 = b';' as u32;
/// `VFIO_DEVICE_GET_REGION_INFO`
const GET_REGION_INFO: u32 = _IO(TYPE, 108);
/// `VFIO_DEVICE_FEATURE`
const FEATURE: u32 = _IO(TYPE, 117);
/// `VFIO_DEVICE_BIND_IOMMUFD`
const BIND_IOMMUFD: u32 = _IO(TYPE, 118);

/// An open device. Dropping it closes the device, then drops the reference to its registration.
pub(crate) struct OpenDevice {
    device: Registered,
    group: Arc<Group>,
}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        self.group.close_device(&self.device);
    }
}

static FILES: FileTable<DeviceFile> = FileTable::anonymous();

/// Returns the device of `file`, or `None` if `file` is not a device's file.
pub(crate) fn file_device(file: &LocalFile) -> Option<&Device> {
    Some(&FILES.data(file)?.device)
}

/// Opens `device` of `group` and creates a file for it. `group_file` is the group's file that the
/// caller used.
pub(crate) fn open_fd(
    group: Arc<Group>,
    device: Registered,
    group_file: &File,
) -> Result<ARef<File>> {
    let slot = KBox::new_uninit(GFP_KERNEL_ACCOUNT)?;
    group.open_device(&device, group_file)?;
    let open = KBox::write(slot, OpenDevice { device, group });
    if open.group.kind() == GroupKind::NoIommu {
        let user = TaskLabel::current();
        dev_warn!(
            open.device.parent(),
            "vfio-noiommu device opened by user ({}:{})\n",
            user.name(),
            user.pid()
        );
    }
    anon_file::open_mapped(&FILES, c"[vfio-device]", open)
}

/// The file operations of a device.
struct DeviceFile;

#[vtable]
impl FileOperations for DeviceFile {
    type Data = KBox<OpenDevice>;

    fn ioctl(open: &OpenDevice, _file: &File, cmd: u32, arg: usize) -> Result<isize> {
        let device = &open.device;
        if cmd == BIND_IOMMUFD {
            // No driver supports it, so the device is not resumed for it.
            return Err(ENOTTY);
        }
        let _awake = device.resume()?;
        match cmd {
            FEATURE => feature::ioctl(device, UserPtr::from_addr(arg)),
            GET_REGION_INFO => get_region_info(device, UserPtr::from_addr(arg)).map(|()| 0),
            _ => device.ioctl(cmd, arg),
        }
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
        open.device.with_sysfs_path(|path| {
            kernel::seq_print!(m, "vfio-device-syspath: /sys{}\n", path);
        });
    }
}

impl InodeMapped for DeviceFile {
    fn inode<'a>(open: Borrowed<'a, Self>) -> InodeRef<'a> {
        open.device.inode()
    }
}

/// `VFIO_DEVICE_GET_REGION_INFO`: writes the structure, followed by the capability chain if it
/// fits.
fn get_region_info(device: &Device, arg: UserPtr) -> Result {
    const SIZE: usize = core::mem::size_of::<bindings::vfio_region_info>();
    let mut answer = RegionInfo::ask(device, || {
        let info: bindings::vfio_region_info = UserSlice::new(arg, SIZE).reader().read()?;
        if (info.argsz as usize) < SIZE {
            return Err(EINVAL);
        }
        Ok(info)
    })?;
    let caps_size = answer.caps_size();
    if caps_size > 0 {
        answer.info.flags |= bindings::VFIO_REGION_INFO_FLAG_CAPS;
        if (answer.info.argsz as usize) < SIZE + caps_size {
            answer.info.argsz = (SIZE + caps_size) as u32;
            answer.info.cap_offset = 0;
        } else {
            let behind = arg.wrapping_byte_add(SIZE);
            UserSlice::new(behind, caps_size)
                .writer()
                .write_slice(answer.shifted_caps(SIZE))?;
            answer.info.cap_offset = SIZE as u32;
        }
    }
    UserSlice::new(arg, SIZE).writer().write(&answer.info)
}
