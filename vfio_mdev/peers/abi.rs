// SPDX-License-Identifier: GPL-2.0

//! The typed members of a group, and `vfio_move_device()`.

use core::{
    marker::PhantomData,
    mem::transmute,
    ptr::NonNull, //
};

use kernel::{
    device::Device as BusDevice,
    error::to_result,
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    sync::{
        global_lock,
        Arc, //
    }, //
};
use kernel_ext::{
    bindings,
    iommu::Group as IommuGroup,
    symbol::Symbol,
    tree::Tree, //
};

use super::{
    DeviceKey,
    DriverKey,
    Peer,
    Peers, //
};
use crate::{
    driver::{
        Device,
        Parent, //
    },
    instance::Instance,
    uuid::Uuid, //
};

global_lock! {
    // SAFETY: `init_lock` initialises it before the module can be used.
    pub(super) unsafe(uninit) static PEERS: Mutex<Peers> = Peers::new();
}

global_lock! {
    // SAFETY: As above.
    pub(super) unsafe(uninit) static WITH_ATTRIBUTES: Mutex<Tree<DeviceKey, Arc<Peer>>> = Tree::new();
}

/// Initialises the locks of the lists of peers.
///
/// # Safety
///
/// Module init calls this once, before any other function of this module.
pub(crate) unsafe fn init_lock() {
    // SAFETY: By this function's contract.
    unsafe {
        PEERS.init();
        WITH_ATTRIBUTES.init();
    }
}

// --- Moving devices ---------------------------------------------------------------------------

type MoveDeviceFn = unsafe extern "C" fn(
    *mut bindings::vfio_device,
    *mut bindings::iommu_group,
    Option<unsafe extern "C" fn(*mut c_void)>,
    *mut c_void,
) -> c_int;

// The type is that of the header.
const _: MoveDeviceFn = bindings::vfio_move_device;

/// `vfio_move_device()`, which only the `vfio.ko` of this project has.
///
/// The bus does not depend on `vfio.ko`. It looks up the function at run time, which also pins the
/// module.
///
/// # Invariants
///
/// The symbol is that of the function.
pub(crate) struct MoveDevice(Symbol);

impl MoveDevice {
    /// Looks up the function. Returns `None` if the `vfio.ko` in use does not have it.
    pub(crate) fn get() -> Option<Self> {
        // INVARIANT: This is the name of the function.
        Symbol::get(c"vfio_move_device").map(Self)
    }

    /// Moves the device of `peer` to the software group `group`, or to one of its own. Calls
    /// `commit` when the move cannot fail any more.
    ///
    /// # Errors
    ///
    /// `EBUSY` if one of the two software groups or one of their devices is open; `ENOMEM`, and the
    /// errors of sysfs. Nothing changes on error.
    ///
    /// # Safety
    ///
    /// The device is registered with VFIO, and is not unregistered during the call.
    pub(super) unsafe fn call(
        &self,
        peer: &Peer,
        group: Option<&IommuGroup>,
        mut commit: &mut dyn FnMut(),
    ) -> Result {
        /// # Safety
        ///
        /// `data` points at a `&mut dyn FnMut()` that nothing else uses during the call.
        unsafe extern "C" fn commit_callback(data: *mut c_void) {
            // SAFETY: By this function's contract.
            let commit = unsafe { &mut *data.cast::<&mut dyn FnMut()>() };
            commit();
        }
        // SAFETY: By the type invariant. The function with this name has this type.
        let move_device = unsafe { transmute::<*mut c_void, MoveDeviceFn>(self.0.address()) };
        // SAFETY: By this function's contract. The instance exists while the device is registered.
        // The group is valid, and `commit` outlives the call.
        to_result(unsafe {
            move_device(
                peer.instance.device.as_ptr(),
                group.map_or(core::ptr::null_mut(), IommuGroup::as_ptr),
                Some(commit_callback),
                (&raw mut commit).cast(),
            )
        })
    }
}

// --- Peers and members with their type --------------------------------------------------------

/// The device of a peer, and what its driver has for it, without its type.
///
/// # Invariants
///
/// `owner` points at an [`Instance`] of the driver, or at the `struct mdev_peer` of a driver in C.
/// It and `device` exist as long as the peer is in [`Peers`] or a member of a group.
#[derive(Clone, Copy)]
pub(super) struct Erased {
    pub(super) device: NonNull<bindings::vfio_device>,
    pub(super) owner: NonNull<c_void>,
}

// SAFETY: Any thread may use an instance.
unsafe impl Send for Erased {}
// SAFETY: As above.
unsafe impl Sync for Erased {}

impl Erased {
    /// Erases the type of `instance`.
    fn new<D: Device>(instance: &Instance<D>) -> Self {
        let owner = NonNull::from(instance).cast();
        // An instance begins with its `struct vfio_device`.
        // INVARIANT: By the contract of `PeerOf::new`, which calls this.
        Self {
            device: owner.cast(),
            owner,
        }
    }

    /// # Safety
    ///
    /// The value was created from an `Instance<D>`, which exists for all of `'a`.
    unsafe fn instance<'a, D: Device>(self) -> &'a Instance<D> {
        // SAFETY: By this function's contract.
        unsafe { self.owner.cast().as_ref() }
    }

    /// Returns a pointer to no instance, for tests, which do not use it.
    #[cfg(CONFIG_KUNIT)]
    pub(super) fn dangling() -> Self {
        Self {
            device: NonNull::dangling(),
            owner: NonNull::dangling(),
        }
    }
}

