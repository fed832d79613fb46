// SPDX-License-Identifier: GPL-2.0

//! Delayed work that doesn't run after its owner was dropped.
//!
//! The delayed work of the `kernel` crate can't be cancelled: an enqueued item lives until it has
//! run. If the module is unloaded in the meantime, its code would run after it was freed, and
//! nothing can wait for it. Here, dropping the owner waits for it.
//!
//! C header: [`include/linux/workqueue.h`](srctree/include/linux/workqueue.h)

use kernel::{
    impl_has_delayed_work,
    prelude::*,
    sync::Arc,
    time::Jiffies,
    workqueue::{
        DelayedWork,
        Queue,
        WorkItem, //
    },
};

use crate::bindings;

/// A task that runs later.
pub trait Task: Send + Sync + 'static {
    /// Runs the task in a kernel thread. May sleep. It doesn't run concurrently with itself.
    ///
    /// If this drops the [`OwnedWork`] of the task, the drop waits for itself forever.
    fn run(&self);
}

/// A task and its work item.
#[pin_data]
pub struct Scheduled<T: Task> {
    #[pin]
    work: DelayedWork<Self>,
    task: T,
}

impl_has_delayed_work! {
    impl{T: Task} HasDelayedWork<Self> for Scheduled<T> { self.work }
}

impl<T: Task> WorkItem for Scheduled<T> {
    type Pointer = Arc<Self>;

    fn run(this: Arc<Self>) {
        // The owner holds another reference until this has returned. So the last reference is never
        // dropped here, in code that the owner doesn't wait for.
        this.task.run();
    }
}

/// The owner of a task that can be scheduled.
///
/// Dropping it cancels a scheduled run, waits for a run in progress, and then drops the task.
/// Dropping it sleeps.
///
/// # Invariants
///
/// Only the workqueue may have another reference. It has one from [`schedule`](Self::schedule)
/// until the run has ended or was cancelled.
pub struct OwnedWork<T: Task>(Arc<Scheduled<T>>);

impl<T: Task> OwnedWork<T> {
    /// Wraps `task`, which isn't scheduled yet. `work` is a [`new_delayed_work!`], whose name
    /// lockdep uses.
    ///
    /// [`new_delayed_work!`]: kernel::workqueue::new_delayed_work
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub fn new(task: T, work: impl PinInit<DelayedWork<Scheduled<T>>>) -> Result<Self> {
        let scheduled = Arc::pin_init(pin_init!(Scheduled { work <- work, task }), GFP_KERNEL)?;
        // INVARIANT: This is the only reference.
        Ok(Self(scheduled))
    }

    /// Schedules one run of the task after `delay`. Returns `false` if a run was scheduled already,
    /// whatever its time is. Doesn't sleep.
    pub fn schedule(&self, delay: Jiffies) -> bool {
        // SAFETY: This workqueue always exists.
        let queue = unsafe { Queue::from_raw(bindings::system_dfl_wq) };
        // INVARIANT: The reference goes to the workqueue, or is dropped.
        queue.enqueue_delayed(self.0.clone(), delay).is_ok()
    }

    /// Returns the task.
    pub fn task(&self) -> &T {
        &self.0.task
    }
}

impl<T: Task> Drop for OwnedWork<T> {
    fn drop(&mut self) {
        let work = (&raw const self.0.work).cast_mut();
        // SAFETY: `DelayedWork` is a transparent wrapper, and was initialized. From here on the
        // work can't be enqueued any more, and when this returns it is neither pending nor running.
        let was_pending = unsafe { bindings::disable_delayed_work_sync(work.cast()) };
        if was_pending {
            // SAFETY: By the type invariant the workqueue had a reference for the run that was just
            // cancelled, and it won't drop that reference. `enqueue_delayed` created it by
            // `Arc::into_raw`.
            drop(unsafe { Arc::from_raw(Arc::as_ptr(&self.0)) });
        }
    }
}

#[kunit_tests(kernel_ext_owned_work)]
mod tests {
    use kernel::{
        sync::atomic::{
            Acquire,
            Atomic,
            Full, //
        },
        time::{
            delay::fsleep,
            Delta, //
        },
        workqueue::new_delayed_work,
    };

    use super::*;

    /// Counts of events.
    struct Counts {
        begun: Atomic<u32>,
        ended: Atomic<u32>,
        dropped: Atomic<u32>,
    }

    /// A task that takes the given number of milliseconds.
    struct Slow(Arc<Counts>, i64);

    impl Task for Slow {
        fn run(&self) {
            self.0.begun.fetch_add(1, Full);
            fsleep(Delta::from_millis(self.1));
            self.0.ended.fetch_add(1, Full);
        }
    }

    impl Drop for Slow {
        fn drop(&mut self) {
            self.0.dropped.fetch_add(1, Full);
        }
    }

    fn slow(millis: i64) -> Result<(Arc<Counts>, OwnedWork<Slow>)> {
        let counts = Counts {
            begun: Atomic::new(0),
            ended: Atomic::new(0),
            dropped: Atomic::new(0),
        };
        let counts = Arc::new(counts, GFP_KERNEL)?;
        let task = Slow(counts.clone(), millis);
        let work = OwnedWork::new(task, new_delayed_work!("kernel_ext::slow"))?;
        Ok((counts, work))
    }

    /// Waits until `count` is `expected`, for a limited time. Returns whether that happened.
    fn wait_for(count: &Atomic<u32>, expected: u32) -> bool {
        (0..10_000).any(|_| {
            fsleep(Delta::from_millis(1));
            count.load(Acquire) == expected
        })
    }

    #[test]
    fn runs_once_each_time_it_is_scheduled() -> Result {
        let (counts, work) = slow(0)?;
        for round in 1..=3 {
            assert!(work.schedule(2));
            assert!(wait_for(&counts.ended, round));
        }
        drop(work);
        assert_eq!(counts.begun.load(Acquire), 3);
        assert_eq!(counts.dropped.load(Acquire), 1);
        Ok(())
    }

    #[test]
    fn is_scheduled_once_at_a_time() -> Result {
        let (counts, work) = slow(0)?;
        assert!(work.schedule(Jiffies::MAX / 4));
        assert!(!work.schedule(0));
        assert_eq!(work.task().0.begun.load(Acquire), 0);
        drop(work);
        assert_eq!(counts.begun.load(Acquire), 0);
        assert_eq!(counts.dropped.load(Acquire), 1);
        Ok(())
    }

    #[test]
    fn dropping_waits_for_a_run() -> Result {
        let (counts, work) = slow(50)?;
        assert!(work.schedule(0));
        assert!(wait_for(&counts.begun, 1));
        // The task can be scheduled again while it runs. Dropping the owner cancels that run.
        assert!(work.schedule(1));
        drop(work);
        assert_eq!(counts.ended.load(Acquire), counts.begun.load(Acquire));
        assert_eq!(counts.dropped.load(Acquire), 1);
        Ok(())
    }

    /// Drops the owner at about the time when the run begins.
    #[test]
    fn dropping_races_with_a_run() -> Result {
        for round in 0..40 {
            let (counts, work) = slow(0)?;
            assert!(work.schedule(1));
            fsleep(Delta::from_micros(100 * round));
            drop(work);
            assert_eq!(counts.ended.load(Acquire), counts.begun.load(Acquire));
            assert_eq!(counts.dropped.load(Acquire), 1);
        }
        Ok(())
    }
}
