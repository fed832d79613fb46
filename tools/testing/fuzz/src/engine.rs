// SPDX-License-Identifier: GPL-2.0

//! The search, by LibAFL.

use crate::{
    coverage::Coverage,
    events::Events,
    sequence::Subject, //
};
use anyhow::Result;
use libafl::{
    Error, Evaluator, Fuzzer, StdFuzzer,
    corpus::InMemoryCorpus,
    events::NopEventManager,
    executors::{
        Executor,
        ExitKind,
        HasObservers, //
    },
    feedback_or,
    feedbacks::{
        CrashFeedback,
        MaxMapFeedback,
        TimeFeedback, //
    },
    inputs::{
        BytesInput,
        HasTargetBytes, //
    },
    mutators::{
        StdScheduledMutator,
        havoc_mutations, //
    },
    observers::{
        CanTrack,
        ExplicitTracking,
        HitcountsMapObserver,
        MapObserver,
        StdMapObserver,
        TimeObserver, //
    },
    schedulers::{
        IndexesLenTimeMinimizerScheduler,
        QueueScheduler, //
    },
    stages::StdMutationalStage,
    state::{
        HasExecutions,
        HasMaxSize,
        StdState, //
    },
};
use libafl_bolts::{
    AsSlice,
    rands::StdRand,
    tuples::{
        RefIndexable,
        tuple_list, //
    },
};
use std::time::{
    Duration,
    Instant, //
};
use support::kmsg::Log;

/// The number of distinct pairs of points.
const PAIRS: usize = 1 << 16;
/// The maximum length of an input: a few hundred steps.
const LONGEST: usize = 1024;
/// The interval of progress messages.
const INTERVAL: Duration = Duration::from_secs(30);
/// The number of random inputs at the start, and their length.
const FRESH: usize = 16;
const SHORT: usize = 200;

type Pairs =
    ExplicitTracking<HitcountsMapObserver<StdMapObserver<'static, u8, false>>, true, false>;
type Observers = (Pairs, (TimeObserver, ()));

/// Runs inputs on this machine.
struct Machine<'a> {
    coverage: Coverage,
    log: Log,
    subject: &'a Subject,
    events: &'a mut Events,
    observers: Observers,
    progress: Progress,
}

impl Machine<'_> {
    fn run(&mut self, input: &[u8]) -> Result<ExitKind> {
        self.events.run(input)?;
        let (coverage, pairs) = (&mut self.coverage, self.observers.0.as_mut());
        let before = coverage.count();
        let mut previous = None;
        let ran = self.subject.run(input, &mut |_, work| {
            coverage.trace(work, |point| {
                let pair = point.after(previous.unwrap_or(point)) as usize % PAIRS;
                let count = pairs.get(pair).saturating_add(1);
                pairs.set(pair, count);
                previous = Some(point);
            })
        })?;
        if coverage.count() > before {
            self.events.keep(input)?;
        }
        self.progress.ran(ran.steps, coverage.count());
        match self.log.take_defect().or(ran.strange) {
            Some(words) => {
                self.progress.found += 1;
                self.events.found(input, &words)?;
                Ok(ExitKind::Crash)
            }
            None => Ok(ExitKind::Ok),
        }
    }
}

impl<EM, S: HasExecutions, Z> Executor<EM, BytesInput, S, Z> for Machine<'_> {
    fn run_target(
        &mut self,
        _fuzzer: &mut Z,
        state: &mut S,
        _manager: &mut EM,
        input: &BytesInput,
    ) -> Result<ExitKind, Error> {
        *state.executions_mut() += 1;
        self.run(input.target_bytes().as_slice())
            .map_err(|error| Error::unknown(format!("{error:#}")))
    }
}

impl HasObservers for Machine<'_> {
    type Observers = Observers;

    fn observers(&self) -> RefIndexable<&Observers, Observers> {
        RefIndexable::from(&self.observers)
    }

    fn observers_mut(&mut self) -> RefIndexable<&mut Observers, Observers> {
        RefIndexable::from(&mut self.observers)
    }
}

/// Prints the progress.
struct Progress {
    start: Instant,
    shown: Instant,
    runs: u64,
    steps: usize,
    found: usize,
}

impl Progress {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            start: now,
            shown: now,
            runs: 0,
            steps: 0,
            found: 0,
        }
    }

    fn ran(&mut self, steps: usize, points: usize) {
        self.runs += 1;
        self.steps += steps;
        if self.shown.elapsed() < INTERVAL {
            return;
        }
        self.shown = Instant::now();
        let (runs, found) = (self.runs, self.found);
        println!(
            "[{:4} s] {runs} sequences, {} steps, {points} points of code, {found} defects",
            self.start.elapsed().as_secs(),
            self.steps,
        );
    }
}

/// Searches for the given time.
pub fn search(
    inputs: Vec<Vec<u8>>,
    subject: &Subject,
    seed: u64,
    time: Duration,
    events: &mut Events,
) -> Result<()> {
    let pairs = StdMapObserver::owned("pairs", vec![0; PAIRS]);
    let pairs = HitcountsMapObserver::new(pairs).track_indices();
    let clock = TimeObserver::new("time");
    let mut feedback = feedback_or!(MaxMapFeedback::new(&pairs), TimeFeedback::new(&clock));
    let mut objective = CrashFeedback::new();
    let (corpus, solutions) = (InMemoryCorpus::new(), InMemoryCorpus::new());
    let rand = StdRand::with_seed(seed);
    let mut state = StdState::new(rand, corpus, solutions, &mut feedback, &mut objective)?;
    state.set_max_size(LONGEST);
    let scheduler = IndexesLenTimeMinimizerScheduler::new(&pairs, QueueScheduler::new());
    let mut fuzzer = StdFuzzer::new(scheduler, feedback, objective);
    let mut manager = NopEventManager::new();
    let mut machine = Machine {
        coverage: Coverage::new()?,
        log: Log::follow()?,
        subject,
        events,
        observers: tuple_list!(pairs, clock),
        progress: Progress::new(),
    };
    let mut random = differential::choices::Choices::of_seed(seed);
    let fresh = (0..FRESH).map(|_| (0..SHORT).map(|_| random.u8(..)).collect());
    let start = Instant::now();
    for input in inputs.into_iter().chain(fresh) {
        fuzzer.evaluate_input(
            &mut state,
            &mut machine,
            &mut manager,
            &BytesInput::new(input),
        )?;
    }
    let mut stages = tuple_list!(StdMutationalStage::new(StdScheduledMutator::new(
        havoc_mutations()
    )));
    while start.elapsed() < time {
        fuzzer.fuzz_one(&mut stages, &mut machine, &mut state, &mut manager)?;
    }
    machine.events.runs(machine.progress.runs)?;
    machine.events.coverage(&machine.coverage)
}
