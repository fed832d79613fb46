// SPDX-License-Identifier: GPL-2.0

//! Tests of changing windows: against a model, and while a device accesses them.

use kernel::prelude::*;

use super::*;

#[kunit_tests(pamu_sim_concurrency)]
mod tests {
    use super::*;

    use kernel::{
        impl_has_work, new_work,
        sync::atomic::Atomic,
        workqueue::{
            self,
            Work,
            WorkItem, //
        },
    };

    use kernel_ext::testing::Random;

    use vfio_iommu_pamu::paace::Access;

    /// Performs random operations on some LIODNs. After each operation it compares everything that
    /// they can reach with a model, which is a plain list.
    #[test]
    fn random_windows_match_a_model() -> Result {
        #[derive(Clone, Copy)]
        struct Expected {
            fill: u32,
            size: u64,
            access: Access,
        }
        const WINDOWS: usize = 8;
        let machine = machine()?;
        let mut random = Random::new(99);
        let mut blocks = KVec::new();
        for fill in 1..=4 {
            blocks.push(memory(fill)?, GFP_KERNEL)?;
        }
        let mut liodns = [
            liodn(&machine, 10, WINDOWS as u32)?,
            liodn(&machine, 11, WINDOWS as u32)?,
        ];
        let mut expected = [[None::<Expected>; WINDOWS]; 2];
        let mut on = [false; 2];
        for _ in 0..120 {
            let who = random.below(2) as usize;
            let index = random.below(WINDOWS as u64) as usize;
            let liodn = &mut liodns[who];
            match random.below(8) {
                0 => liodn.enable().map(|()| on[who] = true)?,
                1 => liodn.disable().map(|()| on[who] = false)?,
                2..5 => {
                    liodn.clear_window(index as u32)?;
                    expected[who][index] = None;
                }
                _ => {
                    let which = random.below(4);
                    let new = Expected {
                        fill: which as u32 + 1,
                        size: 4096 << random.below(5),
                        access: random.pick(&[Access::Query, Access::Update, Access::All]),
                    };
                    let window = block_of(&blocks[which as usize], new.size, new.access);
                    let done = liodn.set_window(index as u32, &window);
                    match expected[who][index] {
                        Some(_) => assert_eq!(done, Err(EBUSY)),
                        None => {
                            done?;
                            expected[who][index] = Some(new);
                        }
                    }
                }
            }
            for who in 0..2 {
                let number = 10 + who as u16;
                for (index, window) in expected[who].iter().enumerate() {
                    let start = BASE + index as u64 * SIZE;
                    for offset in [0, 4092, 4096, SIZE / 2, SIZE - 4] {
                        let mapped = window.filter(|w| on[who] && offset < w.size);
                        let bits = mapped.map_or(0, |w| w.access as u32);
                        let read = peek(&machine, number, start + offset);
                        assert_eq!(read.is_ok(), bits & 1 != 0);
                        if let (Ok(word), Some(mapped)) = (read, mapped) {
                            assert_eq!(word, mapped.fill);
                        }
                        liodns[who].revive()?;
                        let fill = mapped.map_or(0, |w| w.fill);
                        let write = poke(&machine, number, start + offset, fill);
                        assert_eq!(write.is_ok(), bits & 2 != 0);
                        liodns[who].revive()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A device on another processor. It reads continuously and counts what it reads.
    #[pin_data]
    struct Poller {
        machine: Arc<Machine>,
        stop: Atomic<u32>,
        /// The number of reads of the first fill, the second fill, nothing, and anything else.
        seen: [Atomic<u32>; 4],
        #[pin]
        work: Work<Poller>,
    }

    impl_has_work! {
        impl HasWork<Self> for Poller { self.work }
    }

    impl WorkItem for Poller {
        type Pointer = Arc<Self>;

        fn run(this: Arc<Self>) {
            while this.stop.load(Relaxed) == 0 {
                let seen = match peek(&this.machine, 12, BASE + SIZE) {
                    Ok(0x1111_1111) => 0,
                    Ok(0x2222_2222) => 1,
                    Err(_) => 2,
                    Ok(_) => 3,
                };
                this.seen[seen].fetch_add(1, Relaxed);
                kernel_ext::mm::cond_resched();
            }
            this.stop.store(2, Relaxed);
        }
    }

    /// Moves a window between two blocks while the poller reads. Each block contains its fill while
    /// the window leads to it, and another value as soon as the window was cleared.
    #[test]
    fn device_sees_old_block_or_new_block_or_nothing() -> Result {
        const FILLS: [u32; 2] = [0x1111_1111, 0x2222_2222];
        let machine = machine()?;
        let blocks = [memory(0xdead)?, memory(0xdead)?];
        let mut liodn = liodn(&machine, 12, 2)?;
        liodn.enable()?;
        let poller = Arc::pin_init(
            pin_init!(Poller {
                machine: machine.clone(),
                stop: Atomic::new(0),
                seen: [const { Atomic::new(0) }; 4],
                work <- new_work!("vfio_pamu::poller"),
            }),
            GFP_KERNEL,
        )?;
        assert!(workqueue::system_unbound().enqueue(poller.clone()).is_ok());
        let seen = |what: usize| poller.seen[what].load(Relaxed);
        let mut rounds = 0;
        while rounds < 200 || (seen(0) == 0 || seen(1) == 0 || seen(2) == 0) && rounds < 100_000 {
            let which = rounds % 2;
            let block = &blocks[which];
            block.words()[0].store(FILLS[which], Relaxed);
            liodn.set_window(1, &block_of(block, 4096 << (rounds % 5), Access::All))?;
            liodn.revive()?;
            (0..rounds % 64).for_each(|_| core::hint::spin_loop());
            liodn.clear_window(1)?;
            block.words()[0].store(0xdead, Relaxed);
            kernel_ext::mm::cond_resched();
            rounds += 1;
        }
        poller.stop.store(1, Relaxed);
        while poller.stop.load(Relaxed) != 2 {
            kernel_ext::mm::cond_resched();
        }
        assert_eq!(seen(3), 0);
        assert!(seen(0) != 0 && seen(1) != 0 && seen(2) != 0);
        Ok(())
    }
}
