// SPDX-License-Identifier: GPL-2.0

//! The C callbacks that call the methods of a [`Backend`].

use core::ptr::NonNull;

use kernel::{
    error::from_result,
    new_mutex,
    sync::Mutex,
    types::ForeignOwnable, //
};

use super::*;
use crate::{
    iommu::Claim,
    uapi::ioctl::VFIO_CHECK_EXTENSION, //
};

extern "C" {
    /// Adds a backend to the core's list. The calls of this function are in generic code, which is
    /// compiled into the backend's module. So that module depends on the symbol of `vfio.ko`, and
    /// `vfio_rust.ko` doesn't.
    pub(super) fn vfio_register_iommu_driver(ops: *const c_void) -> c_int;

    /// Removes a backend from the core's list.
    pub(super) fn vfio_unregister_iommu_driver(ops: *const c_void);
}

/// The value that `iommu_data` points to.
struct Instance<B> {
    backend: Arc<B>,
    /// The list of [`Backend::device_list`], so that a device leaves the list that it was added to.
    device_list: Option<Arc<DeviceList>>,
    /// The claims of the groups in the container.
    claims: Pin<KBox<Mutex<KVec<Arc<Claim>>>>>,
}

impl<B: Backend> Instance<B> {
    /// Creates the state of a container that chose extension `kind`.
    ///
    /// # Errors
    ///
    /// Those of [`Backend::open`]; `ENOMEM`.
    fn open(kind: c_ulong) -> Result<KBox<Self>> {
        let room = KBox::new_uninit(GFP_KERNEL_ACCOUNT)?;
        let claims = new_mutex!(KVec::new(), "kernel_ext::Instance::claims");
        let claims = KBox::pin_init(claims, GFP_KERNEL_ACCOUNT)?;
        let backend = B::open(kind)?;
        let device_list = if B::HAS_DEVICE_LIST {
            Some(B::device_list(&backend).clone())
        } else {
            None
        };
        Ok(KBox::write(
            room,
            Self {
                backend,
                device_list,
                claims,
            },
        ))
    }

    /// Attaches a group.
    ///
    /// # Safety
    ///
    /// If the group has a hardware IOMMU, the core has claimed its DMA, and keeps its last device,
    /// until this fails or [`detach`](Self::detach) has returned.
    ///
    /// # Errors
    ///
    /// `ENOMEM`; those of [`Backend::attach_group`].
    unsafe fn attach(&self, group: &Group, kind: GroupType) -> Result {
        let mut claim = None;
        if kind == GroupType::Iommu {
            // SAFETY: By the contract of this function. In both cases `end` ends it.
            let new = unsafe { Claim::new(group) }?;
            self.claims.lock().push(new.clone(), GFP_KERNEL_ACCOUNT)?;
            claim = Some(new);
        }
        // SAFETY: The claim ends below or in `detach`.
        let new = unsafe { NewGroup::new(group, kind, claim.as_ref()) };
        B::attach_group(self.backend.as_arc_borrow(), new).inspect_err(|_| {
            if let Some(claim) = &claim {
                self.end_claims(|other| Arc::ptr_eq(other, claim));
            }
        })
    }

    /// Detaches a group.
    fn detach(&self, group: &Group) {
        B::detach_group(self.backend.as_arc_borrow(), group);
        self.end_claims(|claim| claim.is_of(group));
    }

    /// Ends those claims that `ends` selects.
    fn end_claims(&self, ends: impl Fn(&Arc<Claim>) -> bool) {
        self.claims.lock().retain(|claim| {
            let ended = ends(claim);
            if ended {
                claim.end();
            }
            !ended
        });
    }
}

impl<B: Backend> Table<B> {
    /// Returns the table of `B`.
    #[expect(clippy::new_without_default)]
    pub const fn new() -> Self {
        Self(
            Ops {
                name: kernel::str::as_char_ptr_in_const_context(B::NAME),
                owner: this_module::<B::OwnerModule>().as_ptr(),
                open: Some(Self::open_callback),
                release: Some(Self::release_callback),
                ioctl: Some(Self::ioctl_callback),
                attach_group: Some(Self::attach_group_callback),
                detach_group: Some(Self::detach_group_callback),
                pin_pages: if B::HAS_PIN_PAGES {
                    Some(Self::pin_pages_callback)
                } else {
                    None
                },
                unpin_pages: if B::HAS_UNPIN_PAGES {
                    Some(Self::unpin_pages_callback)
                } else {
                    None
                },
                register_device: if B::HAS_DEVICE_LIST {
                    Some(Self::register_device_callback)
                } else {
                    None
                },
                unregister_device: if B::HAS_DEVICE_LIST {
                    Some(Self::unregister_device_callback)
                } else {
                    None
                },
                dma_rw: if B::HAS_DMA_RW {
                    Some(Self::dma_rw_callback)
                } else {
                    None
                },
                group_iommu_domain: if B::HAS_GROUP_IOMMU_DOMAIN {
                    Some(Self::group_iommu_domain_callback)
                } else {
                    None
                },
            },
            PhantomData,
        )
    }

