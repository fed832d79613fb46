// SPDX-License-Identifier: GPL-2.0

//! What a driver of mediated devices implements.

pub(crate) mod irqs;
pub(crate) mod migrate;
pub mod pci;
mod region;
pub(crate) mod requests;

use kernel::{
    prelude::*,
    sync::Arc,
    uaccess::UserPtr, //
};
use kernel_ext::bindings;

use crate::{
    abi::{
        instance::Instance,
        members::Members, //
    },
    uuid::Uuid, //
};

use migrate::Migration;

pub use region::{
    Access,
    Region,
    Width, //
};

/// The type of device that a driver's `D` is made of.
pub type TypeOf<D> = <<D as Device>::Parent as Parent>::Type;

/// Who makes devices: what they have in common, one value for each registered parent.
pub trait Parent: Send + Sync + Sized + 'static {
    /// The kinds of device.
    type Type: Type;

    /// The devices.
    type Device: Device<Parent = Self>;

    /// The driver's name in `/sys/bus/mdev/drivers`; the class and the device of a
    /// [`VirtualParent`](crate::VirtualParent) have it too.
    const NAME: &'static CStr;

    /// The interface of the devices: which regions and interrupts a program expects where.
    const API: DeviceApi;

    /// The kinds of device. Each is a folder of `mdev_supported_types`.
    const TYPES: &'static [Self::Type];

    /// How much there is to be shared out, in the unit of [`Type::cost`]. Asked whenever a device is
    /// made; less than what is taken means that no more devices can be made.
    fn capacity(&self) -> u32;

    /// Whether `device`, one of this parent's, may join a peer-to-peer group with `members`, which are
    /// devices of the same driver and at least one. Called with the lock of all groups held: look at
    /// the devices, but wait for nothing.
    ///
    /// # Errors
    ///
    /// The write to `peer_to_peer_resource_uuid` then fails with the error and changes nothing. Unless
    /// a driver says otherwise it is `EXDEV` for members of other parents.
    fn admit(
        &self,
        device: &Instance<Self::Device>,
        members: &Members<'_, Self::Device>,
    ) -> Result {
        members.are_siblings_of(device).then_some(()).ok_or(EXDEV)
    }
}

/// A kind of device.
pub trait Type: Send + Sync + Sized + 'static {
    /// The last part of the folder's name, as in `mtty-2`.
    fn sysfs_name(&self) -> &'static CStr;

    /// The attribute `description`: what such a device has.
    fn description(&self) -> &'static CStr;

    /// The attribute `name`: the type for people.
    fn name(&self) -> &'static CStr {
        self.sysfs_name()
    }

    /// How much of [`Parent::capacity`] a device takes. Zero: it takes nothing.
    fn cost(&self) -> u32 {
        1
    }

    /// Whether such devices can share resources with others, as peers in a group. They then have the
    /// attribute `peer_to_peer_resource_uuid`; others never share a group.
    fn peer_to_peer(&self) -> bool {
        false
    }
}

