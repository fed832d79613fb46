// SPDX-License-Identifier: GPL-2.0

//! The sequence of rounds.

use crate::{
    agent::{
        self,
        Agent, //
    },
    files::{
        Files,
        Worker, //
    },
    machine::{
        locked_pages,
        map_memory,
        mark_memory,
        open_groups,
        set_limit, //
    },
    round::{
        Crew,
        Record,
        Report,
        Sync,
        perform, //
    },
    show, //
};
use anyhow::{
    Context,
    Result, //
};
use linear::{
    checker::{
        Verdict,
        check, //
    },
    defects::Rules,
    history::Entry,
    model::{
        Container as Model,
        Machine,
        State, //
    },
    op::{
        ALONE,
        Call,
        Group,
        Op,
        PAGE, //
    },
    plan::{
        MEMORY,
        MEMORY_PAGES,
        Plan,
        USUAL_LIMIT, //
    },
};
use nix::sys::memfd::{
    MFdFlags,
    memfd_create, //
};
use std::{
    fs::{
        self,
        File, //
    },
    process::exit,
    sync::Arc,
    thread,
    time::Duration, //
};
use vfio_client::{
    Arena,
    Container,
    Group as GroupFile,
    Iommu,
    raw,
    request, //
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

/// Returns the number of requests that were sent before an earlier request returned.
fn overlapping(history: &[Entry]) -> u64 {
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
pub struct Session {
    files: Arc<Files>,
    agent: Agent,
    sync: Arc<Sync>,
    arrivals: u64,
    model: Model,
    seed: u64,
    choice: Rules,
    patience: Duration,
    /// Whether other programs use VFIO, too.
    shared: bool,
    /// Keeps the memory mapped.
    _arena: Arena,
}

fn memory_file() -> Result<File> {
    Ok(File::from(memfd_create(c"linear", MFdFlags::MFD_CLOEXEC)?))
}

/// Queries the properties of the IOMMU.
fn survey(container: &Container, groups: &[GroupFile]) -> Result<Machine> {
    let edu = &groups[Group::Physical as usize];
    edu.set_container(container)?;
    container.set_iommu(Iommu::Type1v2)?;
    let info = container.info()?;
    let coherent = raw::value(container, request::CHECK_EXTENSION, 4)?;
    edu.unset_container()?;
    Ok(Machine {
        ranges: info
            .ranges()
            .iter()
            .map(|range| (range.start, range.end))
            .collect(),
        page_sizes: info.page_sizes,
        coherent: coherent as u64,
        memory: (MEMORY, MEMORY + MEMORY_PAGES * PAGE),
        limits: [None, Some(agent::LIMIT)],
    })
}

impl Session {
    /// Opens all files and starts the second process.
    pub fn start(
        seed: u64,
        choice: Rules,
        judgement: Rules,
        patience: u64,
        shared: bool,
    ) -> Result<Self> {
        let memory = memory_file()?;
        mark_memory(&memory)?;
        let arena = map_memory(&memory)?;
        let counters = memory_file()?;
        counters.set_len(PAGE)?;
        let container = Container::open()?;
        let groups = open_groups()?;
        let model = Model {
            machine: survey(&container, &groups)?,
            rules: judgement,
        };
        let sync = Arc::new(Sync::new(&counters)?);
        let agent = Agent::start(
            &container, &groups, &memory, &counters, seed, choice, patience,
        )?;
        let files = Arc::new(Files {
            container,
            groups,
            memory,
            processes: [std::process::id(), agent.process()],
        });
        Ok(Self {
            files,
            agent,
            sync,
            arrivals: 0,
            model,
            seed,
            choice,
            // The agent's own timeout ends first, so that it can report its threads.
            patience: Duration::from_secs(patience + 20),
            shared,
            _arena: arena,
        })
    }

    /// Executes a round and checks it.
    pub fn round(&mut self, number: u64, tally: &mut Tally) -> Result<()> {
        println!("round {number}");
        let plan = Arc::new(Plan::new(self.seed, number, self.choice));
        let (history, hung) = self.play(number, &plan)?;
        tally.rounds += 1;
        tally.requests += history.len() as u64;
        tally.overlapping += overlapping(&history);
        if hung {
            self.give_up(number, &history);
        }
        match check(&self.model, &State::default(), &history, BUDGET) {
            Verdict::Linearizable(_) => (),
            Verdict::Undecided => tally.undecided += 1,
            verdict => {
                tally.violations += 1;
                println!("# seed {} round {number}:", self.seed);
                print!("{}", show::violation(&self.model, &history, &verdict));
            }
        }
        Ok(())
    }

    /// Sends all requests of a round. Returns them, and whether a request has not returned.
    fn play(&mut self, number: u64, plan: &Arc<Plan>) -> Result<(Vec<Entry>, bool)> {
        let mut history = Vec::new();
        let mut alone = Worker::new(self.files.clone(), None)?;
        self.one_by_one(&mut alone, &plan.prologue, &mut history)?;
        let Report { records, hung } = self.at_once(number, plan, &alone)?;
        let mut records: Vec<Record> = records;
        records.sort_by_key(|record| record.entry.invoked);
        history.extend(records.into_iter().map(|record| record.entry));
        if !hung {
            self.one_by_one(&mut alone, &plan.epilogue, &mut history)?;
        }
        Ok((history, hung))
    }

    fn one_by_one(&self, worker: &mut Worker, ops: &[Op], history: &mut Vec<Entry>) -> Result<()> {
        for op in ops.iter().copied() {
            let call = Call {
                process: 0,
                thread: ALONE,
                op,
            };
            // This request covers all containers.
            if worker.can(&op) && !(self.shared && matches!(op, Op::Listed)) {
                history.push(perform(&self.sync, worker, call)?);
            }
        }
        Ok(())
    }

    fn at_once(&mut self, number: u64, plan: &Arc<Plan>, alone: &Worker) -> Result<Report> {
        self.arrivals += plan.threads.len() as u64;
        self.agent.begin(number, self.arrivals)?;
        let shared = alone.last_device();
        let crew = Crew::start(&self.files, &self.sync, plan, 0, shared, self.arrivals)?;
        let mut report = crew.finish(self.patience)?;
        let others = self.agent.finish(plan, self.patience)?;
        report.records.extend(others.records);
        report.hung |= others.hung;
        Ok(report)
    }

    /// Reports a hang and exits. The threads are blocked in the kernel, so the program cannot clean
    /// up.
    fn give_up(&self, number: u64, history: &[Entry]) -> ! {
        println!("# seed {} round {number} hangs:", self.seed);
        print!("{}", show::hang(history));
        let verdict = check(&self.model, &State::default(), history, BUDGET);
        if verdict.is_violation() {
            print!("{}", show::violation(&self.model, history, &verdict));
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

    /// Closes everything, and checks that no pages are left locked.
    pub fn end(self) -> Result<()> {
        set_limit(USUAL_LIMIT)?;
        self.agent.end()?;
        let left = locked_pages(std::process::id()).context("locked pages at the end")?;
        anyhow::ensure!(left == 0, "expected no locked pages at the end, got {left}");
        Ok(())
    }
}
