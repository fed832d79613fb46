// SPDX-License-Identifier: GPL-2.0

//! Tests of tables, LIODNs and software PAMUs together: what was written by one side in real memory is
//! judged by the other.

use kernel::prelude::*;

#[kunit_tests(vfio_pamu_machine)]
mod tests {
    use kernel::{
        impl_has_work, new_work,
        sync::{
            atomic::{
                Atomic,
                Relaxed, //
            },
            Arc, //
        },
        workqueue::{
            self,
            Work,
            WorkItem, //
        },
    };

    use super::*;

    use crate::{
        abi::{
            Contiguous,
            Window, //
        },
        liodn::Liodn,
        paace::{
            Access,
            Aperture,
            Attributes, //
        },
        registers::{
            avs1,
            pics,
            Register, //
        },
        software::{
            master::Denied,
            Interrupt,
            Machine,
            Master,
            Vector, //
        },
        system::Settings,
        tables::{
            Limits,
            Tables, //
        },
        testing::Random,
        violation::Cause, //
    };

    /// A machine with two PAMUs and two banks.
    fn machine() -> Result<Arc<Machine>> {
        let tables = Tables::new(Limits {
            liodns: 64,
            secondaries: 600,
        })?;
        let settings = Settings {
            max_windows: 256,
            // As for a device that the kernel drives.
            open: &[5],
        };
        Machine::new(tables, 2, 2, settings)
    }

    /// A LIODN whose aperture begins at 1 GiB and has windows of 64 KiB.
    fn liodn(machine: &Machine, number: u32, windows: u32) -> Result<Liodn> {
        let mut liodn = machine.system().claim(number)?;
        let aperture = Aperture::of_size(BASE, u64::from(windows) * SIZE)?;
        liodn.configure(aperture, liodn.prepare(windows)?, Attributes::default())?;
        Ok(liodn)
    }

    const BASE: u64 = 1 << 30;
    const SIZE: u64 = 1 << 16;

    /// A block of the size of a window, filled with `fill`.
    fn memory(fill: u32) -> Result<Contiguous> {
        let memory = Contiguous::new(4)?;
        for word in memory.words() {
            word.store(fill, Relaxed);
        }
        Ok(memory)
    }

    /// What a device reads at `address`: a word, or the cause of the violation.
    fn peek(machine: &Arc<Machine>, liodn: u16, address: u64) -> Result<u32, Cause> {
        let mut data = [0; 4];
        let master = Master::on(machine.clone(), liodn);
        master.read(address, &mut data).map_err(cause)?;
        Ok(u32::from_ne_bytes(data))
    }

    /// A device writes at `address`.
    fn poke(machine: &Arc<Machine>, liodn: u16, address: u64, word: u32) -> Result<(), Cause> {
        let master = Master::on(machine.clone(), liodn);
        master.write(address, &word.to_ne_bytes()).map_err(cause)
    }

    fn cause(denied: Denied) -> Cause {
        match denied {
            Denied::Violation { status, .. } => Cause::of(status),
            Denied::NoMemory { .. } => Cause::Unknown,
        }
    }

    #[test]
    fn windows_lead_to_their_blocks() -> Result {
        let machine = machine()?;
        for windows in [1, 2, 16, 256] {
            let (a, b) = (memory(0xaaaa)?, memory(0xbbbb)?);
            let mut liodn = liodn(&machine, 3, windows)?;
            let last = windows - 1;
            liodn.set_window(0, &Window::of_memory(&a, SIZE, Access::All))?;
            if last != 0 {
                liodn.set_window(last, &Window::of_memory(&b, SIZE, Access::All))?;
            }
            liodn.enable()?;
            let end = BASE + u64::from(windows) * SIZE;
            assert_eq!(peek(&machine, 3, BASE), Ok(0xaaaa));
            assert_eq!(peek(&machine, 3, BASE + SIZE - 4), Ok(0xaaaa));
            let expected = if last == 0 { 0xaaaa } else { 0xbbbb };
            assert_eq!(peek(&machine, 3, end - 4), Ok(expected));
            assert_eq!(poke(&machine, 3, end - SIZE + 8, 0x1234), Ok(()));
            let block = if last == 0 { &a } else { &b };
            assert_eq!(block.words()[2].load(Relaxed), 0x1234);
            assert_eq!(peek(&machine, 3, end), Err(Cause::Window));
            // That has stopped it.
            assert_eq!(peek(&machine, 3, BASE), Err(Cause::Liodn));
            assert!(liodn.revive()?);
            assert_eq!(peek(&machine, 3, BASE - 4), Err(Cause::Window));
        }
        Ok(())
    }

