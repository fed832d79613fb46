// SPDX-License-Identifier: GPL-2.0

//! Races between concurrent calls. Each test ends after a fixed number of rounds.

use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Acquire,
            Atomic,
            Release, //
        },
        Arc,
        Completion, //
    },
    workqueue, //
};

use kernel_ext::mm::cond_resched;

use super::space;
use crate::{
    gfp::Gfp,
    id::range::IdRange,
    set::{
        Quota,
        Token, //
    },
    space::Space, //
};

const ROUNDS: u32 = if cfg!(CONFIG_KASAN) { 200 } else { 2_000 };

/// A function that another thread calls repeatedly until it is stopped.
#[pin_data]
struct Beside {
    stop: Atomic<bool>,
    #[pin]
    stopped: Completion,
}

impl Beside {
    /// Starts to call `f` repeatedly.
    fn start(f: impl Fn() + Send + 'static) -> Result<Arc<Self>> {
        let init = pin_init!(Self {
            stop: Atomic::new(false),
            stopped <- Completion::new(),
        });
        let beside = Arc::pin_init(init, GFP_KERNEL)?;
        let theirs = beside.clone();
        workqueue::system_unbound().try_spawn(GFP_KERNEL, move || {
            while !theirs.stop.load(Acquire) {
                f();
                cond_resched();
            }
            theirs.stopped.complete_all();
        })?;
        Ok(beside)
    }

    fn stop(&self) {
        self.stop.store(true, Release);
        self.stopped.wait_for_completion();
    }
}

#[kunit_tests(ioasid_races)]
mod tests {
    use super::*;

    /// Creates a set of a process, unless a handle of its last set still exists, and drops it.
    fn come_and_go(space: &Space, mm: usize) {
        drop(space.new_set(Token::Mm(mm), Quota::Exactly(1)));
    }

    #[test]
    fn find_mm_set_never_returns_the_set_of_another_process() -> Result {
        let space = space(100)?;
        let theirs = space.clone();
        // Both sets have the same number, one after the other.
        let others = Beside::start(move || {
            come_and_go(&theirs, 0x1000);
            come_and_go(&theirs, 0x2000);
        })?;
        let (mut found, mut wrong) = (0, 0);
        for _ in 0..ROUNDS * 10 {
            if let Ok(set) = space.find_mm_set(0x1000) {
                let token = space.with_set(set.id(), |state| Ok(state.token));
                wrong += u32::from(token != Ok(Token::Mm(0x1000)));
                found += 1;
            }
        }
        others.stop();
        pr_info!("found the set {} times\n", found);
        assert_eq!(wrong, 0);
        assert!(space.is_unused());
        Ok(())
    }

    #[test]
    fn no_id_above_a_new_capacity_is_allocated() -> Result {
        let high = IdRange::new(50, 99)?;
        let mut installed = 0;
        for _ in 0..ROUNDS / 10 {
            let space = space(100)?;
            let theirs = space.clone();
            let others = Beside::start(move || {
                // It fails after the capacity is set.
                drop(theirs.alloc(high, 0, Gfp::Kernel));
            })?;
            let done = (0..1000).any(|_| space.install_capacity(50).is_ok());
            // From here on the ids above belong to the kernel.
            let above = space.next_id(50, |id, _| id);
            others.stop();
            if done {
                installed += 1;
                assert_eq!(above, None);
                assert_eq!(space.next_id(0, |id, _| id), None);
            }
        }
        assert!(installed > 0);
        Ok(())
    }
}