/// The peer of an instance of `D`.
///
/// # Invariants
///
/// The instance of the peer is an `Instance<D>`, and so are those of all peers with its driver.
pub(crate) struct PeerOf<D: Device> {
    peer: Arc<Peer>,
    _type: PhantomData<fn(D)>,
}

impl<D: Device> PeerOf<D> {
    /// Creates the peer of a device, with a group of its own.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    ///
    /// # Safety
    ///
    /// `dev` is the device of `instance`. `driver` is the driver of `D`. The instance exists as
    /// long as the peer is in [`Peers`] or a member of a group.
    pub(crate) unsafe fn new(
        dev: &BusDevice,
        driver: DriverKey,
        instance: &Instance<D>,
        move_device: Arc<MoveDevice>,
    ) -> Result<Self> {
        // INVARIANT: By this function's contract.
        Ok(Self {
            peer: Peer::new(
                dev,
                driver,
                Erased::new(instance),
                Self::admit,
                Some(move_device),
            )?,
            _type: PhantomData,
        })
    }

    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// Returns the value of `peer_to_peer_resource_uuid`.
    pub(crate) fn uuid(&self) -> Uuid {
        self.peer.uuid()
    }

    /// Calls `f` with the members of the group. No member joins or leaves, is opened or closed during
    /// the call. There are none if the device itself has left the group.
    pub(crate) fn with_members<R>(&self, f: impl FnOnce(&Members<'_, D>) -> R) -> R {
        self.peer.with_members(|members| {
            // SAFETY: They are the members of the group of a peer of this type, or there are none.
            // Their lock is held.
            f(&unsafe { Members::new(members) })
        })
    }

    /// Counts the device as open. Calls `first` if no other member is open.
    ///
    /// # Errors
    ///
    /// The errors of `first`. Then the device is not counted.
    pub(crate) fn opened(&self, first: impl FnOnce(&Members<'_, D>) -> Result) -> Result {
        self.peer.opened(|members| {
            // SAFETY: They are the members of the group of a peer of this type. Their lock is held.
            first(&unsafe { Members::new(members) })
        })
    }

    /// Undoes [`PeerOf::opened`]. Calls `last` if no other member is open.
    pub(crate) fn closed(&self, last: impl FnOnce(&Members<'_, D>)) {
        self.peer.closed(|members| {
            // SAFETY: They are the members of the group of a peer of this type. Their lock is held.
            last(&unsafe { Members::new(members) })
        });
    }

    /// Decides whether `peer`, which is of this type, may join `devices`.
    fn admit(peer: &Peer, devices: &[Arc<Peer>]) -> Result {
        // SAFETY: `Peers` calls this function for a peer that it has.
        let instance: &Instance<D> = unsafe { peer.instance.instance() };
        // SAFETY: They are the devices of a group in `Peers` with the driver of `peer`. `PEERS` is
        // locked.
        let devices: Members<'_, D> = unsafe { Members::new(devices) };
        instance.parent().admit(instance, &devices)
    }
}

/// The members of a peer-to-peer group.
///
/// # Invariants
///
/// The peers belong to the driver of `D`, and stay in their group or in [`Peers`] for all of `'a`.
pub struct Members<'a, D: Device> {
    peers: &'a [Arc<Peer>],
    alone: Option<&'a Instance<D>>,
    _type: PhantomData<D>,
}

impl<'a, D: Device> Members<'a, D> {
    /// # Safety
    ///
    /// The peers belong to the driver of `D`, and stay in their group or in [`Peers`] for all of
    /// `'a`. They do if they are the members of the [`Peer::group`] of a device of `D`, and their lock
    /// is held: by the type invariants of [`Peer`] and `PeerGroup` all of them have the driver of that
    /// device. This is so even if the device itself has left the group. They also do if they are the
    /// devices of a group with this driver in [`Peers`], and [`PEERS`](static@PEERS) is locked.
    unsafe fn new(peers: &'a [Arc<Peer>]) -> Self {
        // INVARIANT: By this function's contract.
        Self {
            peers,
            alone: None,
            _type: PhantomData,
        }
    }

    /// The only member, a device of a type without peers.
    pub(crate) fn alone(instance: &'a Instance<D>) -> Self {
        // INVARIANT: `peers` is empty.
        Self {
            peers: &[],
            alone: Some(instance),
            _type: PhantomData,
        }
    }

    /// Iterates over the members in the order in which they joined.
    pub fn iter(&self) -> impl Iterator<Item = &Instance<D>> + use<'_, 'a, D> {
        let instance = |peer: &'a Arc<Peer>| {
            // SAFETY: By the type invariants of `Members` and `Erased`.
            unsafe { peer.instance.instance() }
        };
        Iterator::chain(self.alone.into_iter(), self.peers.iter().map(instance))
    }

    /// Returns the member with a UUID.
    pub fn find(&self, uuid: Uuid) -> Option<&Instance<D>> {
        self.iter().find(|member| member.uuid() == uuid)
    }

    /// Whether all members have the same parent as `device`.
    pub fn are_siblings_of(&self, device: &Instance<D>) -> bool {
        self.iter()
            .all(|member| Arc::ptr_eq(member.parent(), device.parent()))
    }

    /// Returns the number of members.
    #[expect(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.iter().count()
    }
}
