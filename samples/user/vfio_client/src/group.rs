// SPDX-License-Identifier: GPL-2.0

//! Groups: the smallest sets of devices that can be assigned.

use crate::{
    Bytes,
    Container,
    Device,
    Error,
    Result,
    abi,
    request,
    uapi::vfio_group_status, //
};
use std::{
    fs::File,
    os::fd::{
        AsFd,
        AsRawFd,
        BorrowedFd,
        OwnedFd, //
    },
};

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

    /// Returns the status flags of the group: 1 means viable, 2 means in a container.
    pub fn status(&self) -> Result<u32> {
        let status = vfio_group_status {
            argsz: size_of::<vfio_group_status>() as u32,
            flags: 0,
        };
        let mut bytes = Bytes::new().raw(abi::bytes_of(&status));
        abi::ioctl_bytes(self, request::GROUP_GET_STATUS, bytes.as_mut())
            .map_err(Error::during("GROUP_GET_STATUS"))?;
        Ok(bytes.get_u32(4))
    }

    /// Adds the group to a container.
    pub fn set_container(&self, container: &Container) -> Result {
        self.set_container_fd(container.as_fd().as_raw_fd())
    }

    /// Adds the group to a container, given by its descriptor number.
    pub fn set_container_fd(&self, fd: i32) -> Result {
        let mut bytes = fd.to_ne_bytes();
        abi::ioctl_bytes(self, request::GROUP_SET_CONTAINER, &mut bytes)
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
