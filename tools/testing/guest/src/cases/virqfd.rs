// SPDX-License-Identifier: GPL-2.0

//! Eventfds to which drivers listen.

use crate::{
    core_test::CoreTest,
    harness::cases,
    stall::LIMIT, //
};
use anyhow::{
    Result,
    ensure, //
};
use nix::sys::eventfd::{
    EfdFlags,
    EventFd, //
};
use std::{
    fs::File,
    os::fd::{
        AsFd,
        AsRawFd, //
    },
    thread, //
};
use vfio_client::{
    Errno,
    wait::until, //
};

cases! {
    #[rows("Q1", "D25")] enable_arguments,
    #[rows("Q1")] eventfd_signalled_before_enable,
    #[rows("Q1")] eventfd_signals,
    #[rows("Q2")] last_close_of_eventfd_disables,
    #[rows("Q3")] disable_stops_signals,
    #[rows("Q3")] flush_waits_for_the_thread,
    #[rows("Q3")] disable_waits_for_the_thread,
    #[rows("Q3")] disable_races_the_last_close,
}

fn eventfd(value: u32) -> Result<EventFd> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    Ok(EventFd::from_value_and_flags(value, flags)?)
}

fn number(fd: &EventFd) -> i32 {
    fd.as_fd().as_raw_fd()
}

/// Waits until `done` returns true.
fn soon(done: impl FnMut() -> Result<bool>) -> Result<()> {
    ensure!(until(LIMIT, done)?, "no signal arrived in time");
    Ok(())
}

/// Opens the driver's file with its counters at 0.
fn driver() -> Result<CoreTest> {
    let test = CoreTest::open()?;
    test.ignore()?;
    test.counts()?;
    Ok(test)
}

fn enable_arguments() -> Result<()> {
    let test = driver()?;
    for fd in [-1, i32::MIN, 9999] {
        assert_eq!(test.listen(fd, false), Err(Errno::EBADF), "{fd}");
    }
    let null = File::open("/dev/null")?;
    let wrong = test.listen(null.as_raw_fd(), false);
    assert_eq!(wrong, Err(Errno::EINVAL));
    assert!(!test.listening()?);
    let (first, second) = (eventfd(0)?, eventfd(0)?);
    test.listen(number(&first), false)?;
    assert!(test.listening()?);
    assert_eq!(test.listen(number(&second), false), Err(Errno::EBUSY));
    assert_eq!(test.listen(number(&first), false), Err(Errno::EBUSY));
    // Bad descriptors are detected before that.
    assert_eq!(test.listen(-1, false), Err(Errno::EBADF));
    assert_eq!(test.listen(null.as_raw_fd(), false), Err(Errno::EINVAL));
    second.write(1)?;
    assert_eq!(test.counts()?, (0, 0));
    first.write(1)?;
    assert_eq!(test.counts()?, (1, 0));
    test.ignore()?;
    Ok(())
}

fn eventfd_signalled_before_enable() -> Result<()> {
    let test = driver()?;
    let fd = eventfd(3)?;
    test.listen(number(&fd), false)?;
    assert_eq!(test.counts()?, (1, 0));
    test.ignore()?;
    let fd = eventfd(1)?;
    test.listen(number(&fd), true)?;
    test.flush()?;
    assert_eq!(test.counts()?, (1, 1));
    test.ignore()?;
    Ok(())
}

fn eventfd_signals() -> Result<()> {
    let test = driver()?;
    let fd = eventfd(0)?;
    test.listen(number(&fd), false)?;
    for count in 1..=20 {
        fd.write(count)?;
        assert_eq!(test.counts()?, (1, 0));
        // The driver's side has read the eventfd.
        assert_eq!(fd.read(), Err(Errno::EAGAIN));
    }
    test.ignore()?;
    fd.write(7)?;
    assert_eq!(test.counts()?, (0, 0));
    assert_eq!(fd.read(), Ok(7));
    Ok(())
}

fn last_close_of_eventfd_disables() -> Result<()> {
    let test = driver()?;
    let fd = eventfd(0)?;
    let copy = fd.as_fd().try_clone_to_owned()?;
    test.listen(number(&fd), false)?;
    drop(fd);
    assert!(test.listening()?);
    drop(copy);
    soon(|| Ok(!test.listening()?))?;
    // The slot can be used again.
    let fd = eventfd(0)?;
    test.listen(number(&fd), false)?;
    fd.write(1)?;
    assert_eq!(test.counts()?, (1, 0));
    drop(fd);
    soon(|| Ok(!test.listening()?))
}

fn disable_stops_signals() -> Result<()> {
    let test = driver()?;
    test.ignore()?;
    test.flush()?;
    for _ in 0..50 {
        let fd = eventfd(0)?;
        test.listen(number(&fd), false)?;
        test.ignore()?;
        assert!(!test.listening()?);
        fd.write(1)?;
        assert_eq!(test.counts()?, (0, 0));
    }
    Ok(())
}

fn flush_waits_for_the_thread() -> Result<()> {
    let test = driver()?;
    let fd = eventfd(0)?;
    test.listen(number(&fd), true)?;
    fd.write(1)?;
    test.flush()?;
    assert_eq!(test.counts()?, (1, 1));
    assert!(test.listening()?);
    test.ignore()?;
    Ok(())
}

fn disable_waits_for_the_thread() -> Result<()> {
    let test = driver()?;
    let fd = eventfd(0)?;
    test.listen(number(&fd), true)?;
    fd.write(1)?;
    test.ignore()?;
    assert_eq!(test.counts()?, (1, 1));
    Ok(())
}

fn disable_races_the_last_close() -> Result<()> {
    let test = driver()?;
    for round in 0..300 {
        let fd = eventfd(0)?;
        test.listen(number(&fd), round % 16 == 0)?;
        thread::scope(|scope| -> Result<()> {
            let closer = scope.spawn(move || {
                let _ = fd.write(1);
                drop(fd);
            });
            test.ignore()?;
            assert!(closer.join().is_ok());
            Ok(())
        })?;
        // One of the two has ended it, and disabling has waited for the end.
        assert!(!test.listening()?);
    }
    test.ignore()?;
    Ok(())
}