/// A mediated device. What userspace does with it comes to the methods, each with the [`Instance`]
/// which has the services of the bus.
///
/// The methods may sleep. They can be called at once for several threads of a program.
pub trait Device: Send + Sync + Sized + 'static {
    /// Who makes such devices.
    type Parent: Parent<Device = Self>;

    /// The device's regions, such as [`pci::Region`].
    type Region: Index;

    /// The device's kinds of interrupt, such as [`pci::Irq`] or [`NoIrqs`].
    type Irq: Index;

    /// How the device's state is moved to another device, if it can be: `Some(Migration::new())` for a
    /// device that implements [`Migrate`](crate::Migrate).
    const MIGRATION: Option<Migration<Self>> = None;

    /// Makes a device of type `ty`.
    ///
    /// # Errors
    ///
    /// What the write to `create` then fails with.
    fn create(
        parent: &Arc<Self::Parent>,
        ty: &'static TypeOf<Self>,
        uuid: Uuid,
    ) -> impl PinInit<Self, Error>;

    /// What is behind a region; `None`: nothing. Always the same for a device.
    fn region(&self, region: Self::Region) -> Option<Region<'_>>;

    /// How many vectors a kind of interrupt has. Always the same for a device, and at most
    /// [`MAX_VECTORS`].
    ///
    /// All interrupts are edge triggered: they can't be masked.
    fn vectors(&self, irq: Self::Irq) -> u32;

    /// Reads a register; `at` is inside of a region of [`registers`](Region::registers).
    ///
    /// # Errors
    ///
    /// What the program's `read` then fails with, unless it has got bytes already.
    fn read(this: &Instance<Self>, region: Self::Region, at: Access) -> Result<u32>;

    /// Writes a register; `at` is inside of a region of [`registers`](Region::registers) that is not
    /// [`read_only`](Region::read_only).
    ///
    /// # Errors
    ///
    /// What the program's `write` then fails with, unless it has put bytes already.
    fn write(this: &Instance<Self>, region: Self::Region, at: Access, value: u32) -> Result;

    /// Puts the device into its first state, as [`create`](Device::create) does. It is called for
    /// `VFIO_DEVICE_RESET`, and by the bus after the last file was [closed](Device::closed): no user
    /// finds what another one has left. The device doesn't reach the program's memory then.
    ///
    /// # Errors
    ///
    /// What `VFIO_DEVICE_RESET` then fails with. After the last close: the device is not clean, so the next
    /// open tries again, and fails with the error if that fails, too. Until then no other member of its
    /// peer-to-peer group can be the first to be opened (`EIO`).
    fn reset(this: &Instance<Self>) -> Result;

    /// A request of the driver's own, such as those of `<linux/vfio.h>` for graphics. `arg` is a number
    /// or an address, as the request says. Returns what the program's `ioctl` then does.
    ///
    /// # Errors
    ///
    /// What the program's `ioctl` then fails with: `ENOTTY` for a request that there isn't.
    fn ioctl(_this: &Instance<Self>, _cmd: u32, _arg: UserPtr) -> Result<isize> {
        Err(ENOTTY)
    }

    /// The device's first file was opened. From here on it reaches the program's memory.
    ///
    /// # Errors
    ///
    /// The device then stays closed, and the program gets the error.
    fn opened(_this: &Instance<Self>) -> Result {
        Ok(())
    }

    /// The device's last file is being closed. Afterwards it reaches no memory: what it has pinned is
    /// unpinned, and [`Instance::dma_read`] and [`Instance::dma_write`] fail with `ENODEV`. Then it is
    /// [reset](Device::reset).
    fn closed(_this: &Instance<Self>) {}

    /// The program unmaps `size` bytes from `iova` on. Afterwards all pages that are pinned there are
    /// unpinned, and the [`GuestPages`](crate::GuestPages) fail with `ENODEV`.
    ///
    /// Called in the middle of the unmap: no DMA from here.
    fn unmapped(_this: &Instance<Self>, _iova: u64, _size: u64) {}

    /// The first device of a peer-to-peer group was opened, namely this one. Called before
    /// [`opened`](Device::opened).
    ///
    /// Until [`group_closed`](Device::group_closed) no device joins the group, and none leaves it but
    /// by being removed. None is removed during this call, which therefore doesn't ask for the
    /// [`members`](Instance::members) again: it would wait for itself.
    ///
    /// # Errors
    ///
    /// The device then stays closed, and the program gets the error.
    fn group_opened(_this: &Instance<Self>, _members: &Members<'_, Self>) -> Result {
        Ok(())
    }

    /// The last open device of a peer-to-peer group was closed, namely this one. Called after
    /// [`closed`](Device::closed) and the reset. What devices did to members that were not open is to be
    /// undone here, since no reset follows for these. As in [`group_opened`](Device::group_opened), the
    /// members are those that are given.
    fn group_closed(_this: &Instance<Self>, _members: &Members<'_, Self>) {}
}

/// The most vectors that a kind of interrupt can have, as for MSI-X.
pub const MAX_VECTORS: u32 = 2048;

/// The numbers that userspace has for regions or for kinds of interrupt.
pub trait Index: Copy + Send + Sync + 'static {
    /// How many numbers there are, from zero on.
    const COUNT: u32;

    /// What a number means; `None`: nothing yet, though it is below [`COUNT`](Index::COUNT).
    fn from_index(index: u32) -> Option<Self>;

    /// The number.
    fn index(self) -> u32;
}

/// Plain numbers below `N`, for few regions or interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number<const N: u32>(u32);

impl<const N: u32> Number<N> {
    /// The number `I`; a program with a greater one doesn't compile.
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

/// The interrupts of a device that has none.
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

/// The interface of a device: `device_api` in sysfs, a flag of `VFIO_DEVICE_GET_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceApi {
    /// As of a PCI device: see [`pci`].
    Pci,
    /// As of a platform device: regions and interrupts are numbered by the device.
    Platform,
    /// As of an AMBA device.
    Amba,
    /// As of a subchannel of an s390.
    Ccw,
    /// As of adjuncts of an s390.
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
