// SPDX-License-Identifier: GPL-2.0

//! The two kinds of runs: requests to a container, and requests to device files.

use crate::{
    agent::Agent,
    round::Sync, //
};
use anyhow::Result;
use linear::{
    checker::Model,
    defects::Rules,
    op::{
        Answer,
        Call, //
    },
    plan::Plan, //
};
use std::{
    fmt::{
        Debug,
        Display, //
    },
    fs::File,
    sync::Arc, //
};

/// The settings of a session.
#[derive(Debug)]
pub struct Settings {
    /// The seed of all rounds.
    pub seed: u64,
    /// The rules by which requests are chosen.
    pub choice: Rules,
    /// The rules by which answers are judged.
    pub judgement: Rules,
    /// The timeout of a round in seconds.
    pub patience: u64,
    /// The counters of both processes, and their memory.
    pub sync: (Arc<Sync>, File),
}

/// A thread of a round, with the files that it opened.
pub trait Worker<O>: Send + 'static {
    /// Returns whether a request can be sent: some requests need an open file.
    fn can(&self, op: &O) -> bool;

    /// Returns whether the request that closes a file is to be sent again.
    fn has_opened(&self) -> bool;

    /// Sends a request. Returns `None` if another thread has closed the file meanwhile, so that
    /// nothing was sent. An error means that it cannot be sent at all.
    fn perform(&mut self, op: &O) -> Result<Option<Answer>>;
}

/// A request.
pub trait Request: Copy + Debug + Display + Send + std::marker::Sync + 'static {}

impl<O: Copy + Debug + Display + Send + std::marker::Sync + 'static> Request for O {}

/// What the requests of a run are sent to.
pub trait Target: Sized {
    /// A request.
    type Op: Request;
    /// A thread.
    type Worker: Worker<Self::Op>;
    /// The sequential model.
    type Model: Model<Call = Call<Self::Op>, Answer = Answer, State: Default>;

    /// Opens what all rounds use.
    fn start(settings: &Settings) -> Result<Self>;

    /// Returns the model that judges the answers.
    fn model(&self) -> &Self::Model;

    /// Returns the plan of a round.
    fn plan(settings: &Settings, number: u64) -> Plan<Self::Op>;

    /// Starts a round. Returns the worker for the requests that are sent sequentially.
    fn begin(&mut self) -> Result<Self::Worker>;

    /// Returns the second process, which has all files that are shared now.
    fn agent(&mut self, settings: &Settings) -> Result<&mut Agent>;

    /// Returns a worker for a thread of this process.
    fn worker(&self, alone: &Self::Worker) -> Result<Self::Worker>;

    /// Records that the threads of both processes have ended.
    fn threads_ended(&mut self) -> Result<()>;

    /// Returns whether a request covers what other programs do, too.
    fn covers_others(op: &Self::Op) -> bool;

    /// Closes everything, and checks that nothing is left.
    fn end(self) -> Result<()>;
}
