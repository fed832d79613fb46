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

/// Tells what a process has, and what it needs. `given` is the memory that the program maps in each
/// of its containers, if the caller knows. Returns `None` if neither that nor the memory of the
/// process is known.
pub fn need(limits: Limits, given: Option<u64>, exceeded: &[LimitExceeded]) -> Option<Need> {
    // CAST: A process has fewer files than that.
    let spaces = limits.containers.max(1) as u64;
    let refused = exceeded_by(limits.pid, exceeded);
    let memory = limits.writable.map(|memory| memory.saturating_mul(spaces));
    let (needed, source) = match (given, memory, refused) {
        (Some(given), ..) => (given.saturating_mul(spaces), Source::Given),
        (None, memory, Some(refused)) if memory.is_none_or(|memory| refused > memory) => {
            (refused, Source::Log)
        }
        (None, memory, _) => (memory?, Source::Memory),
    };
    let needed = needed.max(limits.locked);
    let enough = limits.allow(needed);
    Some(Need {
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
    })
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
    // A hard limit cannot be raised again by everybody, so it is not lowered.
    let hard = match limits.hard {
        None => "unlimited".to_owned(),
        Some(hard) => hard.max(needed).to_string(),
    };
    vec![
        format!("prlimit --pid {} --memlock={needed}:{hard}", limits.pid),
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
            writable: Some(6 << 20),
            ..Limits::default()
        }
    }

    fn expect_need(limits: Limits, given: Option<u64>, exceeded: &[LimitExceeded]) -> Need {
        need(limits, given, exceeded).unwrap()
    }

    #[test]
    fn memory_of_the_process() {
        let enough = expect_need(limits(), None, &[]);
        assert!(enough.enough);
        assert_eq!((enough.needed, enough.source), (6 << 20, Source::Memory));
        let two = Limits {
            containers: 2,
            ..limits()
        };
        let twice = expect_need(two.clone(), None, &[]);
        assert!(!twice.enough);
        assert_eq!(twice.help[0], "prlimit --pid 9 --memlock=12582912:12582912");
        let given = expect_need(two, Some(6 << 20), &[]);
        assert_eq!((given.needed, given.enough), (12 << 20, false));
    }

    #[test]
    fn a_hard_limit_is_not_lowered() {
        for (hard, expected) in [
            (None, "prlimit --pid 9 --memlock=9437184:unlimited"),
            (
                Some(1 << 30),
                "prlimit --pid 9 --memlock=9437184:1073741824",
            ),
        ] {
            let limits = Limits { hard, ..limits() };
            let need = expect_need(limits, Some(9 << 20), &[]);
            assert_eq!(need.help[0], expected);
        }
    }

    #[test]
    fn no_limit_and_no_end() {
        let soft = None;
        let unlimited = Limits { soft, ..limits() };
        assert!(expect_need(unlimited, Some(u64::MAX), &[]).enough);
        let containers = usize::MAX;
        let many = Limits {
            containers,
            ..limits()
        };
        assert_eq!(expect_need(many, Some(u64::MAX), &[]).needed, u64::MAX);
    }

    /// Without the right to see the memory of a process, nothing can be said.
    #[test]
    fn memory_that_cannot_be_seen() {
        let hidden = Limits {
            writable: None,
            ..limits()
        };
        assert!(need(hidden.clone(), None, &[]).is_none());
        assert!(expect_need(hidden, Some(4096), &[]).enough);
    }

    #[test]
    fn the_log_and_the_caller_know_better() {
        let message = |pid, needed| LimitExceeded {
            pid: Some(pid),
            command: None,
            needed: Some(needed),
        };
        let log = [message(9, 1), message(9, 9 << 20), message(8, 99 << 20)];
        let less = expect_need(limits(), None, &log[..1]);
        assert_eq!((less.refused, less.source), (Some(1), Source::Memory));
        let logged = expect_need(limits(), None, &log);
        assert_eq!((logged.needed, logged.source), (9 << 20, Source::Log));
        assert!(!logged.enough);
        let given = expect_need(limits(), Some(1 << 20), &log);
        assert_eq!(
            (given.needed, given.source, given.enough),
            (1 << 20, Source::Given, true)
        );
    }

    #[test]
    fn the_capability_lifts_the_limit() {
        let ipc_lock = true;
        let limits = Limits {
            ipc_lock,
            ..limits()
        };
        assert!(expect_need(limits, Some(u64::MAX), &[]).enough);
    }
}
