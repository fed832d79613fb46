// SPDX-License-Identifier: GPL-2.0

//! A driver's device together with its `struct vfio_device`.

use core::{
    mem::MaybeUninit,
    ops::Deref,
    ptr::NonNull,
    sync::atomic::{
        AtomicBool,
        Ordering, //
    }, //
};

use iommu_group::ranges::Range;
use kernel::{
    device::Device as BusDevice,
    error::{
        from_err_ptr,
        to_result, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::{
            ARef,
            AlwaysRefCounted, //
        },
        Arc,
        Mutex, //
    },
    types::Opaque, //
};
use kernel_ext::{
    bindings,
    mm::may_warn,
    rwsem::{
        ReadGuard,
        RwSem, //
    }, //
};

use super::{
    driver::Share,
    locks,
    logging::LogOps,
    members::{
        Erased,
        Members, //
    },
    migration::MigrationOps,
    ops::Ops,
    pages::{
        GuestAccess,
        GuestPages,
        Pins, //
    },
    vfio::Calls, //
};
use crate::{
    dma_log::{
        self,
        DmaLog, //
    },
    driver::{
        irqs::Vectors,
        requests,
        Device,
        Index,
        Parent,
        Type,
        TypeOf, //
    },
    migration::Machine,
    peers::{
        DriverKey,
        Peer, //
    },
    uuid::Uuid, //
};

/// A driver's device together with the data that the bus keeps for it.
///
/// It dereferences to `D`; [`ARef`] counts references to it. The `D` is dropped with the last
/// reference, which may be after the device was removed. Then only the holders of references can
/// access it.
///
/// # Invariants
///
/// It begins with a `struct vfio_device` that `_vfio_alloc_device()` returned, and `content` is
/// initialised.
#[repr(C)]
pub struct Instance<D: Device> {
    vfio: Opaque<bindings::vfio_device>,
    /// Whether `content` must be dropped.
    ready: AtomicBool,
    content: MaybeUninit<Content<D>>,
}

#[pin_data]
struct Content<D: Device> {
    #[pin]
    device: D,
    uuid: Uuid,
    ty: &'static TypeOf<D>,
    share: Share<D::Parent>,
    /// Held for reading while the device accesses the memory of the process.
    #[pin]
    session: RwSem<Session>,
    pins: Arc<Pins>,
    /// The migration state.
    #[pin]
    machine: Mutex<Machine>,
    /// One entry for each interrupt type.
    vectors: KVec<Pin<KBox<Vectors>>>,
    /// The device's entry in the peer-to-peer groups, if its type supports them.
    peer: Option<Arc<Peer>>,
    dev: ARef<BusDevice>,
}

/// The bus's state for the users of a device.
#[derive(Default)]
pub(super) struct Session {
    /// Whether the device is open.
    open: bool,
    /// Whether the device has been opened since it was created or last reset for the next user.
    used: bool,
}

// SAFETY: VFIO synchronises access to the C part. Any thread may use the rest.
unsafe impl<D: Device> Send for Instance<D> {}
// SAFETY: As above.
unsafe impl<D: Device> Sync for Instance<D> {}

// SAFETY: The functions count references to the `struct device`, whose release function frees the
// rest.
unsafe impl<D: Device> AlwaysRefCounted for Instance<D> {
    fn inc_ref(&self) {
        // SAFETY: A shared reference implies a non-zero reference count.
        unsafe { bindings::get_device(&raw mut (*self.as_ptr()).device) };
    }

    unsafe fn dec_ref(obj: NonNull<Self>) {
        let device: *mut bindings::vfio_device = obj.cast().as_ptr();
        // SAFETY: By this function's contract.
        unsafe { bindings::put_device(&raw mut (*device).device) };
    }
}

impl<D: Device> Deref for Instance<D> {
    type Target = D;

    fn deref(&self) -> &D {
        &self.content().device
    }
}

