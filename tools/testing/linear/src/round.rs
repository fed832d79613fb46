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

/// The counters shared by both processes.
#[derive(Debug)]
pub struct Sync(Memory);

/// The offset of the clock.
const CLOCK: usize = 0;
/// The offset of the counter of ready threads. It is not in the cache line of the clock.
const ARRIVALS: usize = 1024;

impl Sync {
    /// Creates the counters in a file of one page, which both processes have.
    pub fn new(file: &File) -> Result<Self> {
        Ok(Self(Memory::from_file(file, 0, PAGE_SIZE, true)?))
    }

    /// Returns the current time and advances the clock.
    fn now(&self) -> u64 {
        self.0.increment(CLOCK)
    }

    /// Waits until `arrivals` threads have arrived since the program started.
    fn arrive(&self, arrivals: u64) {
        self.0.increment(ARRIVALS);
        while self.0.read_u64(ARRIVALS) < arrivals {
            thread::yield_now();
        }
    }
}

/// A request and its place in the plan of its thread.
#[derive(Clone, Debug)]
pub struct Record {
    /// The place in the plan.
    pub place: usize,
    /// The request with its times and answer.
    pub entry: Entry,
}

/// The result of the threads of a process.
#[derive(Debug, Default)]
pub struct Report {
    /// All requests, including those that have not returned.
    pub records: Vec<Record>,
    /// Whether a thread did not finish in time.
    pub hung: bool,
}

/// Sends a request and records the times.
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
    /// Starts the threads of a process. They wait until all threads of both processes are ready.
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
                // The receiver is gone if it stopped waiting.
                sender.send(done).unwrap_or_default();
            });
        }
        Ok(Self { boards, ends })
    }

    /// Waits for the threads, up to `patience`.
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

/// Sends the requests of a thread.
fn work(sync: &Sync, plan: &Plan, thread: usize, worker: &mut Worker, board: &Board) -> Result<()> {
    let planned = plan.threads[thread].ops.len();
    for place in 0.. {
        if place >= planned && !worker.has_opened() {
            break;
        }
        let call = plan
            .call(thread, place)
            .context("the plan has no such request")?;
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
