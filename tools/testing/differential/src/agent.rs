// SPDX-License-Identifier: GPL-2.0

//! A second process, which sends requests to the containers that it inherited.
//!
//! It runs this program again. It receives one request per line: the container, the request number,
//! and the structure in hexadecimal. It replies with a line: the result, its locked memory, and the
//! structure.

use crate::{
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
    bail,
    ensure, //
};

use std::{
    io::{
        BufRead,
        stdin, //
    },
    os::fd::{
        AsFd,
        AsRawFd,
        OwnedFd, //
    },
};
use support::{
    helper::{
        self,
        Helper,
        inherited,
        without_ipc_lock, //
    },
    machine::locked_kib, //
};
use vfio_client::{
    Bytes,
    Container,
    Errno,
    PAGE_SIZE,
    raw, //
};

/// Stands for no container or no limit.
const NONE: &str = "-";

/// A running agent.
#[derive(Debug)]
pub struct Agent(Helper);

impl Agent {
    /// Starts an agent with all containers. With `pages`, the agent can lock at most that many
    /// pages.
    pub fn start(containers: &[Option<Container>; CONTAINERS], pages: Option<u64>) -> Result<Self> {
        let number = |container: &Option<Container>| {
            let fd = container.as_ref().map(|container| container.as_fd());
            fd.map_or(NONE.to_owned(), |fd| fd.as_raw_fd().to_string())
        };
        let mut words = vec![pages.map_or(NONE.to_owned(), |pages| pages.to_string())];
        words.extend(containers.iter().map(number));
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let fds = containers.iter().flatten().map(|fd| fd as &dyn AsFd);
        let mut agent = Self(Helper::spawn(&words, &fds.collect::<Vec<_>>())?);
        agent.line()?;
        Ok(agent)
    }

    fn line(&mut self) -> Result<String> {
        let line = self.0.line()?;
        ensure!(!line.is_empty(), "the agent has ended");
        Ok(line)
    }

    /// Makes the agent send a request.
    pub fn send(&mut self, container: usize, request: &Request) -> Result<Outcome> {
        let structure = hex(request.structure().as_ref());
        let nr = request.nr;
        self.0.write(format!("{container} {nr} {structure}"))?;
        let line = self.line()?;
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let [ok, number, locked, ref rest @ ..] = words[..] else {
            bail!("expected a result, a number and a size, got {line:?}");
        };
        let number: i64 = number.parse()?;
        let result = if ok == "ok" {
            Ok(number)
        } else {
            Err(Errno::from_raw(number as i32))
        };
        let bytes = unhex(rest.first().unwrap_or(&"")).context("expected bytes in hexadecimal")?;
        let outcome = Outcome {
            result,
            bytes,
            fields: Vec::new(),
            page: None,
        };
        Ok(outcome.with("locked", locked))
    }

    /// Ends the agent and waits for its exit.
    pub fn end(self) -> Result<()> {
        self.0.finish()
    }
}

/// Runs the agent if this program was started as one, and returns its result.
pub fn main_if_asked() -> Option<Result<()>> {
    helper::command().map(|words| main(&words))
}

/// Executes requests until the end of the input.
fn main(words: &[String]) -> Result<()> {
    let (pages, fds) = words
        .split_first()
        .context("expected a limit and descriptors")?;
    if pages != NONE {
        without_ipc_lock(pages.parse::<u64>()? * PAGE_SIZE as u64)?;
    }
    let containers: Vec<Option<OwnedFd>> = fds
        .iter()
        .map(|fd| (fd != NONE).then(|| inherited(fd)).transpose())
        .collect::<Result<_>>()?;
    let _memory = Memory::new()?;
    println!("ready");
    for line in stdin().lock().lines() {
        let line = line?;
        let mut words = line.split_ascii_whitespace();
        let container: usize = words.next().context("expected a container")?.parse()?;
        let nr = words.next().context("expected a request number")?.parse()?;
        let structure =
            unhex(words.next().unwrap_or("")).context("expected bytes in hexadecimal")?;
        let container = containers[container]
            .as_ref()
            .context("this container is not open")?;
        let mut bytes = Bytes::new().raw(&structure);
        let answer = match raw::bytes(container, nr, &mut bytes) {
            Ok(value) => format!("ok {value}"),
            Err(errno) => format!("error {}", errno as i32),
        };
        println!("{answer} {} {}", locked_kib(), hex(bytes.as_ref()));
    }
    Ok(())
}

/// Returns whether an agent can send a request: it must have a structure.
pub fn can_send(request: &Request) -> bool {
    matches!(request.argument, Argument::Bytes(_))
}
