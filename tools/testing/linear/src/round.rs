// SPDX-License-Identifier: GPL-2.0

//! The threads of a process in a round.

use crate::target::{
    Request,
    Worker, //
};
use anyhow::{
    Context,
    Result, //
};
use linear::{
    history::Entry,
    op::{
        Answer,
        Call, //
    },
    plan::Plan, //
};
use nix::sys::memfd::{
    MFdFlags,
    memfd_create, //
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
    /// Creates the counters and a file with them.
    pub fn create() -> Result<(Arc<Self>, File)> {
        let file = File::from(memfd_create(c"counters", MFdFlags::MFD_CLOEXEC)?);
        file.set_len(PAGE_SIZE as u64)?;
        Ok((Arc::new(Self::new(&file)?), file))
    }

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
pub struct Record<O> {
    /// The place in the plan.
    pub place: usize,
    /// The request with its times and answer.
    pub entry: Entry<Call<O>, Answer>,
}

/// The result of the threads of a process.
#[derive(Debug)]
pub struct Report<O> {
    /// All requests, including those that have not returned.
    pub records: Vec<Record<O>>,
    /// Whether a thread did not finish in time.
    pub hung: bool,
}

/// Sends a request and records the times. Returns `None` if it was not sent.
pub fn perform<O: Request>(
    sync: &Sync,
    worker: &mut impl Worker<O>,
    call: Call<O>,
) -> Result<Option<Entry<Call<O>, Answer>>> {
    let invoked = sync.now();
    let answer = worker.perform(&call.op)?;
    Ok(answer.map(|answer| Entry::new(call, invoked, sync.now(), answer)))
}

type Board<O> = Arc<Mutex<Vec<Record<O>>>>;

fn lock<O>(board: &Board<O>) -> MutexGuard<'_, Vec<Record<O>>> {
    board
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The running threads of a process.
#[derive(Debug)]
pub struct Crew<O> {
    boards: Vec<Board<O>>,
    ends: Receiver<Result<()>>,
}

impl<O: Request> Crew<O> {
    /// Starts the threads of a process, each with a new worker. They wait until all threads of both
    /// processes are ready.
    pub fn start<W: Worker<O>>(
        mut new_worker: impl FnMut() -> Result<W>,
        sync: &Arc<Sync>,
        plan: &Arc<Plan<O>>,
        process: u8,
        arrivals: u64,
    ) -> Result<Self> {
        let (sender, ends) = channel();
        let mut boards = Vec::new();
        let threads = (0..plan.threads.len()).filter(|n| plan.threads[*n].process == process);
        for thread in threads {
            let board = Board::default();
            boards.push(board.clone());
            let mut worker = new_worker()?;
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
    pub fn finish(self, patience: Duration) -> Result<Report<O>> {
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
fn work<O: Request>(
    sync: &Sync,
    plan: &Plan<O>,
    thread: usize,
    worker: &mut impl Worker<O>,
    board: &Board<O>,
) -> Result<()> {
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
        let mut records = lock(board);
        if answer.is_none() {
            records.pop();
        } else if let Some(record) = records.last_mut() {
            record.entry.returned = Some(returned);
            record.entry.answer = answer;
        }
    }
    Ok(())
}
