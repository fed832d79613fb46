// SPDX-License-Identifier: GPL-2.0

//! Waiting for conditions that have no notification.

use std::{
    thread::sleep,
    time::{
        Duration,
        Instant, //
    },
};

/// The polling interval.
const INTERVAL: Duration = Duration::from_millis(2);

/// Polls until `condition` is true or `limit` has passed. Returns whether it is true.
///
/// # Errors
///
/// Returns the errors of `condition`.
pub fn until<E>(
    limit: Duration,
    mut condition: impl FnMut() -> Result<bool, E>,
) -> Result<bool, E> {
    let start = Instant::now();
    loop {
        // The condition is checked once more after the limit: a busy machine may have stopped this
        // thread in between.
        let late = start.elapsed() > limit;
        if condition()? {
            return Ok(true);
        }
        if late {
            return Ok(false);
        }
        sleep(INTERVAL);
    }
}
