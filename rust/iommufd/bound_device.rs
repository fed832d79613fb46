// SPDX-License-Identifier: GPL-2.0

//! Devices that do DMA through an iommufd.

use core::ptr::NonNull;

use kernel::{
    device::Device,
    error::{
        from_err_ptr,
        to_result, //
    },
    new_mutex,
    prelude::*,
    sync::Mutex, //
};

use super::Context;
use crate::{
    bindings,
    iommu::raw_device,
    tree::{
        Slot,
        Tree, //
    }, //
};

/// A device that is bound to an iommufd, which owns the DMA of the device's group. Dropping it
/// detaches and unbinds the device.
///
/// # Invariants
///
/// The device is bound to `context`, and `raw` is its object.
#[pin_data(PinnedDrop)]
pub struct BoundDevice {
    context: Context,
    id: u32,
    raw: NonNull<bindings::iommufd_device>,
    #[pin]
    attached: Mutex<Attached>,
}

/// To what a device is attached.
struct Attached {
    /// Whether the device's requests without a PASID are translated.
    device: bool,
    /// The PASIDs whose requests are translated.
    pasids: Tree<u32, ()>,
}

// SAFETY: The object is not tied to a thread.
unsafe impl Send for BoundDevice {}
// SAFETY: IOMMUFD locks what its functions change.
unsafe impl Sync for BoundDevice {}

impl BoundDevice {
    /// Binds `device` to `context`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if DMA through the device's IOMMU is not cache coherent; `EPERM` if the IOMMU does
    /// not isolate the device's interrupts, or if a kernel driver or another process owns the DMA of
    /// the device's group; `EBUSY` if the group is not in its default domain; `ENODEV` if the device
    /// has no IOMMU; `ENOMEM`.
    ///
    /// # Safety
    ///
    /// The device exists, and its driver stays bound to it, until the result is dropped.
    pub unsafe fn bind(context: &Context, device: &Device) -> Result<Pin<KBox<Self>>> {
        let mut id = 0;
        let attached = Attached {
            device: false,
            pasids: Tree::new(),
        };
        KBox::try_pin_init(
            try_pin_init!(Self {
                context: context.clone(),
                attached <- new_mutex!(attached, "iommufd::BoundDevice::attached"),
                raw: {
                    let context = context.as_ptr();
                    // SAFETY: All pointers are valid; this function's contract keeps the device.
                    let raw = unsafe {
                        bindings::iommufd_device_bind(context, raw_device(device), &mut id)
                    };
                    // INVARIANT: The device was just bound, and nothing below fails.
                    NonNull::new(from_err_ptr(raw)?).ok_or(EINVAL)?
                },
                id: id,
            }? Error),
            GFP_KERNEL,
        )
    }

    /// Returns the iommufd to which the device is bound.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Returns the id of the device's object.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Attaches the device to the object `id`: an address space or a page table. If the device is
    /// attached, it changes over without a gap in the translation. For an address space, stores the
    /// id of the page table in `id`.
    ///
    /// # Errors
    ///
    /// `ENOENT` if there is no such object; `EINVAL` if it is of another kind or does not fit the
    /// device; `EADDRINUSE` if it maps a range that the device's IOMMU reserves; `ENOMEM`; or an
    /// error of the IOMMU's driver. On error nothing changes.
    pub fn attach(&self, id: &mut u32) -> Result {
        let mut attached = self.attached.lock();
        self.attach_or_replace(attached.device, bindings::IOMMU_NO_PASID, id)?;
        attached.device = true;
        Ok(())
    }

    /// Detaches the device, if it is attached: its DMA is blocked then.
    pub fn detach(&self) {
        let mut attached = self.attached.lock();
        if core::mem::take(&mut attached.device) {
            self.detach_raw(bindings::IOMMU_NO_PASID);
        }
    }

    /// Attaches requests of the device with `pasid`, as [`attach`](Self::attach) does for its other
    /// requests.
    ///
    /// # Errors
    ///
    /// As for [`attach`](Self::attach); `ENOSPC` if `pasid` is greater than `i32::MAX`; `EINVAL` if
    /// the device or its IOMMU has no such PASID.
    pub fn attach_pasid(&self, pasid: u32, id: &mut u32) -> Result {
        let mut attached = self.attached.lock();
        if attached.pasids.contains(&pasid) {
            return self.attach_or_replace(true, pasid, id);
        }
        i32::try_from(pasid).map_err(|_| ENOSPC)?;
        let slot = Slot::new()?;
        self.attach_or_replace(false, pasid, id)?;
        attached.pasids.insert(slot.fill(pasid, ()));
        Ok(())
    }

    /// Detaches requests with `pasid`, if they are attached.
    pub fn detach_pasid(&self, pasid: u32) {
        let mut attached = self.attached.lock();
        if attached.pasids.remove(&pasid).is_some() {
            self.detach_raw(pasid);
        }
    }

    /// Attaches requests with `pasid`, which are attached to another object if `replace` is set.
    fn attach_or_replace(&self, replace: bool, pasid: u32, id: &mut u32) -> Result {
        let raw = self.raw.as_ptr();
        // SAFETY: By the type invariant.
        to_result(unsafe {
            if replace {
                bindings::iommufd_device_replace(raw, pasid, id)
            } else {
                bindings::iommufd_device_attach(raw, pasid, id)
            }
        })
    }

    /// Detaches requests with `pasid`, which are attached.
    fn detach_raw(&self, pasid: u32) {
        // SAFETY: By the type invariant.
        unsafe { bindings::iommufd_device_detach(self.raw.as_ptr(), pasid) };
    }
}

#[pinned_drop]
impl PinnedDrop for BoundDevice {
    fn drop(self: Pin<&mut Self>) {
        let attached = self.attached.lock();
        for (&pasid, ()) in attached.pasids.iter() {
            self.detach_raw(pasid);
        }
        if attached.device {
            self.detach_raw(bindings::IOMMU_NO_PASID);
        }
        drop(attached);
        // SAFETY: By the type invariant; this value doesn't use the object after this. (An ioctl on
        // the iommufd may. IOMMUFD waits a minute for it, and then keeps the object.)
        unsafe { bindings::iommufd_device_unbind(self.raw.as_ptr()) };
    }
}
