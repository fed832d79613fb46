// SPDX-License-Identifier: GPL-2.0

//! The second process: this program run again, with the descriptors of the first one.
//!
//! It receives the number of a round as a line and creates the plan of that round on its own. It
//! replies with a line for each request of its threads, then `done`.

use crate::{
    container, device_file,
    round::{
        Crew,
        Record,
        Report,
        Sync, //
    },
    target::{
        Request,
        Settings,
        Worker, //
    },
};
use anyhow::{
    Context,
    Result,
    bail,
    ensure, //
};
use linear::{
    defects::Rules,
    history::Entry,
    op::Answer,
    plan::Plan, //
};
use std::{
    fs::File,
    io::{
        BufRead,
        stdin, //
    },
    os::fd::{
        AsFd,
        AsRawFd, //
    },
    sync::{
        Arc,
        mpsc::Receiver, //
    },
    time::Duration, //
};
use support::helper::{
    Helper,
    inherited, //
};
use vfio_client::Errno;

/// The second process, as seen by the first one.
#[derive(Debug)]
pub struct Agent {
    helper: Helper,
    lines: Receiver<String>,
}

impl Agent {
    /// Starts the process with a command, its further arguments and the descriptors that it needs.
    pub fn start(
        command: &str,
        settings: &Settings,
        arguments: &[String],
        fds: &[&dyn AsFd],
    ) -> Result<Self> {
        let counters = &settings.sync.1;
        let mut words = vec![command.to_owned(), settings.seed.to_string()];
        words.push(u8::from(settings.choice == Rules::C).to_string());
        words.push(settings.patience.to_string());
        words.push(counters.as_raw_fd().to_string());
        words.extend_from_slice(arguments);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let mut fds = fds.to_vec();
        fds.push(counters);
        let mut helper = Helper::spawn(&words, &fds)?;
        let lines = helper.lines()?;
        let agent = Self { helper, lines };
        let line = agent.line(Duration::from_secs(settings.patience))?;
        ensure!(line == "ready", "the agent printed {line:?}, not \"ready\"");
        Ok(agent)
    }

    /// Returns the process id.
    pub fn process(&self) -> u32 {
        self.helper.id()
    }

    /// Starts a round.
    pub fn begin(&mut self, number: u64, arrivals: u64) -> Result<()> {
        self.helper.write(format!("{number} {arrivals}"))
    }

    fn line(&self, patience: Duration) -> Result<String> {
        let line = self.lines.recv_timeout(patience);
        line.with_context(|| format!("the agent printed nothing for {} s", patience.as_secs()))
    }

    /// Waits for the end of the agent's part of a round.
    pub fn finish<O: Request>(&self, plan: &Plan<O>, patience: Duration) -> Result<Report<O>> {
        let mut report = Report {
            records: Vec::new(),
            hung: false,
        };
        loop {
            let line = self.line(patience)?;
            match line.as_str() {
                "done" => return Ok(report),
                "hung" => report.hung = true,
                _ => report
                    .records
                    .push(parse(plan, &line).with_context(|| line.clone())?),
            }
        }
    }

    /// Ends the agent and waits for its exit.
    pub fn end(self) -> Result<()> {
        self.helper.finish()
    }
}

/// Formats a request as a line: thread, place in the plan, times, answer.
fn print<O: Request>(record: &Record<O>) -> String {
    let entry = &record.entry;
    let start = format!("{} {} {}", entry.call.thread, record.place, entry.invoked);
    match (entry.returned, &entry.answer) {
        (Some(returned), Some(Ok(numbers))) => {
            let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
            format!("{start} {returned} ok {}", numbers.join(" "))
        }
        (Some(returned), Some(Err(errno))) => format!("{start} {returned} error {}", *errno as i32),
        _ => start,
    }
}

/// Parses the output of [`print`].
fn parse<O: Request>(plan: &Plan<O>, line: &str) -> Result<Record<O>> {
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    let [thread, place, invoked, ref rest @ ..] = words[..] else {
        bail!("expected a thread, a place and a time");
    };
    let (thread, place): (usize, usize) = (thread.parse()?, place.parse()?);
    let call = plan
        .call(thread, place)
        .context("the plan has no such request")?;
    let mut entry = Entry::pending(call, invoked.parse()?);
    if let [returned, how, ref numbers @ ..] = rest[..] {
        let numbers = numbers.iter().map(|number| number.parse::<u64>());
        let numbers: Vec<_> = numbers.collect::<Result<_, _>>()?;
        let answer: Answer = match (how, &numbers[..]) {
            ("error", [errno]) => Err(Errno::from_raw(*errno as i32)),
            _ => Ok(numbers),
        };
        entry.returned = Some(returned.parse()?);
        entry.answer = Some(answer);
    }
    Ok(Record { place, entry })
}

/// What the second process was started with.
#[derive(Debug)]
pub struct Setup {
    /// The seed of all rounds.
    pub seed: u64,
    /// The rules by which requests are chosen.
    pub rules: Rules,
    /// The counters of both processes.
    sync: Arc<Sync>,
    /// The timeout of a round.
    patience: Duration,
}

/// Runs the second process.
pub fn main(words: &[String]) -> Result<()> {
    let [command, seed, rules, patience, sync, ref rest @ ..] =
        words.iter().map(String::as_str).collect::<Vec<_>>()[..]
    else {
        bail!("expected a command, a seed, rules, a time and descriptors, got {words:?}");
    };
    let setup = Setup {
        seed: seed.parse()?,
        rules: if rules == "1" {
            Rules::C
        } else {
            Rules::Strict
        },
        sync: Arc::new(Sync::new(&File::from(inherited(sync)?))?),
        patience: Duration::from_secs(patience.parse()?),
    };
    match command {
        container::AGENT => container::agent(setup, rest),
        device_file::AGENT => device_file::agent(setup, rest),
        other => bail!("there is no command {other:?}"),
    }
}

/// Executes its part of each requested round.
pub fn serve<O: Request, W: Worker<O>>(
    setup: &Setup,
    plan: impl Fn(u64) -> Plan<O>,
    mut new_worker: impl FnMut() -> Result<W>,
) -> Result<()> {
    println!("ready");
    for line in stdin().lock().lines() {
        let line = line?;
        let (number, arrivals) = line
            .split_once(' ')
            .context("expected a round and a number of arrivals")?;
        let plan = Arc::new(plan(number.parse()?));
        let crew = Crew::start(&mut new_worker, &setup.sync, &plan, 1, arrivals.parse()?)?;
        let report = crew.finish(setup.patience)?;
        let mut lines: Vec<_> = report.records.iter().map(print).collect();
        lines.extend(report.hung.then(|| "hung".to_owned()));
        println!("{}", [&lines[..], &["done".to_owned()]].concat().join("\n"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_can_be_read_again() {
        let plan = Plan::new(1, 1, Rules::Strict);
        let call = plan.call(0, 0).unwrap();
        let entries = [
            Entry::pending(call, 7),
            Entry::new(call, 7, 9, Ok(vec![])),
            Entry::new(call, 7, 9, Ok(vec![4096, u64::MAX])),
            Entry::new(call, 7, 9, Err(Errno::ENOSPC)),
        ];
        for entry in entries {
            let read = parse(
                &plan,
                &print(&Record {
                    place: 0,
                    entry: entry.clone(),
                }),
            )
            .unwrap();
            assert_eq!(read.entry, entry);
        }
    }
}
