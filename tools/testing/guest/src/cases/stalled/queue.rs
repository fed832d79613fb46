// SPDX-License-Identifier: GPL-2.0

//! Three requests: one has stopped, and the others wait in a queue.

use super::{
    meanwhile::Meanwhile,
    place::Place,
    requests::{
        ASIDE,
        Answer,
        Ask, //
    },
    scene::Scene, //
};
use crate::{
    env::EDU,
    harness::cases,
    pin::{
        READ,
        WRITE, //
    },
    requires::{
        Language::Rust,
        type1, //
    },
    stall::{
        LIMIT,
        Progress,
        Release,
        Request,
        stops, //
    },
};
use anyhow::{
    Result,
    ensure, //
};
use nix::errno::Errno;
use std::thread;
use support::requests::UnmapDma;

// In the C module, requests wait for the mutex in no particular order.
cases! {
    #[requires(type1(Rust))] in_order,
    #[requires(type1(Rust))] unmap_waits_for_lock_of_driver,
    behind_unmap_all,
    close_ignores_lock_of_driver,
    map_before_two_bitmaps,
    map_behind_two_bitmaps,
}

/// Stops a request at `place` and sends two more, one after the other. Returns the progress of the
/// two, and the answers of all three.
fn three(
    scene: &Scene,
    place: Place,
    [first, second]: [Meanwhile; 2],
) -> Result<([Progress; 2], [Answer; 3])> {
    thread::scope(|scope| {
        let release = Release(&scene.fault);
        let stopped = Request::send(scope, || place.send(scene))?;
        ensure!(
            stops(&stopped, &scene.fault)?,
            "the request does not stop at the fault"
        );
        let first = Request::send(scope, || first.send(place, scene))?;
        let one = first.settle();
        let second = Request::send(scope, || second.send(place, scene))?;
        let two = second.settle();
        // This request blocks no other and waits for none.
        let info = Request::send(scope, || Meanwhile::Info.send(place, scene))?;
        let informed = !type1(Rust) || info.done_within(LIMIT)?;
        drop(release);
        let answers = [stopped.finish()?, first.finish()?, second.finish()?];
        assert_eq!(info.finish()?, Ok(0));
        ensure!(informed, "GET_INFO waits for the stopped request");
        Ok(([one, two], answers))
    })
}

/// The request that has waited longer goes first.
fn in_order() -> Result<()> {
    let scene = Scene::new(Place::MapPages, None)?;
    let queue = [Meanwhile::UnmapThere, Meanwhile::MapThere];
    let (progress, answers) = three(&scene, Place::MapPages, queue)?;
    assert_eq!(progress, [Progress::Waits; 2]);
    assert_eq!(answers, [Ok(0), Ok(8), Ok(0)]);
    scene.end()
}

/// UNMAP_DMA of everything would wait forever if other requests could always go first.
fn behind_unmap_all() -> Result<()> {
    let place = if type1(Rust) {
        Place::MapPages
    } else {
        Place::UnmapBitmap
    };
    let scene = Scene::new(place, None)?;
    let queue = [Meanwhile::UnmapAll, Meanwhile::MapAside];
    let (progress, answers) = three(&scene, place, queue)?;
    assert_eq!(progress, [Progress::Waits; 2]);
    let left = UnmapDma::all().ask(&scene.container);
    if type1(Rust) {
        assert_eq!((answers, left), ([Ok(0), Ok(16), Ok(0)], Ok(4)));
    } else {
        assert_eq!([answers[0], answers[2]], [Ok(4), Ok(0)]);
        let sum = answers[1].and_then(|unmapped| Ok(unmapped + left?));
        assert_eq!(sum, Ok(12));
    }
    scene.end()
}

fn map_before_two_bitmaps() -> Result<()> {
    two_bitmaps(Meanwhile::MapBefore)
}

fn map_behind_two_bitmaps() -> Result<()> {
    two_bitmaps(Meanwhile::MapBehind)
}

/// The second bitmap request waits for the first. Then another thread maps across the border of
/// both ranges.
fn two_bitmaps(map: Meanwhile) -> Result<()> {
    let scene = Scene::new(Place::DirtyBitmap, None)?;
    let queue = [Meanwhile::BitmapThere, map];
    let (progress, answers) = three(&scene, Place::DirtyBitmap, queue)?;
    assert_eq!([answers[0], answers[2]], [Ok(0), Ok(0)]);
    if type1(Rust) {
        assert_eq!(progress, [Progress::Waits; 2]);
        assert_eq!(answers[1], Ok(0));
    } else {
        // It may have run after the map.
        assert!([Ok(0), Err(Errno::EINVAL)].contains(&answers[1]));
    }
    scene.end()
}

/// A driver pins pages while it holds a lock. It takes the same lock when it is notified to unpin
/// other pages.
fn unmap_waits_for_lock_of_driver() -> Result<()> {
    let place = Place::DriverPins;
    let scene = Scene::new(place, None)?;
    if let Some(driver) = &scene.driver {
        driver.pin(ASIDE.iova, 1, READ | WRITE)?;
    }
    let queue = [Meanwhile::UnmapAside, Meanwhile::MapAside];
    let (progress, answers) = three(&scene, place, queue)?;
    assert_eq!(progress, [Progress::Waits, Progress::Done]);
    assert_eq!(answers, [Ok(4), Ok(4), Ok(0)]);
    scene.end()
}

/// A driver pins pages while it holds a lock, and an unmap waits for that lock. A device whose
/// driver pins no pages is closed meanwhile. In the C module, a driver that pins pages doesn't
/// stop.
fn close_ignores_lock_of_driver() -> Result<()> {
    let (place, answer) = if type1(Rust) {
        (Place::DriverPins, Ok(4))
    } else {
        (Place::DriverReads, Ok(0))
    };
    // The group of the other device is in the container, as for a request to leave it.
    let scene = Scene::new(place, Some(Meanwhile::Leave))?;
    if let Some(driver) = &scene.driver {
        driver.pin(ASIDE.iova, 1, READ | WRITE)?;
    }
    let device = scene.second.device(EDU)?;
    let answers = thread::scope(|scope| {
        let release = Release(&scene.fault);
        let stopped = Request::send(scope, || place.send(&scene))?;
        ensure!(
            stops(&stopped, &scene.fault)?,
            "the request does not stop at the fault"
        );
        let unmap = Request::send(scope, || Meanwhile::UnmapAside.send(place, &scene))?;
        assert_eq!(unmap.settle(), Progress::Waits);
        let close = Request::send(scope, || drop(device))?;
        let closed = close.done_within(LIMIT)?;
        drop(release);
        let answers = [stopped.finish()?, unmap.finish()?];
        close.finish()?;
        ensure!(closed, "the close waits for the stopped request");
        Ok(answers)
    })?;
    assert_eq!(answers, [answer, Ok(4)]);
    scene.end()
}
