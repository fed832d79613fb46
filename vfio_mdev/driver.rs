// SPDX-License-Identifier: GPL-2.0

//! The traits that a driver of mediated devices implements, and its registration.

#[allow(unsafe_code)]
mod abi;
mod capacity;
pub(crate) mod irqs;
pub(crate) mod migrate;
pub mod pci;
mod region;
pub(crate) mod requests;
mod virtual_parent;

use kernel::{
    prelude::*,
    sync::Arc,
    uaccess::UserPtr, //
};
use kernel_ext::{
    bindings,
    compat::ModuleMetadata, //
};

use crate::{
    instance::Instance,
    peers::Members,
    uuid::Uuid, //
};

use migrate::Migration;

pub(crate) use capacity::Share;

pub use abi::{
    Driver,
    ParentRegistration, //
};
pub use region::{
    Access,
    Region,
    Width, //
};
pub use virtual_parent::VirtualParent;

/// The Rust type that represents the device types of `D`.
pub type TypeOf<D> = <<D as Device>::Parent as Parent>::Type;

/// A parent: the data that its devices have in common. There is one value for each registered
/// parent.
pub trait Parent: Send + Sync + Sized + 'static {
    /// The module that implements the trait: `crate::LocalModule`.
    type OwnerModule: ModuleMetadata;

    /// The device types of this parent.
    type Type: Type;

    /// The devices of this parent.
    type Device: Device<Parent = Self>;

    /// The name of the driver in `/sys/bus/mdev/drivers`. The class and the device of a
    /// [`VirtualParent`] have this name, too.
    const NAME: &'static CStr;

    /// The interface of the devices. It determines the regions and interrupts that userspace
    /// expects.
    const API: DeviceApi;

    /// The device types. Each is a directory of `mdev_supported_types`.
    const TYPES: &'static [Self::Type];

    /// Returns the total capacity, in the unit of [`Type::cost`]. Called whenever a device is
    /// created. If it is less than the capacity in use, no more devices can be created.
    fn capacity(&self) -> u32;

    /// Decides whether `device`, which belongs to this parent, can share a peer-to-peer group with
    /// `members`. The members are devices of the same driver, and there is at least one. They may be
    /// open, and be opened and closed meanwhile. The caller holds the lock of all groups: the function
    /// may look at the devices, but must not wait for anything, nor call [`Instance::members`].
    ///
    /// # Errors
    ///
    /// `EXDEV` if the device can't share with these members; it gets another group with the same
    /// UUID. The default implementation returns it if a member belongs to another parent. With any
    /// other error, the write to `peer_to_peer_resource_uuid` fails and changes nothing.
    fn admit(
        &self,
        device: &Instance<Self::Device>,
        members: &Members<'_, Self::Device>,
    ) -> Result {
        members.are_siblings_of(device).then_some(()).ok_or(EXDEV)
    }
}

/// A device type.
pub trait Type: Send + Sync + Sized + 'static {
    /// The name of the type in sysfs after the driver's name: `2` in `mtty-2`.
    fn sysfs_name(&self) -> &'static CStr;

    /// The attribute `description`: describes such a device.
    fn description(&self) -> &'static CStr;

    /// The attribute `name`: the human-readable name of the type.
    fn name(&self) -> &'static CStr {
        self.sysfs_name()
    }

    /// How much of [`Parent::capacity`] a device uses. Zero: it uses none.
    fn cost(&self) -> u32 {
        1
    }

    /// Whether devices of this type can share resources with others in a peer-to-peer group. Only
    /// such devices have the attribute `peer_to_peer_resource_uuid`, and only they can share a
    /// group.
    fn peer_to_peer(&self) -> bool {
        false
    }
}

