// SPDX-License-Identifier: GPL-2.0

//! Runs requests in all orders that count, and judges what comes of it.

use std::{
    fmt::{
        self,
        Display,
        Formatter, //
    },
    sync::{
        atomic::{
            AtomicUsize,
            Ordering, //
        },
        Arc,
        Mutex, //
    },
};

use loom::{
    model::Builder,
    thread, //
};

use crate::machine::Machine;

use super::type1::{
    Answer,
    Container,
    Progress,
    Request,
    Snapshot,
    World, //
};

/// What threads send to a container at the same time.
pub(crate) struct Model {
    pub(crate) world: World,
    pub(crate) threads: Vec<Vec<Request>>,
    /// How often threads are interrupted.
    pub(crate) preemptions: usize,
}

/// What the threads learn, and what is there in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    answers: Vec<Vec<Answer>>,
    end: Snapshot,
}

/// What was tried.
pub(crate) struct Explored {
    pub(crate) interleavings: usize,
    /// How many different outcomes there were.
    pub(crate) seen: usize,
    /// How many the requests have one after another.
    pub(crate) possible: usize,
}

/// How many times threads are interrupted where they needn't wait. Faults that need more are rare.
pub(crate) const PREEMPTIONS: usize = 3;

/// How many times threads come to use a lock, at most: threads that do so for ever are found by
/// that.
const MOST_STEPS: usize = 50_000;

/// Tries `f` in all interleavings of its threads, with so many interruptions. Returns how many
/// there are.
pub(crate) fn explore(preemptions: usize, f: impl Fn() + Send + Sync + 'static) -> usize {
    explore_up_to(MOST_STEPS, preemptions, f)
}

/// The same, where threads may come so often to use a lock.
fn explore_up_to(steps: usize, preemptions: usize, f: impl Fn() + Send + Sync + 'static) -> usize {
    let count = Arc::new(AtomicUsize::new(0));
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.max_branches = steps;
    let counter = count.clone();
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        f();
    });
    count.load(Ordering::Relaxed)
}

/// Looks at a container whose threads are done.
fn finish(answers: Vec<Vec<Answer>>, container: &Container, machine: &Machine) -> Outcome {
    machine.check();
    let end = container.snapshot();
    Outcome { answers, end }
}

/// Closes a container.
fn close(container: &Container, machine: &Machine) {
    container.close();
    machine.check();
}

/// A thread's requests, of which it does one step at a time.
struct Sequence<'a> {
    left: &'a [Request],
    progress: Progress,
    answers: Vec<Answer>,
}

impl<'a> Sequence<'a> {
    fn new(requests: &'a [Request]) -> Self {
        Self {
            left: requests,
            progress: Progress::default(),
            answers: Vec::new(),
        }
    }

    fn step(&mut self, container: &Container) {
        let Some((request, rest)) = self.left.split_first() else {
            return;
        };
        let done = container.step(*request, &mut self.progress).transpose();
        if let Some(answer) = done {
            self.answers.push(answer);
            self.progress = Progress::default();
            self.left = rest;
        }
    }
}

/// Does a step of each thread in `order`. Returns the outcome, or which threads have more to do.
fn in_order(
    world: World,
    threads: &[Vec<Request>],
    order: &[usize],
) -> Result<Outcome, Vec<usize>> {
    let machine = Machine::new();
    let container = Container::new(world, machine.clone());
    let mut sequences: Vec<_> = threads.iter().map(|own| Sequence::new(own)).collect();
    for thread in order {
        sequences[*thread].step(&container);
    }
    let left = (0..threads.len()).filter(|thread| !sequences[*thread].left.is_empty());
    let left: Vec<_> = left.collect();
    let answers = sequences.into_iter().map(|own| own.answers).collect();
    let outcome = finish(answers, &container, &machine);
    close(&container, &machine);
    if left.is_empty() {
        Ok(outcome)
    } else {
        Err(left)
    }
}

/// What may come of the requests of a model: what comes of their steps one after another.
fn expected(model: &Model) -> Vec<Outcome> {
    let (world, threads) = (model.world, model.threads.clone());
    let outcomes = Arc::new(Mutex::new(Vec::new()));
    let found = outcomes.clone();
    // One thread does the steps of all orders.
    explore_up_to(100 * MOST_STEPS, 0, move || {
        let mut orders = vec![Vec::new()];
        while let Some(order) = orders.pop() {
            match in_order(world, &threads, &order) {
                Ok(outcome) => {
                    let mut found = found.lock().expect("nothing has panicked");
                    if !found.contains(&outcome) {
                        found.push(outcome);
                    }
                }
                Err(left) => orders.extend(left.into_iter().map(|thread| {
                    let mut longer = order.clone();
                    longer.push(thread);
                    longer
                })),
            }
        }
    });
    let outcomes = outcomes.lock().expect("nothing has panicked").clone();
    outcomes
}

impl Model {
    /// Tries all interleavings. In each, what comes of the requests is what comes of them one after
    /// another, in one order or the other.
    pub(crate) fn check(&self) -> Explored {
        let expected = expected(self);
        let possible = expected.len();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let found = seen.clone();
        let (world, threads) = (self.world, self.threads.clone());
        let interleavings = explore(self.preemptions, move || {
            let machine = Machine::new();
            let container = Container::new(world, machine.clone());
            let others: Vec<_> = threads[1..]
                .iter()
                .map(|requests| {
                    let (container, requests) = (container.clone(), requests.clone());
                    thread::spawn(move || serve(&container, &requests))
                })
                .collect();
            let mut answers = vec![serve(&container, &threads[0])];
            for other in others {
                answers.push(other.join().expect("a thread has panicked"));
            }
            let outcome = finish(answers, &container, &machine);
            let nth = expected.iter().position(|one| *one == outcome);
            let Some(nth) = nth else {
                panic!(
                    "not what comes of one after another: {threads:?} {outcome:#?}, but {expected:#?}"
                );
            };
            let mut found = found.lock().expect("nothing has panicked");
            if !found.contains(&nth) {
                found.push(nth);
            }
            close(&container, &machine);
        });
        let seen = seen.lock().expect("nothing has panicked").len();
        Explored {
            interleavings,
            seen,
            possible,
        }
    }
}

/// Sends a thread's requests.
fn serve(container: &Container, requests: &[Request]) -> Vec<Answer> {
    requests
        .iter()
        .map(|request| container.serve(*request))
        .collect()
}

impl Display for Explored {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self {
            interleavings,
            seen,
            possible,
        } = self;
        write!(
            f,
            "{interleavings} interleavings, {seen} of {possible} outcomes"
        )
    }
}
