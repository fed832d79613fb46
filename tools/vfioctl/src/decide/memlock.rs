// SPDX-License-Identifier: GPL-2.0

//! How much locked memory a process needs.

use serde::Serialize;

use crate::system::{
    limits::Limits,
    log::LimitExceeded, //
};

/// What a process has, and what it needs.
#[derive(Clone, Debug, Serialize)]
pub struct Need {
    /// What it has.
    #[serde(flatten)]
    pub has: Limits,
    /// The size of the locked memory that it needs, in bytes.
    pub needed: u64,
    /// Where this number comes from.
    pub source: Source,
    /// The size of the locked memory that a request would have led to which the kernel refused, in
    /// bytes, if the log has it. The kernel pins in parts, so all of the request may need more.
    pub refused: Option<u64>,
    /// Whether the limit is high enough.
    pub enough: bool,
    /// The commands that raise the limit.
    pub help: Vec<String>,
}

/// Where the number of bytes comes from that a process needs.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A request failed, and the kernel logged that it needed at least this much.
    Log,
    /// The process maps all memory that it can write, once for each of its containers. It may need
    /// less.
    Memory,
    /// The caller gave the number.
    Given,
}

/// Tells what a process has, and what it needs. `given` is the memory that the program maps, if the
/// caller knows.
pub fn need(limits: Limits, given: Option<u64>, exceeded: &[LimitExceeded]) -> Need {
    let spaces = limits.containers.max(1) as u64;
    let refused = exceeded_by(limits.pid, exceeded);
    let memory = limits.writable.saturating_mul(spaces);
    let (needed, source) = match (given, refused) {
        (Some(given), _) => (given, Source::Given),
        (None, Some(refused)) if refused > memory => (refused, Source::Log),
        (None, _) => (memory, Source::Memory),
    };
    let needed = needed.max(limits.locked);
    let enough = limits.allow(needed);
    Need {
        help: if enough {
            Vec::new()
        } else {
            commands(&limits, needed)
        },
        enough,
        has: limits,
        needed,
        source,
        refused,
    }
}

/// Returns the number of bytes that the process needed according to the last message about it.
pub fn exceeded_by(pid: u32, exceeded: &[LimitExceeded]) -> Option<u64> {
    let mut of_process = exceeded
        .iter()
        .rev()
        .filter(|message| message.pid == Some(pid));
    of_process.find_map(|message| message.needed)
}

/// Returns the commands that raise the limit of a process, now and for good.
pub fn commands(limits: &Limits, needed: u64) -> Vec<String> {
    vec![
        format!("prlimit --pid {} --memlock={needed}:{needed}", limits.pid),
        format!(
            "systemd: LimitMEMLOCK={needed}; login: 'USER - memlock {}' in /etc/security/limits.conf",
            needed.div_ceil(1024)
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits {
            pid: 9,
            soft: Some(8 << 20),
            hard: Some(8 << 20),
            writable: 6 << 20,
            ..Limits::default()
        }
    }

    #[test]
    fn memory_of_the_process() {
        let enough = need(limits(), None, &[]);
        assert!(enough.enough);
        assert_eq!((enough.needed, enough.source), (6 << 20, Source::Memory));
        let containers = 2;
        let twice = need(
            Limits {
                containers,
                ..limits()
            },
            None,
            &[],
        );
        assert!(!twice.enough);
        assert_eq!(twice.help[0], "prlimit --pid 9 --memlock=12582912:12582912");
    }

    #[test]
    fn the_log_and_the_caller_know_better() {
        let message = |pid, needed| LimitExceeded {
            pid: Some(pid),
            command: None,
            needed: Some(needed),
        };
        let log = [message(9, 1), message(9, 9 << 20), message(8, 99 << 20)];
        let less = need(limits(), None, &log[..1]);
        assert_eq!((less.refused, less.source), (Some(1), Source::Memory));
        let logged = need(limits(), None, &log);
        assert_eq!((logged.needed, logged.source), (9 << 20, Source::Log));
        assert!(!logged.enough);
        let given = need(limits(), Some(1 << 20), &log);
        assert_eq!(
            (given.needed, given.source, given.enough),
            (1 << 20, Source::Given, true)
        );
    }

    #[test]
    fn the_capability_lifts_the_limit() {
        let ipc_lock = true;
        assert!(
            need(
                Limits {
                    ipc_lock,
                    ..limits()
                },
                Some(u64::MAX),
                &[]
            )
            .enough
        );
    }
}
