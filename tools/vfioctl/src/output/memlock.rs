// SPDX-License-Identifier: GPL-2.0

//! `vfioctl memlock`.

use anyhow::Result;

use super::{
    print,
    print_json,
    printable, //
};
use crate::decide::{
    memlock::{
        Need,
        Source, //
    },
    size, //
};

/// Prints what a process has, and what it needs.
pub fn memlock(need: &Need, json: bool) -> Result<()> {
    if json {
        return print_json(need);
    }
    let limits = &need.has;
    let limit = |limit: Option<u64>| limit.map_or_else(|| "none".to_owned(), size);
    let capability = if limits.ipc_lock {
        ", which CAP_IPC_LOCK lifts for containers"
    } else {
        ""
    };
    let source = match need.source {
        Source::Log => "at least, by the kernel's log about a request that failed".to_owned(),
        Source::Memory => match limits.containers {
            0 | 1 => "all memory that it can write; it may need less".to_owned(),
            n => format!("all memory that it can write, for {n} containers; it may need less"),
        },
        Source::Given => match limits.containers {
            0 | 1 => "given by --memory".to_owned(),
            n => format!("given by --memory, for {n} containers"),
        },
    };
    let mut text = printable(&format!("{} ({})", limits.command, limits.pid)) + "\n";
    text += &format!("  locked  {}", size(limits.locked));
    if limits.pinned > 0 {
        text += &format!(", pinned by IOMMUFD and others {}", size(limits.pinned));
    }
    text += &format!(
        "\n  limit   {}, hard {}{capability}\n",
        limit(limits.soft),
        limit(limits.hard)
    );
    text += &format!("  needs   {}: {source}\n", size(need.needed));
    if let Some(refused) = need.refused {
        // Not rounded, since it can be just above the limit.
        let kib = refused.div_ceil(1024);
        text += &format!("  log     the kernel refused a request that needed {kib} KiB or more\n");
    }
    if need.enough {
        text += "The limit is high enough.\n";
    } else {
        text += "The limit is too low:\n";
        for help in &need.help {
            text += &format!("  -> {help}\n");
        }
    }
    print(&text)
}
