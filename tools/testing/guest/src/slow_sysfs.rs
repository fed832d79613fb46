// SPDX-License-Identifier: GPL-2.0

//! Requests that must not wait for sysfs.
//!
//! A program that reads a directory of sysfs keeps all changes of sysfs waiting while the kernel
//! copies names to its memory, and a page of this memory may be missing. Here a thread that
//! registers, unregisters or moves a VFIO device is stopped at its changes of sysfs in this way, one
//! after the other, and requests are sent meanwhile.

use crate::{
    mdev::{
        Mdev,
        UUIDS, //
    },
    stall::{
        LIMIT,
        Release,
        Request, //
    },
};
use anyhow::{
    Context,
    Result,
    bail,
    ensure, //
};
use std::{
    collections::BTreeSet,
    fs::File,
    io::Seek,
    mem::replace,
    sync::Arc,
    thread::{
        self,
        Scope, //
    },
    time::Duration,
};
use vfio_client::{
    Errno,
    FaultOn,
    PAGE_SIZE,
    Userfault,
    wait, //
};

/// The directory that is read. Any would do that has an entry.
const DIRECTORY: &str = "/sys/kernel";
/// The bytes of the entries `.` and `..`, which are copied before sysfs is locked.
const DOTS: usize = 48;
/// The time limit of a request. The kernel reports threads that wait for longer than 30 seconds, and
/// the other one waits for sysfs meanwhile.
const PATIENCE: Duration = Duration::from_secs(20);

/// A part of the kernel's work on a device.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// The function that does it.
    function: &'static str,
    /// Functions that it calls and in which sysfs is changed.
    calls: &'static [&'static str],
}

/// Work when a mediated device is created, and when it is removed.
pub type Parts = [Part; 2];

/// The registration of the device with `vfio.ko`, and its end.
pub const REGISTRATION: Parts = [
    Part {
        function: "vfio_register_emulated_iommu_dev",
        calls: &["iommu_group_add_device", "cdev_device_add"],
    },
    Part {
        function: "vfio_unregister_group_dev",
        calls: &["__iommu_group_remove_device", "cdev_device_del"],
    },
];

/// The device joins its software group, and leaves it.
pub const IN_GROUP: Parts = [
    Part {
        function: "iommu_group_add_device",
        calls: &[],
    },
    Part {
        function: "__iommu_group_remove_device",
        calls: &[],
    },
];

/// The device moves to another software group.
pub const MOVE: Part = Part {
    function: "vfio_move_device",
    calls: &["iommu_group_add_device", "__iommu_group_remove_device"],
};

/// Creates and removes a mediated device. Sends `request` while this waits for sysfs in one of
/// `parts`.
///
/// # Errors
///
/// If `request` fails, or waits; or if a function of `parts` does not change sysfs.
pub fn while_mdev_comes_and_goes(
    [created, removed]: &Parts,
    request: impl Fn() -> Result<()> + Sync,
) -> Result<()> {
    let mdev = during(created, || Mdev::new("mtty-1", UUIDS[0]), &request)??;
    during(removed, || mdev.remove(), &request)?.context("removal of the device")?;
    mdev.keep();
    Ok(())
}

/// The functions on a kernel stack, the innermost one first.
type Stack = Vec<String>;

