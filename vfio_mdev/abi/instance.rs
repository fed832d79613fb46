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

/// A driver's device, with what the bus has for it.
///
/// It is a `D`; [`ARef`] counts references to it. The `D` is dropped with the last one, which may be
/// after the device was removed: nothing reaches it then but who has a reference.
///
/// # Invariants
///
/// Begins with a `struct vfio_device` that went through `_vfio_alloc_device()`, and `content` is
/// initialised.
#[repr(C)]
pub struct Instance<D: Device> {
    vfio: Opaque<bindings::vfio_device>,
    /// Whether `content` is to be dropped.
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
    /// Held for reading while the device reaches the program's memory.
    #[pin]
    session: RwSem<Session>,
    pins: Arc<Pins>,
    /// Where it is on the way to another device, if it can go there.
    #[pin]
    machine: Mutex<Machine>,
    /// One for each kind of interrupt.
    vectors: KVec<Pin<KBox<Vectors>>>,
    /// Its place among the peers, if its type has any.
    peer: Option<Arc<Peer>>,
    dev: ARef<BusDevice>,
}

/// What the bus knows of a device's users.
#[derive(Default)]
pub(super) struct Session {
    /// Whether the device is open.
    open: bool,
    /// Whether it has been open since it was made, or reset for the next user.
    used: bool,
}

// SAFETY: The C part is guarded by VFIO; the rest may be used from any task.
unsafe impl<D: Device> Send for Instance<D> {}
// SAFETY: As above.
unsafe impl<D: Device> Sync for Instance<D> {}

// SAFETY: The functions count references to the `struct device`, whose release frees the rest.
unsafe impl<D: Device> AlwaysRefCounted for Instance<D> {
    fn inc_ref(&self) {
        // SAFETY: A shared reference implies a count that is not zero.
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
    /// `device` is that of an `Instance<D>`, and stays allocated for all of `'a`.
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

    /// The device's name.
    pub fn uuid(&self) -> Uuid {
        self.content().uuid
    }

    /// The device on the bus, for messages.
    pub fn dev(&self) -> &BusDevice {
        &self.content().dev
    }

    /// Who made the device.
    pub fn parent(&self) -> &Arc<D::Parent> {
        self.content().share.parent()
    }

    /// What kind of device it is.
    pub fn ty(&self) -> &'static TypeOf<D> {
        self.content().ty
    }

    /// Signals a vector. Returns whether the program has set an eventfd for it.
    ///
    /// Not from a hardware interrupt's handler: do it from a thread or a work item.
    pub fn signal(&self, irq: D::Irq, vector: u32) -> bool {
        self.vectors(irq.index())
            .is_some_and(|vectors| vectors.signal(vector as usize))
    }

    /// Copies bytes of the program's memory from `iova` on.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device isn't open, otherwise the backend's: `EINVAL` for an address that isn't
    /// mapped, `EPERM` for one that may not be read, `EFAULT`.
    pub fn dma_read(&self, iova: u64, to: &mut [u8]) -> Result {
        let open = self.while_open()?;
        self.dma(&open, iova, to.as_mut_ptr(), to.len(), false)
    }

    /// Copies bytes into the program's memory from `iova` on.
    ///
    /// # Errors
    ///
    /// As for [`dma_read`](Instance::dma_read), `EPERM` for an address that may not be written.
    pub fn dma_write(&self, iova: u64, from: &[u8]) -> Result {
        let (open, log) = (self.while_open()?, self.dma_log());
        if !log.is_active() {
            let result = self.dma(&open, iova, from.as_ptr().cast_mut(), from.len(), true);
            // A log may have begun meanwhile. Of what failed, nobody knows how far it came.
            log.wrote(iova, from.len());
            return result;
        }
        // One page at a time: of what fails, the log has those that may have been written.
        let mut done = 0;
        while done < from.len() {
            let iova = iova.checked_add(done as u64).ok_or(EINVAL)?;
            let len = (PAGE_SIZE - iova as usize % PAGE_SIZE).min(from.len() - done);
            let part = &from[done..done + len];
            let result = self.dma(&open, iova, part.as_ptr().cast_mut(), len, true);
            if result.is_ok() || result == Err(EFAULT) {
                log.wrote(iova, len);
            }
            result?;
            done += len;
        }
        Ok(())
    }

