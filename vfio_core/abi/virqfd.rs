// SPDX-License-Identifier: GPL-2.0

//! `struct virqfd`: userspace signals an eventfd, and a driver's function runs.
//!
//! A virqfd ends when its driver disables it or when the last reference to the eventfd goes,
//! whichever comes first: who takes it out of the driver's slot, under [`static@VIRQFDS`], queues its
//! `shutdown` work. That work runs on a queue of its own, for it waits for other work.

use kernel::{
    error::from_err_ptr,
    ffi::{
        c_int,
        c_uint,
        c_void, //
    },
    fs::LocalFile,
    prelude::*,
    static_lock_class,
    sync::{
        aref::ARef,
        LockClassKey, //
    }, //
};
use kernel_ext::bindings::{
    self,
    virqfd,
    work_struct, //
};

use super::globals::VIRQFDS;

/// Any processor will do.
const WORK_CPU_UNBOUND: c_int = bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int;

/// The queue on which virqfds end; null while the module is not ready.
pub(crate) struct Queue(*mut bindings::workqueue_struct);

// SAFETY: A queue may be used by any task.
unsafe impl Send for Queue {}

impl Queue {
    pub(super) const fn none() -> Self {
        Self(core::ptr::null_mut())
    }

    /// # Safety
    ///
    /// `work` is initialised and stays valid until it has run.
    unsafe fn push(&self, work: *mut work_struct) {
        // SAFETY: By this function's contract; the queue exists while drivers use this module.
        unsafe { bindings::queue_work_on(WORK_CPU_UNBOUND, self.0, work) };
    }
}

/// Owns the queue while the module is loaded.
pub(crate) struct CleanupQueue(());

impl CleanupQueue {
    /// Makes the queue.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: The name is a string.
        let queue = unsafe {
            bindings::kernel_ext_singlethread_workqueue(c"vfio-irqfd-cleanup".as_char_ptr())
        };
        if queue.is_null() {
            return Err(ENOMEM);
        }
        VIRQFDS.lock().0 = queue;
        Ok(Self(()))
    }
}

impl Drop for CleanupQueue {
    fn drop(&mut self) {
        let queue = core::mem::replace(&mut VIRQFDS.lock().0, core::ptr::null_mut());
        // SAFETY: No driver uses the module any more, so nothing is queued again.
        unsafe { bindings::destroy_workqueue(queue) };
    }
}

/// What runs when the eventfd is signalled; the driver's words for it.
pub(super) struct Action {
    pub(super) opaque: *mut c_void,
    pub(super) handler: Option<unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int>,
    pub(super) thread: Option<unsafe extern "C" fn(*mut c_void, *mut c_void)>,
    pub(super) data: *mut c_void,
}