impl<D: Device> Instance<D> {
    /// # Safety
    ///
    /// `device` is the `struct vfio_device` of an `Instance<D>`, and stays allocated for all of
    /// `'a`.
    pub(super) unsafe fn from_raw<'a>(device: *mut bindings::vfio_device) -> &'a Self {
        // SAFETY: By this function's contract.
        unsafe { &*device.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::vfio_device {
        self.vfio.get()
    }

    fn content(&self) -> &Content<D> {
        // SAFETY: By the type invariant.
        unsafe { self.content.assume_init_ref() }
    }

    /// Returns the UUID of the device, which is its name.
    pub fn uuid(&self) -> Uuid {
        self.content().uuid
    }

    /// Returns the device on the bus, for log messages.
    pub fn dev(&self) -> &BusDevice {
        &self.content().dev
    }

    /// Returns the device's parent.
    pub fn parent(&self) -> &Arc<D::Parent> {
        self.content().share.parent()
    }

    /// Returns the device's type.
    pub fn ty(&self) -> &'static TypeOf<D> {
        self.content().ty
    }

    /// Signals a vector. Returns whether userspace has set an eventfd for it.
    ///
    /// Must not be called from a hardware interrupt handler. Call it from a thread or a work item.
    pub fn signal(&self, irq: D::Irq, vector: u32) -> bool {
        self.vectors(irq.index())
            .is_some_and(|vectors| vectors.signal(vector as usize))
    }

    /// Reads from the memory of the process at `iova`.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is not open. Otherwise the errors of the IOMMU backend: `EINVAL` for
    /// an unmapped address or no bytes, `EPERM` for an address without read permission, `EFAULT`.
    pub fn dma_read(&self, iova: u64, to: &mut [u8]) -> Result {
        let open = self.while_open()?;
        self.dma(&open, iova, to.as_mut_ptr(), to.len(), false)
    }

    /// Writes to the memory of the process at `iova`.
    ///
    /// # Errors
    ///
    /// As for [`dma_read`](Instance::dma_read), but `EPERM` for an address without write
    /// permission.
    pub fn dma_write(&self, iova: u64, from: &[u8]) -> Result {
        let (open, log) = (self.while_open()?, self.dma_log());
        if !log.is_active() {
            let result = self.dma(&open, iova, from.as_ptr().cast_mut(), from.len(), true);
            // A log may have started meanwhile. If the write failed, its progress is unknown.
            log.wrote(iova, from.len());
            return result;
        }
        // Write one page at a time. If a write fails, the log contains only pages that may have
        // been written.
        let mut done = 0;
        loop {
            let iova = iova.checked_add(done as u64).ok_or(EINVAL)?;
            let len = (PAGE_SIZE - iova as usize % PAGE_SIZE).min(from.len() - done);
            let part = &from[done..done + len];
            let result = self.dma(&open, iova, part.as_ptr().cast_mut(), len, true);
            if result.is_ok() || result == Err(EFAULT) {
                log.wrote(iova, len);
            }
            result?;
            done += len;
            if done == from.len() {
                return Ok(());
            }
        }
    }

    /// Keeps the device open while the result exists.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is not open.
    fn while_open(&self) -> Result<ReadGuard<'_, Session>> {
        let session = self.content().session.read();
        if !session.open {
            return Err(ENODEV);
        }
        Ok(session)
    }

    fn dma(
        &self,
        _open: &ReadGuard<'_, Session>,
        iova: u64,
        data: *mut u8,
        len: usize,
        write: bool,
    ) -> Result {
        // SAFETY: The device stays open while the lock is held. The buffer has `len` bytes, and the
        // function only reads it if `write` is true.
        to_result(unsafe { (Calls::<D>::DMA.rw)(self.as_ptr(), iova, data.cast(), len, write) })
    }

    /// Pins `count` pages of the memory of the process at `iova`, which must be page aligned.
    ///
    /// Use it for memory that is accessed often, and [`dma_read`](Instance::dma_read) otherwise.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is not open; `EINVAL` for an unaligned address or no pages;
    /// `EOVERFLOW` past the last address; `E2BIG` for more than [`MAX_PAGES`](crate::MAX_PAGES);
    /// otherwise the errors of the IOMMU backend.
    pub fn pin(&self, iova: u64, count: usize, access: GuestAccess) -> Result<GuestPages> {
        let _open = self.while_open()?;
        // SAFETY: The device stays open while the lock is held.
        unsafe { self.content().pins.pin(iova, count, access) }
    }

