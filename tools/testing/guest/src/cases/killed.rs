// SPDX-License-Identifier: GPL-2.0

//! Processes that are killed, and descriptors that are closed, while a request is in progress.

use super::stalled::{
    Ask,
    Meanwhile,
    Place,
    Scene,
    THERE,
    place_named, //
};
use crate::{
    env::{
        EDU,
        attached, //
    },
    harness::case,
    helper::{
        pause,
        say, //
    },
    pin::Pinner,
    requires::{
        Language::Rust,
        type1, //
    },
    stall::{
        LIMIT,
        Progress,
        Release,
        Request,
        falls_asleep,
        stops, //
    },
    tracing::Trace, //
};
use anyhow::{
    Context,
    Result,
    bail,
    ensure, //
};
use libtest_mimic::Trial;
use std::{
    fs,
    mem::forget,
    os::fd::{
        AsFd,
        AsRawFd, //
    },
    process::id,
    thread, //
};
use support::{
    PAGE,
    helper::{
        Helper,
        inherited, //
    },
    machine::{
        locked_kib_of,
        locked_pages,
        pinned_pages, //
    },
    requests::UnmapDma, //
};
use vfio_client::{
    Container,
    Device,
    Errno,
    Iommu,
    MapFlags,
    Memory,
    PAGE_SIZE,
    Userfault,
    wait, //
};

/// The place where the killed process stops; whether UNMAP_DMA of everything waits for it in the
/// Rust module and in the C module; and how many pages that unmaps then.
const STOPPED: [(&str, [bool; 2], u64); 10] = [
    ("map_argument", [false, false], 8),
    ("map_pages", [true, false], 8),
    ("unmap_argument", [false, false], 12),
    ("unmap_answer", [false, false], 8),
    ("unmap_bitmap", [true, true], 12),
    ("dirty_bitmap", [true, true], 12),
    ("info_answer", [false, false], 12),
    ("driver_pins", [true, false], 12),
    ("driver_reads", [true, true], 12),
    ("driver_writes", [true, true], 12),
];

/// Places where the C module does not stop.
const NOT_IN_C: [&str; 2] = ["map_pages", "driver_pins"];