/// Listens to the eventfd `fd` and notes it in the driver's slot.
///
/// # Errors
///
/// `ENOMEM`, `EBADF` for no file, `EINVAL` for no eventfd, `EBUSY` for a slot in use.
///
/// # Safety
///
/// `slot` and what `action` points at stay valid until the virqfd has ended, for which the driver
/// waits by `vfio_virqfd_disable()`.
pub(super) unsafe fn enable(action: Action, slot: *mut *mut virqfd, fd: c_int) -> Result {
    let virqfd = KBox::new(
        virqfd {
            opaque: action.opaque,
            handler: action.handler,
            thread: action.thread,
            data: action.data,
            pvirqfd: slot,
            ..pin_init::zeroed()
        },
        kernel::alloc::flags::GFP_KERNEL_ACCOUNT,
    )?;
    let file = LocalFile::fget(fd as u32)?;
    // SAFETY: The file is valid; the callee checks that it is an eventfd.
    let eventfd = from_err_ptr(unsafe { bindings::eventfd_ctx_fileget(file.as_ptr()) })?;

    let virqfd = KBox::into_raw(virqfd);
    // SAFETY: The virqfd is ours and does not move until `shutdown_callback` frees it.
    unsafe {
        (*virqfd).eventfd = eventfd;
        init_work(
            &raw mut (*virqfd).shutdown,
            shutdown_callback,
            c"virqfd::shutdown",
            static_lock_class!(),
        );
        init_work(
            &raw mut (*virqfd).inject,
            inject_callback,
            c"virqfd::inject",
            static_lock_class!(),
        );
        init_work(
            &raw mut (*virqfd).flush_inject,
            flush_callback,
            c"virqfd::flush",
            static_lock_class!(),
        );
        (*virqfd).wait.func = Some(wakeup_callback);
        (*virqfd).pt._qproc = Some(listen_callback);
        (*virqfd).pt._key = !0;
    }
    if !install(slot, virqfd) {
        // SAFETY: Nobody knows the virqfd; the eventfd's reference is ours.
        unsafe {
            bindings::eventfd_ctx_put(eventfd);
            drop(KBox::from_raw(virqfd));
        }
        return Err(EBUSY);
    }
    // SAFETY: The file is held, so the eventfd does not hang up; its driver does not disable the
    // virqfd while it enables it. `listen_callback` adds the virqfd to the eventfd's waiters.
    let events = unsafe { bindings::kernel_ext_vfs_poll(file.as_ptr(), &raw mut (*virqfd).pt) };
    if events & bindings::POLLIN != 0 {
        // SAFETY: As above.
        unsafe { run(virqfd) };
    }
    drop::<ARef<LocalFile>>(file);
    Ok(())
}

/// Puts the virqfd into the driver's slot if that is free.
fn install(slot: *mut *mut virqfd, virqfd: *mut virqfd) -> bool {
    let _guard = VIRQFDS.lock();
    // SAFETY: The slot is valid by the contract of `enable`, and guarded by the lock.
    let free = unsafe { (*slot).is_null() };
    if free {
        // SAFETY: As above.
        unsafe { *slot = virqfd };
    }
    free
}

/// Ends the virqfd in the slot, if any, and waits until every ended one is gone.
///
/// # Safety
///
/// `slot` is valid.
pub(super) unsafe fn disable(slot: *mut *mut virqfd) {
    let queue = VIRQFDS.lock();
    // SAFETY: By this function's contract; the lock guards the slot.
    unsafe {
        if !(*slot).is_null() {
            queue.push(&raw mut (**slot).shutdown);
            *slot = core::ptr::null_mut();
        }
    }
    wait(queue.0, queue);
}

/// Waits until the thread function of the virqfd in the slot does not run any more.
///
/// # Safety
///
/// `slot` is valid.
pub(super) unsafe fn flush(slot: *mut *mut virqfd) {
    let queue = VIRQFDS.lock();
    // SAFETY: By this function's contract; the lock guards the slot and so the virqfd's life: its
    // `shutdown` comes after this work on the same queue.
    unsafe {
        if !(*slot).is_null() && (**slot).thread.is_some() {
            queue.push(&raw mut (**slot).flush_inject);
        }
    }
    wait(queue.0, queue);
}

/// Drops the lock and waits for all that is on the queue.
fn wait<G>(queue: *mut bindings::workqueue_struct, guard: G) {
    drop(guard);
    // SAFETY: The queue exists while drivers use this module.
    unsafe { bindings::__flush_workqueue(queue) };
}

/// # Safety
///
/// `work` is valid and not queued.
unsafe fn init_work(
    work: *mut work_struct,
    callback: unsafe extern "C" fn(*mut work_struct),
    name: &'static CStr,
    key: Pin<&'static LockClassKey>,
) {
    // SAFETY: By this function's contract; the lock class is static, and of this name only.
    unsafe {
        bindings::init_work_with_key(
            work,
            Some(callback),
            false,
            name.as_char_ptr(),
            key.as_ptr(),
        )
    };
}

