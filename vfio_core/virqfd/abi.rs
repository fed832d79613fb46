// SPDX-License-Identifier: GPL-2.0

//! `struct virqfd`: calls a driver's function when userspace signals an eventfd.
//!
//! A virqfd ends when its driver disables it or when the last reference to the eventfd is dropped,
//! whichever comes first. The thread that removes it from the driver's slot, under
//! [`static@VIRQFDS`], queues its `shutdown` work. This work runs on a dedicated workqueue because
//! it waits for other work.

use core::ops::Deref;

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
use kernel_ext::{
    bindings::{
        self,
        virqfd,
        work_struct, //
    },
    compat::global_lock, //
};

global_lock! {
    // SAFETY: `init_lock` initialises it before the module can be used.
    unsafe(uninit) static VIRQFDS: SpinLockIrq<Queue> = Queue::none();
}

/// Initialises the lock of the virqfds.
///
/// # Safety
///
/// Module init calls this once, before any other function of this module.
pub(crate) unsafe fn init_lock() {
    // SAFETY: By this function's contract.
    unsafe { VIRQFDS.init() };
}

/// Any CPU may run the work.
const WORK_CPU_UNBOUND: c_int = bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int;

/// The workqueue that shuts virqfds down. Null until the module has created it.
struct Queue(*mut bindings::workqueue_struct);

// SAFETY: Any task may use a workqueue.
unsafe impl Send for Queue {}

impl Queue {
    const fn none() -> Self {
        Self(core::ptr::null_mut())
    }

    /// # Safety
    ///
    /// `work` is initialised and stays valid until it has run.
    unsafe fn push(&self, work: *mut work_struct) {
        // SAFETY: By this function's contract `work` is valid. The queue exists while drivers use
        // this module.
        unsafe { bindings::queue_work_on(WORK_CPU_UNBOUND, self.0, work) };
    }
}

/// Owns the workqueue while the module is loaded.
pub(crate) struct CleanupQueue(());

impl CleanupQueue {
    /// Creates the workqueue.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it exists; `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: The name is a C string.
        let queue = unsafe {
            bindings::kernel_ext_singlethread_workqueue(c"vfio-irqfd-cleanup".as_char_ptr())
        };
        if queue.is_null() {
            return Err(ENOMEM);
        }
        let mut virqfds = VIRQFDS.lock();
        if virqfds.0.is_null() {
            virqfds.0 = queue;
            return Ok(Self(()));
        }
        drop(virqfds);
        // SAFETY: This function created the queue, and nobody else knows it.
        unsafe { bindings::destroy_workqueue(queue) };
        Err(EBUSY)
    }
}

impl Drop for CleanupQueue {
    fn drop(&mut self) {
        let queue = core::mem::replace(&mut VIRQFDS.lock().0, core::ptr::null_mut());
        // SAFETY: No driver uses the module any more, so no work will be queued.
        unsafe { bindings::destroy_workqueue(queue) };
    }
}

/// The driver's functions to call when the eventfd is signalled, and their arguments.
pub(crate) struct Action {
    pub(crate) opaque: *mut c_void,
    pub(crate) handler: Option<unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int>,
    pub(crate) thread: Option<unsafe extern "C" fn(*mut c_void, *mut c_void)>,
    pub(crate) data: *mut c_void,
}

/// Starts to wait for signals of the eventfd `fd`, and stores the virqfd in the driver's slot.
///
/// # Errors
///
/// Returns `ENOMEM`; `EBADF` if `fd` is not an open file; `EINVAL` if it is not an eventfd; `EBUSY`
/// if the slot is in use.
///
/// # Safety
///
/// `slot` and the data that `action` points at stay valid until the virqfd has ended. The driver
/// waits for that by `vfio_virqfd_disable()`.
pub(crate) unsafe fn enable(action: Action, slot: *mut *mut virqfd, fd: c_int) -> Result {
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
    // SAFETY: The file is valid, and the callee checks that it is an eventfd.
    let eventfd = from_err_ptr(unsafe { bindings::eventfd_ctx_fileget(file.as_ptr()) })?;

    let virqfd = KBox::into_raw(virqfd);
    // SAFETY: This function owns the virqfd, which does not move until `shutdown_callback` frees
    // it.
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
    // SAFETY: By this function's contract.
    if !unsafe { install(slot, virqfd) } {
        // SAFETY: Nothing else refers to the virqfd, and this function owns the reference to the
        // eventfd.
        unsafe {
            bindings::eventfd_ctx_put(eventfd);
            drop(KBox::from_raw(virqfd));
        }
        return Err(EBUSY);
    }
    // SAFETY: The file is held, so the eventfd does not hang up. The driver does not disable a
    // virqfd while it is enabling it. `listen_callback` adds the virqfd to the eventfd's wait
    // queue.
    let events = unsafe { bindings::kernel_ext_vfs_poll(file.as_ptr(), &raw mut (*virqfd).pt) };
    if events & bindings::POLLIN != 0 {
        // SAFETY: As above.
        unsafe { run(virqfd) };
    }
    drop::<ARef<LocalFile>>(file);
    Ok(())
}