/// A test and its name.
type Test = (&'static str, fn() -> Result<()>);

/// Returns all cases.
pub fn cases() -> Vec<Trial> {
    let mut trials = Vec::new();
    let stops = |name: &str| type1(Rust) || !NOT_IN_C.contains(&name);
    for (name, waits, unmapped) in STOPPED.into_iter().filter(|(name, ..)| stops(name)) {
        let waits = waits[usize::from(!type1(Rust))];
        trials.push(case(&format!("killed::{name}::with_others"), move || {
            with_others(name, waits, unmapped)
        }));
        trials.push(case(&format!("killed::{name}::alone"), move || alone(name)));
        if !place_named(name).needs_driver() {
            let closed = format!("killed::{name}::container_closed");
            trials.push(case(&closed, move || container_closed(name)));
            // The C module has a use-after-free here.
            let closed = format!("killed::{name}::group_closed");
            let trial = case(&closed, move || group_closed(name, waits));
            trials.push(trial.with_ignored_flag(!type1(Rust)));
        }
    }
    let others: [Test; 4] = [
        ("waiting_for_another", waiting_for_another),
        ("long_unmap_all", long_unmap_all),
        ("container_closed_in_long_map", || {
            in_long_request(Long::Map, Close::Container)
        }),
        ("container_closed_in_long_unmap_all", || {
            in_long_request(Long::UnmapAll, Close::Container)
        }),
    ];
    let ours: [Test; 3] = [
        ("ends_while_it_waits", ends_while_it_waits),
        ("group_closed_in_long_map", || {
            in_long_request(Long::Map, Close::Group)
        }),
        ("group_closed_in_long_unmap_all", || {
            in_long_request(Long::UnmapAll, Close::Group)
        }),
    ];
    let named = |(name, body)| case(&format!("killed::{name}"), body);
    trials.extend(others.map(named));
    trials.push(named(("long_map", long_map)).with_kind("T-M17"));
    trials.extend(ours.map(|test| named(test).with_ignored_flag(!type1(Rust))));
    trials
}

/// The processes that are killed.
pub mod helper {
    use super::*;

    /// Stops in a container of another process.
    pub fn stop(place: &str, container: &str, driver: &str) -> Result<()> {
        let place = place_named(place);
        let container = Container::from_fd(inherited(container)?);
        let driver = match driver {
            "none" => None,
            number => Some(Pinner::from(Device::from_fd(inherited(number)?))),
        };
        let mut fault = Userfault::new(THERE.pages as usize)?;
        if driver.is_some() {
            // The kernel accesses the memory of the process that mapped it.
            THERE.map(fault.addr()).ask(&container)?;
        }
        place.arm(&container, &mut fault)?;
        thread::scope(|scope| {
            let _release = Release(&fault);
            let send = || place.send_to(&container, driver.as_ref(), &fault);
            let request = Request::send(scope, send)?;
            ensure!(
                stops(&request, &fault)?,
                "the request does not stop at the fault"
            );
            say("stops");
            pause();
            Ok(())
        })
    }

    /// Stops in its own container, while other threads wait.
    pub fn stop_alone(place: &str) -> Result<()> {
        let place = place_named(place);
        let scene = &Scene::new(place, None)?;
        thread::scope(|scope| {
            let _release = Release(&scene.fault);
            let request = Request::send(scope, || place.send(scene))?;
            ensure!(
                stops(&request, &scene.fault)?,
                "the request does not stop at the fault"
            );
            for meanwhile in [Meanwhile::UnmapAll, Meanwhile::MapThere, Meanwhile::Join] {
                Request::send(scope, move || meanwhile.send(place, scene))?.settle();
            }
            say("stops");
            pause();
            Ok(())
        })
    }

    /// Sends a long request to a container of another process.
    pub fn long(request: &str, container: &str) -> Result<()> {
        let container = Container::from_fd(inherited(container)?);
        let memory = Memory::anonymous(LONG)?;
        if request == "map" {
            say("begins");
            container.map(0, &memory, MapFlags::ReadWrite)?;
        } else {
            map_many(&container, &memory)?;
            say("begins");
            container.unmap_all()?;
        }
        say("ends");
        pause();
        Ok(())
    }
}

/// Large enough that the request can be observed in progress and killed before its end.
const LONG: usize = 256 << 20;
/// Enough mappings that unmapping them takes a while.
const MANY: u64 = 8_000;

fn map_many(container: &Container, memory: &Memory) -> Result<()> {
    for number in 0..MANY {
        // Not adjacent, since adjacent mappings could be unmapped together.
        container.map_part(2 * number * PAGE, memory, 0, PAGE_SIZE, MapFlags::ReadWrite)?;
    }
    Ok(())
}

/// Starts a process that stops in `scene`.
fn stopped(name: &str, scene: &Scene) -> Result<Helper> {
    let container = scene.container.as_fd().try_clone_to_owned()?;
    let number = container.as_raw_fd().to_string();
    let mut helper = match &scene.driver {
        Some(driver) => {
            THERE.unmap().ask(&scene.container)?;
            let driver = driver.as_fd().try_clone_to_owned()?;
            let driver_number = driver.as_raw_fd().to_string();
            let words = ["stop", name, &number, &driver_number];
            Helper::spawn(&words, &[&container, &driver])?
        }
        None => Helper::spawn(&["stop", name, &number, "none"], &[&container])?,
    };
    assert_eq!(helper.line()?, "stops");
    Ok(helper)
}

/// Another process continues to use the container.
fn with_others(name: &str, waits: bool, unmapped: u64) -> Result<()> {
    let scene = Scene::new(place_named(name), None)?;
    let helper = stopped(name, &scene)?;
    let (progress, answer) = thread::scope(|scope| -> Result<_> {
        let other = Request::send(scope, || UnmapDma::all().ask(&scene.container))?;
        let progress = if waits {
            other.settle()
        } else {
            ensure!(
                other.done_within(LIMIT)?,
                "UNMAP_DMA waits for the killed request"
            );
            Progress::Done
        };
        helper.kill()?;
        Ok((progress, other.finish()?))
    })?;
    let expected = if waits {
        Progress::Waits
    } else {
        Progress::Done
    };
    assert_eq!((progress, answer), (expected, Ok(unmapped)));
    scene.end()
}

/// Waits until another process has released all its pages.
fn gone(pinned: i64) -> Result<()> {
    let gone = wait::until(LIMIT, || Ok::<_, anyhow::Error>(pinned_pages()? == pinned))?;
    ensure!(gone, "{} pages stay pinned", pinned_pages()? - pinned);
    let free = || Ok::<_, anyhow::Error>(attached(EDU, Iommu::Type1v2).is_ok());
    ensure!(
        wait::until(LIMIT, free)?,
        "the group is still in use after the timeout"
    );
    Ok(())
}

/// The killed process was the only user of the container.
fn alone(name: &str) -> Result<()> {
    let pinned = pinned_pages()?;
    let mut helper = Helper::spawn(&["stop-alone", name], &[])?;
    assert_eq!(helper.line()?, "stops");
    helper.kill()?;
    gone(pinned)
}

/// Another thread closes the descriptor on which the request was sent.
fn container_closed(name: &str) -> Result<()> {
    let place = place_named(name);
    let scene = Scene::new(place, None)?;
    let another = scene.container.try_clone()?;
    let answer = thread::scope(|scope| -> Result<_> {
        let release = Release(&scene.fault);
        let request = Request::send(scope, || place.send(&scene))?;
        ensure!(
            stops(&request, &scene.fault)?,
            "the request does not stop at the fault"
        );
        nix::unistd::close(scene.container.as_fd().as_raw_fd())?;
        drop(release);
        request.finish()
    })?;
    ensure!(answer.is_ok(), "expected success, got {answer:?}");
    scene.replace_closed(another).end()
}

/// Another thread closes the last group of the container.
fn group_closed(name: &str, waits: bool) -> Result<()> {
    let pinned = pinned_pages()?;
    let place = place_named(name);
    let scene = Scene::new(place, None)?;
    let Scene {
        container,
        first,
        fault,
        memory,
        ..
    } = scene;
    let (progress, _answer) = thread::scope(|scope| -> Result<_> {
        let release = Release(&fault);
        let request = Request::send(scope, || place.send_to(&container, None, &fault))?;
        ensure!(
            stops(&request, &fault)?,
            "the request does not stop at the fault"
        );
        let close = Request::send(scope, || drop(first))?;
        let progress = close.settle();
        drop(release);
        close.finish()?;
        Ok((progress, request.finish()?))
    })?;
    if waits {
        assert_eq!(progress, Progress::Waits);
    }
    assert_eq!(locked_pages(), 0);
    assert_eq!(pinned_pages()?, pinned);
    assert_eq!(THERE.map(memory.addr()).ask(&container), Err(Errno::EINVAL));
    Ok(())
}

/// The killed process waits for a request that has stopped. If `at_once`, it ends before that
/// request continues.
fn killed_while_it_waits(at_once: bool) -> Result<()> {
    let place = Place::DirtyBitmap;
    let scene = Scene::new(place, None)?;
    let container = scene.container.as_fd().try_clone_to_owned()?;
    let number = container.as_raw_fd().to_string();
    thread::scope(|scope| -> Result<_> {
        let release = Release(&scene.fault);
        let request = Request::send(scope, || place.send(&scene))?;
        ensure!(
            stops(&request, &scene.fault)?,
            "the request does not stop at the fault"
        );
        let mut helper = Helper::spawn(&["long", "map", &number], &[&container])?;
        assert_eq!(helper.line()?, "begins");
        ensure!(
            falls_asleep(helper.id()),
            "the helper does not wait for the stopped request"
        );
        helper.kill_later()?;
        let status = format!("/proc/{}/status", helper.id());
        let ended = || Ok::<_, anyhow::Error>(fs::read_to_string(&status)?.contains("State:\tZ"));
        let ended = !at_once || wait::until(LIMIT, ended)?;
        drop(release);
        assert_eq!(request.finish()?, Ok(0));
        helper.kill()?;
        ensure!(
            ended,
            "the killed process still waits for the stopped request"
        );
        Ok(())
    })?;
    drop(container);
    scene.end()
}

fn waiting_for_another() -> Result<()> {
    killed_while_it_waits(false)
}

fn ends_while_it_waits() -> Result<()> {
    killed_while_it_waits(true)
}

/// Waits until the map of [`LONG`] bytes is in progress. `pinned` is the number of pages pinned
/// before.
fn wait_for_map(pinned: i64) -> Result<()> {
    let begun = || Ok::<_, anyhow::Error>(pinned_pages()? > pinned + 1024);
    ensure!(wait::until(LIMIT, begun)?, "no page was pinned in time");
    Ok(())
}

/// Waits until a process is unmapping the [`MANY`] mappings.
fn wait_for_unmap(process: u32) -> Result<()> {
    let begun = || anyhow::Ok(locked_kib_of(process)? < MANY * PAGE / 1024);
    ensure!(wait::until(LIMIT, begun)?, "nothing was unmapped in time");
    Ok(())
}

fn long_map() -> Result<()> {
    let pinned = pinned_pages()?;
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    // On a busy machine the request may end before the kill.
    for _ in 0..10 {
        if killed_in_long_map(&container, pinned)? {
            assert_eq!(container.info()?.dma_avail(), Some(65535));
            assert_eq!(container.unmap_all()?, 0);
            assert_eq!(pinned_pages()?, pinned);
            return Ok(());
        }
    }
    bail!("the request ended before the kill in each attempt")
}

/// Kills a process that maps [`LONG`] bytes. Returns false if the request had ended, after undoing
/// it.
fn killed_in_long_map(container: &Container, pinned: i64) -> Result<bool> {
    let fd = container.as_fd().try_clone_to_owned()?;
    let words = ["long", "map", &fd.as_raw_fd().to_string()];
    // The request would return EINTR, but the process never returns to user code.
    let ioctl = nix::libc::SYS_ioctl;
    let filter = format!("id == {ioctl} && ret == {}", -nix::libc::EINTR);
    let trace = Trace::filtered("raw_syscalls/sys_exit", &filter)?;
    let mut helper = Helper::spawn(&words, &[&fd])?;
    assert_eq!(helper.line()?, "begins");
    wait_for_map(pinned)?;
    helper.kill()?;
    let seen = trace.take()?;
    if seen.is_empty() && container.unmap_all()? == LONG as u64 {
        return Ok(false);
    }
    assert_eq!(seen.lines().count(), 1, "expected one EINTR, got: {seen}");
    Ok(true)
}

fn long_unmap_all() -> Result<()> {
    let pinned = pinned_pages()?;
    let (container, _group) = attached(EDU, Iommu::Type1v2)?;
    let fd = container.as_fd().try_clone_to_owned()?;
    let words = ["long", "unmap-all", &fd.as_raw_fd().to_string()];
    let mut helper = Helper::spawn(&words, &[&fd])?;
    assert_eq!(helper.line()?, "begins");
    wait_for_unmap(helper.id())?;
    helper.kill()?;
    drop(fd);
    // The request may or may not end early.
    let used = 65535
        - container
            .info()?
            .dma_avail()
            .context("GET_INFO has no number of available mappings")?;
    eprintln!("{used} mappings are left");
    assert_eq!(container.unmap_all()?, u64::from(used) * PAGE);
    assert_eq!(pinned_pages()?, pinned);
    Ok(())
}

/// A request that takes a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Long {
    Map,
    UnmapAll,
}

