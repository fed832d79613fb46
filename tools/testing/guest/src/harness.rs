// SPDX-License-Identifier: GPL-2.0

//! Runs a case and then checks what it left behind.

use crate::{
    env,
    leak::Snapshot,
    pin, //
};
use anyhow::Result;
use libtest_mimic::{
    Failed,
    Trial, //
};
use std::{
    fs,
    panic::{
        AssertUnwindSafe,
        catch_unwind, //
    },
    path::Path,
    process::exit,
    sync::mpsc::{
        RecvTimeoutError,
        Sender,
        channel, //
    },
    thread,
    time::Duration,
};
use vfio_client::Errno;

/// Makes a test from a function.
///
/// The report of a failing case begins with its own error, since the case may also have left
/// things behind.
pub fn case(name: &str, body: impl Fn() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || {
        env::check().map_err(|error| failed(&error))?;
        let before = Snapshot::take();
        let watch = Watch::start();
        let outcome = match catch_unwind(AssertUnwindSafe(&body)) {
            Ok(Ok(())) => String::new(),
            Ok(Err(error)) => format!("{error:?}\n"),
            Err(panic) => format!("{}\n", panic_message(panic.as_ref())),
        };
        drop(watch);
        let leaks = before.settle().err().unwrap_or_default();
        if outcome.is_empty() && leaks.is_empty() {
            Ok(())
        } else {
            Err(Failed::from(outcome + &leaks))
        }
    })
}

/// The time limit of a case on the slowest kernel.
const TOO_LONG: Duration = Duration::from_secs(120);

/// Exits the program when a case hangs, and prints where.
///
/// A thread that hangs in the kernel cannot be stopped, so no later case would be reliable.
struct Watch {
    /// The case is over when this is dropped.
    _running: Sender<()>,
}

impl Watch {
    fn start() -> Self {
        let (running, over) = channel();
        thread::spawn(move || {
            if over.recv_timeout(TOO_LONG) == Err(RecvTimeoutError::Timeout) {
                hangs(TOO_LONG);
            }
        });
        Self { _running: running }
    }
}

/// Exits the program, because threads have been hanging in the kernel for `time`.
pub fn hangs(time: Duration) -> ! {
    println!("\nhangs for more than {} s:", time.as_secs());
    print_stacks();
    exit(101)
}

/// Prints the kernel stack of each thread of this process.
fn print_stacks() {
    for task in fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten()
    {
        let read = |name| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        println!(
            "thread {}:\n{}",
            task.file_name().to_string_lossy(),
            read("stack")
        );
    }
}

fn failed(error: &anyhow::Error) -> Failed {
    Failed::from(format!("{error:?}"))
}

/// Returns the message of a panic.
pub fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or(panic.downcast_ref::<&str>().copied())
        .unwrap_or("panic")
}

/// A result whose errno can be checked.
pub trait Failure {
    /// Returns the errno.
    ///
    /// # Panics
    ///
    /// If the call succeeded.
    fn errno(self) -> Errno;
}

impl<T: std::fmt::Debug> Failure for vfio_client::Result<T> {
    #[track_caller]
    fn errno(self) -> Errno {
        match self {
            Ok(value) => panic!("succeeded with {value:?}"),
            Err(error) => error.errno(),
        }
    }
}

impl<T: std::fmt::Debug> Failure for std::result::Result<T, Errno> {
    #[track_caller]
    fn errno(self) -> Errno {
        match self {
            Ok(value) => panic!("succeeded with {value:?}"),
            Err(errno) => errno,
        }
    }
}

impl<T: std::fmt::Debug> Failure for std::io::Result<T> {
    #[track_caller]
    fn errno(self) -> Errno {
        match self {
            Ok(value) => panic!("succeeded with {value:?}"),
            Err(error) => Errno::from_raw(error.raw_os_error().unwrap_or(0)),
        }
    }
}

/// Returns whether `vfio.ko` is the Rust module.
pub fn our_core() -> bool {
    uses_our_crate("vfio")
}

