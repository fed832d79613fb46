// SPDX-License-Identifier: GPL-2.0

//! Requests that stop where they access user memory, and requests of other threads meanwhile.
//!
//! A test is a pair: `stalled::dirty_bitmap::map_border` stops GET_BITMAP at the bitmap, and
//! another thread maps across the end of its range. The pairs and the expected results are in
//! [`table`].

mod again;
mod meanwhile;
mod merge;
mod place;
mod queue;
mod requests;
mod scene;
mod table;

use crate::{
    harness::case,
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
use libtest_mimic::Trial;
use requests::Answer;
use std::thread;
use table::{
    Expected,
    Pair,
    When, //
};

pub(super) use meanwhile::Meanwhile;
pub(super) use place::Place;
pub(super) use requests::{
    ASIDE,
    Ask,
    Range,
    THERE,
    start_tracking,
    stop_tracking, //
};
pub(super) use scene::Scene;
pub(super) use table::place_named;

/// Returns a test for each pair.
pub fn cases() -> Vec<Trial> {
    let pairs = table::pairs(type1(Rust));
    let stopped = pairs.into_iter().map(|pair| {
        let name = format!("stalled::{}::{}", pair.place_name, pair.meanwhile_name);
        case(&name, move || meet(&pair))
    });
    let not_stopped = table::not_stopped(type1(Rust)).into_iter().map(|row| {
        let name = format!("stalled::{}::does_not_stop", row.place_name);
        case(&name, move || does_not_stop(row.place, &row.answer))
    });
    stopped
        .chain(not_stopped)
        .chain(queue::cases())
        .chain(again::cases())
        .chain(merge::cases())
        .collect()
}

/// Formats an answer as in the table.
fn told(answer: &Answer) -> String {
    match answer {
        Ok(count) => count.to_string(),
        Err(errno) => format!("{errno:?}"),
    }
}

/// Sends one request while another one has stopped.
fn meet(pair: &Pair) -> Result<()> {
    let scene = Scene::new(pair.place, Some(pair.meanwhile))?;
    let (early, answers) = thread::scope(|scope| -> Result<_> {
        let release = Release(&scene.fault);
        let stopped = Request::send(scope, || pair.place.send(&scene))?;
        ensure!(
            stops(&stopped, &scene.fault)?,
            "the request does not stop at the fault"
        );
        let other = Request::send(scope, || pair.meanwhile.send(pair.place, &scene))?;
        let done = match pair.expected.when {
            When::Meanwhile => other.done_within(LIMIT)?,
            When::After => other.settle() == Progress::Done,
        };
        drop(release);
        Ok((done, [stopped.finish()?, other.finish()?]))
    })?;
    let answers = answers.map(|answer| told(&answer));
    let Expected {
        when,
        answer,
        stopped,
    } = &pair.expected;
    match when {
        When::Meanwhile => ensure!(
            early,
            "the second request waited for the stopped one: {answers:?}"
        ),
        When::After => ensure!(
            !early,
            "the second request ended before the stopped one: {answers:?}"
        ),
    }
    assert_eq!(answers, [stopped.clone(), answer.clone()], "answers");
    scene.end()
}

/// Checks that a request fails at the place where it could stop.
fn does_not_stop(place: Place, answer: &str) -> Result<()> {
    let scene = Scene::new(place, None)?;
    let found = thread::scope(|scope| -> Result<_> {
        let _release = Release(&scene.fault);
        let request = Request::send(scope, || place.send(&scene))?;
        ensure!(
            !stops(&request, &scene.fault)?,
            "the request stops at the fault"
        );
        request.finish()
    })?;
    assert_eq!(told(&found), answer);
    scene.end()
}
