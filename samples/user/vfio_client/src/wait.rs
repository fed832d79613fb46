// SPDX-License-Identifier: GPL-2.0

//! Waiting for what nobody tells of.

use std::{
    thread::sleep,
    time::{
        Duration,
        Instant, //
    },
};

/// How often to look.
const INTERVAL: Duration = Duration::from_millis(2);

/// Waits until `condition` is true, but not longer than `limit`; returns whether it is.
///
/// # Errors
///
/// The condition's.
pub fn until<E>(
    limit: Duration,
    mut condition: impl FnMut() -> Result<bool, E>,
) -> Result<bool, E> {
    let start = Instant::now();
    while !condition()? {
        if start.elapsed() > limit {
            return Ok(false);
        }
        sleep(INTERVAL);
    }
    Ok(true)
}