    #[test]
    fn a_claimed_liodn_reaches_nothing() -> Result {
        let machine = machine()?;
        let block = memory(1)?;
        assert_eq!(peek(&machine, 5, block.phys()), Ok(1));
        let mut liodn = machine.system().claim(5)?;
        assert_eq!(peek(&machine, 5, block.phys()), Err(Cause::Liodn));
        assert_eq!(liodn.enable(), Err(ENODEV));
        assert_eq!(
            liodn.set_window(0, &Window::of_memory(&block, SIZE, Access::All)),
            Err(ENODEV)
        );
        assert_eq!(machine.system().claim(5).err(), Some(EBUSY));
        drop(liodn);
        assert_eq!(peek(&machine, 5, block.phys()), Err(Cause::Liodn));
        assert!(machine.system().claim(5).is_ok());
        assert_eq!(machine.system().claim(64).err(), Some(ENODEV));
        Ok(())
    }

    #[test]
    fn bad_windows_are_refused() -> Result {
        let machine = machine()?;
        let block = memory(0)?;
        let mut liodn = liodn(&machine, 0, 4)?;
        let window = |size| Window::of_memory(&block, size, Access::All);
        for size in [0, 1, 2048, 4097, 3 * 4096, 2 * SIZE, u64::MAX] {
            for index in [0, 1] {
                assert_eq!(liodn.set_window(index, &window(size)), Err(EINVAL));
            }
        }
        let denied = Window::of_memory(&block, SIZE, Access::Denied);
        assert_eq!(liodn.set_window(0, &denied), Err(EINVAL));
        assert_eq!(liodn.set_window(4, &window(SIZE)), Err(EINVAL));
        assert_eq!(liodn.set_window(u32::MAX, &window(SIZE)), Err(EINVAL));
        assert_eq!(liodn.clear_window(4), Err(EINVAL));
        for index in 0..4 {
            liodn.set_window(index, &window(SIZE))?;
            assert_eq!(liodn.set_window(index, &window(SIZE)), Err(EBUSY));
            liodn.clear_window(index)?;
            liodn.clear_window(index)?;
            liodn.set_window(index, &window(4096))?;
        }
        for windows in [0, 3, 512, u32::MAX] {
            assert_eq!(liodn.prepare(windows).err(), Some(EINVAL));
        }
        // Windows below a page.
        let secondaries = liodn.prepare(2)?;
        let aperture = Aperture::of_size(0, 4096)?;
        let refused = liodn.configure(aperture, secondaries, Attributes::default());
        assert_eq!(refused, Err(EINVAL));
        Ok(())
    }

    #[test]
    fn violations_have_a_cause_and_an_address() -> Result {
        let machine = machine()?;
        let block = memory(0)?;
        let mut liodn = liodn(&machine, 7, 8)?;
        liodn.set_window(0, &Window::of_memory(&block, SIZE, Access::Query))?;
        liodn.set_window(2, &Window::of_memory(&block, 4096, Access::Update))?;
        liodn.enable()?;
        let at = |window: u64| BASE + window * SIZE;
        type Attempt = fn(&Arc<Machine>, u64) -> Option<Cause>;
        let read: Attempt = |machine, address| peek(machine, 7, address).err();
        let write: Attempt = |machine, address| poke(machine, 7, address, 0).err();
        for (attempt, address, expected) in [
            (read, at(0), None),
            (write, at(0) + 4, Some(Cause::Permission)),
            (write, at(2), None),
            (read, at(2) + 4, Some(Cause::Permission)),
            (write, at(2) + 4096, Some(Cause::Window)),
            (read, at(1), Some(Cause::Window)),
            (write, at(3), Some(Cause::Window)),
            (read, at(8), Some(Cause::Window)),
            (write, at(0) - 4, Some(Cause::Window)),
            (read, 0, Some(Cause::Window)),
            (read, u64::MAX - 3, Some(Cause::Window)),
        ] {
            assert_eq!(attempt(&machine, address), expected);
            let violation = liodn.violation();
            assert_eq!(violation.map(|v| v.cause), expected);
            if let Some(violation) = violation {
                assert_eq!((violation.liodn, violation.address), (7, address));
                assert_eq!(violation.status >> 16, 7);
                // Later ones don't take its place.
                assert_eq!(read(&machine, 4), Some(Cause::Liodn));
                assert_eq!(liodn.violation().map(|v| v.address), Some(address));
                assert!(liodn.revive()?);
            }
            assert!(!liodn.revive()?);
        }
        assert_eq!(machine.system().history().lock().count(), 9);
        Ok(())
    }

