// SPDX-License-Identifier: GPL-2.0

//! Writes down what a program asks of VFIO.
//!
//! Loaded by `LD_PRELOAD`, it takes the place of `ioctl()`. Each request of VFIO becomes a line in the
//! file that `VFIO_TRACE` names: the thread's name, the request, `=` and what it returned, then the
//! structure before (`in=`) and after (`out=`). What depends on the run and not on VFIO is left out:
//! numbers of descriptors, and addresses in the program's memory.

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

/// The file to write to.
static TRACE: OnceLock<Option<File>> = OnceLock::new();

/// The line of a request is written by one call, so that those of threads don't mix.
fn write(line: &str) {
    let open = || {
        let path = std::env::var_os("VFIO_TRACE")?;
        File::options().append(true).create(true).open(path).ok()
    };
    if let Some(mut file) = TRACE.get_or_init(open).as_ref() {
        let _ = file.write_all(line.as_bytes());
    }
}

/// The name of the calling thread.
fn thread() -> String {
    let name = std::fs::read_to_string("/proc/thread-self/comm").unwrap_or_default();
    name.trim().replace(' ', "-")
}

/// Does what the C library's function of this name does.
///
/// # Safety
///
/// As there: `arg` is what the request wants, which may be a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, arg: usize) -> c_int {
    let kind = request::kind(request);
    let before = kind.map(|kind| {
        // SAFETY: The caller promises that `arg` is what this request wants.
        unsafe { structure::read(kind, arg) }
    });
    // SAFETY: The caller's promise is that of the system call.
    let result = unsafe { libc::syscall(libc::SYS_ioctl, fd, request, arg) };
    let errno = Errno::last();
    if let (Some(kind), Some(before)) = (kind, before) {
        // SAFETY: As above.
        let after = unsafe { structure::read_again(kind, arg, before.len()) };
        let returned = match result {
            -1 => format!("{errno:?}"),
            _ if kind.returns_descriptor => "descriptor".to_owned(),
            value => value.to_string(),
        };
        let before = kind.show_input(&before);
        let after = kind.show(&after);
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
