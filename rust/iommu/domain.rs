// SPDX-License-Identifier: GPL-2.0

//! Address spaces of devices.

use core::ptr::NonNull;

use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::{
        aref::ARef,
        atomic::{
            Acquire,
            Atomic,
            AtomicFlag,
            Full,
            Relaxed, //
        },
        Arc, //
    },
};

use crate::{
    bindings,
    mm::cond_resched, //
};

use super::{
    group::raw_device,
    Group,
    Prot, //
};

/// The most that is mapped or unmapped by one call; no page of an IOMMU reaches across a multiple of
/// it, so that calls don't split pages, which some IOMMUs can't.
const STEP: u64 = 1 << 30;

/// How many of `left` bytes from `iova` on go by one call.
fn step(iova: u64, left: u64) -> u64 {
    left.min(STEP - iova % STEP)
}

/// Says of a domain that no group will ever be attached to it again.
const RETIRED: i32 = -1;

/// The page tables of an address space, empty when made.
///
/// Several groups may share a domain. It is freed when the last [`Attachment`] and the last
/// [`Mapping`](super::Mapping) in it are gone.
///
/// # Invariants
///
/// - `ptr` is a domain of `iommu_paging_domain_alloc_flags()` that belongs to this value.
/// - `users` is the number of attachments, or [`RETIRED`]: then there is none and will be none.
pub struct Domain {
    ptr: NonNull<bindings::iommu_domain>,
    users: Atomic<i32>,
    enforces_coherency: AtomicFlag,
    msi_reserved: AtomicFlag,
}

// SAFETY: A domain belongs to no thread.
unsafe impl Send for Domain {}

// SAFETY: The IOMMU API allows mapping and unmapping of disjoint ranges at the same time, and that
// the ranges are disjoint is the contract of `map` and `unmap`. Attaching takes the group's mutex.
unsafe impl Sync for Domain {}

/// A domain's C pointer, for code that asks which domain a group is in.
pub struct DomainPtr(NonNull<bindings::iommu_domain>);

impl DomainPtr {
    /// The pointer. It is valid as long as the group stays attached.
    pub fn as_raw(self) -> *mut bindings::iommu_domain {
        self.0.as_ptr()
    }
}

impl Domain {
    /// Makes a domain of the kind that translates for the first device of `group`.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the group has no device or the device no IOMMU, `EOPNOTSUPP` if its IOMMU has no
    /// page tables of this kind, `ENOMEM`.
    pub fn alloc(group: &Group) -> Result<Self> {
        let mut found = Err(ENODEV);
        // The error is only there to end the walk.
        let _ = group.for_each_device(|dev| {
            // SAFETY: `dev` is a valid device.
            found = from_err_ptr(unsafe {
                bindings::iommu_paging_domain_alloc_flags(raw_device(dev), 0)
            });
            Err(EAGAIN)
        });
        // INVARIANT: The domain was made just now, for us; no group is attached to it.
        Ok(Self {
            ptr: NonNull::new(found?).ok_or(ENOMEM)?,
            users: Atomic::new(0),
            enforces_coherency: AtomicFlag::new(false),
            msi_reserved: AtomicFlag::new(false),
        })
    }

    /// The C structure.
    fn raw(&self) -> &bindings::iommu_domain {
        // SAFETY: By the type invariant the domain is valid. The fields that are read through this
        // reference do not change after attaching.
        unsafe { self.ptr.as_ref() }
    }

    /// The C pointer, for the core of VFIO.
    pub fn as_ptr(&self) -> DomainPtr {
        DomainPtr(self.ptr)
    }

    /// The first and the last address that the domain translates.
    pub fn aperture(&self) -> (u64, u64) {
        let geometry = &self.raw().geometry;
        (geometry.aperture_start, geometry.aperture_end)
    }

    /// The page sizes of the domain: a set of powers of two, each standing for itself.
    pub fn page_sizes(&self) -> u64 {
        self.raw().pgsize_bitmap as u64
    }

    /// Makes the IOMMU ignore requests of devices to bypass the processors' caches, if it can.
    ///
    /// Done after the first group is attached and before anything is mapped. Returns whether it can.
    pub fn enforce_coherency(&self) -> bool {
        // SAFETY: A valid domain has static ops.
        let op = unsafe { (*self.raw().ops).enforce_cache_coherency };
        if let Some(op) = op {
            // SAFETY: The domain is valid; the driver takes its own lock.
            let enforces = unsafe { op(self.ptr.as_ptr()) };
            self.enforces_coherency.store(enforces, Relaxed);
        }
        self.enforces_coherency()
    }