/// Stores the virqfd in the driver's slot if the slot is free.
///
/// # Safety
///
/// `slot` is valid.
unsafe fn install(slot: *mut *mut virqfd, virqfd: *mut virqfd) -> bool {
    let _guard = VIRQFDS.lock();
    // SAFETY: By this function's contract the slot is valid, and the lock guards it.
    let free = unsafe { (*slot).is_null() };
    if free {
        // SAFETY: As above.
        unsafe { *slot = virqfd };
    }
    free
}

/// Ends the virqfd in the slot, if any, and waits until all ended virqfds are freed.
///
/// # Safety
///
/// `slot` is valid.
pub(crate) unsafe fn disable(slot: *mut *mut virqfd) {
    let queue = VIRQFDS.lock();
    // SAFETY: By this function's contract the slot is valid, and the lock guards it.
    unsafe {
        if !(*slot).is_null() {
            queue.push(&raw mut (**slot).shutdown);
            *slot = core::ptr::null_mut();
        }
    }
    wait(queue);
}

/// Waits until a queued or running thread function of the slot's virqfd has returned.
///
/// # Safety
///
/// `slot` is valid.
pub(crate) unsafe fn flush(slot: *mut *mut virqfd) {
    let queue = VIRQFDS.lock();
    // SAFETY: By this function's contract the slot is valid. The lock guards the slot, and with it
    // the life of the virqfd: `shutdown` is queued after this work on the same ordered workqueue.
    unsafe {
        if !(*slot).is_null() && (**slot).thread.is_some() {
            queue.push(&raw mut (**slot).flush_inject);
        }
    }
    wait(queue);
}

/// Unlocks `queue` and waits for all work on it.
fn wait(queue: impl Deref<Target = Queue>) {
    let raw = queue.0;
    drop(queue);
    // SAFETY: The queue exists while drivers use this module.
    unsafe { bindings::__flush_workqueue(raw) };
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
    // SAFETY: By this function's contract `work` is valid. The lock class is static and used only
    // with this name.
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

/// Passes a signal to the driver: calls its handler, and queues its thread function if the handler
/// requests it or there is no handler.
///
/// # Safety
///
/// The virqfd has not ended.
unsafe fn run(virqfd: *mut virqfd) {
    // SAFETY: By this function's contract the virqfd is valid, and the driver keeps its arguments
    // valid.
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
    // SAFETY: `pt` is the poll table inside the virqfd. The virqfd stays valid until it is removed
    // from the wait queue.
    unsafe { bindings::add_wait_queue(head, &raw mut (*virqfd).wait) }
}

/// # Safety
///
/// Called by the eventfd, with the lock of its wait queue held, for an entry that
/// [`listen_callback`] added.
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
        // SAFETY: The lock of the wait queue is held. `eventfd_ctx_do_read` requires it, and it
        // keeps the virqfd valid.
        unsafe {
            bindings::eventfd_ctx_do_read((*virqfd).eventfd, &mut count);
            run(virqfd);
        }
    }
    if events & bindings::POLLHUP != 0 {
        let queue = VIRQFDS.lock();
        // SAFETY: The virqfd is still on the wait queue, so it is valid. Only the thread that finds
        // it in its slot ends it.
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
/// Runs once, after the virqfd was removed from its slot.
unsafe extern "C" fn shutdown_callback(work: *mut work_struct) {
    let virqfd = work
        .wrapping_byte_sub(core::mem::offset_of!(virqfd, shutdown))
        .cast::<virqfd>();
    let mut count = 0;
    // SAFETY: Once the virqfd is off the eventfd's wait queue and its thread function has returned,
    // nothing refers to it.
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
/// Runs before the virqfd's `shutdown` work has finished.
unsafe extern "C" fn inject_callback(work: *mut work_struct) {
    let virqfd = work
        .wrapping_byte_sub(core::mem::offset_of!(virqfd, inject))
        .cast::<virqfd>();
    // SAFETY: By this function's contract the virqfd is valid, and the driver keeps its arguments
    // valid.
    unsafe {
        if let Some(thread) = (*virqfd).thread {
            thread((*virqfd).opaque, (*virqfd).data);
        }
    }
}

/// # Safety
///
/// Runs before the virqfd's `shutdown` work, which is queued after it.
unsafe extern "C" fn flush_callback(work: *mut work_struct) {
    let offset = core::mem::offset_of!(virqfd, flush_inject);
    let virqfd = work.wrapping_byte_sub(offset).cast::<virqfd>();
    // SAFETY: By this function's contract.
    unsafe { bindings::flush_work(&raw mut (*virqfd).inject) };
}
