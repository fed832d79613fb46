// SPDX-License-Identifier: GPL-2.0

//! A driver's device together with its `struct vfio_device`.

use core::{
    marker::PhantomData,
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
        from_result,
        to_result, //
    },
    ffi::{
        c_char,
        c_int,
        c_long,
        c_uint,
        c_ulong, //
    },
    mm::virt::{
        flags,
        VmaNew, //
    },
    new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    static_lock_class,
    sync::{
        aref::{
            ARef,
            AlwaysRefCounted, //
        },
        Arc,
        Mutex, //
    },
    types::Opaque,
    uaccess::UserPtr, //
};
use kernel_ext::{
    bindings,
    rwsem::RwSem, //
};

use super::{
    driver::Share,
    logging::LogOps,
    members::{
        Erased,
        Members, //
    },
    migration::MigrationOps,
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
    /// Whether the device is open. Held for reading while it reaches the program's memory.
    #[pin]
    session: RwSem<bool>,
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
        self.dma(iova, to.as_mut_ptr(), to.len(), false)
    }

    /// Copies bytes into the program's memory from `iova` on.
    ///
    /// # Errors
    ///
    /// As for [`dma_read`](Instance::dma_read), `EPERM` for an address that may not be written.
    pub fn dma_write(&self, iova: u64, from: &[u8]) -> Result {
        if !self.dma_log().is_active() {
            return self.dma(iova, from.as_ptr().cast_mut(), from.len(), true);
        }
        // One page at a time: of what fails, the log has those that were written.
        let (mut iova, mut rest) = (iova, from);
        while !rest.is_empty() {
            let len = (PAGE_SIZE - iova as usize % PAGE_SIZE).min(rest.len());
            self.dma(iova, rest.as_ptr().cast_mut(), len, true)?;
            self.dma_log().wrote(iova, len);
            iova = iova.checked_add(len as u64).ok_or(EINVAL)?;
            rest = &rest[len..];
        }
        Ok(())
    }

    fn dma(&self, iova: u64, data: *mut u8, len: usize, write: bool) -> Result {
        let open = self.content().session.read();
        if !*open {
            return Err(ENODEV);
        }
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
        let open = self.content().session.read();
        if !*open {
            return Err(ENODEV);
        }
        // SAFETY: The device is open while the lock is held.
        unsafe { self.content().pins.pin(iova, count, access) }
    }

    /// Calls `f` with the members of the device's peer-to-peer group, this one included. A device of a
    /// type without peers is alone.
    ///
    /// No member comes or goes meanwhile, so `f` doesn't wait for that; nor does it call this again.
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
        // SAFETY: The function returned a counted reference. `release_callback` looks at `ready`,
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
            session <- RwSem::new(false, c"vfio_mdev::session", static_lock_class!()),
            pins,
            machine <- new_mutex!(Machine::new(), "vfio_mdev::machine"),
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

/// The callbacks from VFIO.
///
/// All of them are called with the `struct vfio_device` of an [`Instance<D>`].
struct Ops<D>(PhantomData<D>);

impl<D: Device> Ops<D> {
    const TABLE: &'static bindings::vfio_device_ops = &bindings::vfio_device_ops {
        name: <D::Parent as Parent>::NAME.as_ptr().cast_mut().cast(),
        release: Some(Self::release_callback),
        open_device: Some(Self::open_callback),
        close_device: Some(Self::close_callback),
        read: Some(Self::read_callback),
        write: Some(Self::write_callback),
        ioctl: Some(Self::ioctl_callback),
        get_region_info_caps: Some(Self::region_info_callback),
        mmap: Some(Self::mmap_callback),
        dma_unmap: Some(Self::dma_unmap_callback),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// See [`Ops`]; nobody refers to the device any more.
    unsafe extern "C" fn release_callback(device: *mut bindings::vfio_device) {
        let this: *mut Instance<D> = device.cast();
        // SAFETY: By this function's contract; zeroed memory is a valid `ready`.
        unsafe {
            if *(*this).ready.get_mut() {
                (*this).content.assume_init_drop();
            }
        }
    }