    /// Calls `f` with the members of the device's peer-to-peer group, including this device. A
    /// device of a type without peers is the only member.
    ///
    /// No member joins or leaves the group during the call. Therefore `f` must not wait for that,
    /// and must not call this function again: it would deadlock. For the same reason `group_opened`
    /// and `group_closed`, which get the members as an argument, must not call it.
    ///
    /// `f` may access the memory of the process through a member, but not through another device.
    pub fn members<R>(&self, f: impl FnOnce(&Members<'_, D>) -> R) -> R {
        match &self.content().peer {
            Some(peer) => peer.with_members(|members| f(&Self::typed(members))),
            None => f(&Members::alone(self)),
        }
    }

    /// Returns the value of `peer_to_peer_resource_uuid`, if the device has peers.
    pub fn peer_uuid(&self) -> Option<Uuid> {
        Some(self.content().peer.as_ref()?.uuid())
    }

    /// Returns the log of the device's writes to the memory of the process.
    pub(super) fn dma_log(&self) -> &DmaLog {
        &self.content().pins.log
    }

    /// Returns the migration state. The lock is held during a state change.
    pub(super) fn machine(&self) -> &Mutex<Machine> {
        &self.content().machine
    }

    pub(super) fn peer(&self) -> Option<&Arc<Peer>> {
        self.content().peer.as_ref()
    }

    pub(crate) fn vectors(&self, index: u32) -> Option<&Vectors> {
        let vectors = self.content().vectors.get(index as usize)?;
        Some(vectors)
    }

    /// Allocates an instance for a new device of the bus, which is not visible yet.
    ///
    /// # Errors
    ///
    /// The driver's errors, `ENOMEM`.
    ///
    /// # Safety
    ///
    /// `dev` is a device of the bus `mdev` that is being bound.
    pub(super) unsafe fn new(
        dev: *mut bindings::device,
        uuid: Uuid,
        ty: &'static TypeOf<D>,
        share: Share<D::Parent>,
    ) -> Result<ARef<Self>> {
        // SAFETY: By this function's contract the device has a driver.
        let driver = DriverKey(unsafe { (*dev).driver } as usize);
        const {
            // The alignment that `kvzalloc()` guarantees.
            assert!(core::mem::align_of::<Self>() <= core::mem::align_of::<u64>());
        }
        let size = core::mem::size_of::<Self>();
        // SAFETY: By this function's contract; the table is static.
        let raw = unsafe { bindings::_vfio_alloc_device(size, dev, Ops::<D>::TABLE) };
        let raw = from_err_ptr(raw)?;
        // SAFETY: `from_err_ptr` excludes error pointers, and the function returns no null pointer.
        let this = unsafe { NonNull::new_unchecked(raw).cast::<Self>() };
        // SAFETY: The function returned a counted reference. `release` checks `ready`, which is
        // zero, before it drops anything.
        let this = unsafe { ARef::from_raw(this) };
        // SAFETY: A valid device of the bus; the reference is counted.
        let dev: ARef<BusDevice> = unsafe { BusDevice::get_device(dev) };
        // SAFETY: `Calls` are the functions of this device's core. The device exists whenever it is
        // open.
        let pins = unsafe { Pins::new(Calls::<D>::DMA, raw) }?;
        let peer = match ty.peer_to_peer() {
            true => Peer::new(uuid, &dev, driver, Erased::new(&this), Self::admit)?,
            false => None,
        };
        let parent = share.parent().clone();
        let create = D::create(&parent, ty, uuid);
        let content = try_pin_init!(Content {
            device <- create,
            uuid,
            ty,
            share,
            session <- locks::session(),
            pins,
            machine <- locks::machine(),
            vectors: requests::all_vectors::<D>(&device)?,
            peer,
            dev,
        }? Error);
        let slot = this.content.as_ptr().cast_mut();
        // SAFETY: No other reference to the memory exists, and it does not move until it is dropped
        // in place.
        unsafe { pin_init::raw_try_init(slot, content) }?;
        // INVARIANT: `content` was just initialised.
        this.ready.store(true, Ordering::Relaxed);
        if dma_log::can_be_reported() {
            // SAFETY: The device is not visible yet, and the table is static.
            unsafe { (*raw).log_ops = LogOps::<D>::TABLE };
        }
        if D::MIGRATION.is_some() {
            // SAFETY: As above.
            unsafe {
                (*raw).migration_flags = MigrationOps::<D>::FLAGS;
                (*raw).mig_ops = MigrationOps::<D>::TABLE;
            }
        }
        Ok(this)
    }
}

impl<D: Device> Instance<D> {
    /// Drops the driver's and the bus's data. VFIO frees the memory.
    ///
    /// # Safety
    ///
    /// `this` is an instance, possibly one whose initialisation failed. No reference to it exists
    /// any more.
    pub(super) unsafe fn release(this: *mut Self) {
        // SAFETY: By this function's contract. Zeroed memory is a valid `ready`.
        unsafe {
            if *(*this).ready.get_mut() {
                (*this).content.assume_init_drop();
            }
        }
    }

