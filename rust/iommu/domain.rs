// SPDX-License-Identifier: GPL-2.0

//! IOMMU domains: the address spaces of devices.

#[cfg(CONFIG_KUNIT)]
mod fake;

use core::{
    ops::Deref,
    ptr::NonNull, //
};

use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    page::PAGE_SIZE,
    prelude::*,
    sync::{
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
    array_vec::SmallVec,
    bindings,
    mm::cond_resched, //
};

use super::{
    group::raw_device,
    Attachment,
    ClaimedGroup,
    Group,
    Prot, //
};

/// Maximum number of bytes that one call maps or unmaps. No IOMMU page crosses a multiple of it, so
/// a call never splits a page; some IOMMUs can't split pages.
const STEP: u64 = 1 << 30;

/// Returns how many of the `left` bytes starting at `iova` one call maps or unmaps.
fn step(iova: u64, left: u64) -> u64 {
    left.min(STEP - iova % STEP)
}

/// The value of `Domain::users` that means that no group can be attached to the domain again.
const RETIRED: i32 = -1;

/// An IOMMU domain: the page tables of an address space. It is empty when it is created.
///
/// Several groups may share a domain. It is freed when the last group is detached, and the last
/// [`Mapping`](super::Mapping) in it is dropped.
///
/// # Invariants
///
/// - `ptr` is a paging domain, and this value owns it.
/// - `users` is the number of attached groups, or [`RETIRED`]: then there is none, and none can be
///   added.
pub struct Domain {
    ptr: NonNull<bindings::iommu_domain>,
    users: Atomic<i32>,
    enforces_coherency: AtomicFlag,
    msi_reserved: AtomicFlag,
}

// SAFETY: A domain isn't bound to a thread.
unsafe impl Send for Domain {}

// SAFETY: The IOMMU API allows concurrent mapping and unmapping of disjoint ranges, and the
// contracts of `map` and `unmap` require disjoint ranges. Attaching takes the group's mutex.
unsafe impl Sync for Domain {}

/// A domain in which nobody maps yet, with the group that it was allocated for.
///
/// # Invariants
///
/// The group is the only one in the domain. No [`Domains`] contain the domain.
pub struct NewDomain<'a> {
    attachment: Attachment,
    group: ClaimedGroup<'a>,
}

impl Deref for NewDomain<'_> {
    type Target = Domain;

    fn deref(&self) -> &Domain {
        self.attachment.domain()
    }
}

impl<'a> NewDomain<'a> {
    /// Allocates a domain for the IOMMU of the first device of `group`, and attaches the group.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the group has no device, or the device has no IOMMU; `EOPNOTSUPP` if the IOMMU
    /// doesn't support paging domains; `ENOMEM`; those of attaching the group, as for
    /// [`instead`](Self::instead).
    pub fn new(group: ClaimedGroup<'a>) -> Result<Self> {
        Self::attach(Arc::new(Domain::alloc(&group)?, GFP_KERNEL_ACCOUNT)?, group)
    }

    fn attach(domain: Arc<Domain>, group: ClaimedGroup<'a>) -> Result<Self> {
        let attachment = group.attach(domain)?;
        // INVARIANT: The domain is not in use.
        Ok(Self { attachment, group })
    }

    /// Enforces cache coherency, if the IOMMU supports it: the IOMMU ignores no-snoop. Some IOMMUs
    /// can do so only while nothing is mapped.
    pub fn enforce_coherency(&mut self) {
        // SAFETY: A valid domain has static ops.
        let op = unsafe { (*self.raw().ops).enforce_cache_coherency };
        if let Some(op) = op {
            // SAFETY: The domain is valid; the driver takes its own lock.
            let enforces = unsafe { op(self.ptr.as_ptr()) };
            self.enforces_coherency.store(enforces, Relaxed);
        }
    }

    /// Attaches the group to `domain` instead of this one.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the group is being reset; `EINVAL` if the domain is not compatible with the
    /// group's IOMMU, or is retired; the errors of the IOMMU driver. Returns this value instead of
    /// the error, unless attaching the group to its own domain again fails, too.
    pub fn instead(self, domain: Arc<Domain>) -> Result<Attachment, Result<Self>> {
        let Self { attachment, group } = self;
        let own = attachment.domain().clone();
        // A group has to leave its domain before it can be attached to another one.
        drop(attachment);
        group.attach(domain).map_err(|_| Self::attach(own, group))
    }

    /// Returns the attachment of the group, and a list of `others` and this domain. No other list gets
    /// the domain, except those that are made of this one.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn with(self, others: &Domains) -> Result<(Attachment, Arc<Domains>)> {
        let domains = others.with(self.attachment.domain())?;
        Ok((self.attachment, domains))
    }
}

