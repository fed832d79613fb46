// SPDX-License-Identifier: GPL-2.0

//! The programs that use VFIO. Each kind has its own devices.

use crate::report::Report;
use anyhow::{
    Context,
    Result,
    anyhow,
    bail,
    ensure, //
};
use fastrand::Rng;
use std::{
    fs::{
        self,
        File, //
    },
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{
        Child,
        Command,
        ExitStatus,
        Stdio, //
    },
    thread::{
        self,
        sleep, //
    },
    time::{
        Duration,
        Instant, //
    },
};
use support::cgroup::Cgroup;

/// The time that a program may exceed its end by.
const PATIENCE: Duration = Duration::from_secs(180);

/// A program is not started if less time than this is left.
const SHORTEST: Duration = Duration::from_secs(3);

/// The number of lines of a program's output to print.
const LAST_LINES: usize = 60;

/// Programs that may run out of mappings: "model" sets the mapping limit, which applies to all new
/// containers.
const LIMITED: [&str; 2] = ["disk", "copies"];

/// The treatment of a kind of program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    /// Its answers are checked, so its memory is not limited. It must succeed.
    Exact,
    /// It is in the cgroup with a memory limit, and may be killed. It may fail, but not in a check
    /// of its own.
    Rough,
}

/// A kind of program.
#[derive(Debug)]
struct Kind {
    name: &'static str,
    treatment: Treatment,
    /// The number of runs that succeeded, that this program killed, that ran out of memory, and
    /// that gave up.
    counts: [u64; 4],
    /// Returns the command for a seed and a duration.
    command: Box<dyn Words>,
}

/// A function that returns a command.
trait Words: Fn(u64, Duration) -> Vec<String> + Sync + Send {}
impl<F: Fn(u64, Duration) -> Vec<String> + Sync + Send> Words for F {}
impl std::fmt::Debug for dyn Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("words")
    }
}

/// The end of one program.
#[derive(Debug)]
enum End {
    Well,
    Killed,
    OutOfMemory,
    GaveUp,
    Wrong(anyhow::Error),
    Hangs(String),
}

/// The ends of all programs of a round.
#[derive(Debug)]
pub struct Outcomes {
    /// Whether a program hangs.
    pub hang: bool,
    ends: Vec<(usize, End)>,
}

/// All kinds of programs.
#[derive(Debug)]
pub struct Kinds {
    kinds: Vec<Kind>,
    /// The cgroup of programs that may run out of memory.
    pub cgroup: Cgroup,
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// Returns the command of a helper of the guest tests.
fn guest_tests(kind: &'static str) -> Box<dyn Words> {
    Box::new(move |seed: u64, time: Duration| {
        let (seed, ms) = (seed.to_string(), time.as_millis().to_string());
        words(&["guest-tests", "--helper", "soak", kind, &seed, &ms])
    })
}

/// Returns the command of a program that checks each answer with a model. There are two such
/// programs; they alternate because they share devices.
fn modelled(c: bool) -> Box<dyn Words> {
    Box::new(move |seed: u64, time: Duration| {
        let (number, seconds) = (seed.to_string(), time.as_secs().to_string());
        let mut command = match seed % 2 {
            0 => words(&["guest-linear", "--shared", "--requests"]),
            _ => words(&["guest-differential", "--check", "--steps"]),
        };
        command.push(u64::MAX.to_string());
        command.extend(words(&["--seed", &number, "--seconds", &seconds]));
        command.extend(c.then(|| "--c".to_owned()));
        command
    })
}

impl Kinds {
    /// Returns the kinds for the Rust modules, or for the C modules.
    pub fn new(disk: &str, c: bool, cgroup: Cgroup) -> Self {
        let disk = disk.to_owned();
        let reader: Box<dyn Words> = Box::new(move |_: u64, _: Duration| {
            let device = "0000:00:08.0";
            words(&[
                "nvme_read",
                "read",
                "--device",
                device,
                "--expect-sha256",
                &disk,
            ])
        });
        let exact = |name| (name, Treatment::Exact, guest_tests(name));
        let rough = |name| (name, Treatment::Rough, guest_tests(name));
        let mut kinds = vec![
            ("model", Treatment::Exact, modelled(c)),
            ("disk", Treatment::Exact, reader),
            rough("mdevs"),
        ];
        if !c {
            kinds.extend([
                exact("rebind"),
                exact("pamu"),
                exact("peers"),
                exact("copies"),
            ]);
            kinds.extend([rough("use"), rough("use"), rough("pin")]);
        }
        let kind = |(name, treatment, command)| Kind {
            name,
            treatment,
            counts: [0; 4],
            command,
        };
        Self {
            kinds: kinds.into_iter().map(kind).collect(),
            cgroup,
        }
    }

