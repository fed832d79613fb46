// SPDX-License-Identifier: GPL-2.0

//! The threads of a process in a round.

use crate::files::{
    Files,
    Worker, //
};
use anyhow::{
    Context,
    Result, //
};
use linear::{
    history::Entry,
    op::Call,
    plan::Plan, //
};
use std::{
    fs::File,
    sync::{
        Arc, Mutex, MutexGuard,
        mpsc::{
            Receiver,
            channel, //
        },
    },
    thread,
    time::{
        Duration,
        Instant, //
    },
};
use vfio_client::{
    Device,
    Memory,
    PAGE_SIZE, //
};

/// What both processes count by.
#[derive(Debug)]
pub struct Sync(Memory);

/// Where the clock is.
const CLOCK: usize = 0;
/// Where it is counted how many threads are ready; not in one cache line with the clock.
const ARRIVALS: usize = 1024;

impl Sync {
    /// That of a file of one page, which both processes have.
    pub fn new(file: &File) -> Result<Self> {
        Ok(Self(Memory::from_file(file, 0, PAGE_SIZE, true)?))
    }

    /// Returns the time; the next one is later.
    fn now(&self) -> u64 {
        self.0.increment(CLOCK)
    }

    /// Waits until so many threads have come here since the program began.
    fn arrive(&self, arrivals: u64) {
        self.0.increment(ARRIVALS);
        while self.0.read_u64(ARRIVALS) < arrivals {
            thread::yield_now();
        }
    }
}

/// A request, and its place in the plan of its thread.
#[derive(Clone, Debug)]
pub struct Record {
    /// The place.
    pub place: usize,
    /// What happened.
    pub entry: Entry,
}

/// What became of the threads of a process.
#[derive(Debug, Default)]
pub struct Report {
    /// All requests, also those that have not returned.
    pub records: Vec<Record>,
    /// Whether one has not returned in time.
    pub hung: bool,
}

/// Sends a request and notes the times.
pub fn perform(sync: &Sync, worker: &mut Worker, call: Call) -> Result<Entry> {
    let invoked = sync.now();
    let answer = worker.perform(&call.op)?;
    Ok(Entry::new(call, invoked, sync.now(), answer))
}

type Board = Arc<Mutex<Vec<Record>>>;

fn lock(board: &Board) -> MutexGuard<'_, Vec<Record>> {
    board
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The running threads of a process.
#[derive(Debug)]
pub struct Crew {
    boards: Vec<Board>,
    ends: Receiver<Result<()>>,
}

impl Crew {
    /// Starts the threads of a process. They begin when all of both processes are ready.
    pub fn start(
        files: &Arc<Files>,
        sync: &Arc<Sync>,
        plan: &Arc<Plan>,
        process: u8,
        shared: Option<Arc<Device>>,
        arrivals: u64,
    ) -> Result<Self> {
        let (sender, ends) = channel();
        let mut boards = Vec::new();
        let threads = (0..plan.threads.len()).filter(|n| plan.threads[*n].process == process);
        for thread in threads {
            let board = Board::default();
            boards.push(board.clone());
            let mut worker = Worker::new(files.clone(), shared.clone())?;
            let (sync, plan, sender) = (sync.clone(), plan.clone(), sender.clone());
            thread::spawn(move || {
                sync.arrive(arrivals);
                let done = work(&sync, &plan, thread, &mut worker, &board);
                drop(worker);
                // Who waited too long doesn't listen any more.
                sender.send(done).unwrap_or_default();
            });
        }
        Ok(Self { boards, ends })
    }

    /// Waits for the threads, but not longer than `patience`.
    pub fn finish(self, patience: Duration) -> Result<Report> {
        let deadline = Instant::now() + patience;
        let mut hung = false;
        for _ in &self.boards {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.ends.recv_timeout(left) {
                Ok(done) => done?,
                Err(_) => hung = true,
            }
        }
        let records = self.boards.iter().flat_map(|board| lock(board).clone());
        Ok(Report {
            records: records.collect(),
            hung,
        })
    }
}

/// What a thread does.
fn work(sync: &Sync, plan: &Plan, thread: usize, worker: &mut Worker, board: &Board) -> Result<()> {
    let planned = plan.threads[thread].ops.len();
    for place in 0.. {
        if place >= planned && !worker.has_opened() {
            break;
        }
        let call = plan.call(thread, place).context("no such thread")?;
        if !worker.can(&call.op) {
            continue;
        }
        let entry = Entry::pending(call, sync.now());
        lock(board).push(Record { place, entry });
        let answer = worker.perform(&call.op)?;
        let returned = sync.now();
        if let Some(record) = lock(board).last_mut() {
            record.entry.returned = Some(returned);
            record.entry.answer = Some(answer);
        }
    }
    Ok(())
}
