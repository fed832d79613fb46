// SPDX-License-Identifier: GPL-2.0

//! `vfio/DEVICE` in debugfs: a directory for the device's driver, which also shows the migration
//! state.

use core::ptr;

use kernel::{
    ffi::{
        c_int,
        c_void, //
    },
    prelude::*,
    seq_file::SeqFile,
    seq_print, //
};
use kernel_ext::{
    bindings,
    migration::MigrationState, //
};

use super::{
    logging,
    registration::Registered,
    Device, //
};

impl Registered<'_> {
    /// Creates the debugfs directory of the device. Errors are ignored,
    /// because nothing else depends on the directory.
    pub(crate) fn show_debugfs(&self) {
        self.hide_debugfs();
        let parent = self.parent().name();
        // SAFETY: The names are C strings, and the device is valid. On failure the functions return
        // error pointers, which all callees accept. `hide_debugfs` removes the files before the
        // device is freed.
        unsafe {
            let vfio = bindings::debugfs_lookup(c"vfio".as_char_ptr(), ptr::null_mut());
            if vfio.is_null() {
                return;
            }
            let root = bindings::debugfs_create_dir(parent.as_char_ptr(), vfio);
            bindings::dput(vfio);
            (*self.as_ptr()).debug_root = root;
            if self.migration().check().is_ok() {
                let folder = bindings::debugfs_create_dir(c"migration".as_char_ptr(), root);
                let dev = &raw mut (*self.as_ptr()).device;
                for (name, show) in FILES {
                    bindings::debugfs_create_devm_seqfile(
                        dev,
                        name.as_char_ptr(),
                        folder,
                        Some(show),
                    );
                }
            }
        }
    }

    /// Removes the directory and waits for readers of its files.
    pub(crate) fn hide_debugfs(&self) {
        // SAFETY: The pointer is null, an error pointer or the directory, and the function accepts
        // all of them.
        unsafe {
            bindings::debugfs_remove((*self.as_ptr()).debug_root);
            (*self.as_ptr()).debug_root = ptr::null_mut();
        }
    }
}

type Show = unsafe extern "C" fn(*mut bindings::seq_file, *mut c_void) -> c_int;

const FILES: [(&CStr, Show); 2] = [
    (c"state", show_state_callback),
    (c"features", show_features_callback),
];

/// # Safety
///
/// `m` is the `seq_file` of a file created by [`Registered::show_debugfs`] and not removed yet.
unsafe fn subject<'a>(m: *mut bindings::seq_file) -> (&'a Device, &'a SeqFile) {
    let offset = core::mem::offset_of!(bindings::vfio_device, device);
    // SAFETY: By this function's contract. `private` points to the `struct device` embedded in the
    // VFIO device.
    unsafe {
        let dev: *mut c_void = (*m).private;
        (
            Device::from_raw(dev.wrapping_byte_sub(offset).cast()),
            SeqFile::from_raw(m),
        )
    }
}

/// # Safety
///
/// As for [`subject`].
unsafe extern "C" fn show_state_callback(m: *mut bindings::seq_file, _data: *mut c_void) -> c_int {
    // SAFETY: By this function's contract.
    let (device, m) = unsafe { subject(m) };
    let Ok(state) = device.migration().state() else {
        return EINVAL.to_errno();
    };
    let name = MigrationState::from_number(state).map_or("Invalid", MigrationState::name);
    seq_print!(m, "{}\n", name);
    0
}

/// # Safety
///
/// As for [`subject`].
unsafe extern "C" fn show_features_callback(
    m: *mut bindings::seq_file,
    _data: *mut c_void,
) -> c_int {
    // SAFETY: By this function's contract.
    let (device, m) = unsafe { subject(m) };
    let flags = device.migration().flags();
    let features = [
        (flags & bindings::VFIO_MIGRATION_STOP_COPY != 0, "stop-copy"),
        (flags & bindings::VFIO_MIGRATION_P2P != 0, "p2p"),
        (flags & bindings::VFIO_MIGRATION_PRE_COPY != 0, "pre-copy"),
        (logging::check(device).is_ok(), "dirty-tracking"),
    ];
    for (_, name) in features.iter().filter(|(present, _)| *present) {
        seq_print!(m, "{}\n", name);
    }
    0
}