    /// Runs all kinds of programs until `end`.
    pub fn work(&self, seed: u64, end: Instant) -> Result<Outcomes> {
        let before = self.cgroup.oom_kills()?;
        let mut ends = Vec::new();
        thread::scope(|scope| {
            let slots: Vec<_> = (self.kinds.iter().enumerate())
                .map(|(slot, kind)| scope.spawn(move || kind.work(&self.cgroup, slot, seed, end)))
                .collect();
            for (slot, thread) in slots.into_iter().enumerate() {
                let found = match thread.join() {
                    Ok(found) => found,
                    Err(panic) => std::panic::resume_unwind(panic),
                };
                ends.extend(found.into_iter().map(|end| (slot, end)));
            }
        });
        println!(
            "the OOM killer killed {} programs in the cgroup",
            self.cgroup.oom_kills()? - before
        );
        let hang = ends.iter().any(|(_, end)| matches!(end, End::Hangs(_)));
        Ok(Outcomes { hang, ends })
    }

    /// Counts the results and reports the failures.
    pub fn judge(&mut self, outcomes: Outcomes, report: &mut Report) {
        for (slot, end) in outcomes.ends {
            let kind = &mut self.kinds[slot];
            let (count, outcome) = match end {
                End::Well => (Some(0), Ok(())),
                End::Killed => (Some(1), Ok(())),
                End::OutOfMemory => (Some(2), Ok(())),
                End::GaveUp => (Some(3), Ok(())),
                End::Wrong(error) => (None, Err(error)),
                End::Hangs(stacks) => (
                    None,
                    Err(anyhow!("still running after the timeout:\n{stacks}")),
                ),
            };
            if let Some(count) = count {
                kind.counts[count] += 1;
            }
            report.check(format!("{}: ends as expected", kind.name), outcome);
        }
    }

    /// Returns the counts of all kinds so far.
    pub fn summary(&self) -> String {
        let one = |kind: &Kind| {
            let [well, killed, out, gave_up] = kind.counts;
            match kind.treatment {
                Treatment::Exact => format!("{} {well}", kind.name),
                Treatment::Rough => format!("{} {well}/{killed}/{out}/{gave_up}", kind.name),
            }
        };
        self.kinds.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// Checks that each kind has worked at least once.
    pub fn all_have_worked(&self, report: &mut Report) {
        for kind in &self.kinds {
            // A program that was killed on purpose had time to work.
            let worked = kind.counts[0] + kind.counts[1] > 0;
            let worked = worked
                .then_some(())
                .context("no run of this program succeeded or was killed on purpose");
            report.check(format!("{}: worked at least once", kind.name), worked);
        }
    }
}

impl Kind {
    /// Runs programs one after the other until `end`.
    fn work(&self, cgroup: &Cgroup, slot: usize, seed: u64, end: Instant) -> Vec<End> {
        let mut random = Rng::with_seed(seed ^ ((slot as u64) << 32));
        let mut ends = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left < SHORTEST {
                return ends;
            }
            let time = match self.treatment {
                Treatment::Exact => left,
                Treatment::Rough => Duration::from_millis(random.u64(2000..15_000)).min(left),
            };
            let killed = self.treatment == Treatment::Rough && random.bool();
            // The seed of the round selects one of the two programs.
            let seed = match self.treatment {
                Treatment::Exact => seed,
                Treatment::Rough => random.u64(..),
            };
            let done = self
                .run(cgroup, slot, seed, time, killed)
                .unwrap_or_else(End::Wrong);
            let stop = matches!(done, End::Wrong(_) | End::Hangs(_));
            ends.push(done);
            if stop {
                return ends;
            }
        }
    }

