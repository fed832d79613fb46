// SPDX-License-Identifier: GPL-2.0

//! The second process: this program run again, with the descriptors of the first one.
//!
//! It receives the number of a round as a line and creates the plan of that round on its own. It
//! replies with a line for each request of its threads, then `done`.

use crate::{
    files::Files,
    machine::map_memory,
    round::{
        Crew,
        Record,
        Report,
        Sync, //
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
    op::{
        Answer,
        PAGE, //
    },
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
    inherited,
    without_ipc_lock, //
};
use vfio_client::{
    Container,
    Errno,
    Group as GroupFile, //
};

/// The maximum number of pages that it can lock.
pub const LIMIT: u64 = 14;

/// The second process, as seen by the first one.
#[derive(Debug)]
pub struct Agent {
    helper: Helper,
    lines: Receiver<String>,
}

impl Agent {
    /// Starts the process with the descriptors that it needs. It waits for the end of a round for
    /// `patience` seconds.
    pub fn start(
        container: &Container,
        groups: &[GroupFile],
        memory: &File,
        sync: &File,
        seed: u64,
        rules: Rules,
        patience: u64,
    ) -> Result<Self> {
        let mut fds: Vec<&dyn AsFd> = vec![container, memory, sync];
        fds.extend(groups.iter().map(|group| group as &dyn AsFd));
        let mut words = vec![seed.to_string()];
        words.push(u8::from(rules == Rules::C).to_string());
        words.push(patience.to_string());
        words.extend(fds.iter().map(|fd| fd.as_fd().as_raw_fd().to_string()));
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let mut helper = Helper::spawn(&words, &fds)?;
        let lines = helper.lines()?;
        let agent = Self { helper, lines };
        let line = agent.line(Duration::from_secs(patience))?;
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
    pub fn finish(&self, plan: &Plan, patience: Duration) -> Result<Report> {
        let mut report = Report::default();
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
fn print(record: &Record) -> String {
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
fn parse(plan: &Plan, line: &str) -> Result<Record> {
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

/// Executes its part of each requested round.
pub fn main(words: &[String]) -> Result<()> {
    let [
        seed,
        rules,
        patience,
        container,
        memory,
        sync,
        ref groups @ ..,
    ] = words.iter().map(String::as_str).collect::<Vec<_>>()[..]
    else {
        bail!("expected a seed, rules, a time and descriptors, got {words:?}");
    };
    without_ipc_lock(LIMIT * PAGE)?;
    let seed = seed.parse()?;
    let rules = if rules == "1" {
        Rules::C
    } else {
        Rules::Strict
    };
    let patience = Duration::from_secs(patience.parse()?);
    let memory = File::from(inherited(memory)?);
    let groups = groups
        .iter()
        .map(|word| Ok(GroupFile::from_fd(inherited(word)?)));
    let sync = Arc::new(Sync::new(&File::from(inherited(sync)?))?);
    let _arena = map_memory(&memory)?;
    let files = Arc::new(Files {
        container: Container::from_fd(inherited(container)?),
        groups: groups.collect::<Result<_>>()?,
        memory,
        processes: [std::os::unix::process::parent_id(), std::process::id()],
    });
    println!("ready");
    for line in stdin().lock().lines() {
        let line = line?;
        let (number, arrivals) = line
            .split_once(' ')
            .context("expected a round and a number of arrivals")?;
        let plan = Arc::new(Plan::new(seed, number.parse()?, rules));
        let crew = Crew::start(&files, &sync, &plan, 1, None, arrivals.parse()?)?;
        let report = crew.finish(patience)?;
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
