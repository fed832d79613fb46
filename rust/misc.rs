// SPDX-License-Identifier: GPL-2.0

//! Misc devices with a fixed minor, node name and mode, which `kernel::miscdevice` cannot give.
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

/// What a misc device looks like from outside.
pub struct MiscOptions {
    /// Its minor below major 10.
    pub minor: u32,
    /// Its name in `/proc/misc` and sysfs.
    pub name: &'static CStr,
    /// Its node below `/dev`.
    pub nodename: &'static CStr,
    /// The access mode of the node.
    pub mode: u16,
}

/// A misc device that can be opened until this value is dropped.
///
/// # Invariants
///
/// `inner` is registered.
#[pin_data(PinnedDrop)]
pub struct MiscRegistration {
    #[pin]
    inner: Opaque<bindings::miscdevice>,
}

// SAFETY: A registered misc device is only touched by the misc core, under its lock.
unsafe impl Send for MiscRegistration {}
// SAFETY: As above.
unsafe impl Sync for MiscRegistration {}

impl MiscRegistration {
    /// Registers a misc device whose files are made by `table`.
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
                // SAFETY: `slot` is pinned, and deregistered before it goes.
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
