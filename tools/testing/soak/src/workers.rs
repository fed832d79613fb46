// SPDX-License-Identifier: GPL-2.0

//! The programs that use VFIO, each kind on devices of its own.

use crate::{
    disturb,
    report::Report, //
};
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

/// How much later than it should a program may end.
const PATIENCE: Duration = Duration::from_secs(180);

/// A program that would have less time is not started.
const SHORTEST: Duration = Duration::from_secs(3);

/// How much of what a program said is shown.
const LAST_LINES: usize = 60;

/// Programs that may find no room: "model" sets the limit of mappings, which holds for all containers to come.
const LIMITED: [&str; 2] = ["disk", "copies"];

/// How a kind of program is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    /// Each answer that it gets is checked, so it gets all memory that it wants. It must end well.
    Exact,
    /// It is in the cgroup with a limit, and may be killed. It may fail, but not by a check of its own.
    Rough,
}

/// A kind of program.
#[derive(Debug)]
struct Kind {
    name: &'static str,
    treatment: Treatment,
    /// How often it ended well, was killed by us, ran out of memory, and gave up.
    counts: [u64; 4],
    /// The command for a seed and a time.
    command: Box<dyn Words>,
}

/// A function that makes a command.
trait Words: Fn(u64, Duration) -> Vec<String> + Sync + Send {}
impl<F: Fn(u64, Duration) -> Vec<String> + Sync + Send> Words for F {}
impl std::fmt::Debug for dyn Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("words")
    }
}

/// How one program ended.
#[derive(Debug)]
enum End {
    Well,
    Killed,
    OutOfMemory,
    GaveUp,
    Wrong(anyhow::Error),
    Hangs(String),
}

/// How all programs of a round ended.
#[derive(Debug)]
pub struct Outcomes {
    /// Whether one hangs.
    pub hang: bool,
    ends: Vec<(usize, End)>,
}

/// All kinds.
#[derive(Debug)]
pub struct Kinds(Vec<Kind>);

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|word| (*word).to_owned()).collect()
}

/// A program of the guest tests.
fn guest_tests(kind: &'static str) -> Box<dyn Words> {
    Box::new(move |seed: u64, time: Duration| {
        let (seed, ms) = (seed.to_string(), time.as_millis().to_string());
        words(&["guest-tests", "--helper", "soak", kind, &seed, &ms])
    })
}

/// A program that checks each answer by a model: one of two by turns, as they share devices.
fn modelled(c: bool) -> Box<dyn Words> {
    Box::new(move |seed: u64, time: Duration| {
        let (number, seconds) = (seed.to_string(), time.as_secs().to_string());
        let mut command = match seed % 2 {
            0 => words(&["guest-linear", "--shared", "--requests"]),
            _ => words(&["guest-differential", "--steps"]),
        };
        command.push(u64::MAX.to_string());
        command.extend(words(&["--seed", &number, "--seconds", &seconds]));
        command.extend(c.then(|| "--c".to_owned()));
        command
    })
}

impl Kinds {
    /// The kinds for our modules, or for those of C.
    pub fn new(disk: &str, c: bool) -> Self {
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
        Self(kinds.into_iter().map(kind).collect())
    }

    /// Has all kinds work until then.
    pub fn work(&self, seed: u64, end: Instant) -> Result<Outcomes> {
        let before = disturb::kills()?;
        let mut ends = Vec::new();
        thread::scope(|scope| {
            let slots: Vec<_> = (0..self.0.len())
                .map(|slot| scope.spawn(move || self.0[slot].work(slot, seed, end)))
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
            "{} programs met the limit of memory",
            disturb::kills()? - before
        );
        let hang = ends.iter().any(|(_, end)| matches!(end, End::Hangs(_)));
        Ok(Outcomes { hang, ends })
    }

    /// Counts and reports.
    pub fn judge(&mut self, outcomes: Outcomes, report: &mut Report) {
        for (slot, end) in outcomes.ends {
            let kind = &mut self.0[slot];
            let (count, outcome) = match end {
                End::Well => (Some(0), Ok(())),
                End::Killed => (Some(1), Ok(())),
                End::OutOfMemory => (Some(2), Ok(())),
                End::GaveUp => (Some(3), Ok(())),
                End::Wrong(error) => (None, Err(error)),
                End::Hangs(stacks) => (None, Err(anyhow!("it hangs:\n{stacks}"))),
            };
            if let Some(count) = count {
                kind.counts[count] += 1;
            }
            report.check(format!("{}: it does what it should", kind.name), outcome);
        }
    }

    /// How all ended so far.
    pub fn summary(&self) -> String {
        let one = |kind: &Kind| {
            let [well, killed, out, gave_up] = kind.counts;
            match kind.treatment {
                Treatment::Exact => format!("{} {well}", kind.name),
                Treatment::Rough => format!("{} {well}/{killed}/{out}/{gave_up}", kind.name),
            }
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// Checks that each kind has done something.
    pub fn all_have_worked(&self, report: &mut Report) {
        for kind in &self.0 {
            // Who is killed by us had its time.
            let worked = kind.counts[0] + kind.counts[1] > 0;
            let worked = worked.then_some(()).context("never");
            report.check(format!("{}: it has worked", kind.name), worked);
        }
    }
}

impl Kind {
    /// Runs one program after the other until then.
    fn work(&self, slot: usize, seed: u64, end: Instant) -> Vec<End> {
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
            // The round's own seed says which of two programs runs.
            let seed = match self.treatment {
                Treatment::Exact => seed,
                Treatment::Rough => random.u64(..),
            };
            let done = self
                .run(slot, seed, time, killed)
                .unwrap_or_else(End::Wrong);
            let stop = matches!(done, End::Wrong(_) | End::Hangs(_));
            ends.push(done);
            if stop {
                return ends;
            }
        }
    }

    /// Runs a program to its end.
    fn run(&self, slot: usize, seed: u64, time: Duration, killed: bool) -> Result<End> {
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
        self.place(&child)?;
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

    /// Says where the process belongs, and whether it may be killed for want of memory.
    fn place(&self, child: &Child) -> Result<()> {
        let rough = self.treatment == Treatment::Rough;
        let score = if rough { "900" } else { "-900" };
        fs::write(format!("/proc/{}/oom_score_adj", child.id()), score)?;
        if rough {
            disturb::confine(child.id())?;
        }
        Ok(())
    }

    fn judge(&self, status: ExitStatus, was_killed: bool, said: &str) -> Result<End> {
        let strange = |line: &&str| {
            line.contains(" unexpected=")
                || line.contains(" bitmap=")
                    && !line.contains(" bitmap=expected")
                    && !line.contains(" bitmap=open")
        };
        if let Some(line) = said.lines().find(strange) {
            bail!("{line}");
        }
        if status.success() {
            if self.treatment == Treatment::Exact {
                println!(
                    "{} ended by: {}",
                    self.name,
                    said.lines().last().unwrap_or_default()
                );
            }
            return Ok(End::Well);
        }
        if self.treatment == Treatment::Exact {
            let may_give_up = LIMITED.contains(&self.name) && said.contains("ENOSPC");
            ensure!(may_give_up, "it ended with {status}");
            return Ok(End::GaveUp);
        }
        match (status.signal(), status.code()) {
            (Some(9), _) if was_killed => Ok(End::Killed),
            (Some(9), _) => Ok(End::OutOfMemory),
            // It could not do what it wanted.
            (_, Some(1)) => Ok(End::GaveUp),
            _ => bail!("it ended with {status}"),
        }
    }
}

/// Where the kernel is in each thread of a process and of its children.
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