/// Calls `change` in a thread. Sends `request` while this thread waits for sysfs in `part`, once for
/// each stack that it has there.
///
/// # Errors
///
/// As for [`while_mdev_comes_and_goes`].
pub fn during<T: Send>(
    part: &Part,
    change: impl FnOnce() -> T + Send,
    request: &(impl Fn() -> Result<()> + Sync),
) -> Result<T> {
    let directories = [open_directory()?, open_directory()?];
    let mut seen = BTreeSet::new();
    let changed = thread::scope(|scope| -> Result<T> {
        let mut reader = Reader::start(scope, &directories[0])?;
        reader.wait_until_stopped()?;
        let change = Request::send(scope, change)?;
        for directory in directories.iter().rev().cycle() {
            let Some(stack) = waits_for_sysfs(&change)? else {
                break;
            };
            if has(&stack, part.function) && seen.insert(stack.clone()) {
                let request = Request::send(scope, request)?;
                if !request.done_within(PATIENCE)? {
                    bail!(
                        "a request waits in {:?} for a thread that waits for sysfs in {stack:?}",
                        request.stack()
                    );
                }
                request.finish()?.with_context(|| format!("{stack:?}"))?;
                ensure!(
                    change.stack() == stack,
                    "the thread no longer waits for sysfs in {stack:?}"
                );
            }
            // This reader is behind the change in the queue of the lock, and before the next one.
            let next = Reader::start(scope, directory)?;
            next.wait_until_queued()?;
            replace(&mut reader, next).finish()?;
            reader.wait_until_stopped()?;
        }
        reader.finish()?;
        change.finish()
    })?;
    eprintln!("{} different stacks in {}", seen.len(), part.function);
    for function in part.calls.iter().chain([&part.function]) {
        ensure!(
            seen.iter().any(|stack| has(stack, function)),
            "{function} did not wait for sysfs"
        );
    }
    Ok(changed)
}

/// Returns whether a function is on a stack.
fn has(stack: &[String], function: &str) -> bool {
    stack.iter().any(|name| name == function)
}

/// Returns whether the thread with this stack waits for the lock of sysfs.
fn is_in_sysfs(stack: &[String]) -> bool {
    let of_lock = |name: &&String| name.contains("rwsem") || name.contains("down_");
    let caller = stack.iter().find(|name| !of_lock(name));
    caller.is_some_and(|name| name.starts_with("kernfs_"))
}

/// Waits until a thread waits for sysfs. Returns its stack, or `None` if the thread has ended.
fn waits_for_sysfs<T: Send>(change: &Request<'_, T>) -> Result<Option<Stack>> {
    let mut stack = Stack::new();
    let settled = wait::until(LIMIT, || {
        stack = change.stack();
        anyhow::Ok(change.is_done() || is_in_sysfs(&stack))
    })?;
    ensure!(settled, "a change of sysfs stays in {stack:?}");
    Ok((!change.is_done()).then_some(stack))
}

fn open_directory() -> Result<Arc<File>> {
    Ok(Arc::new(File::open(DIRECTORY).context(DIRECTORY)?))
}

/// A thread that reads a directory of sysfs and stops while it has locked sysfs for reading.
struct Reader<'scope> {
    memory: Release<Arc<Userfault>>,
    request: Request<'scope, Result<usize, Errno>>,
}

impl<'scope> Reader<'scope> {
    /// Starts to read `directory`, which no other reader does.
    fn start(scope: &'scope Scope<'scope, '_>, directory: &Arc<File>) -> Result<Self> {
        let mut memory = Userfault::new(2)?;
        memory.arm(1..2, FaultOn::Access)?;
        let memory = Arc::new(memory);
        (&**directory).rewind()?;
        let (to, from) = (memory.clone(), directory.clone());
        let read = move || to.read_directory(&*from, PAGE_SIZE - DOTS);
        Ok(Self {
            memory: Release(memory),
            request: Request::send(scope, read)?,
        })
    }

    /// Waits until the thread has locked sysfs and stopped.
    fn wait_until_stopped(&self) -> Result<()> {
        ensure!(
            self.memory.0.wait(LIMIT)?.is_some(),
            "a reader of sysfs does not stop: {:?}",
            self.request.stack()
        );
        Ok(())
    }

    /// Waits until the thread waits for another one that changes sysfs.
    fn wait_until_queued(&self) -> Result<()> {
        let queued = wait::until(LIMIT, || anyhow::Ok(is_in_sysfs(&self.request.stack())))?;
        ensure!(
            queued,
            "a reader of sysfs does not wait for the change: {:?}",
            self.request.stack()
        );
        Ok(())
    }

    /// Lets the thread go on, and waits for its end.
    fn finish(self) -> Result<()> {
        drop(self.memory);
        let count = self.request.finish()??;
        ensure!(count > DOTS, "{DIRECTORY} is empty");
        Ok(())
    }
}