    /// Borrows the value that `iommu_data` points to.
    ///
    /// # Safety
    ///
    /// `data` was returned by `open_callback`, and `release_callback` isn't called for it during
    /// `'a`.
    unsafe fn instance<'a>(data: *mut c_void) -> &'a Instance<B> {
        // SAFETY: By the contract of this function `data` is the result of `into_foreign` in
        // `open_callback`, and it isn't converted back during `'a`.
        unsafe { <KBox<Instance<B>> as ForeignOwnable>::borrow(data) }
    }

    /// Borrows the backend's part of the instance.
    ///
    /// # Safety
    ///
    /// As for [`instance`](Self::instance).
    unsafe fn backend<'a>(data: *mut c_void) -> ArcBorrow<'a, B> {
        // SAFETY: By the contract of this function.
        unsafe { Self::instance(data) }.backend.as_arc_borrow()
    }

    /// # Safety
    ///
    /// Only the core calls this function.
    unsafe extern "C" fn open_callback(kind: c_ulong) -> *mut c_void {
        match Instance::<B>::open(kind) {
            Ok(instance) => instance.into_foreign(),
            Err(e) => e.to_ptr(),
        }
    }

    /// # Safety
    ///
    /// `data` was returned by `open_callback`. No other callback uses it now or later.
    unsafe extern "C" fn release_callback(data: *mut c_void) {
        // SAFETY: By the contract of this function `data` is the result of `into_foreign`, and this
        // function owns the box that it represents.
        let instance = unsafe { <KBox<Instance<B>> as ForeignOwnable>::from_foreign(data) };
        B::release(KBox::into_inner(instance).backend);
    }

    /// # Safety
    ///
    /// `data` is null or was returned by `open_callback`. It stays valid until this function
    /// returns.
    unsafe extern "C" fn ioctl_callback(data: *mut c_void, cmd: c_uint, arg: c_ulong) -> c_long {
        let this = if data.is_null() {
            None
        } else {
            // SAFETY: By the contract of this function.
            Some(unsafe { Self::backend(data) })
        };
        if cmd == VFIO_CHECK_EXTENSION {
            return B::check_extension(this.as_deref(), arg);
        }
        let Some(this) = this else {
            return ENOTTY.to_errno() as c_long;
        };
        match B::ioctl(this, cmd, UserPtr::from_addr(arg)) {
            Ok(value) => value,
            Err(e) => e.to_errno() as c_long,
        }
    }

    /// # Safety
    ///
    /// `data` was returned by `open_callback`. It and `group` stay valid until this function
    /// returns. If the group has a hardware IOMMU, the core has claimed its DMA, and keeps its last
    /// device, until this function fails or `detach_group_callback` for the group has returned.
    unsafe extern "C" fn attach_group_callback(
        data: *mut c_void,
        group: *mut bindings::iommu_group,
        kind: c_uint,
    ) -> c_int {
        // SAFETY: By the contract of this function.
        let this = unsafe { Self::instance(data) };
        // SAFETY: By the contract of this function.
        let group = unsafe { Group::from_ptr(group) };
        from_result(|| {
            // SAFETY: By the contract of this function.
            unsafe { this.attach(group, GroupType::try_from(kind)?) }.map(|()| 0)
        })
    }

    /// # Safety
    ///
    /// `data` was returned by `open_callback`. It and `group` stay valid until this function
    /// returns.
    unsafe extern "C" fn detach_group_callback(
        data: *mut c_void,
        group: *mut bindings::iommu_group,
    ) {
        // SAFETY: By the contract of this function.
        let this = unsafe { Self::instance(data) };
        // SAFETY: By the contract of this function.
        this.detach(unsafe { Group::from_ptr(group) });
    }

