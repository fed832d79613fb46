// SPDX-License-Identifier: GPL-2.0

//! The sequence of rounds.

use crate::{
    round::{
        Crew,
        Record,
        Report,
        perform, //
    },
    show,
    target::{
        Settings,
        Target,
        Worker, //
    },
};
use anyhow::Result;
use linear::{
    checker::{
        Model,
        Verdict,
        check, //
    },
    history::Entry,
    op::{
        ALONE,
        Answer,
        Call, //
    },
    plan::Plan,
};
use std::{
    fs,
    process::exit,
    sync::Arc,
    thread,
    time::Duration, //
};

/// The maximum number of points that a search visits.
const BUDGET: usize = 400_000;

/// The results of all rounds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// The number of rounds.
    pub rounds: u64,
    /// The number of requests.
    pub requests: u64,
    /// The number of rounds without an explanation.
    pub violations: u64,
    /// The number of rounds whose search exceeded its budget.
    pub undecided: u64,
    /// The number of requests that were sent before an earlier request returned.
    pub overlapping: u64,
}

/// All requests of a round.
type History<O> = Vec<Entry<Call<O>, Answer>>;

/// Returns the number of requests that were sent before an earlier request returned.
fn overlapping<C, A>(history: &[Entry<C, A>]) -> u64 {
    let mut last = 0;
    let mut count = 0;
    for entry in history {
        count += u64::from(entry.invoked < last);
        last = last.max(entry.returned.unwrap_or(u64::MAX));
    }
    count
}

/// The processes and their open files.
#[derive(Debug)]
pub struct Session<T> {
    target: T,
    settings: Settings,
    arrivals: u64,
    patience: Duration,
    /// Whether other programs use VFIO, too.
    shared: bool,
}

impl<T: Target> Session<T> {
    /// Opens all files and starts the second process.
    pub fn start(settings: Settings, shared: bool) -> Result<Self> {
        Ok(Self {
            target: T::start(&settings)?,
            arrivals: 0,
            // The agent's own timeout ends first, so that it can report its threads.
            patience: Duration::from_secs(settings.patience + 20),
            settings,
            shared,
        })
    }

    /// Executes a round and checks it.
    pub fn round(&mut self, number: u64, tally: &mut Tally) -> Result<()> {
        println!("round {number}");
        let plan = Arc::new(T::plan(&self.settings, number));
        let (history, hung) = self.play(number, &plan)?;
        tally.rounds += 1;
        tally.requests += history.len() as u64;
        tally.overlapping += overlapping(&history);
        if hung {
            self.give_up(number, &history);
        }
        let start = <T::Model as Model>::State::default();
        match check(self.target.model(), &start, &history, BUDGET) {
            Verdict::Linearizable(_) => (),
            Verdict::Undecided => tally.undecided += 1,
            verdict => {
                tally.violations += 1;
                println!("# seed {} round {number}:", self.settings.seed);
                print!(
                    "{}",
                    show::violation(self.target.model(), &history, &verdict)
                );
            }
        }
        Ok(())
    }

    /// Sends all requests of a round. Returns them, and whether a request has not returned.
    fn play(&mut self, number: u64, plan: &Arc<Plan<T::Op>>) -> Result<(History<T::Op>, bool)> {
        let mut history = Vec::new();
        let mut alone = self.target.begin()?;
        self.one_by_one(&mut alone, &plan.prologue, &mut history)?;
        let Report { records, hung } = self.at_once(number, plan, &alone)?;
        let mut records: Vec<Record<T::Op>> = records;
        records.sort_by_key(|record| record.entry.invoked);
        history.extend(records.into_iter().map(|record| record.entry));
        if !hung {
            self.target.threads_ended()?;
            self.one_by_one(&mut alone, &plan.epilogue, &mut history)?;
        }
        Ok((history, hung))
    }

    fn one_by_one(
        &self,
        worker: &mut T::Worker,
        ops: &[T::Op],
        history: &mut History<T::Op>,
    ) -> Result<()> {
        for op in ops.iter().copied() {
            let call = Call {
                process: 0,
                thread: ALONE,
                op,
            };
            if worker.can(&op) && !(self.shared && T::covers_others(&op)) {
                history.extend(perform(&self.settings.sync.0, worker, call)?);
            }
        }
        Ok(())
    }

    fn at_once(
        &mut self,
        number: u64,
        plan: &Arc<Plan<T::Op>>,
        alone: &T::Worker,
    ) -> Result<Report<T::Op>> {
        self.arrivals += plan.threads.len() as u64;
        let agent = self.target.agent(&self.settings)?;
        agent.begin(number, self.arrivals)?;
        let new_worker = || self.target.worker(alone);
        let crew = Crew::start(new_worker, &self.settings.sync.0, plan, 0, self.arrivals)?;
        let mut report = crew.finish(self.patience)?;
        let agent = self.target.agent(&self.settings)?;
        let others = agent.finish(plan, self.patience)?;
        report.records.extend(others.records);
        report.hung |= others.hung;
        Ok(report)
    }

    /// Reports a hang and exits. The threads are blocked in the kernel, so the program cannot clean
    /// up.
    fn give_up(&self, number: u64, history: &History<T::Op>) -> ! {
        println!("# seed {} round {number} hangs:", self.settings.seed);
        print!("{}", show::hang(history));
        let model = self.target.model();
        let start = <T::Model as Model>::State::default();
        let verdict = check(model, &start, history, BUDGET);
        if verdict.is_violation() {
            print!("{}", show::violation(model, history, &verdict));
        }
        // Prints the stacks of blocked tasks to the kernel log, then resets the machine.
        for key in ["w", "b"] {
            if let Err(error) = fs::write("/proc/sysrq-trigger", key) {
                println!("# sysrq {key}: {error}");
            }
            thread::sleep(Duration::from_secs(5));
        }
        exit(1)
    }

    /// Closes everything, and checks that nothing is left.
    pub fn end(self) -> Result<()> {
        self.target.end()
    }
}