/// Lets the driver handle a signal: its handler at once, and if that asks for it, its thread.
///
/// # Safety
///
/// The virqfd has not ended.
unsafe fn run(virqfd: *mut virqfd) {
    // SAFETY: By this function's contract; the driver keeps what it passed.
    unsafe {
        let (opaque, data) = ((*virqfd).opaque, (*virqfd).data);
        let wanted = (*virqfd)
            .handler
            .is_none_or(|handler| handler(opaque, data) != 0);
        if wanted && (*virqfd).thread.is_some() {
            bindings::queue_work_on(
                WORK_CPU_UNBOUND,
                bindings::system_percpu_wq,
                &raw mut (*virqfd).inject,
            );
        }
    }
}

/// # Safety
///
/// Called by `vfs_poll()` from [`enable`].
unsafe extern "C" fn listen_callback(
    _file: *mut bindings::file,
    head: *mut bindings::wait_queue_head_t,
    pt: *mut bindings::poll_table,
) {
    let virqfd = pt
        .wrapping_byte_sub(core::mem::offset_of!(virqfd, pt))
        .cast::<virqfd>();
    // SAFETY: The table is the one in the virqfd, which stays until it is removed from the queue.
    unsafe { bindings::add_wait_queue(head, &raw mut (*virqfd).wait) }
}

/// # Safety
///
/// Called by the eventfd, with the lock of its waiters held, for a waiter of [`listen_callback`].
unsafe extern "C" fn wakeup_callback(
    wait: *mut bindings::wait_queue_entry,
    _mode: c_uint,
    _sync: c_int,
    key: *mut c_void,
) -> c_int {
    let virqfd = wait
        .wrapping_byte_sub(core::mem::offset_of!(virqfd, wait))
        .cast::<virqfd>();
    let events = key as usize as u32;
    if events & bindings::POLLIN != 0 {
        let mut count = 0;
        // SAFETY: The waiters' lock is held, as `eventfd_ctx_do_read` wants, and keeps the virqfd.
        unsafe {
            bindings::eventfd_ctx_do_read((*virqfd).eventfd, &mut count);
            run(virqfd);
        }
    }
    if events & bindings::POLLHUP != 0 {
        let queue = VIRQFDS.lock();
        // SAFETY: The virqfd is still a waiter, so it is valid; who finds it in its slot ends it.
        unsafe {
            let slot = (*virqfd).pvirqfd;
            if *slot == virqfd {
                *slot = core::ptr::null_mut();
                queue.push(&raw mut (*virqfd).shutdown);
            }
        }
    }
    0
}

/// # Safety
///
/// Runs once, after the virqfd was taken out of its slot.
unsafe extern "C" fn shutdown_callback(work: *mut work_struct) {
    let virqfd = work
        .wrapping_byte_sub(core::mem::offset_of!(virqfd, shutdown))
        .cast::<virqfd>();
    let mut count = 0;
    // SAFETY: After the virqfd has left the eventfd's waiters and its thread function is done,
    // nobody refers to it.
    unsafe {
        bindings::eventfd_ctx_remove_wait_queue(
            (*virqfd).eventfd,
            &raw mut (*virqfd).wait,
            &mut count,
        );
        bindings::flush_work(&raw mut (*virqfd).inject);
        bindings::eventfd_ctx_put((*virqfd).eventfd);
        drop(KBox::from_raw(virqfd));
    }
}

/// # Safety
///
/// Runs before the virqfd's `shutdown` is done.
unsafe extern "C" fn inject_callback(work: *mut work_struct) {
    let virqfd = work
        .wrapping_byte_sub(core::mem::offset_of!(virqfd, inject))
        .cast::<virqfd>();
    // SAFETY: By this function's contract; the driver keeps what it passed.
    unsafe {
        if let Some(thread) = (*virqfd).thread {
            thread((*virqfd).opaque, (*virqfd).data);
        }
    }
}

/// # Safety
///
/// Runs before the virqfd's `shutdown`, which is queued behind it.
unsafe extern "C" fn flush_callback(work: *mut work_struct) {
    let offset = core::mem::offset_of!(virqfd, flush_inject);
    let virqfd = work.wrapping_byte_sub(offset).cast::<virqfd>();
    // SAFETY: By this function's contract.
    unsafe { bindings::flush_work(&raw mut (*virqfd).inject) };
}