/// A mediated device. The bus calls the methods for accesses from userspace. Most of them get the
/// [`Instance`], which provides the services of the bus.
///
/// The methods may sleep. Several threads of a process can call them concurrently.
pub trait Device: Send + Sync + Sized + 'static {
    /// The parent of such devices.
    type Parent: Parent<Device = Self>;

    /// The device's regions, for example [`pci::Region`].
    type Region: Index;

    /// The device's interrupt types, for example [`pci::Irq`] or [`NoIrqs`].
    type Irq: Index;

    /// How the device's state is migrated to another device, if migration is supported:
    /// `Some(Migration::new())` for a device that implements [`Migrate`](crate::Migrate).
    const MIGRATION: Option<Migration<Self>> = None;

    /// Creates a device of type `ty`.
    ///
    /// # Errors
    ///
    /// The write to `create` fails with the error.
    fn create(
        parent: &Arc<Self::Parent>,
        ty: &'static TypeOf<Self>,
        uuid: Uuid,
    ) -> impl PinInit<Self, Error>;

    /// Returns the content of a region, or `None` for a region without content. The result never
    /// changes for a device.
    fn region(&self, region: Self::Region) -> Option<Region<'_>>;

    /// Returns the number of vectors of an interrupt type, at most [`MAX_VECTORS`]. The result
    /// never changes for a device.
    ///
    /// All interrupts are edge triggered and cannot be masked.
    fn vectors(&self, irq: Self::Irq) -> u32;

    /// Reads a register. `at` is within a region of [`registers`](Region::registers).
    ///
    /// # Errors
    ///
    /// The `read()` of the process fails with the error, unless some bytes have already been read.
    fn read(this: &Instance<Self>, region: Self::Region, at: Access) -> Result<u32>;

    /// Writes a register. `at` is within a region of [`registers`](Region::registers) that is not
    /// [`read_only`](Region::read_only).
    ///
    /// # Errors
    ///
    /// The `write()` of the process fails with the error, unless some bytes have already been
    /// written.
    fn write(this: &Instance<Self>, region: Self::Region, at: Access, value: u32) -> Result;

    /// Puts the device into its initial state, the state after [`create`](Device::create). The bus
    /// calls it for `VFIO_DEVICE_RESET` and after the last file was [closed](Device::closed), so
    /// that no user finds the state of a previous user. After the last close the device cannot
    /// access the memory of the process.
    ///
    /// # Errors
    ///
    /// `VFIO_DEVICE_RESET` fails with the error. If the reset after the last close fails, the
    /// device is not clean: the next open tries again, and fails with the error if the reset fails
    /// again. Until a reset succeeds, no other member of the device's peer-to-peer group can be the
    /// first to be opened (`EIO`).
    fn reset(this: &Instance<Self>) -> Result;

    /// Handles a request that the bus does not implement, for example the graphics requests of
    /// `<linux/vfio.h>`. `arg` is a number or an address, depending on the request. The `ioctl()`
    /// of the process returns the result.
    ///
    /// # Errors
    ///
    /// The `ioctl()` of the process fails with the error: `ENOTTY` for an unknown request.
    fn ioctl(_this: &Instance<Self>, _cmd: u32, _arg: UserPtr) -> Result<isize> {
        Err(ENOTTY)
    }

    /// Called when the first file of the device was opened. From now on it can access the memory of
    /// the process.
    ///
    /// # Errors
    ///
    /// The device stays closed, and the open fails with the error.
    fn opened(_this: &Instance<Self>) -> Result {
        Ok(())
    }

    /// Called when the last file of the device is being closed. When it returns, the bus revokes
    /// access to the memory of the process: it unpins all pinned pages, and [`Instance::dma_read`]
    /// and [`Instance::dma_write`] fail with `ENODEV`. Then it [resets](Device::reset) the device.
    fn closed(_this: &Instance<Self>) {}

    /// Called when the process unmaps `size` bytes at `iova`. When it returns, the bus unpins all
    /// pages that are pinned in this range, and accesses to their [`GuestPages`](crate::GuestPages)
    /// fail with `ENODEV`.
    ///
    /// The unmap is in progress: the function must not do DMA. If the process uses an iommufd, this
    /// is also called after [`closed`](Device::closed): closing the device unmaps everything.
    fn unmapped(_this: &Instance<Self>, _iova: u64, _size: u64) {}

    /// Called when this device was opened as the first device of a peer-to-peer group, before
    /// [`opened`](Device::opened).
    ///
    /// Until [`group_closed`](Device::group_closed) no device joins the group, and a device leaves
    /// it only by being removed. No device is removed during this call. The function must not call
    /// [`members`](Instance::members): it would deadlock.
    ///
    /// # Errors
    ///
    /// The device stays closed, and the open fails with the error.
    fn group_opened(_this: &Instance<Self>, _members: &Members<'_, Self>) -> Result {
        Ok(())
    }

    /// Called when this device was closed as the last open device of a peer-to-peer group, after
    /// [`closed`](Device::closed) and the reset. The function must undo changes that devices made
    /// to members that were not open, because these are not reset. As in
    /// [`group_opened`](Device::group_opened), it must use the members that it is passed, and must
    /// not call [`members`](Instance::members).
    fn group_closed(_this: &Instance<Self>, _members: &Members<'_, Self>) {}
}

