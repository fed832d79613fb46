// SPDX-License-Identifier: GPL-2.0

//! A domain for tests, which maps and unmaps only if a test lets it.

use kernel::{
    ffi::{
        c_int,
        c_ulong, //
    },
    types::Opaque, //
};

use super::*;

/// The domain of a [`Domain::fake`]. Its page tables are a number of bytes.
#[repr(C)]
struct Fake {
    domain: Opaque<bindings::iommu_domain>,
    mapped: Atomic<usize>,
    maps: AtomicFlag,
    unmaps: AtomicFlag,
}

static OPS: bindings::iommu_domain_ops = bindings::iommu_domain_ops {
    map_pages: Some(map_callback),
    unmap_pages: Some(unmap_callback),
    free: Some(free_callback),
    ..pin_init::zeroed()
};

impl Domain {
    /// Returns a domain that no device can be attached to.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(in crate::iommu) fn fake() -> Result<Self> {
        let domain = bindings::iommu_domain {
            type_: bindings::__IOMMU_DOMAIN_PAGING,
            ops: &OPS,
            pgsize_bitmap: PAGE_SIZE as c_ulong,
            ..pin_init::zeroed()
        };
        let fake = KBox::new(
            Fake {
                domain: Opaque::new(domain),
                mapped: Atomic::new(0),
                maps: AtomicFlag::new(true),
                unmaps: AtomicFlag::new(true),
            },
            GFP_KERNEL,
        )?;
        // INVARIANT: The domain was just allocated for this value, and no group is attached to it.
        Ok(Self {
            ptr: NonNull::new(KBox::into_raw(fake).cast()).ok_or(ENOMEM)?,
            users: Atomic::new(0),
            enforces_coherency: AtomicFlag::new(false),
            msi_reserved: AtomicFlag::new(false),
        })
    }

    fn as_fake(&self) -> &Fake {
        assert!(core::ptr::eq(self.raw().ops, &OPS));
        // SAFETY: Only `fake` makes domains with these operations.
        unsafe { fake(self.ptr.as_ptr()) }
    }

    /// Sets whether a domain from [`fake`](Self::fake) maps and unmaps. If it doesn't, requests
    /// fail.
    pub(in crate::iommu) fn let_fake(&self, map: bool, unmap: bool) {
        self.as_fake().maps.store(map, Relaxed);
        self.as_fake().unmaps.store(unmap, Relaxed);
    }

    /// Returns how many bytes are mapped in a domain from [`fake`](Self::fake).
    pub(in crate::iommu) fn fake_bytes(&self) -> usize {
        self.as_fake().mapped.load(Relaxed)
    }
}

/// # Safety
///
/// `domain` comes from [`Domain::fake`], and isn't freed during `'a`.
unsafe fn fake<'a>(domain: *mut bindings::iommu_domain) -> &'a Fake {
    // SAFETY: By the contract of this function; the domain is the first field.
    unsafe { &*domain.cast() }
}

/// # Safety
///
/// As for [`fake`]; `mapped` is valid.
unsafe extern "C" fn map_callback(
    domain: *mut bindings::iommu_domain,
    _iova: c_ulong,
    _phys: bindings::phys_addr_t,
    page_size: usize,
    count: usize,
    _prot: c_int,
    _gfp: bindings::gfp_t,
    mapped: *mut usize,
) -> c_int {
    // SAFETY: By the contract of this function.
    let fake = unsafe { fake(domain) };
    if !fake.maps.load(Relaxed) {
        return ENOMEM.to_errno();
    }
    fake.mapped.fetch_add(page_size * count, Relaxed);
    // SAFETY: By the contract of this function.
    unsafe { *mapped += page_size * count };
    0
}

/// # Safety
///
/// As for [`fake`].
unsafe extern "C" fn unmap_callback(
    domain: *mut bindings::iommu_domain,
    _iova: c_ulong,
    page_size: usize,
    count: usize,
    _gather: *mut bindings::iommu_iotlb_gather,
) -> usize {
    // SAFETY: By the contract of this function.
    let fake = unsafe { fake(domain) };
    if !fake.unmaps.load(Relaxed) {
        return 0;
    }
    fake.mapped.fetch_sub(page_size * count, Relaxed);
    page_size * count
}

/// # Safety
///
/// As for [`fake`]; nothing else uses the domain any more.
unsafe extern "C" fn free_callback(domain: *mut bindings::iommu_domain) {
    // SAFETY: `Domain::fake` leaked the box.
    drop(unsafe { KBox::<Fake>::from_raw(domain.cast()) });
}
