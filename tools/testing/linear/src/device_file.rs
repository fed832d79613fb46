// SPDX-License-Identifier: GPL-2.0

//! Runs with device files, groups and iommufds.
//!
//! Each round has iommufds, a container and a second process of its own. The second process has the
//! files that were opened before the threads start.

use crate::{
    agent::{
        Agent,
        Setup,
        serve, //
    },
    target::{
        self,
        Settings,
        Target, //
    },
};
use anyhow::{
    Context,
    Result,
    bail, //
};
use linear::{
    device_files::{
        files::{
            Files,
            Machine,
            Slot,
            Worker,
            check_descriptor, //
        },
        model::Model,
        op::{
            DEVICES,
            GROUPS,
            Op, //
        },
        plan::plan,
    },
    op::Answer,
    plan::Plan, //
};
use std::{
    fs,
    os::fd::{
        AsFd,
        AsRawFd,
        OwnedFd, //
    },
    sync::Arc, //
};
use support::helper::inherited;
use vfio_client::{
    Container,
    Device as DeviceFile,
    Group as GroupFile,
    Iommufd, //
};

impl target::Worker<Op> for Worker {
    fn can(&self, op: &Op) -> bool {
        self.can(op)
    }

    /// The plan has all closes.
    fn has_opened(&self) -> bool {
        false
    }

    fn perform(&mut self, op: &Op) -> Result<Option<Answer>> {
        self.perform(op)
    }
}

/// All device files and groups of the machine.
#[derive(Debug)]
pub struct DeviceFiles {
    model: Model,
    machine: Machine,
    /// The files of the round, and the second process.
    round: Option<(Arc<Files>, Option<Agent>)>,
}

impl DeviceFiles {
    fn files(&self) -> Result<&Arc<Files>> {
        let (files, _) = self.round.as_ref().context("no round has begun")?;
        Ok(files)
    }
}

/// The command of the second process.
pub const AGENT: &str = "device-files";

/// Stands for a file that is not open.
const NONE: &str = "-";

/// Starts the second process with the files that are open now.
fn start_agent(files: &Files, settings: &Settings) -> Result<Agent> {
    let mut words: Vec<_> = files.ioases.iter().map(u32::to_string).collect();
    let mut fds: Vec<OwnedFd> = Vec::new();
    let mut add = |fd: Option<&dyn AsFd>| -> Result<()> {
        let copy = fd.map(|fd| fd.as_fd().try_clone_to_owned()).transpose()?;
        words.push(
            copy.as_ref()
                .map_or(NONE.to_owned(), |fd| fd.as_raw_fd().to_string()),
        );
        fds.extend(copy);
        Ok(())
    };
    add(Some(&files.container))?;
    for iommufd in &files.iommufds {
        add(Some(iommufd))?;
    }
    for device in &files.devices {
        add(device.read().as_ref().map(|device| device as &dyn AsFd))?;
    }
    for group in &files.groups {
        add(group.read().as_ref().map(|group| group as &dyn AsFd))?;
    }
    let fds: Vec<_> = fds.iter().map(|fd| fd as &dyn AsFd).collect();
    Agent::start(AGENT, settings, &words, &fds)
}

/// Takes ownership of the next inherited descriptor, if there is one.
fn next_file<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<Option<OwnedFd>> {
    let word = words.next().context("expected a descriptor")?;
    (word != NONE).then(|| inherited(word)).transpose()
}

/// Runs the second process.
pub fn agent(setup: Setup, words: &[&str]) -> Result<()> {
    check_descriptor()?;
    let [first, second, ref rest @ ..] = words[..] else {
        bail!("expected ids and descriptors, got {words:?}");
    };
    let mut rest = rest.iter().copied();
    let mut file = || -> Result<OwnedFd> { next_file(&mut rest)?.context("expected an open file") };
    let container = Container::from_fd(file()?);
    let iommufds = [Iommufd::from_fd(file()?), Iommufd::from_fd(file()?)];
    let mut devices = Vec::new();
    for _ in DEVICES {
        devices.push(Slot::new(next_file(&mut rest)?.map(DeviceFile::from_fd)));
    }
    let mut groups = Vec::new();
    for _ in GROUPS {
        groups.push(Slot::new(next_file(&mut rest)?.map(GroupFile::from_fd)));
    }
    let all = "as many as there are words";
    let files = Arc::new(Files {
        container,
        iommufds,
        ioases: [first.parse()?, second.parse()?],
        null: fs::File::open("/dev/null")?,
        devices: devices.try_into().ok().context(all)?,
        groups: groups.try_into().ok().context(all)?,
    });
    serve(
        &setup,
        |number| plan(setup.seed, number, setup.rules),
        || Ok(Worker::new(files.clone())),
    )
}

impl Target for DeviceFiles {
    type Op = Op;
    type Worker = Worker;
    type Model = Model;

    fn start(settings: &Settings) -> Result<Self> {
        Ok(Self {
            model: Model {
                rules: settings.judgement,
            },
            machine: Machine::new()?,
            round: None,
        })
    }

    fn model(&self) -> &Model {
        &self.model
    }

    fn plan(settings: &Settings, number: u64) -> Plan<Op> {
        plan(settings.seed, number, settings.choice)
    }

    fn begin(&mut self) -> Result<Worker> {
        let files = Arc::new(self.machine.open_files()?);
        self.round = Some((files.clone(), None));
        Ok(Worker::new(files))
    }

    fn agent(&mut self, settings: &Settings) -> Result<&mut Agent> {
        let (files, agent) = self.round.as_mut().context("no round has begun")?;
        if agent.is_none() {
            *agent = Some(start_agent(files, settings)?);
        }
        agent.as_mut().context("there is no agent")
    }

    fn worker(&self, _alone: &Worker) -> Result<Worker> {
        Ok(Worker::new(self.files()?.clone()))
    }

    fn threads_ended(&mut self) -> Result<()> {
        let agent = self.round.as_mut().and_then(|(_, agent)| agent.take());
        agent.context("there is no agent")?.end()
    }

    fn covers_others(_op: &Op) -> bool {
        false
    }

    fn end(self) -> Result<()> {
        Ok(())
    }
}