    /// # Safety
    ///
    /// `data` is null or was returned by `open_callback`. `pages` is null or has room for `npage`
    /// pointers. All of them and `group` stay valid until this function returns.
    unsafe extern "C" fn pin_pages_callback(
        data: *mut c_void,
        group: *mut bindings::iommu_group,
        iova: bindings::dma_addr_t,
        npage: c_int,
        prot: c_int,
        pages: *mut *mut bindings::page,
    ) -> c_int {
        from_result(|| {
            let count = usize::try_from(npage).map_err(|_| EINVAL)?;
            if data.is_null() || pages.is_null() || count == 0 {
                return Err(EINVAL);
            }
            // SAFETY: `data` isn't null, so by the contract of this function `open_callback`
            // returned it.
            let this = unsafe { Self::backend(data) };
            // SAFETY: By the contract of this function.
            let group = unsafe { Group::from_ptr(group) };
            // SAFETY: By the contract of this function there are `count` pointers, which only this
            // function accesses during the call.
            let slots = unsafe { core::slice::from_raw_parts_mut(pages, count) };
            let prot = Prot::from_raw(prot);
            B::pin_pages(this, group, iova, prot, PageSlots::new(slots)).map(|Filled { .. }| npage)
        })
    }

    /// # Safety
    ///
    /// `data` was returned by `open_callback` and stays valid until this function returns.
    unsafe extern "C" fn unpin_pages_callback(
        data: *mut c_void,
        iova: bindings::dma_addr_t,
        npage: c_int,
    ) {
        // SAFETY: By the contract of this function.
        B::unpin_pages(unsafe { Self::backend(data) }, iova, npage);
    }

    /// # Safety
    ///
    /// `data` was returned by `open_callback` and stays valid until this function returns. `device`
    /// stays valid until `unregister_device_callback` for it has returned.
    unsafe extern "C" fn register_device_callback(
        data: *mut c_void,
        device: *mut bindings::vfio_device,
    ) {
        // SAFETY: By the contract of this function.
        let this = unsafe { Self::instance(data) };
        if let (Some(list), Some(device)) = (&this.device_list, NonNull::new(device)) {
            // SAFETY: The core calls this for a device that was opened, and
            // `unregister_device_callback` when it is closed.
            unsafe { list.add(device) };
        }
    }

    /// # Safety
    ///
    /// `data` was returned by `open_callback`. It and `device` stay valid until this function
    /// returns.
    unsafe extern "C" fn unregister_device_callback(
        data: *mut c_void,
        device: *mut bindings::vfio_device,
    ) {
        // SAFETY: By the contract of this function.
        let this = unsafe { Self::instance(data) };
        if let (Some(list), Some(device)) = (&this.device_list, NonNull::new(device)) {
            // SAFETY: By the contract of this function.
            unsafe { list.remove(device) };
        }
    }

    /// # Safety
    ///
    /// `data` was returned by `open_callback` and stays valid until this function returns. `buf` is
    /// a kernel buffer of `count` bytes, which only this function accesses during the call.
    unsafe extern "C" fn dma_rw_callback(
        data: *mut c_void,
        iova: bindings::dma_addr_t,
        buf: *mut c_void,
        count: usize,
        write: bool,
    ) -> c_int {
        // SAFETY: By the contract of this function.
        let this = unsafe { Self::backend(data) };
        from_result(|| {
            if count == 0 {
                return Ok(0);
            }
            // No buffer is larger than `isize::MAX`, and a slice must not be.
            isize::try_from(count).map_err(|_| EINVAL)?;
            let transfer = if write {
                // SAFETY: By the contract of this function.
                Transfer::Write(unsafe { core::slice::from_raw_parts(buf.cast(), count) })
            } else {
                // SAFETY: By the contract of this function.
                Transfer::Read(unsafe { core::slice::from_raw_parts_mut(buf.cast(), count) })
            };
            B::dma_rw(this, iova, transfer)?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// `data` is null or was returned by `open_callback`; `group` may be null. Both stay valid
    /// until this function returns.
    unsafe extern "C" fn group_iommu_domain_callback(
        data: *mut c_void,
        group: *mut bindings::iommu_group,
    ) -> *mut bindings::iommu_domain {
        if data.is_null() || group.is_null() {
            return EINVAL.to_ptr();
        }
        // SAFETY: By the contract of this function.
        let this = unsafe { Self::backend(data) };
        // SAFETY: By the contract of this function.
        let group = unsafe { Group::from_ptr(group) };
        B::group_iommu_domain(this, group, |attachment| attachment.domain().as_ptr())
            .unwrap_or_else(|e| e.to_ptr())
    }
}
