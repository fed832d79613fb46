// SPDX-License-Identifier: GPL-2.0

//! Runs a case and then checks what it left behind.

use crate::{
    env,
    leak::Snapshot, //
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
    process::exit,
    sync::mpsc::{
        RecvTimeoutError,
        Sender,
        channel, //
    },
    thread,
    time::Duration, //
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

/// The time limit of a case, on the slowest kernel and a busy host.
const TOO_LONG: Duration = Duration::from_secs(300);

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
    println!("\nstill running after {} s:", time.as_secs());
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
            Ok(value) => panic!("expected an error, got {value:?}"),
            Err(error) => error.errno(),
        }
    }
}

impl<T: std::fmt::Debug> Failure for std::result::Result<T, Errno> {
    #[track_caller]
    fn errno(self) -> Errno {
        match self {
            Ok(value) => panic!("expected an error, got {value:?}"),
            Err(errno) => errno,
        }
    }
}

impl<T: std::fmt::Debug> Failure for std::io::Result<T> {
    #[track_caller]
    fn errno(self) -> Errno {
        match self {
            Ok(value) => panic!("expected an error, got {value:?}"),
            Err(error) => Errno::from_raw(error.raw_os_error().unwrap_or(0)),
        }
    }
}

/// Makes a list of tests from functions. The module's name is prepended to their names.
///
/// - `#[rows("T-M2")]` names the rows of `Documentation/features.rst` that a test is about. They
///   are printed before its name.
/// - `#[requires(core(Rust), fault_injection)]` ignores the test unless all of these functions of
///   [`requires`](crate::requires) return true.
macro_rules! cases {
    ($(
        $(#[rows($($row:literal),+)])?
        $(#[requires($($requirement:ident $(($language:ident))?),+)])?
        $name:ident
    ),* $(,)?) => {
        /// Returns the cases of this file.
        pub fn cases() -> Vec<libtest_mimic::Trial> {
            let module = module_path!().rsplit("::").next().unwrap_or_default();
            vec![$(
                $crate::harness::case(&format!("{module}::{}", stringify!($name)), $name)
                    $(.with_kind([$($row),+].join(" ")))?
                    $(.with_ignored_flag(!($(
                        $crate::requires::$requirement($($crate::requires::Language::$language)?)
                    )&&+)))?
            ),*]
        }
    };
}
pub(crate) use cases;
