// SPDX-License-Identifier: GPL-2.0

//! A second process, which sends requests to the containers that it inherited.
//!
//! It runs this program again. It receives one request per line: the container, the request number,
//! and the structure in hexadecimal. It replies with a line: the result, its locked memory, and the
//! structure.

use crate::{
    machine::locked,
    memory::Memory,
    request::{
        Argument,
        Request, //
    },
    step::CONTAINERS,
    trace::{
        Outcome,
        hex,
        unhex, //
    },
};
use anyhow::{
    Context,
    Result,
    bail, //
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
    io::{
        BufRead,
        BufReader,
        Write,
        stdin, //
    },
    os::fd::{
        AsRawFd,
        OwnedFd, //
    },
    process::{
        Child,
        ChildStdin,
        ChildStdout,
        Command,
        Stdio, //
    },
};
use vfio_client::{
    Bytes,
    Container,
    Errno,
    raw, //
};

/// The first argument of an agent.
const FLAG: &str = "--agent";

/// Stands for no container or no limit.
const NONE: &str = "-";

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Agent {
    /// Starts an agent with all containers. With `pages`, the agent can lock at most that many
    /// pages.
    pub fn start(containers: &[Option<Container>; CONTAINERS], pages: Option<u64>) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg(FLAG);
        command.arg(pages.map_or(NONE.to_owned(), |pages| pages.to_string()));
        let inheritable = |flags| -> Result<()> {
            for container in containers.iter().flatten() {
                fcntl(container, FcntlArg::F_SETFD(flags))?;
            }
            Ok(())
        };
        for container in containers {
            let fd = container
                .as_ref()
                .map(|c| std::os::fd::AsFd::as_fd(c).as_raw_fd());
            command.arg(fd.map_or(NONE.to_owned(), |fd| fd.to_string()));
        }
        inheritable(FdFlag::empty())?;
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        inheritable(FdFlag::FD_CLOEXEC)?;
        let mut child = child.context("agent")?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let mut agent = Self {
            child,
            input,
            output,
        };
        agent.line()?;
        Ok(agent)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line.is_empty() {
            bail!("the agent ended");
        }
        Ok(line)
    }

    /// Makes the agent send a request.
    pub fn send(&mut self, container: usize, request: &Request) -> Result<Outcome> {
        let structure = hex(request.structure().as_ref());
        writeln!(self.input, "{container} {} {structure}", request.nr)?;
        let line = self.line()?;
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let [ok, number, locked, ref rest @ ..] = words[..] else {
            bail!("the agent said {line:?}");
        };
        let number: i64 = number.parse()?;
        let result = if ok == "ok" {
            Ok(number)
        } else {
            Err(Errno::from_raw(number as i32))
        };
        let bytes = unhex(rest.first().unwrap_or(&"")).context("no bytes")?;
        let outcome = Outcome {
            result,
            bytes,
            fields: Vec::new(),
            page: None,
        };
        Ok(outcome.with("locked", locked))
    }

    /// Ends the agent and waits for its exit.
    pub fn end(mut self) -> Result<()> {
        drop(self.input);
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "the agent ended with {status}");
        Ok(())
    }
}

/// Limits the locked memory and drops CAP_IPC_LOCK.
fn limit(pages: u64) -> Result<()> {
    setrlimit(Resource::RLIMIT_MEMLOCK, pages * 4096, pages * 4096)?;
    for set in [
        caps::CapSet::Effective,
        caps::CapSet::Permitted,
        caps::CapSet::Inheritable,
    ] {
        caps::drop(None, set, caps::Capability::CAP_IPC_LOCK)?;
    }
    Ok(())
}

/// Runs the agent if this program was started as one, and returns its result.
pub fn main_if_asked() -> Option<Result<()>> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    let (flag, words) = words.split_first()?;
    (flag == FLAG).then(|| main(words))
}

/// Executes requests until the end of the input.
fn main(words: &[String]) -> Result<()> {
    let (pages, fds) = words.split_first().context("no limit")?;
    if pages != NONE {
        limit(pages.parse()?)?;
    }
    let containers: Vec<Option<OwnedFd>> = fds
        .iter()
        .map(|fd| {
            (fd != NONE)
                .then(|| Ok(raw::duplicate(fd.parse()?)?))
                .transpose()
        })
        .collect::<Result<_>>()?;
    for fd in fds.iter().filter(|fd| *fd != NONE) {
        nix::unistd::close(fd.parse::<i32>()?)?;
    }
    let _memory = Memory::new()?;
    println!("ready");
    for line in stdin().lock().lines() {
        let line = line?;
        let mut words = line.split_ascii_whitespace();
        let container: usize = words.next().context("which container?")?.parse()?;
        let nr = words.next().context("which request?")?.parse()?;
        let structure = unhex(words.next().unwrap_or("")).context("no bytes")?;
        let container = containers[container].as_ref().context("no container")?;
        let mut bytes = Bytes::new().raw(&structure);
        let answer = match raw::bytes(container, nr, &mut bytes) {
            Ok(value) => format!("ok {value}"),
            Err(errno) => format!("error {}", errno as i32),
        };
        println!("{answer} {} {}", locked(), hex(bytes.as_ref()));
    }
    Ok(())
}

/// Returns whether an agent can send a request: it must have a structure.
pub fn can_send(request: &Request) -> bool {
    matches!(request.argument, Argument::Bytes(_))
}
