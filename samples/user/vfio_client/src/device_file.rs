// SPDX-License-Identifier: GPL-2.0

//! Device files: devices that are opened without their group, and bound to an [`Iommufd`].

use crate::{
    Device, Errno, Error, Iommufd, Result, abi, request,
    structures::{
        AttachPt,
        BindIommufd,
        DetachPt,
        argsz, //
    },
    uapi::{
        VFIO_DEVICE_ATTACH_PASID,
        VFIO_DEVICE_BIND_FLAG_TOKEN,
        VFIO_DEVICE_DETACH_PASID, //
    },
};
use std::{
    fs::{
        self,
        File, //
    },
    os::fd::{
        AsFd,
        AsRawFd, //
    },
    path::{
        Path,
        PathBuf, //
    },
};
use zerocopy::IntoBytes;

/// The directory of the device files.
const FILES: &str = "/dev/vfio/devices";

/// Requests of a device that was opened by its own file.
impl Device {
    /// Returns the path of the file of a device, given by its sysfs directory.
    ///
    /// # Errors
    ///
    /// `ENOENT` if no VFIO driver is bound to the device, or its entry has no name.
    pub fn file_of(device: &Path) -> Result<PathBuf> {
        let folder = device.join("vfio-dev");
        let name = || folder.display().to_string();
        let mut entries = fs::read_dir(&folder).map_err(|error| Error::from_io(name(), &error))?;
        let entry = entries.next().and_then(std::result::Result::ok);
        let entry = entry.ok_or_else(|| Error::new(name(), Errno::ENOENT))?;
        Ok(Path::new(FILES).join(entry.file_name()))
    }

    /// Opens the file of a device, given by its sysfs directory. The device can be used after it
    /// is bound.
    pub fn open_file(device: &Path) -> Result<Self> {
        let path = Self::file_of(device)?;
        File::options()
            .read(true)
            .write(true)
            .open(&path)
            .map(|file| Self::from_fd(file.into()))
            .map_err(|error| Error::from_io(path.display().to_string(), &error))
    }

    /// Binds the device to an iommufd. Returns the id of the device there.
    pub fn bind(&self, iommufd: &Iommufd) -> Result<u32> {
        self.bind_with(BindIommufd {
            iommufd: iommufd.as_fd().as_raw_fd(),
            ..BindIommufd::default()
        })
    }

    /// Binds the device to an iommufd with the token of its physical function. Returns the id of
    /// the device there.
    pub fn bind_with_token(&self, iommufd: &Iommufd, token: &[u8; 16]) -> Result<u32> {
        let memory = crate::Memory::anonymous(token.len())?;
        memory.write(0, token);
        self.bind_with(BindIommufd {
            flags: VFIO_DEVICE_BIND_FLAG_TOKEN,
            iommufd: iommufd.as_fd().as_raw_fd(),
            token_uuid_ptr: memory.addr(),
            ..BindIommufd::default()
        })
    }

    fn bind_with(&self, bind: BindIommufd) -> Result<u32> {
        let mut bind = BindIommufd {
            argsz: argsz::<BindIommufd>(),
            ..bind
        };
        abi::ioctl_bytes(self, request::DEVICE_BIND_IOMMUFD, bind.as_mut_bytes())
            .map_err(Error::during("DEVICE_BIND_IOMMUFD"))?;
        Ok(bind.out_devid)
    }

    /// Attaches the device to an IOAS or a page table. Replaces the former one. Returns the id of
    /// the page table.
    pub fn attach(&self, pt: u32) -> Result<u32> {
        self.attach_with(0, pt, 0)
    }

    /// Attaches a PASID of the device to an IOAS or a page table. Replaces the former one. Returns
    /// the id of the page table.
    pub fn attach_pasid(&self, pasid: u32, pt: u32) -> Result<u32> {
        self.attach_with(VFIO_DEVICE_ATTACH_PASID, pt, pasid)
    }

    fn attach_with(&self, flags: u32, pt_id: u32, pasid: u32) -> Result<u32> {
        let mut attach = AttachPt {
            argsz: argsz::<AttachPt>(),
            flags,
            pt_id,
            pasid,
        };
        let nr = request::DEVICE_ATTACH_IOMMUFD_PT;
        abi::ioctl_bytes(self, nr, attach.as_mut_bytes())
            .map_err(Error::during("DEVICE_ATTACH_IOMMUFD_PT"))?;
        Ok(attach.pt_id)
    }

    /// Detaches the device.
    pub fn detach(&self) -> Result {
        self.detach_with(0, 0)
    }

    /// Detaches a PASID of the device.
    pub fn detach_pasid(&self, pasid: u32) -> Result {
        self.detach_with(VFIO_DEVICE_DETACH_PASID, pasid)
    }

    fn detach_with(&self, flags: u32, pasid: u32) -> Result {
        let mut detach = DetachPt {
            argsz: argsz::<DetachPt>(),
            flags,
            pasid,
        };
        let nr = request::DEVICE_DETACH_IOMMUFD_PT;
        abi::ioctl_bytes(self, nr, detach.as_mut_bytes())
            .map(drop)
            .map_err(Error::during("DEVICE_DETACH_IOMMUFD_PT"))
    }
}
