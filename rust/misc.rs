// SPDX-License-Identifier: GPL-2.0

//! Misc devices with a fixed minor, node name and mode, which `kernel::miscdevice` doesn't support.
//!
//! C header: [`include/linux/miscdevice.h`](srctree/include/linux/miscdevice.h)

use kernel::{
    error::to_result,
    ffi::c_int,
    prelude::*,
    types::Opaque, //
};

use crate::{
    bindings,
    file_ops::{
        FileTable,
        Misc,
        OpenMisc, //
    }, //
};

/// The properties of a misc device.
pub struct MiscOptions {
    /// The minor number, below major 10.
    pub minor: u32,
    /// The name in `/proc/misc` and sysfs.
    pub name: &'static CStr,
    /// The name of the node below `/dev`.
    pub nodename: &'static CStr,
    /// The access mode of the node.
    pub mode: u16,
}

/// A registered misc device. It can be opened until this value is dropped.
///
/// # Invariants
///
/// `inner` is registered.
#[pin_data(PinnedDrop)]
pub struct MiscRegistration {
    #[pin]
    inner: Opaque<bindings::miscdevice>,
}

// SAFETY: Only the misc core accesses a registered misc device, under its lock.
unsafe impl Send for MiscRegistration {}
// SAFETY: As above.
unsafe impl Sync for MiscRegistration {}

impl MiscRegistration {
    /// Registers a misc device whose files belong to `table`.
    pub fn new<T: OpenMisc>(
        table: &'static FileTable<T, Misc>,
        options: MiscOptions,
    ) -> impl PinInit<Self, Error> {
        try_pin_init!(Self {
            // INVARIANT: Initialisation fails if the registration does.
            inner <- Opaque::try_ffi_init(move |slot: *mut bindings::miscdevice| {
                let misc = bindings::miscdevice {
                    minor: options.minor as c_int,
                    name: options.name.as_char_ptr(),
                    nodename: options.nodename.as_char_ptr(),
                    mode: options.mode,
                    fops: table.as_ptr(),
                    ..pin_init::zeroed()
                };
                // SAFETY: `slot` is valid for writes.
                unsafe { slot.write(misc) };
                // SAFETY: `slot` is pinned, and it is deregistered before it is dropped.
                to_result(unsafe { bindings::misc_register(slot) })
            }),
        })
    }
}

#[pinned_drop]
impl PinnedDrop for MiscRegistration {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant.
        unsafe { bindings::misc_deregister(self.inner.get()) };
    }
}