    #[test]
    fn a_stopped_liodn_stays_off_until_revived() -> Result {
        let machine = machine()?;
        let block = memory(0x77)?;
        let mut liodn = liodn(&machine, 9, 2)?;
        let window = Window::of_memory(&block, SIZE, Access::All);
        liodn.set_window(0, &window)?;
        liodn.enable()?;
        assert_eq!(peek(&machine, 9, 0), Err(Cause::Window));
        liodn.disable()?;
        liodn.enable()?;
        liodn.set_window(1, &window)?;
        liodn.clear_window(0)?;
        liodn.set_window(0, &window)?;
        assert_eq!(peek(&machine, 9, BASE), Err(Cause::Liodn));
        assert!(liodn.revive()?);
        assert_eq!(peek(&machine, 9, BASE), Ok(0x77));
        assert_eq!(peek(&machine, 9, 0), Err(Cause::Window));
        liodn.disable()?;
        // Reviving doesn't turn on what its owner has turned off.
        assert!(liodn.revive()?);
        assert_eq!(peek(&machine, 9, BASE), Err(Cause::Liodn));
        Ok(())
    }

    /// Erratum A-003638: a device that goes on after it was turned off interrupts no more, and the
    /// PAMU's violations are heard again when somebody is turned on.
    #[test]
    fn a_noisy_device_is_not_heard_for_ever() -> Result {
        let machine = machine()?;
        let pics = || machine.system().pamus()[0].read(Register::Pics);
        assert_eq!(pics(), pics::AV_ENABLE);
        assert_eq!(peek(&machine, 2, 0), Err(Cause::Liodn));
        assert_eq!(pics(), 0);
        for _ in 0..10 {
            assert_eq!(peek(&machine, 2, 0), Err(Cause::Liodn));
        }
        assert_eq!(machine.system().history().lock().count(), 0);
        let mut other = liodn(&machine, 4, 1)?;
        other.enable()?;
        // The status of what wasn't heard is still there, and is heard now.
        assert_eq!(pics() & pics::AV_ENABLE, pics::AV_ENABLE);
        assert_eq!(peek(&machine, 4, 0), Err(Cause::Window));
        assert!(other.violation().is_some());
        Ok(())
    }

    #[test]
    fn closed_gates_stop_everything() -> Result {
        let machine = machine()?;
        let block = memory(5)?;
        let mut liodn = liodn(&machine, 6, 1)?;
        liodn.set_window(0, &Window::of_memory(&block, SIZE, Access::All))?;
        liodn.enable()?;
        assert_eq!(peek(&machine, 6, BASE), Ok(5));
        let pamu = &machine.system().pamus()[0];
        pamu.disable();
        assert_eq!(peek(&machine, 6, BASE), Err(Cause::Gate));
        assert_eq!(pamu.read(Register::Avs1) & avs1::GCV, avs1::GCV);
        pamu.enable(machine.system().tables());
        assert_eq!(pamu.read(Register::Avs1), 0);
        assert_eq!(peek(&machine, 6, BASE), Ok(5));
        Ok(())
    }

