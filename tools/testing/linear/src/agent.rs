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
    bail, //
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
use nix::{
    fcntl::{
        FcntlArg,
        FdFlag,
        fcntl, //
    },
    sys::resource::{
        Resource,
        setrlimit, //
    },
};
use std::{
    fs::File,
    io::{
        BufRead,
        BufReader,
        Write,
        stdin, //
    },
    os::fd::{
        AsFd,
        AsRawFd,
        BorrowedFd,
        OwnedFd, //
    },
    process::{
        Child,
        ChildStdin,
        Command,
        Stdio, //
    },
    sync::{
        Arc,
        mpsc::{
            Receiver,
            channel, //
        },
    },
    thread,
    time::Duration, //
};
use vfio_client::{
    Container,
    Errno,
    Group as GroupFile,
    raw, //
};

/// The first argument of the second process.
pub const FLAG: &str = "--agent";

/// The maximum number of pages that it can lock.
pub const LIMIT: u64 = 14;

/// The second process, as seen by the first one.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Agent {
    /// Starts the process with the descriptors that it needs.
    pub fn start(
        container: &Container,
        groups: &[GroupFile],
        memory: &File,
        sync: &File,
        seed: u64,
        rules: Rules,
        patience: u64,
    ) -> Result<Self> {
        let mut fds = vec![container.as_fd(), memory.as_fd(), sync.as_fd()];
        fds.extend(groups.iter().map(AsFd::as_fd));
        let inheritable = |flags| fds.iter().try_for_each(|fd| set_flags(*fd, flags));
        let mut command = Command::new("/proc/self/exe");
        command.arg(FLAG).arg(seed.to_string());
        command.arg(u8::from(rules == Rules::C).to_string());
        command.arg(patience.to_string());
        command.args(fds.iter().map(|fd| fd.as_raw_fd().to_string()));
        inheritable(FdFlag::empty())?;
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        inheritable(FdFlag::FD_CLOEXEC)?;
        let mut child = child.context("agent")?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let (sender, lines) = channel();
        // This thread ends with the agent, or when the receiver is dropped.
        thread::spawn(move || {
            let mut lines = output.lines().map_while(Result::ok);
            while lines.next().is_some_and(|line| sender.send(line).is_ok()) {}
        });
        let mut agent = Self {
            child,
            input,
            lines,
        };
        if agent.line(Duration::from_secs(patience))? != "ready" {
            bail!("the agent is not ready");
        }
        Ok(agent)
    }

    /// Returns the process id.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Starts a round.
    pub fn begin(&mut self, number: u64, arrivals: u64) -> Result<()> {
        writeln!(self.input, "{number} {arrivals}").context("agent")
    }

    fn line(&mut self, patience: Duration) -> Result<String> {
        self.lines
            .recv_timeout(patience)
            .context("the agent says nothing")
    }

    /// Waits for the end of the agent's part of a round.
    pub fn finish(&mut self, plan: &Plan, patience: Duration) -> Result<Report> {
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
    pub fn end(mut self) -> Result<()> {
        drop(self.input);
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "the agent ended with {status}");
        Ok(())
    }
}

fn set_flags(fd: BorrowedFd<'_>, flags: FdFlag) -> Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(flags)).context("F_SETFD")?;
    Ok(())
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
        bail!("too short");
    };
    let (thread, place): (usize, usize) = (thread.parse()?, place.parse()?);
    let call = plan.call(thread, place).context("no such thread")?;
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

/// Limits the locked memory and drops CAP_IPC_LOCK.
fn limit() -> Result<()> {
    setrlimit(Resource::RLIMIT_MEMLOCK, LIMIT * PAGE, LIMIT * PAGE)?;
    for set in [
        caps::CapSet::Effective,
        caps::CapSet::Permitted,
        caps::CapSet::Inheritable,
    ] {
        caps::drop(None, set, caps::Capability::CAP_IPC_LOCK)?;
    }
    Ok(())
}

/// Takes ownership of an inherited descriptor.
fn adopt(word: &str) -> Result<OwnedFd> {
    let number = word.parse()?;
    let fd = raw::duplicate(number)?;
    nix::unistd::close(number)?;
    Ok(fd)
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
        bail!("which descriptors?");
    };
    limit()?;
    let seed = seed.parse()?;
    let rules = if rules == "1" {
        Rules::C
    } else {
        Rules::Strict
    };
    let patience = Duration::from_secs(patience.parse()?);
    let memory = File::from(adopt(memory)?);
    let groups = groups
        .iter()
        .map(|word| Ok(GroupFile::from_fd(adopt(word)?)));
    let sync = Arc::new(Sync::new(&File::from(adopt(sync)?))?);
    let _arena = map_memory(&memory)?;
    let files = Arc::new(Files {
        container: Container::from_fd(adopt(container)?),
        groups: groups.collect::<Result<_>>()?,
        memory,
        processes: [std::os::unix::process::parent_id(), std::process::id()],
    });
    println!("ready");
    for line in stdin().lock().lines() {
        let line = line?;
        let (number, arrivals) = line.split_once(' ').context("which round?")?;
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