impl Domain {
    /// Allocates a domain for the IOMMU of the first device of `group`.
    fn alloc(group: &Group) -> Result<Self> {
        let mut found = Err(ENODEV);
        // The callback returns an error only to stop at the first device.
        let _ = group.for_each_device(|dev| {
            // SAFETY: `dev` is a valid device.
            found = from_err_ptr(unsafe {
                bindings::iommu_paging_domain_alloc_flags(raw_device(dev), 0)
            });
            Err(EAGAIN)
        });
        // INVARIANT: The domain was just allocated for this value, and no group is attached to it.
        Ok(Self {
            ptr: NonNull::new(found?).ok_or(ENOMEM)?,
            users: Atomic::new(0),
            enforces_coherency: AtomicFlag::new(false),
            msi_reserved: AtomicFlag::new(false),
        })
    }

    /// Returns the C structure.
    fn raw(&self) -> &bindings::iommu_domain {
        // SAFETY: By the type invariant the domain is valid. The fields that are read through this
        // reference do not change after attaching.
        unsafe { self.ptr.as_ref() }
    }

    /// Returns the aperture: the first and the last iova that the domain translates.
    pub fn aperture(&self) -> (u64, u64) {
        let geometry = &self.raw().geometry;
        (geometry.aperture_start, geometry.aperture_end)
    }

    /// Returns the page sizes of the domain, as a bitmap: each set bit has the value of a page
    /// size.
    pub fn page_sizes(&self) -> u64 {
        self.raw().pgsize_bitmap as u64
    }

    /// Returns whether [`NewDomain::enforce_coherency`] succeeded.
    pub fn enforces_coherency(&self) -> bool {
        self.enforces_coherency.load(Relaxed)
    }

    /// Returns whether a group for which `other` was allocated may be attached to this domain
    /// instead.
    pub fn is_like(&self, other: &Self) -> bool {
        core::ptr::eq(self.raw().ops, other.raw().ops)
            && self.enforces_coherency() == other.enforces_coherency()
    }