    #[test]
    fn doorbells_interrupt() -> Result {
        struct Count(Atomic<u32>);
        impl Interrupt for Count {
            fn interrupt(&self) {
                self.0.fetch_add(1, Relaxed);
            }
        }
        let machine = machine()?;
        let mut liodn = liodn(&machine, 1, 4)?;
        let count = Arc::new(Count(Atomic::new(0)), GFP_KERNEL)?;
        let doorbells = machine.doorbells();
        let vectors = [
            Vector::of(doorbells, 0, count.clone())?,
            Vector::of(doorbells, 1, count.clone())?,
            Vector::of(doorbells, 1, count.clone())?,
        ];
        assert_eq!(vectors[2].data(), 1);
        assert!(Vector::of(doorbells, 2, count.clone()).is_err());
        let bank = machine.system().banks()[1];
        assert_eq!(bank.doorbell() % 4096, 0x140);
        liodn.set_window(2, &Window::of_doorbell(&bank, Access::Update))?;
        liodn.enable()?;
        let master = Master::on(machine.clone(), 1);
        let doorbell = BASE + 2 * SIZE + 0x140;
        for (vector, expected) in [(&vectors[1], 1), (&vectors[2], 2)] {
            master.write(doorbell, &vector.data().to_le_bytes())?;
            assert_eq!(count.0.load(Relaxed), expected);
        }
        // Elsewhere in the page, and a vector that nobody has.
        master.write(doorbell + 4, &0u32.to_le_bytes())?;
        master.write(doorbell, &200u32.to_le_bytes())?;
        assert_eq!(count.0.load(Relaxed), 2);
        drop(vectors);
        master.write(doorbell, &0u32.to_le_bytes())?;
        assert_eq!(count.0.load(Relaxed), 2);
        Ok(())
    }

    #[test]
    fn transfers_cross_pages_and_windows() -> Result {
        let machine = machine()?;
        let (a, b) = (memory(0)?, memory(0)?);
        let mut liodn = liodn(&machine, 8, 2)?;
        liodn.set_window(0, &Window::of_memory(&a, SIZE, Access::All))?;
        liodn.set_window(1, &Window::of_memory(&b, SIZE, Access::All))?;
        liodn.enable()?;
        let master = Master::on(machine.clone(), 8);
        let mut data = KVVec::from_elem(0u8, 10000, GFP_KERNEL)?;
        for (at, byte) in data.iter_mut().enumerate() {
            *byte = (at % 251) as u8;
        }
        master.write(BASE + SIZE - 5001, &data)?;
        let mut back = KVVec::from_elem(0u8, 10000, GFP_KERNEL)?;
        master.read(BASE + SIZE - 5001, &mut back)?;
        assert!(*data == *back);
        let end = master.read(BASE + 2 * SIZE - 100, &mut back);
        let address = BASE + 2 * SIZE;
        assert!(matches!(end, Err(Denied::Violation { address: at, .. }) if at == address));
        Ok(())
    }

    #[test]
    fn windows_come_back_and_are_gone_after_configuring() -> Result {
        let machine = machine()?;
        let free = machine.system().tables().free_secondaries();
        let block = memory(1)?;
        let window = Window::of_memory(&block, SIZE, Access::All);
        {
            let mut liodn = liodn(&machine, 0, 256)?;
            for index in 0..256 {
                liodn.set_window(index, &window)?;
            }
            liodn.enable()?;
            // New windows are prepared beside the old ones, which work on.
            let more = liodn.prepare(256)?;
            assert_eq!(liodn.prepare(128).err(), Some(ENOSPC));
            assert_eq!(peek(&machine, 0, BASE + 255 * SIZE), Ok(1));
            let aperture = Aperture::of_size(BASE, 256 * SIZE)?;
            liodn.configure(aperture, more, Attributes::default())?;
            assert_eq!(machine.system().tables().free_secondaries(), free - 255);
            liodn.enable()?;
            for index in [0, 1, 128, 255] {
                assert_eq!(peek(&machine, 0, BASE + index * SIZE), Err(Cause::Window));
                assert!(liodn.revive()?);
            }
            liodn.unconfigure();
            assert_eq!(machine.system().tables().free_secondaries(), free);
            assert_eq!(liodn.enable(), Err(ENODEV));
        }
        assert_eq!(machine.system().tables().free_secondaries(), free);
        Ok(())
    }

    /// Does random things to some LIODNs, and after each compares everything that they can reach with
    /// a model that is no more than a list.
    #[test]
    fn random_windows_against_a_list() -> Result {
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
                    let window = Window::of_memory(&blocks[which as usize], new.size, new.access);
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

    /// A device on another processor that reads all the time, and notes what it sees.
    #[pin_data]
    struct Poller {
        machine: Arc<Machine>,
        stop: Atomic<u32>,
        /// How often it read one of the two fills, nothing, or anything else.
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

    /// Moves a window to and fro between two blocks under the eyes of the poller. Each block has its
    /// fill in it while the window leads there, and something else as soon as it has been cleared.
    #[test]
    fn a_device_meanwhile_sees_old_or_new_or_nothing() -> Result {
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
            liodn.set_window(
                1,
                &Window::of_memory(block, 4096 << (rounds % 5), Access::All),
            )?;
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
