// SPDX-License-Identifier: GPL-2.0

//! Tests of violations: which LIODN is stopped, and what is reported.

use kernel::prelude::*;

use super::*;

#[kunit_tests(pamu_sim_violations)]
mod tests {
    use super::*;

    use kernel::time::{
        delay::fsleep,
        Delta,
        Instant,
        Monotonic, //
    };

    use kernel_ext::testing::Random;

    use vfio_iommu_pamu::{
        paace::Access,
        pamu::Pamu,
        registers::{
            avs1,
            Register, //
        },
        testing,
        violation::{
            Report,
            Violation, //
        },
    };

    /// Returns the violation that stopped a LIODN, after handling the violations that PAMUs have
    /// recorded.
    fn heard(machine: &Machine, liodn: &Liodn) -> Option<Violation> {
        machine.system().poll();
        liodn.violation()
    }

    #[test]
    fn violations_have_a_cause_and_an_address() -> Result {
        let machine = machine()?;
        let block = memory(0)?;
        let mut liodn = liodn(&machine, 7, 8)?;
        liodn.set_window(0, &block_of(&block, SIZE, Access::Query))?;
        liodn.set_window(2, &block_of(&block, 4096, Access::Update))?;
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
            let violation = heard(&machine, &liodn);
            assert_eq!(violation.map(|v| v.cause), expected);
            if let Some(violation) = violation {
                assert_eq!((violation.liodn, violation.address), (7, address));
                assert_eq!(violation.status >> 16, 7);
                // Later violations don't replace the first one.
                assert_eq!(read(&machine, 4), Some(Cause::Liodn));
                let first = heard(&machine, &liodn);
                assert_eq!(first.map(|v| v.address), Some(address));
                assert!(liodn.revive()?);
            }
            assert!(!liodn.revive()?);
        }
        assert_eq!(machine.system().history().lock().count(), 9);
        Ok(())
    }

    #[test]
    fn stopped_liodn_stays_disabled_until_revived() -> Result {
        let machine = machine()?;
        let block = memory(0x77)?;
        let mut liodn = liodn(&machine, 9, 2)?;
        let window = block_of(&block, SIZE, Access::All);
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
        // Reviving doesn't enable a LIODN that its owner has disabled.
        assert!(liodn.revive()?);
        assert_eq!(peek(&machine, 9, BASE), Err(Cause::Liodn));
        Ok(())
    }

    #[test]
    fn closed_gate_blocks_all_accesses() -> Result {
        let machine = machine()?;
        let block = memory(5)?;
        let mut liodn = liodn(&machine, 6, 1)?;
        liodn.set_window(0, &block_of(&block, SIZE, Access::All))?;
        liodn.enable()?;
        assert_eq!(peek(&machine, 6, BASE), Ok(5));
        let pamu = first_pamu(&machine);
        testing::disable(machine.system(), 0);
        assert_eq!(peek(&machine, 6, BASE), Err(Cause::Gate));
        assert_eq!(pamu.read(Register::Avs1) & avs1::GCV, avs1::GCV);
        testing::enable(machine.system(), 0);
        assert_eq!(pamu.read(Register::Avs1), 0);
        assert_eq!(peek(&machine, 6, BASE), Ok(5));
        Ok(())
    }

    /// Returns the PAMU that LIODNs with an even number are behind.
    fn first_pamu(machine: &Machine) -> &dyn Pamu {
        testing::pamu(machine.system(), 0)
    }

    /// Waits until the condition is true, for at most ten seconds. Returns whether it became true.
    fn comes_true(so: impl Fn() -> bool) -> bool {
        (0..1000).any(|_| {
            fsleep(Delta::from_millis(10));
            so()
        })
    }

    /// Erratum A-003638: a device continues its accesses after it was disabled.
    #[test]
    fn noisy_device_raises_few_interrupts() -> Result {
        let machine = machine()?;
        let pamu = first_pamu(&machine);
        let start = Instant::<Monotonic>::now();
        let (mut accesses, mut interrupts) = (0, 0);
        while start.elapsed() < Delta::from_millis(500) {
            interrupts += i64::from(pamu.is_armed());
            assert_eq!(peek(&machine, 2, 0), Err(Cause::Liodn));
            accesses += 1;
        }
        // At most one interrupt more than the number of 10 ms pauses. Clocks may tick only every 4
        // ms.
        assert!(interrupts <= start.elapsed().as_millis() / 6 + 1);
        assert!(accesses > 2 * interrupts);
        // The LIODN was disabled, so nothing is reported.
        assert_eq!(machine.system().history().lock().count(), 0);
        assert!(comes_true(|| pamu.is_armed()));
        Ok(())
    }

    /// Tests that a caller that polls all the time learns of violations, and doesn't raise the rate
    /// of the interrupts that a noisy device causes.
    #[test]
    fn polling_does_not_end_a_pause() -> Result {
        let machine = machine()?;
        let pamu = first_pamu(&machine);
        let mut other = liodn(&machine, 4, 1)?;
        other.enable()?;
        let start = Instant::<Monotonic>::now();
        let mut interrupts = 0;
        for round in 0.. {
            if start.elapsed() >= Delta::from_millis(500) {
                break;
            }
            interrupts += i64::from(pamu.is_armed());
            assert_eq!(peek(&machine, 2, 0), Err(Cause::Liodn));
            if round == 3 {
                // The violation that the PAMU has recorded would hide this one.
                machine.system().poll();
                assert_eq!(peek(&machine, 4, 0), Err(Cause::Window));
            }
            assert_eq!(heard(&machine, &other).is_some(), round >= 3);
        }
        // At most as many interrupts as 10 ms pauses allow.
        assert!(interrupts <= start.elapsed().as_millis() / 6 + 1);
        assert_eq!(machine.system().history().lock().count(), 1);
        Ok(())
    }

    /// A device tries to access memory all the time, and then its LIODN is enabled.
    #[test]
    fn accesses_before_enabling_do_not_stop_a_liodn() -> Result {
        let machine = machine()?;
        let mut liodn = liodn(&machine, 4, 1)?;
        let report = |status| Report {
            pamu: 0,
            status: 4 << avs1::LIODN_SHIFT | avs1::AV | status,
            status2: 0,
            address: BASE,
            entry: 0,
            operation: [0; 2],
            udad: 0,
        };
        let off = Violation::new(&report(avs1::LAV));
        let outside = Violation::new(&report(avs1::WAV));
        let stops = |violation: &Violation| {
            let entry = machine.system().entry(4);
            entry.is_some_and(|entry| violation.stops(&entry))
        };
        assert!(!stops(&off) && !stops(&outside));
        liodn.enable()?;
        assert!(!stops(&off) && stops(&outside));
        Ok(())
    }

    #[test]
    fn violation_after_a_noisy_device_is_handled() -> Result {
        let machine = machine()?;
        for round in 0..5 {
            let mut other = liodn(&machine, 4, 1)?;
            other.enable()?;
            assert_eq!(peek(&machine, 2, 0), Err(Cause::Liodn));
            assert_eq!(peek(&machine, 4, 0), Err(Cause::Window));
            // No caller polls.
            let heard = || machine.system().history().lock().count() == round + 1;
            assert!(comes_true(heard));
            assert_eq!(other.violation().map(|v| v.address), Some(0));
        }
        Ok(())
    }

    /// Violations that occur while another one is recorded are lost, but after a pause any LIODN
    /// may be first.
    #[test]
    fn both_of_two_noisy_devices_are_stopped() -> Result {
        let machine = machine()?;
        let mut random = Random::new(7);
        let mut other = liodn(&machine, 4, 1)?;
        other.enable()?;
        let heard = (0..1000).any(|_| {
            let who = random.pick(&[2, 4]);
            let refused = (0..10).all(|_| peek(&machine, who, 0).is_err());
            fsleep(Delta::from_millis(5));
            assert!(refused);
            machine.system().history().lock().count() == 1
        });
        assert!(heard);
        assert!(other.violation().is_some());
        Ok(())
    }

    #[test]
    fn pause_affects_one_pamu_only() -> Result {
        let machine = machine()?;
        let mut other = liodn(&machine, 5, 1)?;
        other.enable()?;
        for round in 1..=20 {
            assert_eq!(peek(&machine, 2, 0), Err(Cause::Liodn));
            assert_eq!(peek(&machine, 5, 0), Err(Cause::Window));
            assert_eq!(machine.system().history().lock().count(), round);
            assert!(other.revive()?);
        }
        Ok(())
    }

    /// Tests that everything is freed, whether the pause has ended, is just ending or is still
    /// running.
    #[test]
    fn machine_is_freed_during_a_pause() -> Result {
        for round in 0..60 {
            let tables = tables()?;
            let machine = machine_with(tables.clone())?;
            assert_eq!(peek(&machine, 2, 0), Err(Cause::Liodn));
            assert_eq!(peek(&machine, 3, 0), Err(Cause::Liodn));
            fsleep(Delta::from_micros(250 * round));
            drop(machine);
            assert!(Arc::into_unique_or_drop(tables).is_some());
        }
        Ok(())
    }
}