/// The descriptor that another thread closes meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Close {
    Container,
    Group,
}

fn in_long_request(long: Long, what: Close) -> Result<()> {
    let pinned = pinned_pages()?;
    let (container, group) = attached(EDU, Iommu::Type1v2)?;
    let memory = Memory::anonymous(LONG / 2)?;
    if long == Long::UnmapAll {
        map_many(&container, &memory)?;
    }
    let request = || match long {
        Long::Map => container.map(0, &memory, MapFlags::ReadWrite).map(|()| 0),
        Long::UnmapAll => container.unmap_all(),
    };
    let (answer, group) = thread::scope(|scope| -> Result<_> {
        let request = Request::send(scope, request)?;
        match long {
            Long::Map => wait_for_map(pinned)?,
            Long::UnmapAll => wait_for_unmap(id())?,
        }
        let group = match what {
            Close::Group => {
                drop(group);
                None
            }
            Close::Container => {
                nix::unistd::close(container.as_fd().as_raw_fd())?;
                Some(group)
            }
        };
        Ok((request.finish()?, group))
    })?;
    let expected = match long {
        Long::Map => 0,
        Long::UnmapAll => MANY * PAGE,
    };
    match what {
        Close::Container => {
            assert_eq!(answer, Ok(expected));
            forget(container);
        }
        // The group may have been closed before the request.
        Close::Group => {
            let gone = answer.as_ref().is_err_and(|e| e.errno() == Errno::EINVAL);
            ensure!(
                gone || answer == Ok(expected) || answer == Ok(0),
                "{answer:?}"
            );
            assert_eq!(container.info().map_err(|e| e.errno()), Err(Errno::EINVAL));
        }
    }
    drop(group);
    assert_eq!(locked_pages(), 0);
    assert_eq!(pinned_pages()?, pinned);
    Ok(())
}