/// The maximum number of vectors of an interrupt type, as for MSI-X.
pub const MAX_VECTORS: u32 = 2048;

/// The indices of regions or of interrupt types in the userspace interface.
pub trait Index: Copy + Send + Sync + 'static {
    /// The number of indices, which start at zero.
    const COUNT: u32;

    /// Returns the meaning of an index, or `None` for an unused index, which may be below
    /// [`COUNT`](Index::COUNT).
    fn from_index(index: u32) -> Option<Self>;

    /// Returns the index.
    fn index(self) -> u32;
}

/// Plain indices below `N`, for devices with few regions or interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number<const N: u32>(u32);

impl<const N: u32> Number<N> {
    /// The index `I`. An index of `N` or above is a compile-time error.
    pub const fn of<const I: u32>() -> Self {
        const { assert!(I < N) }
        Self(I)
    }
}

impl<const N: u32> Index for Number<N> {
    const COUNT: u32 = N;

    fn from_index(index: u32) -> Option<Self> {
        (index < N).then_some(Self(index))
    }

    fn index(self) -> u32 {
        self.0
    }
}

/// The interrupt types of a device without interrupts.
#[derive(Clone, Copy, Debug)]
pub enum NoIrqs {}

impl Index for NoIrqs {
    const COUNT: u32 = 0;

    fn from_index(_index: u32) -> Option<Self> {
        None
    }

    fn index(self) -> u32 {
        match self {}
    }
}

/// The interface of a device: `device_api` in sysfs, and a flag of `VFIO_DEVICE_GET_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceApi {
    /// A PCI device: see [`pci`].
    Pci,
    /// A platform device: the device numbers its regions and interrupts.
    Platform,
    /// An AMBA device.
    Amba,
    /// An s390 subchannel.
    Ccw,
    /// s390 adjunct processors.
    Ap,
}

impl DeviceApi {
    pub(crate) const fn name(self) -> &'static CStr {
        match self {
            Self::Pci => c"vfio-pci",
            Self::Platform => c"vfio-platform",
            Self::Amba => c"vfio-amba",
            Self::Ccw => c"vfio-ccw",
            Self::Ap => c"vfio-ap",
        }
    }

    const fn flag(self) -> u32 {
        match self {
            Self::Pci => bindings::VFIO_DEVICE_FLAGS_PCI,
            Self::Platform => bindings::VFIO_DEVICE_FLAGS_PLATFORM,
            Self::Amba => bindings::VFIO_DEVICE_FLAGS_AMBA,
            Self::Ccw => bindings::VFIO_DEVICE_FLAGS_CCW,
            Self::Ap => bindings::VFIO_DEVICE_FLAGS_AP,
        }
    }
}
