// SPDX-License-Identifier: GPL-2.0

//! A driver's device: its identity, its use by processes, and the services of the bus for it.

#[allow(unsafe_code)]
mod abi;

use kernel::{
    device::Device as BusDevice,
    page::PAGE_SIZE,
    prelude::*,
    static_lock_class,
    sync::{
        aref::ARef,
        Arc,
        Mutex, //
    }, //
};
use kernel_ext::{
    iova::Range,
    mm::{
        may_warn,
        MemoryCgroup, //
    },
    rwsem::RwSem, //
};

use crate::{
    dma_logging::DmaLogging,
    driver::{
        irqs::Vectors,
        Device,
        Index,
        Share,
        TypeOf, //
    },
    migration::Machine,
    pages::{
        GuestAccess,
        GuestPages,
        Pins, //
    },
    peers::{
        Members,
        PeerOf, //
    },
    uuid::Uuid, //
};

pub use abi::Instance;

/// The data of an [`Instance`].
#[pin_data]
pub(crate) struct Content<D: Device> {
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
    peer: Option<PeerOf<D>>,
    dev: ARef<BusDevice>,
}

/// The use of a device by processes.
#[derive(Default)]
struct Session {
    /// The memory cgroup of the process that opened the device, which is charged for the pins.
    /// `None` if the device is not open.
    payer: Option<MemoryCgroup>,
    /// Whether the device has been opened since it was created or last reset for the next user.
    used: bool,
}

impl Session {
    /// Creates the lock of a new device, which is closed. See `UsedCapacity::new` for why it is not
    /// inlined.
    #[inline(never)]
    fn new() -> impl PinInit<RwSem<Self>> {
        RwSem::new(Self::default(), c"vfio_mdev::Session", static_lock_class!())
    }
}

impl<D: Device> Instance<D> {
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
        self.while_open()?.read(iova, to)
    }

    /// Writes to the memory of the process at `iova`.
    ///
    /// # Errors
    ///
    /// As for [`dma_read`](Instance::dma_read), but `EPERM` for an address without write
    /// permission.
    pub fn dma_write(&self, iova: u64, from: &[u8]) -> Result {
        let (open, log) = (self.while_open()?, self.dma_logging());
        if !log.is_active() {
            let result = open.write(iova, from);
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
            let result = open.write(iova, part);
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
        self.while_open()?.pin(iova, count, access)
    }

    /// Calls `f` with the members of the device's peer-to-peer group, including this device. A
    /// device of a type without peers is the only member.
    ///
    /// No member joins or leaves the group, is opened or closed during the call. Therefore `f` must
    /// not wait for that, and must not call this function again: it would deadlock. For the same
    /// reason `group_opened` and `group_closed`, which get the members as an argument, must not call
    /// it.
    ///
    /// `f` may access the memory of the process through a member, but not through another device.
    pub fn members<R>(&self, f: impl FnOnce(&Members<'_, D>) -> R) -> R {
        match &self.content().peer {
            Some(peer) => peer.with_members(f),
            None => f(&Members::alone(self)),
        }
    }

    /// Returns the value of `peer_to_peer_resource_uuid`, if the device has peers.
    pub fn peer_uuid(&self) -> Option<Uuid> {
        Some(self.content().peer.as_ref()?.uuid())
    }

    /// Returns the log of the device's writes to the memory of the process.
    pub(crate) fn dma_logging(&self) -> &DmaLogging {
        &self.content().pins.log
    }

    /// Returns the migration state. The lock is held during a state change.
    pub(crate) fn machine(&self) -> &Mutex<Machine> {
        &self.content().machine
    }

    /// Returns the device as a member of a peer-to-peer group, if its type has peers.
    pub(crate) fn peer(&self) -> Option<&PeerOf<D>> {
        self.content().peer.as_ref()
    }

    /// Returns the vectors of an interrupt type.
    pub(crate) fn vectors(&self, index: u32) -> Option<&Vectors> {
        let vectors = self.content().vectors.get(index as usize)?;
        Some(vectors)
    }

    /// Starts a session, which lasts until the device is closed.
    ///
    /// # Errors
    ///
    /// The driver's errors, including those of a reset that failed after the last close; `EIO` if
    /// that happened to another member of the device's group.
    pub(crate) fn begin_session(&self) -> Result {
        self.reset_after_use()?;
        if let Some(peer) = &self.content().peer {
            peer.opened(|members| {
                if members.iter().any(Self::is_used) {
                    return Err(EIO);
                }
                D::group_opened(self, members)
            })?;
        }
        *self.content().session.write() = Session {
            payer: Some(MemoryCgroup::current()),
            used: true,
        };
        D::opened(self).inspect_err(|_| self.end_session())
    }

    /// Ends the session that [`Instance::begin_session`] started. The core still counts the device
    /// as open.
    pub(crate) fn end_session(&self) {
        self.content().session.write().payer = None;
        self.unpin(Range::ALL);
        self.dma_logging().stop();
        for vectors in &self.content().vectors {
            vectors.disable_all();
        }
        if let Err(e) = self.reset_after_use() {
            if may_warn() {
                dev_warn!(
                    self.dev(),
                    "reset after the last close failed: {:?}; the next open retries it\n",
                    e
                );
            }
        }
        if let Some(peer) = &self.content().peer {
            peer.closed(|members| D::group_closed(self, members));
        }
    }

    /// Whether the device must be reset before its next user.
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
}
