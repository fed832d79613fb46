// SPDX-License-Identifier: GPL-2.0

//! Groups: the smallest sets of devices that can be assigned.

use crate::{
    Container, Device, Errno, Error, Iommu, Result, abi, request,
    structures::{
        GroupStatus,
        argsz, //
    },
};
use std::{
    fs::{
        self,
        File, //
    },
    os::fd::{
        AsFd,
        AsRawFd,
        BorrowedFd,
        OwnedFd, //
    },
    path::Path,
};
use zerocopy::IntoBytes;

/// An open `/dev/vfio/N`.
#[derive(Debug)]
pub struct Group(OwnedFd);

impl Group {
    /// Opens group `number`.
    pub fn open(number: u32) -> Result<Self> {
        let path = format!("/dev/vfio/{number}");
        File::options()
            .read(true)
            .write(true)
            .open(&path)
            .map(|file| Self(file.into()))
            .map_err(|error| Error::from_io(path, &error))
    }

    /// Returns the number of the group of a device, given by its sysfs directory.
    pub fn number_of(device: &Path) -> Result<u32> {
        let link = device.join("iommu_group");
        let name = || link.display().to_string();
        let target = fs::read_link(&link).map_err(|error| Error::from_io(name(), &error))?;
        target
            .file_name()
            .and_then(|name| name.to_str()?.parse().ok())
            .ok_or_else(|| Error::new(name(), Errno::EINVAL))
    }

    /// Adds the group to a new container with a backend.
    pub fn attach(&self, iommu: Iommu) -> Result<Container> {
        let container = Container::open()?;
        self.set_container(&container)?;
        container.set_iommu(iommu)?;
        Ok(container)
    }

    /// Returns the status flags of the group: 1 means viable, 2 means in a container.
    pub fn status(&self) -> Result<u32> {
        let mut status = GroupStatus {
            argsz: argsz::<GroupStatus>(),
            flags: 0,
        };
        abi::ioctl_bytes(self, request::GROUP_GET_STATUS, status.as_mut_bytes())
            .map_err(Error::during("GROUP_GET_STATUS"))?;
        Ok(status.flags)
    }

    /// Adds the group to a container.
    pub fn set_container(&self, container: &Container) -> Result {
        self.set_container_fd(container.as_fd().as_raw_fd())
    }

    /// Adds the group to a container, given by its descriptor number.
    pub fn set_container_fd(&self, mut fd: i32) -> Result {
        abi::ioctl_bytes(self, request::GROUP_SET_CONTAINER, fd.as_mut_bytes())
            .map(drop)
            .map_err(Error::during("GROUP_SET_CONTAINER"))
    }

    /// Removes the group from its container.
    pub fn unset_container(&self) -> Result {
        abi::ioctl_value(self, request::GROUP_UNSET_CONTAINER, 0)
            .map(drop)
            .map_err(Error::during("GROUP_UNSET_CONTAINER"))
    }

    /// Opens a device by name.
    pub fn device(&self, name: &str) -> Result<Device> {
        abi::device_fd(self, name)
            .map(Device::from_fd)
            .map_err(Error::during("GROUP_GET_DEVICE_FD"))
    }

    /// Takes ownership of an existing descriptor.
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
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
