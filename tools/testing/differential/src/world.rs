// SPDX-License-Identifier: GPL-2.0

//! Executes the steps.

use crate::{
    agent::Agent,
    machine::{
        DEVICES,
        EDU,
        PARAMETERS,
        open_group,
        read_parameter,
        write_parameter, //
    },
    memory::{
        Change,
        Memory, //
    },
    request::{
        Argument,
        Request, //
    },
    step::{
        AGENTS,
        Bitmap,
        CONTAINERS,
        COPIES,
        File,
        Step, //
    },
    trace::Outcome, //
};
use anyhow::{
    Context,
    Result, //
};
use std::os::fd::{
    AsFd,
    AsRawFd,
    BorrowedFd, //
};
use support::machine::locked_kib;
use vfio_client::{
    Container,
    Device,
    Errno,
    Group,
    raw, //
};

/// The files and processes that the steps use.
#[derive(Debug)]
pub struct World {
    containers: [Option<Container>; CONTAINERS],
    groups: [Option<Group>; DEVICES.len()],
    devices: [[Option<Device>; COPIES]; DEVICES.len()],
    null: std::fs::File,
    agents: [Option<Agent>; AGENTS],
    memory: Memory,
    /// The initial values of the parameters.
    parameters: [(&'static str, String); PARAMETERS.len()],
}

impl World {
    /// Creates a world in which nothing is open.
    pub fn new() -> Result<Self> {
        Ok(Self {
            containers: Default::default(),
            groups: Default::default(),
            devices: Default::default(),
            null: std::fs::File::open("/dev/null")?,
            agents: Default::default(),
            memory: Memory::new()?,
            parameters: PARAMETERS.map(|name| (name, read_parameter(name))),
        })
    }

    /// Executes a step. An error means that the step could not be executed at all.
    pub fn perform(&mut self, step: &Step) -> Result<Outcome> {
        let outcome = match step {
            Step::Open(file) => self.open(*file)?,
            Step::Close(file) => self.close(*file),
            Step::OpenDevice { group, copy, name } => self.open_device(*group, *copy, name)?,
            Step::Join(group, file) => self.join(*group, *file)?,
            Step::Send {
                file,
                request,
                bitmap,
            } => self.send(*file, request, bitmap.as_ref())?,
            Step::Delegate(agent, container, request) => {
                let agent = self.agents[*agent]
                    .as_mut()
                    .context("the agent is not running")?;
                return agent.send(*container, request);
            }
            Step::Read(file, offset, len) => self.read(*file, *offset, *len)?,
            Step::Memory(piece, change) => self.change(*piece, *change),
            Step::Parameter(name, value) => {
                let written = write_parameter(name, value);
                let errno = |e: std::io::Error| Errno::from_raw(e.raw_os_error().unwrap_or(0));
                Outcome::of(written.map_err(errno)).with("is", read_parameter(name))
            }
            Step::Hire(agent, pages) => {
                self.agents[*agent] = Some(Agent::start(&self.containers, *pages)?);
                Outcome::of(Ok::<_, Errno>(()))
            }
            Step::Dismiss(agent) => {
                self.agents[*agent]
                    .take()
                    .context("the agent is not running")?
                    .end()?;
                Outcome::of(Ok::<_, Errno>(()))
            }
        };
        Ok(outcome.with("locked", locked_kib()))
    }

    /// Closes everything and restores the parameters.
    pub fn finish(mut self) -> Result<()> {
        for agent in self.agents.iter_mut().filter_map(Option::take) {
            agent.end()?;
        }
        self.memory.clear()?;
        self.devices = Default::default();
        self.groups = Default::default();
        self.containers = Default::default();
        for (name, value) in &self.parameters {
            write_parameter(name, value).with_context(|| name.to_string())?;
        }
        Ok(())
    }

    /// Returns the descriptor of an open file.
    fn fd(&self, file: File) -> Result<BorrowedFd<'_>> {
        match file {
            File::Container(slot) => self.containers[slot].as_ref().map(AsFd::as_fd),
            File::Group(nth) => self.groups[nth].as_ref().map(AsFd::as_fd),
            File::Device(nth, copy) => self.devices[nth][copy].as_ref().map(AsFd::as_fd),
            File::Null => Some(self.null.as_fd()),
        }
        .with_context(|| format!("{file} is not open"))
    }

    fn open(&mut self, file: File) -> Result<Outcome> {
        match file {
            File::Container(slot) => {
                let opened = Container::open().map_err(|e| e.errno());
                let outcome = Outcome::of(opened.as_ref().map_err(|e| *e));
                self.containers[slot] = opened.ok();
                Ok(outcome)
            }
            File::Group(nth) => {
                let opened = open_group(nth)?.map_err(|e| e.errno());
                let outcome = Outcome::of(opened.as_ref().map_err(|e| *e));
                // A failed open leaves a group open that is open already.
                if let Ok(group) = opened {
                    self.groups[nth] = Some(group);
                }
                Ok(outcome)
            }
            File::Device(..) | File::Null => anyhow::bail!("{file} cannot be opened by path"),
        }
    }

    fn close(&mut self, file: File) -> Outcome {
        match file {
            File::Container(slot) => self.containers[slot] = None,
            File::Group(nth) => self.groups[nth] = None,
            File::Device(nth, copy) => self.devices[nth][copy] = None,
            File::Null => (),
        }
        Outcome::of(Ok::<_, Errno>(()))
    }

    fn open_device(&mut self, group: usize, copy: usize, name: &str) -> Result<Outcome> {
        let file = self.groups[group]
            .as_ref()
            .context("the group is not open")?;
        let opened = file.device(name).map_err(|e| e.errno());
        let outcome = Outcome::of(opened.as_ref().map_err(|e| *e));
        if let Ok(device) = opened {
            self.devices[group][copy] = Some(device);
        }
        Ok(outcome)
    }

    fn join(&mut self, group: usize, file: Option<File>) -> Result<Outcome> {
        let number = match file {
            Some(file) => self.fd(file)?.as_raw_fd(),
            None => -1,
        };
        let group = self.groups[group]
            .as_ref()
            .context("the group is not open")?;
        Ok(Outcome::of(
            group.set_container_fd(number).map_err(|e| e.errno()),
        ))
    }

    fn send(&mut self, file: File, request: &Request, bitmap: Option<&Bitmap>) -> Result<Outcome> {
        if let Some(bitmap) = bitmap {
            self.memory.prepare_bitmap(bitmap.fill)?;
        }
        let fd = self.fd(file)?;
        let mut structure = request.structure();
        let result = match &request.argument {
            Argument::Value(value) => raw::value(fd, request.nr, *value),
            Argument::Bytes(_) => raw::bytes(fd, request.nr, &mut structure),
        };
        let outcome = Outcome {
            result: result.map(i64::from),
            bytes: structure.as_ref().to_vec(),
            fields: Vec::new(),
            page: None,
        };
        let page = bitmap.map(|_| self.memory.bitmap()).transpose()?;
        Ok(Outcome { page, ..outcome })
    }

    fn read(&self, file: File, offset: u64, len: usize) -> Result<Outcome> {
        let mut bytes = vec![0xa5; len];
        let result = raw::pread(self.fd(file)?, &mut bytes, offset);
        Ok(Outcome {
            result: result.map(|done| done as i64),
            bytes,
            fields: Vec::new(),
            page: None,
        })
    }

    fn change(&mut self, piece: u64, change: Change) -> Outcome {
        let device = self.devices[EDU].iter().flatten().next();
        let changed = self.memory.change(piece, change, device);
        Outcome::of(changed.map_err(|e| e.errno()))
    }
}