/// Returns whether `vfio.ko` is the C module.
pub fn their_core() -> bool {
    !our_core()
}

/// Returns whether `vfio_iommu_type1.ko` is the Rust module.
pub fn our_type1() -> bool {
    uses_our_crate("vfio_iommu_type1")
}

/// Returns whether the kernel supports fault injection.
pub fn fault_injection() -> bool {
    Path::new("/proc/thread-self/fail-nth").exists()
}

/// Returns whether this kernel charges memory to cgroups. This depends on its configuration.
pub fn memory_cgroups() -> bool {
    Path::new("/proc/kpagecgroup").exists()
}

/// Returns whether this kernel charges memory to cgroups and `vfio_iommu_type1.ko` is the Rust
/// module.
pub fn memory_cgroups_on_our_type1() -> bool {
    memory_cgroups() && our_type1()
}

/// Returns whether memory protection keys are available. This depends on the CPU and on the kernel
/// configuration.
pub fn protection_keys() -> bool {
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    flags.split_whitespace().any(|flag| flag == "ospke")
}

/// Returns whether this kernel shows VFIO devices in debugfs. This depends on its configuration.
pub fn vfio_debugfs() -> bool {
    Path::new("/sys/kernel/debug/vfio").join(env::EDU).exists()
}

/// Returns whether `vfio.ko` is the Rust module and this kernel has PID namespaces.
pub fn our_core_with_pid_namespaces() -> bool {
    our_core() && Path::new("/proc/self/ns/pid_for_children").exists()
}

/// Returns whether VFIO supports devices without an IOMMU. This depends on the kernel
/// configuration.
pub fn vfio_noiommu() -> bool {
    Path::new("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode").exists()
}

/// Returns whether the driver that pins pages is the C driver.
pub fn driver_in_c() -> bool {
    !driver_in_rust()
}

/// Returns whether the driver that pins pages is the Rust driver.
pub fn driver_in_rust() -> bool {
    pin::in_rust()
}

/// Returns whether the driver that pins pages is the C driver and `vfio_iommu_type1.ko` is the
/// Rust module. With the C module, a misbehaving C driver stops the machine.
pub fn driver_in_c_on_our_type1() -> bool {
    driver_in_c() && our_type1()
}

/// Returns whether the driver that pins pages is the Rust driver and `vfio_iommu_type1.ko` is the
/// Rust module.
pub fn driver_in_rust_on_our_type1() -> bool {
    driver_in_rust() && our_type1()
}

/// Returns whether the driver that pins pages is the Rust driver and `vfio.ko` is the Rust module.
pub fn driver_in_rust_on_our_core() -> bool {
    driver_in_rust() && our_core()
}

/// Returns whether `vfio_iommu_type1.ko` is the Rust module and the kernel supports fault
/// injection.
pub fn fault_injection_on_our_type1() -> bool {
    fault_injection() && our_type1()
}

/// Returns whether the driver that pins pages is the Rust driver and the kernel supports fault
/// injection.
pub fn fault_injection_with_driver_in_rust() -> bool {
    fault_injection() && driver_in_rust()
}

fn uses_our_crate(module: &str) -> bool {
    Path::new("/sys/module/vfio_rust/holders")
        .join(module)
        .exists()
}

/// Makes a list of tests from functions. The module's name is prepended to their names.
///
/// A test may require the Rust or the C modules: with `#[our_core]` and similar attributes it is
/// ignored elsewhere.
macro_rules! cases {
    ($($(#[$needs:ident])? $name:ident),* $(,)?) => {
        /// Returns the cases of this file.
        pub fn cases() -> Vec<libtest_mimic::Trial> {
            let module = module_path!().rsplit("::").next().unwrap_or_default();
            vec![$(
                $crate::harness::case(&format!("{module}::{}", stringify!($name)), $name)
                    $(.with_ignored_flag(!$crate::harness::$needs()))?
            ),*]
        }
    };
}
pub(crate) use cases;