    /// Whether [`enforce_coherency`](Self::enforce_coherency) succeeded.
    pub fn enforces_coherency(&self) -> bool {
        self.enforces_coherency.load(Relaxed)
    }

    /// Whether a group that `other` was made for may be attached to this domain instead.
    pub fn is_like(&self, other: &Self) -> bool {
        core::ptr::eq(self.raw().ops, other.raw().ops)
            && self.enforces_coherency() == other.enforces_coherency()
    }

    /// Reserves addresses from `base` on for messages to the interrupt controller.
    ///
    /// Returns whether the domain takes part in that: some kernels are built without.
    ///
    /// # Errors
    ///
    /// `EEXIST` if it was done before, `ENOMEM`.
    pub fn reserve_msi(&self, base: u64) -> Result<bool> {
        if self.msi_reserved.xchg(true, Full) {
            return Err(EEXIST);
        }
        // SAFETY: The domain is valid, and the flag lets one task only come here.
        match to_result(unsafe { bindings::iommu_get_msi_cookie(self.ptr.as_ptr(), base) }) {
            Ok(()) => Ok(true),
            Err(e) if e == ENODEV => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The physical address behind `iova`, or 0.
    pub fn iova_to_phys(&self, iova: u64) -> u64 {
        // SAFETY: The domain is valid.
        unsafe { bindings::iommu_iova_to_phys(self.ptr.as_ptr(), iova) }
    }

    /// Makes the devices see the `size` bytes at `phys` at `iova`.
    ///
    /// # Safety
    ///
    /// The memory stays held until the range has been unmapped, and nobody maps or unmaps an
    /// overlapping range meanwhile.
    ///
    /// # Errors
    ///
    /// `EINVAL` or `ERANGE` for addresses which the IOMMU can't take, `EADDRINUSE` if something is
    /// mapped there, `ENOMEM`; and whether devices see none of it then, as it should be.
    pub(super) unsafe fn map(
        &self,
        iova: u64,
        phys: u64,
        size: usize,
        prot: Prot,
    ) -> Result<(), (Error, bool)> {
        let mut done = 0;
        while done < size as u64 {
            let step = step(iova + done, size as u64 - done);
            // SAFETY: The domain is valid; the rest is the contract of this function.
            let mapped = to_result(unsafe {
                bindings::iommu_map(
                    self.ptr.as_ptr(),
                    (iova + done) as usize,
                    phys + done,
                    step as usize,
                    prot.as_raw() | bindings::IOMMU_CACHE as i32,
                    bindings::GFP_KERNEL_ACCOUNT,
                )
            });
            if let Err(e) = mapped {
                // SAFETY: As above.
                let gone = unsafe { self.unmap(iova, done) };
                return Err((e, gone));
            }
            done += step;
        }
        Ok(())
    }

    /// Makes the devices forget the `size` bytes at `iova`, which had been mapped, and waits until
    /// they have.
    ///
    /// Returns whether all of it is gone.
    ///
    /// # Safety
    ///
    /// Nobody maps or unmaps an overlapping range meanwhile.
    pub(super) unsafe fn unmap(&self, iova: u64, size: u64) -> bool {
        let mut done = 0;
        while done < size {
            let step = step(iova + done, size - done) as usize;
            let start = (iova + done) as usize;
            // SAFETY: The domain is valid; the rest is the contract of this function.
            let unmapped = unsafe { bindings::iommu_unmap(self.ptr.as_ptr(), start, step) };
            if unmapped == 0 {
                return false;
            }
            done += unmapped as u64;
            cond_resched();
        }
        true
    }

    /// Counts one more attachment.
    fn add_user(&self) -> Result {
        let mut users = self.users.load(Relaxed);
        loop {
            if users == RETIRED {
                return Err(EINVAL);
            }
            match self.users.cmpxchg(users, users + 1, Full) {
                Ok(_) => return Ok(()),
                Err(now) => users = now,
            }
        }
    }

    /// Retires a domain that no group is attached to: none will be attached any more.
    ///
    /// No device reaches anything through it then, so what is mapped may stay in its page tables
    /// until these are freed with it.
    ///
    /// # Errors
    ///
    /// `EBUSY` if a group is attached.
    pub fn retire(&self) -> Result {
        // INVARIANT: There is no attachment, and `add_user` lets none come.
        match self.users.cmpxchg(0, RETIRED, Full) {
            Ok(_) | Err(RETIRED) => Ok(()),
            Err(_) => Err(EBUSY),
        }
    }

    /// Whether the domain was retired.
    pub(super) fn is_retired(&self) -> bool {
        self.users.load(Acquire) == RETIRED
    }

    /// Switches the devices of `group` from where they can reach nothing to this domain.
    ///
    /// The group's DMA has been claimed by the caller's user, so it returns to a domain where its
    /// devices reach nothing when the attachment is dropped.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the group is in another domain, or being reset; `EINVAL` if the domain does not fit
    /// the group's IOMMU, or is retired; and those of its driver.
    pub fn attach(this: Arc<Self>, group: &Group) -> Result<Attachment> {
        this.add_user()?;
        // SAFETY: Both are valid; the attachment keeps them so until the group is detached.
        let ret = unsafe { bindings::iommu_attach_group(this.ptr.as_ptr(), group.as_ptr()) };
        if let Err(e) = to_result(ret) {
            this.users.fetch_sub(1, Full);
            return Err(e);
        }
        // INVARIANT: The group is attached since just now, and counted.
        Ok(Attachment {
            domain: this,
            group: group.into(),
        })
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // SAFETY: The domain is ours, and no group is attached to it: an `Attachment` would hold a
        // reference to this value. The same goes for mappings.
        unsafe { bindings::iommu_domain_free(self.ptr.as_ptr()) };
    }
}

/// A group whose devices translate by a domain; dropping it takes the group out.
///
/// # Invariants
///
/// `group` is attached to `domain`, and counted among its users.
pub struct Attachment {
    domain: Arc<Domain>,
    group: ARef<Group>,
}

impl Attachment {
    /// The group.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// The group, counted.
    pub fn group_ref(&self) -> ARef<Group> {
        self.group.clone()
    }

    /// The domain.
    pub fn domain(&self) -> &Arc<Domain> {
        &self.domain
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // SAFETY: The group is attached to the domain, by the type invariant.
        unsafe { bindings::iommu_detach_group(self.domain.ptr.as_ptr(), self.group.as_ptr()) };
        // INVARIANT: It was counted; the IOMMU has forgotten, for the group's devices, what it knew
        // of this domain: that is what lets a domain be freed, or others unmap there without a look
        // at groups which have left.
        self.domain.users.fetch_sub(1, Full);
    }
}

/// The domains which a mapping is in: all of those of a container at one time.
///
/// Domains that are retired count no more.
#[derive(Default)]
pub struct Domains(KVec<Arc<Domain>>);

impl Domains {
    /// These domains, and `domain`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn with(&self, domain: &Arc<Domain>) -> Result<Arc<Self>> {
        let mut all = KVec::with_capacity(self.0.len() + 1, GFP_KERNEL_ACCOUNT)?;
        for other in self.iter() {
            all.push(other.clone(), GFP_KERNEL_ACCOUNT)?;
        }
        all.push(domain.clone(), GFP_KERNEL_ACCOUNT)?;
        Ok(Arc::new(Self(all), GFP_KERNEL_ACCOUNT)?)
    }

    /// These domains but for `domain`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn without(&self, domain: &Arc<Domain>) -> Result<Arc<Self>> {
        let mut all = KVec::new();
        for other in self.iter().filter(|other| !Arc::ptr_eq(other, domain)) {
            all.push(other.clone(), GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Arc::new(Self(all), GFP_KERNEL_ACCOUNT)?)
    }

    /// The domains, but for retired ones.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Domain>> {
        self.0.iter().filter(|domain| !domain.is_retired())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Whether `domain` is one of these.
    pub(super) fn has(&self, domain: &Arc<Domain>) -> bool {
        self.iter().any(|other| Arc::ptr_eq(other, domain))
    }

    /// The page sizes that all of them have, as a mapping may use them: `!(PAGE_SIZE - 1)` if there
    /// is none, and pages smaller than those of the processor count as those.
    pub fn page_sizes(&self) -> u64 {
        let page = PAGE_SIZE as u64;
        if self.is_empty() {
            return !(page - 1);
        }
        let sizes = self.iter().fold(u64::MAX, |all, d| all & d.page_sizes());
        if sizes & (page - 1) == 0 {
            return sizes;
        }
        sizes & !(page - 1) | page
    }
}

#[cfg(CONFIG_KUNIT)]
#[kernel::macros::kunit_tests(kernel_ext_domain)]
mod tests {
    use super::*;

    #[test]
    fn steps_end_where_no_page_goes_on() {
        for (iova, left, expected) in [
            (0, STEP, STEP),
            (0, 3 * STEP, STEP),
            (0x1000, STEP, STEP - 0x1000),
            (5 * STEP - 0x2000, STEP, 0x2000),
            (STEP, 0x1000, 0x1000),
        ] {
            assert_eq!(step(iova, left), expected);
        }
    }
}