    /// Keeps the device open.
    ///
    /// # Errors
    ///
    /// `ENODEV` if it isn't.
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
        // SAFETY: The device is open while the lock is held; the buffer has that length, and is only
        // read for a write to the program.
        to_result(unsafe { (Calls::<D>::DMA.rw)(self.as_ptr(), iova, data.cast(), len, write) })
    }

    /// Pins `count` pages of the program's memory from `iova` on, which is page aligned.
    ///
    /// For what is accessed often; [`dma_read`](Instance::dma_read) is for the rest.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device isn't open; `EINVAL` for a bad address, `EOVERFLOW` past the last one,
    /// `E2BIG` for more than 512 pages; otherwise the backend's.
    pub fn pin(&self, iova: u64, count: usize, access: GuestAccess) -> Result<GuestPages> {
        let _open = self.while_open()?;
        // SAFETY: The device is open while the lock is held.
        unsafe { self.content().pins.pin(iova, count, access) }
    }

    /// Calls `f` with the members of the device's peer-to-peer group, this one included. A device of a
    /// type without peers is alone.
    ///
    /// No member comes or goes meanwhile, so `f` doesn't wait for that; nor does it call this again. Nor do
    /// `group_opened` and `group_closed`, which have the members: the task would wait for itself.
    pub fn members<R>(&self, f: impl FnOnce(&Members<'_, D>) -> R) -> R {
        match &self.content().peer {
            Some(peer) => peer.with_members(|members| f(&Self::typed(members))),
            None => f(&Members::alone(self)),
        }
    }

    /// What `peer_to_peer_resource_uuid` says, if the device's type has peers.
    pub fn peer_uuid(&self) -> Option<Uuid> {
        Some(self.content().peer.as_ref()?.uuid())
    }

    /// The log of what the device writes to the program's memory.
    pub(super) fn dma_log(&self) -> &DmaLog {
        &self.content().pins.log
    }

    /// Where the device is among the states of migration. Held while it goes to another one.
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

    /// Makes an instance for a new device of the bus, which nobody sees yet.
    ///
    /// # Errors
    ///
    /// The driver's, `ENOMEM`.
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
            // What `kvzalloc()` aligns to.
            assert!(core::mem::align_of::<Self>() <= core::mem::align_of::<u64>());
        }
        let size = core::mem::size_of::<Self>();
        // SAFETY: By this function's contract; the table is static.
        let raw = unsafe { bindings::_vfio_alloc_device(size, dev, Ops::<D>::TABLE) };
        let raw = from_err_ptr(raw)?;
        // SAFETY: `from_err_ptr` leaves no null pointer that the function returns.
        let this = unsafe { NonNull::new_unchecked(raw).cast::<Self>() };
        // SAFETY: The function returned a counted reference. `release` looks at `ready`,
        // which is zero, before it drops anything.
        let this = unsafe { ARef::from_raw(this) };
        // SAFETY: A valid device of the bus; the reference is counted.
        let dev: ARef<BusDevice> = unsafe { BusDevice::get_device(dev) };
        // SAFETY: `Calls` are the functions of this device's core; the device outlives its session.
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
        // SAFETY: Nobody else has the memory, and it stays where it is until it is dropped there.
        unsafe { pin_init::raw_try_init(slot, content) }?;
        // INVARIANT: Initialised just now.
        this.ready.store(true, Ordering::Relaxed);
        if dma_log::can_be_reported() {
            // SAFETY: Nobody sees the device yet; the table is static.
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
    /// Drops what the driver and the bus have in it. The memory is VFIO's.
    ///
    /// # Safety
    ///
    /// `this` is an instance, or was to become one; nobody refers to it any more.
    pub(super) unsafe fn release(this: *mut Self) {
        // SAFETY: By this function's contract; zeroed memory is a valid `ready`.
        unsafe {
            if *(*this).ready.get_mut() {
                (*this).content.assume_init_drop();
            }
        }
    }

    /// Begins what lasts as long as the device is open.
    ///
    /// # Errors
    ///
    /// The driver's, also those of a reset that has failed when the device was closed; `EIO` if that was
    /// another member of its group.
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

    /// Ends what [`Instance::begin_session`] began. The core still counts the device as open.
    pub(super) fn end_session(&self) {
        self.content().session.write().open = false;
        // SAFETY: Called while the core counts the device as open; nobody pins any more.
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

    /// Resets a device that isn't open any more, and ends the migration that its user has begun.
    ///
    /// # Errors
    ///
    /// The driver's.
    fn reset_after_use(&self) -> Result {
        if !self.is_used() {
            return Ok(());
        }
        self.reset_for_next_user()?;
        self.content().session.write().used = false;
        Ok(())
    }

    /// The program unmaps memory: unpins it.
    ///
    /// # Safety
    ///
    /// The device is open.
    pub(super) unsafe fn unmapped(&self, iovas: Range) {
        // SAFETY: By this function's contract.
        unsafe { self.content().pins.revoke(iovas) };
    }

    /// The members of the own group as what they are.
    fn typed(members: &[Arc<Peer>]) -> Members<'_, D> {
        // SAFETY: `peers::assign` lets devices of one driver into a group; the group's lock is held.
        unsafe { Members::new(members) }
    }

    /// Whether `peer`, of this type of instance, may join `members`.
    fn admit(peer: &Peer, members: &[Arc<Peer>]) -> Result {
        // SAFETY: `peers::assign` calls this for a peer that is in a group, with others of its driver
        // whose group it has locked.
        let (this, members) = unsafe {
            let this: &Self = peer.instance().instance();
            (this, Members::new(members))
        };
        this.parent().admit(this, &members)
    }
}
