// SPDX-License-Identifier: GPL-2.0

//! Tracepoints, recorded in a separate tracefs instance.

use anyhow::{
    Context,
    Result, //
};
use std::fs;

const INSTANCE: &str = "/sys/kernel/tracing/instances/guest-tests";

/// A tracepoint that is recorded until this is dropped.
#[derive(Debug)]
pub struct Trace(());

impl Trace {
    /// Records `event`, given as `system/name`.
    pub fn of(event: &str) -> Result<Self> {
        Self::filtered(event, "0")
    }

    /// Records those occurrences of `event` that match `filter`. `0` matches all.
    pub fn filtered(event: &str, filter: &str) -> Result<Self> {
        fs::create_dir(INSTANCE).context(INSTANCE)?;
        let trace = Self(());
        let path = format!("{INSTANCE}/events/{event}/filter");
        fs::write(&path, filter).context(path)?;
        let switch = format!("{INSTANCE}/events/{event}/enable");
        fs::write(&switch, "1").context(switch)?;
        Ok(trace)
    }

    /// Returns the events recorded since the last call, one per line, without comments.
    pub fn take(&self) -> Result<String> {
        let path = format!("{INSTANCE}/trace");
        let text = fs::read_to_string(&path)?;
        fs::write(&path, "")?;
        let lines = text.split_inclusive('\n');
        Ok(lines.filter(|line| !line.starts_with('#')).collect())
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = fs::remove_dir(INSTANCE);
    }
}
