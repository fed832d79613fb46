// SPDX-License-Identifier: GPL-2.0

//! Work that is done later, and no more once its owner is gone.
//!
//! The delayed work of the `kernel` crate can't be taken back: what was enqueued lives until it has run.
//! A module that is unloaded meanwhile would have its code run after that is gone, and nobody can wait
//! for it. Here the owner does, by being dropped.
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

/// What there is to do.
pub trait Task: Send + Sync + 'static {
    /// Does it, in a thread of the kernel; may sleep. It doesn't run twice at the same time.
    ///
    /// If this drops the [`OwnedWork`] that it is the task of, that waits for itself, forever.
    fn run(&self);
}

/// A task, and when it is to run.
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
        // The owner has another reference until this has returned, so the last one is never dropped
        // here, by code that the owner doesn't wait for.
        this.task.run();
    }
}

/// A task that its owner has done later.
///
/// When it is dropped, a run that was scheduled is called off, one that is under way is waited for,
/// and then the task is dropped. Dropping it sleeps.
///
/// # Invariants
///
/// Nobody has another reference but the workqueue, which has one from [`schedule`](Self::schedule) until
/// the run that it was for has ended or was called off.
pub struct OwnedWork<T: Task>(Arc<Scheduled<T>>);

impl<T: Task> OwnedWork<T> {
    /// Owns `task`, which isn't scheduled yet. `work` is a [`new_delayed_work!`], whose name lockdep
    /// knows it by.
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

    /// Has the task run once, `delay` from now on. Returns whether it will; if not it was scheduled
    /// already, for whatever time that was. Doesn't sleep.
    pub fn schedule(&self, delay: Jiffies) -> bool {
        // SAFETY: This is a workqueue that there always is.
        let queue = unsafe { Queue::from_raw(bindings::system_dfl_wq) };
        // INVARIANT: The reference goes to the workqueue, or is dropped.
        queue.enqueue_delayed(self.0.clone(), delay).is_ok()
    }

    /// The task.
    pub fn task(&self) -> &T {
        &self.0.task
    }
}

impl<T: Task> Drop for OwnedWork<T> {
    fn drop(&mut self) {
        let work = (&raw const self.0.work).cast_mut();
        // SAFETY: `DelayedWork` is a transparent wrapper, and was initialized. From here on the work
        // can't be enqueued any more, and when this returns it neither waits nor runs.
        let was_pending = unsafe { bindings::disable_delayed_work_sync(work.cast()) };
        if was_pending {
            // SAFETY: By the type invariant the workqueue had a reference, for the run that was called
            // off just now, and won't drop it; `enqueue_delayed` made it by `Arc::into_raw`.
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

    /// How often something has happened.
    struct Counts {
        begun: Atomic<u32>,
        ended: Atomic<u32>,
        dropped: Atomic<u32>,
    }

    /// A task that takes so many milliseconds.
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

    /// Waits until `count` is `expected`, if it ever is.
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
        // While it runs it can be scheduled again; that one is called off.
        assert!(work.schedule(1));
        drop(work);
        assert_eq!(counts.ended.load(Acquire), counts.begun.load(Acquire));
        assert_eq!(counts.dropped.load(Acquire), 1);
        Ok(())
    }

    /// Just when the time is up.
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
