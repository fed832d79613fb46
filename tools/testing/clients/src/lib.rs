// SPDX-License-Identifier: GPL-2.0

//! Logs the requests of a program to VFIO and IOMMUFD.
//!
//! The library is loaded with `LD_PRELOAD` and replaces `ioctl()`. Each request becomes a line in
//! the file that `VFIO_TRACE` names: the name of the thread, the request, the structure before the
//! call (`in=`), `=` and the result, then the structure after the call (`out=`), followed by the
//! array that the structure points to, if the request fills one. Values that depend on the run
//! instead of VFIO are left out: descriptor numbers, and addresses in the program's memory.

mod request;
mod structure;

use nix::{
    errno::Errno,
    libc, //
};
use std::{
    ffi::{
        c_int,
        c_ulong, //
    },
    fs::File,
    io::Write,
    sync::OnceLock, //
};

/// The output file.
static TRACE: OnceLock<Option<File>> = OnceLock::new();

/// Writes the line of a request with one call, so that lines of several threads are not
/// interleaved.
fn write(line: &str) {
    let open = || {
        let path = std::env::var_os("VFIO_TRACE")?;
        File::options().append(true).create(true).open(path).ok()
    };
    if let Some(mut file) = TRACE.get_or_init(open).as_ref() {
        let _ = file.write_all(line.as_bytes());
    }
}

/// Returns the name of the calling thread.
fn thread() -> String {
    let name = std::fs::read_to_string("/proc/thread-self/comm").unwrap_or_default();
    name.trim().replace(' ', "-")
}

/// Replaces the C library's function of this name.
///
/// # Safety
///
/// The same as for that function: `arg` is what the request expects, which may be a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, arg: usize) -> c_int {
    let kind = request::kind(request);
    let before = kind.map(|kind| {
        // SAFETY: By this function's contract `arg` is what this request expects.
        unsafe { structure::read(kind, arg) }
    });
    // SAFETY: The contract of this function is that of the system call.
    let result = unsafe { libc::syscall(libc::SYS_ioctl, fd, request, arg) };
    let errno = Errno::last();
    if let (Some(kind), Some(before)) = (kind, before) {
        // SAFETY: By this function's contract `arg` is what this request expects.
        let after = unsafe { structure::read_again(kind, arg, before.len()) };
        let array = match result {
            // SAFETY: The two are from these functions.
            0 => unsafe { structure::read_array(kind, &before, &after) },
            _ => Vec::new(),
        };
        let returned = match result {
            -1 => format!("{errno:?}"),
            _ if kind.returns_descriptor => "descriptor".to_owned(),
            value => value.to_string(),
        };
        let before = kind.show_input(&before);
        let after = kind.show(&after) + &request::hex(&array);
        let name = kind.name;
        write(&format!(
            "{} {name} in={before} = {returned} out={after}\n",
            thread()
        ));
    }
    errno.set();
    // CAST: The system call returns an int.
    result as c_int
}