    /// Starts a session, which lasts until the device is closed.
    ///
    /// # Errors
    ///
    /// The driver's errors, including those of a reset that failed after the last close; `EIO` if
    /// that happened to another member of the device's group.
    pub(super) fn begin_session(&self) -> Result {
        self.reset_after_use()?;
        if let Some(peer) = &self.content().peer {
            peer.opened(|members| {
                let members = Self::typed(members);
                if members.iter().any(Self::is_used) {
                    return Err(EIO);
                }
                D::group_opened(self, &members)
            })?;
        }
        *self.content().session.write() = Session {
            open: true,
            used: true,
        };
        D::opened(self).inspect_err(|_| self.end_session())
    }

    /// Ends the session that [`Instance::begin_session`] started. The core still counts the device
    /// as open.
    pub(super) fn end_session(&self) {
        self.content().session.write().open = false;
        // SAFETY: Called while the core counts the device as open. `open` is false, so no thread
        // pins pages.
        unsafe { self.content().pins.revoke(Range::ALL) };
        self.dma_log().stop();
        for vectors in &self.content().vectors {
            vectors.disable_all();
        }
        if let Err(e) = self.reset_after_use() {
            if may_warn() {
                dev_warn!(
                    self.dev(),
                    "reset failed after the last close, opening the device will try again: {:?}\n",
                    e
                );
            }
        }
        if let Some(peer) = &self.content().peer {
            peer.closed(|members| D::group_closed(self, &Self::typed(members)));
        }
    }

    fn is_used(&self) -> bool {
        self.content().session.read().used
    }

    /// Resets a device that is no longer open, and ends the migration that its user started.
    ///
    /// # Errors
    ///
    /// The driver's errors.
    fn reset_after_use(&self) -> Result {
        if !self.is_used() {
            return Ok(());
        }
        self.reset_for_next_user()?;
        self.content().session.write().used = false;
        Ok(())
    }

    /// Unpins pages in a range that the process unmaps.
    ///
    /// # Safety
    ///
    /// The device is open.
    pub(super) unsafe fn unmapped(&self, iovas: Range) {
        // SAFETY: By this function's contract.
        unsafe { self.content().pins.revoke(iovas) };
    }

    /// Returns the members of the device's own group with their type.
    fn typed(members: &[Arc<Peer>]) -> Members<'_, D> {
        // SAFETY: `peers::assign` only admits devices of one driver to a group. The group's lock is
        // held.
        unsafe { Members::new(members) }
    }

    /// Decides whether `peer`, which is an instance of this type, may join `members`.
    fn admit(peer: &Peer, members: &[Arc<Peer>]) -> Result {
        // SAFETY: `peers::assign` calls this function for a peer that is in a group. The members
        // belong to the same driver, and the lock of their group is held.
        let (this, members) = unsafe {
            let this: &Self = peer.instance().instance();
            (this, Members::new(members))
        };
        this.parent().admit(this, &members)
    }
}