    /// Reserves iovas starting at `base` for software-managed MSI (`IOMMU_RESV_SW_MSI`).
    ///
    /// Returns whether the kernel supports this: some kernels are built without it.
    ///
    /// # Errors
    ///
    /// `EEXIST` if this was called before; `ENOMEM`.
    pub fn reserve_msi(&self, base: u64) -> Result<bool> {
        if self.msi_reserved.xchg(true, Full) {
            return Err(EEXIST);
        }
        // SAFETY: The domain is valid, and the flag ensures that only one task gets here.
        match to_result(unsafe {
            bindings::kernel_ext_iommu_get_msi_cookie(self.ptr.as_ptr(), base)
        }) {
            Ok(()) => Ok(true),
            Err(e) if e == ENODEV => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Maps `size` bytes from `iova` to the physical address `phys`.
    ///
    /// # Safety
    ///
    /// The memory stays held until the range has been unmapped, and no overlapping range is mapped
    /// or unmapped concurrently.
    ///
    /// # Errors
    ///
    /// `EINVAL` or `ERANGE` for addresses that the IOMMU doesn't support; `EADDRINUSE` if something
    /// is mapped in the range; `ENOMEM`. The flag next to the error is true if everything that this
    /// call mapped has been unmapped again, which is the normal case.
    pub(super) unsafe fn map(
        &self,
        iova: u64,
        phys: u64,
        size: usize,
        prot: Prot,
    ) -> Result<(), (Error, bool)> {
        // On 32 bits, the kernel's function would take other addresses.
        let last = iova.saturating_add((size as u64).saturating_sub(1));
        if usize::try_from(last).is_err() {
            return Err((EINVAL, true));
        }
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

    /// Unmaps `size` bytes at `iova`, which are mapped, and waits until no device can access them.
    ///
    /// Returns whether the whole range was unmapped.
    ///
    /// # Safety
    ///
    /// No overlapping range is mapped or unmapped concurrently.
    pub(super) unsafe fn unmap(&self, iova: u64, size: u64) -> bool {
        let mut done = 0;
        while done < size {
            let step = step(iova + done, size - done) as usize;
            let start = (iova + done) as usize;
            // SAFETY: The domain is valid; the rest is the contract of this function.
            let unmapped = unsafe { bindings::iommu_unmap(self.ptr.as_ptr(), start, step) };
            if unmapped == 0 {
                // Userspace cannot trigger this, so it is not rate-limited.
                pr_err!(
                    "iommu_unmap() of {:#x} bytes at iova {:#x} failed: the pages stay pinned\n",
                    size - done,
                    start
                );
                return false;
            }
            done += unmapped as u64;
            if done < size {
                cond_resched();
            }
        }
        true
    }

    /// Increments the number of attachments.
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

    /// Retires a domain to which no group is attached: from now on no group can be attached.
    ///
    /// No device reaches anything through a retired domain. Its mappings may therefore stay in its
    /// page tables until the domain is freed.
    ///
    /// # Errors
    ///
    /// `EBUSY` if a group is attached.
    pub fn retire(&self) -> Result {
        // INVARIANT: There is no attachment, and `add_user` fails from now on.
        match self.users.cmpxchg(0, RETIRED, Full) {
            Ok(_) | Err(RETIRED) => Ok(()),
            Err(_) => Err(EBUSY),
        }
    }

    /// Returns whether the domain is retired.
    pub(super) fn is_retired(&self) -> bool {
        self.users.load(Acquire) == RETIRED
    }

    /// Attaches `group` to this domain. Before, its devices are in the blocking domain. As its DMA
    /// is claimed, the group returns there when it is detached.
    ///
    /// # Safety
    ///
    /// The DMA of the group is claimed, and the group has a device. The caller keeps a reference to
    /// this value until it has called [`detach`](Self::detach).
    ///
    /// # Errors
    ///
    /// `ENODEV` if one of the devices has no IOMMU; `EBUSY` if the group is attached to a domain, or
    /// is being reset; `EINVAL` if the domain is not compatible with the group's IOMMU, or is
    /// retired; the errors of the IOMMU driver.
    pub(super) unsafe fn attach(&self, group: &Group) -> Result {
        group.require_iommu()?;
        self.add_user()?;
        // SAFETY: Both are valid, and the group has a device, by the contract of this function.
        let ret = unsafe { bindings::iommu_attach_group(self.ptr.as_ptr(), group.as_ptr()) };
        to_result(ret).inspect_err(|_| {
            self.users.fetch_sub(1, Full);
        })
    }

    /// Detaches `group` from this domain.
    ///
    /// # Safety
    ///
    /// [`attach`](Self::attach) has attached the group, and this is called once.
    pub(super) unsafe fn detach(&self, group: &Group) {
        // SAFETY: The group is attached, by the contract of this function.
        unsafe { bindings::iommu_detach_group(self.ptr.as_ptr(), group.as_ptr()) };
        // INVARIANT: The group was counted. The IOMMU has invalidated all it had cached of this
        // domain for the group's devices, unless its driver failed, which the core only warns of.
        // Therefore the domain can be freed, and ranges can be unmapped in it without regard to
        // groups that were detached.
        self.users.fetch_sub(1, Full);
    }

    /// Returns the C pointer, for the core of VFIO. It is valid as long as the group stays attached.
    pub(crate) fn as_ptr(&self) -> *mut bindings::iommu_domain {
        self.ptr.as_ptr()
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // SAFETY: This value owns the domain, and no group is attached to it: its claim would hold a
        // reference to this value, as would a mapping.
        unsafe { bindings::iommu_domain_free(self.ptr.as_ptr()) };
    }
}

/// The domains in which a range is mapped: all domains that a container has at one time.
///
/// Retired domains are ignored.
#[derive(Default)]
pub struct Domains(SmallVec<Arc<Domain>, 2>);

impl Domains {
    /// Returns a list of these domains and `domain`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(super) fn with(&self, domain: &Arc<Domain>) -> Result<Arc<Self>> {
        let mut all = SmallVec::new();
        for other in self.iter() {
            all.push(other.clone(), GFP_KERNEL_ACCOUNT)?;
        }
        all.push(domain.clone(), GFP_KERNEL_ACCOUNT)?;
        Ok(Arc::new(Self(all), GFP_KERNEL_ACCOUNT)?)
    }

    /// Returns a list of these domains without `domain`.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn without(&self, domain: &Arc<Domain>) -> Result<Arc<Self>> {
        let mut all = SmallVec::new();
        for other in self.iter().filter(|other| !Arc::ptr_eq(other, domain)) {
            all.push(other.clone(), GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Arc::new(Self(all), GFP_KERNEL_ACCOUNT)?)
    }

    /// Iterates over the domains that aren't retired.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Domain>> {
        self.0.iter().filter(|domain| !domain.is_retired())
    }

    /// Returns whether there is no domain.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Returns whether `domain` is one of these domains.
    pub(super) fn has(&self, domain: &Arc<Domain>) -> bool {
        self.iter().any(|other| Arc::ptr_eq(other, domain))
    }
}

/// Returns the page sizes that all of `domains` support and that a mapping may use, as a bitmap.
/// Returns `!(PAGE_SIZE - 1)` if there is no domain. Page sizes below `PAGE_SIZE` are reported as
/// `PAGE_SIZE`.
pub fn common_page_sizes<'a>(domains: impl Iterator<Item = &'a Arc<Domain>>) -> u64 {
    let page = PAGE_SIZE as u64;
    let sizes = domains.fold(u64::MAX, |all, domain| all & domain.page_sizes());
    if sizes & (page - 1) == 0 {
        return sizes;
    }
    sizes & !(page - 1) | page
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