    /// Runs a program and waits for its end.
    fn run(
        &self,
        cgroup: &Cgroup,
        slot: usize,
        seed: u64,
        time: Duration,
        killed: bool,
    ) -> Result<End> {
        let command = (self.command)(seed, time);
        let log = PathBuf::from(format!("/run/{}.{slot}.log", self.name));
        let output = File::create(&log)?;
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| command[0].clone())?;
        self.place(&child, cgroup)?;
        let deadline = Instant::now() + time + PATIENCE;
        let kill_at = Instant::now() + time * 3 / 4;
        let mut was_killed = false;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if killed && Instant::now() > kill_at {
                child.kill()?;
                was_killed = true;
            }
            if Instant::now() > deadline {
                return Ok(End::Hangs(format!(
                    "{}\n{}",
                    command.join(" "),
                    stacks(child.id())?
                )));
            }
            sleep(Duration::from_millis(50));
        };
        let said = fs::read_to_string(&log)?;
        Ok(match self.judge(status, was_killed, &said) {
            Ok(end) => end,
            Err(error) => {
                let lines: Vec<_> = said.lines().collect();
                let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
                End::Wrong(error.context(format!("{}\n{last}", command.join(" "))))
            }
        })
    }

    /// Sets the cgroup of the process and its priority for the OOM killer.
    fn place(&self, child: &Child, cgroup: &Cgroup) -> Result<()> {
        let rough = self.treatment == Treatment::Rough;
        let score = if rough { "900" } else { "-900" };
        fs::write(format!("/proc/{}/oom_score_adj", child.id()), score)?;
        if rough {
            cgroup.add(child.id())?;
        }
        Ok(())
    }

    fn judge(&self, status: ExitStatus, was_killed: bool, said: &str) -> Result<End> {
        if status.success() {
            if self.treatment == Treatment::Exact {
                println!(
                    "{} ended with the line: {}",
                    self.name,
                    said.lines().last().unwrap_or_default()
                );
            }
            return Ok(End::Well);
        }
        if self.treatment == Treatment::Exact {
            let may_give_up = LIMITED.contains(&self.name) && said.contains("ENOSPC");
            ensure!(may_give_up, "ended with {status}");
            return Ok(End::GaveUp);
        }
        match (status.signal(), status.code()) {
            // A program prints its first line when it has begun to work.
            (Some(9), _) if was_killed && !said.is_empty() => Ok(End::Killed),
            (Some(9), _) if was_killed => Ok(End::GaveUp),
            (Some(9), _) => Ok(End::OutOfMemory),
            // The program could not do its work. It exits with 101 if one of its checks fails.
            (_, Some(1)) => Ok(End::GaveUp),
            _ => bail!("ended with {status}"),
        }
    }
}

/// Returns the kernel stacks of all threads of a process and its children.
fn stacks(process: u32) -> Result<String> {
    let mut text = String::new();
    let mut todo = vec![process.to_string()];
    while let Some(process) = todo.pop() {
        for task in fs::read_dir(format!("/proc/{process}/task"))? {
            let task = task?.path();
            let read = |name| fs::read_to_string(task.join(name)).unwrap_or_default();
            text += &format!(
                "{} of {process} ({}):\n{}",
                task.display(),
                read("comm").trim(),
                read("stack")
            );
            todo.extend(read("children").split_whitespace().map(str::to_owned));
        }
    }
    Ok(text)
}