    /// # Safety
    ///
    /// See [`Ops`]; this is the first open.
    unsafe extern "C" fn open_callback(device: *mut bindings::vfio_device) -> c_int {
        // SAFETY: By this function's contract.
        let this = unsafe { Instance::<D>::from_raw(device) };
        from_result(|| {
            this.begin_session()?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`Ops`]; this is the last close.
    unsafe extern "C" fn close_callback(device: *mut bindings::vfio_device) {
        // SAFETY: By this function's contract.
        let this = unsafe { Instance::<D>::from_raw(device) };
        D::closed(this);
        this.end_migration();
        this.end_session();
    }

    /// # Safety
    ///
    /// See [`Ops`]; the device is open and `pos` valid.
    unsafe extern "C" fn read_callback(
        device: *mut bindings::vfio_device,
        buf: *mut c_char,
        count: usize,
        pos: *mut i64,
    ) -> isize {
        // SAFETY: By this function's contract.
        let (this, pos) = unsafe { (Instance::<D>::from_raw(device), &mut *pos) };
        let done = requests::read(this, UserPtr::from_ptr(buf.cast()), count, *pos);
        moved(pos, done)
    }

    /// # Safety
    ///
    /// See [`Ops`]; the device is open and `pos` valid.
    unsafe extern "C" fn write_callback(
        device: *mut bindings::vfio_device,
        buf: *const c_char,
        count: usize,
        pos: *mut i64,
    ) -> isize {
        // SAFETY: By this function's contract.
        let (this, pos) = unsafe { (Instance::<D>::from_raw(device), &mut *pos) };
        let from = UserPtr::from_ptr(buf.cast_mut().cast());
        let done = requests::write(this, from, count, *pos);
        moved(pos, done)
    }

    /// # Safety
    ///
    /// See [`Ops`]; the device is open.
    unsafe extern "C" fn ioctl_callback(
        device: *mut bindings::vfio_device,
        cmd: c_uint,
        arg: c_ulong,
    ) -> c_long {
        // SAFETY: By this function's contract.
        let this = unsafe { Instance::<D>::from_raw(device) };
        match requests::ioctl(this, cmd, UserPtr::from_addr(arg)) {
            Ok(value) => value as c_long,
            Err(e) => e.to_errno() as c_long,
        }
    }

    /// # Safety
    ///
    /// See [`Ops`]; the device is open and `info` valid.
    unsafe extern "C" fn region_info_callback(
        device: *mut bindings::vfio_device,
        info: *mut bindings::vfio_region_info,
        _caps: *mut bindings::vfio_info_cap,
    ) -> c_int {
        // SAFETY: By this function's contract.
        let (this, info) = unsafe { (Instance::<D>::from_raw(device), &mut *info) };
        from_result(|| requests::region_info::<D>(this, info).map(|()| 0))
    }

    /// # Safety
    ///
    /// See [`Ops`]; the device is open and `vma` is being set up.
    unsafe extern "C" fn mmap_callback(
        device: *mut bindings::vfio_device,
        vma: *mut bindings::vm_area_struct,
    ) -> c_int {
        // SAFETY: By this function's contract.
        let (this, page_offset) =
            unsafe { (Instance::<D>::from_raw(device), (*vma).vm_pgoff as u64) };
        // SAFETY: By this function's contract.
        let vma = unsafe { VmaNew::from_raw(vma) };
        from_result(|| {
            if vma.flags() & flags::SHARED == 0 {
                return Err(EINVAL);
            }
            let len = vma.end() - vma.start();
            let mapped = requests::mapped::<D>(this, page_offset, len, vma.writable())?;
            if !mapped.writable {
                vma.try_clear_maywrite()?;
            }
            mapped.memory.map(mapped.offset, vma)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// See [`Ops`]; the device is open.
    unsafe extern "C" fn dma_unmap_callback(
        device: *mut bindings::vfio_device,
        iova: u64,
        size: u64,
    ) {
        // SAFETY: By this function's contract.
        let this = unsafe { Instance::<D>::from_raw(device) };
        D::unmapped(this, iova, size);
        // SAFETY: By this function's contract.
        unsafe {
            this.content().pins.revoke(Range {
                start: iova,
                last: iova.saturating_add(size.saturating_sub(1)),
            })
        };
    }
}

/// Moves `pos` by what was done.
fn moved(pos: &mut i64, done: Result<usize>) -> isize {
    from_result(|| {
        let done = done?;
        *pos += done as i64;
        Ok(done as isize)
    })
}

impl<D: Device> Instance<D> {
    fn begin_session(&self) -> Result {
        if let Some(peer) = &self.content().peer {
            peer.opened(|members| D::group_opened(self, &Self::typed(members)))?;
        }
        *self.content().session.write() = true;
        D::opened(self).inspect_err(|_| self.end_session())
    }

    /// Ends what [`Instance::begin_session`] began. The core still counts the device as open.
    fn end_session(&self) {
        *self.content().session.write() = false;
        // SAFETY: Called while the core counts the device as open; nobody pins any more.
        unsafe { self.content().pins.revoke(Range::ALL) };
        self.dma_log().stop();
        for vectors in &self.content().vectors {
            vectors.disable_all();
        }
        if let Some(peer) = &self.content().peer {
            peer.closed(|members| D::group_closed(self, &Self::typed(members)));
        }
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
