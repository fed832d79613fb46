// SPDX-License-Identifier: GPL-2.0

//! The virtual command interface on a fake VT-d.

use kernel::prelude::*;

#[kunit_tests(ioasid_vcmd)]
mod cases {
    use super::super::{
        fake::FakeVtd,
        *, //
    };
    use crate::tests::guest::Guest;

    type Interface = Arc<VirtualCommand<Arc<FakeVtd>>>;

    fn interface(vtd: Arc<FakeVtd>) -> Result<Interface> {
        Ok(Arc::new(VirtualCommand::new(vtd)?, GFP_KERNEL)?)
    }

    fn with_quota(quota: u32) -> Result<(Arc<FakeVtd>, Interface)> {
        let vtd = FakeVtd::new(Guest::alone(quota)?)?;
        let interface = interface(vtd.clone())?;
        Ok((vtd, interface))
    }

    fn release(interface: &Interface, id: u32) -> Result {
        let inner = &interface.interface;
        inner.port.lock().free(&inner.registers, id)
    }

    fn pasids() -> Result<IdRange> {
        IdRange::new(1, DEFAULT_CAPACITY - 1)
    }

    #[test]
    fn an_iommu_without_the_capability_is_refused() -> Result {
        let vtd = FakeVtd::new(Guest::alone(1)?)?;
        vtd.set_capable(false);
        assert_eq!(interface(vtd).err(), Some(ENODEV));
        Ok(())
    }

    #[test]
    fn alloc_fails_when_the_host_has_no_pasid() -> Result {
        let (vtd, interface) = with_quota(2)?;
        let first = interface.alloc(pasids()?, Gfp::Kernel)?;
        assert_ne!(interface.alloc(pasids()?, Gfp::Kernel)?, first);
        assert_eq!(interface.alloc(pasids()?, Gfp::Kernel), Err(ENOSPC));
        interface.free(first);
        assert_eq!(interface.alloc(pasids()?, Gfp::Kernel), Ok(first));
        assert_eq!(vtd.guest().used(), 2);
        Ok(())
    }

    #[test]
    fn freeing_a_pasid_that_is_not_the_guests_is_refused() -> Result {
        let (vtd, interface) = with_quota(2)?;
        assert_eq!(release(&interface, 77), Err(EINVAL));
        let id = interface.alloc(pasids()?, Gfp::Kernel)?;
        assert_eq!(release(&interface, id), Ok(()));
        assert_eq!(release(&interface, id), Err(EINVAL));
        assert_eq!(vtd.guest().used(), 0);
        Ok(())
    }

    #[test]
    fn unsupported_ranges_are_refused() -> Result {
        let (vtd, interface) = with_quota(2)?;
        assert_eq!(interface.alloc(IdRange::ALL, Gfp::Kernel), Err(EINVAL));
        assert_eq!(
            interface.alloc(IdRange::new(0, 9)?, Gfp::Kernel),
            Err(EINVAL)
        );
        let high = IdRange::new(DEFAULT_CAPACITY - 1, DEFAULT_CAPACITY)?;
        assert_eq!(interface.alloc(high, Gfp::Kernel), Err(ENOSPC));
        assert_eq!(vtd.guest().used(), 0);
        Ok(())
    }

    #[test]
    fn a_caller_waits_for_a_slow_host() -> Result {
        let (vtd, interface) = with_quota(1)?;
        vtd.set_polls(100);
        let id = interface.alloc(pasids()?, Gfp::Kernel)?;
        assert_eq!(release(&interface, id), Ok(()));
        Ok(())
    }

    #[test]
    fn a_caller_does_not_wait_forever() -> Result {
        let (vtd, interface) = with_quota(1)?;
        vtd.set_polls(u32::MAX);
        assert_eq!(interface.alloc(pasids()?, Gfp::Kernel), Err(ETIMEDOUT));
        assert_eq!(interface.alloc(pasids()?, Gfp::Kernel), Err(EBUSY));
        // The command ends at last. No caller waits for its PASID, so the PASID is freed.
        assert_eq!(vtd.guest().used(), 1);
        vtd.set_polls(1);
        vtd.finish();
        assert!(interface.alloc(pasids()?, Gfp::Kernel).is_ok());
        assert_eq!(vtd.guest().used(), 1);
        Ok(())
    }

    #[test]
    fn an_atomic_caller_does_not_wait() -> Result {
        let (vtd, interface) = with_quota(1)?;
        vtd.set_polls(u32::MAX);
        let before = vtd.reads();
        let result = interface.interface.alloc(Gfp::Atomic);
        assert_eq!(result, Err(ETIMEDOUT));
        assert_eq!(vtd.reads() - before, FAST_POLLS);
        let result = interface.interface.alloc(Gfp::Atomic);
        assert_eq!(result, Err(EBUSY));
        assert_eq!(vtd.reads() - before, FAST_POLLS + 1);
        vtd.set_polls(0);
        vtd.finish();
        // The PASID that came too late is freed first, so that it can be allocated now.
        assert!(interface.alloc(pasids()?, Gfp::Atomic).is_ok());
        assert_eq!(vtd.guest().used(), 1);
        Ok(())
    }

    #[test]
    fn no_pasid_is_lost_on_a_slow_host() -> Result {
        let (vtd, interface) = with_quota(3)?;
        let alloc = || interface.alloc(pasids()?, Gfp::Kernel);
        let (first, second) = (alloc()?, alloc()?);
        vtd.set_polls(u32::MAX);
        assert_eq!(alloc(), Err(ETIMEDOUT));
        interface.free(first);
        interface.free(second);
        assert_eq!(vtd.guest().used(), 3);
        vtd.set_polls(1);
        vtd.finish();
        for _ in 0..3 {
            assert!(alloc().is_ok());
        }
        assert_eq!(alloc(), Err(ENOSPC));
        Ok(())
    }

    #[test]
    fn a_slow_free_is_finished_later() -> Result {
        let (vtd, interface) = with_quota(2)?;
        let alloc = || interface.alloc(pasids()?, Gfp::Kernel);
        let (first, second) = (alloc()?, alloc()?);
        vtd.set_polls(u32::MAX);
        interface.free(first);
        interface.free(second);
        // The first command has reached the host.
        assert_eq!(vtd.guest().used(), 1);
        vtd.set_polls(1);
        vtd.finish();
        assert!(alloc().is_ok() && alloc().is_ok());
        Ok(())
    }

    #[test]
    fn a_worker_finishes_pending_commands() -> Result {
        let (vtd, interface) = with_quota(2)?;
        let alloc = || interface.alloc(pasids()?, Gfp::Kernel);
        let id = alloc()?;
        vtd.set_polls(u32::MAX);
        assert_eq!(alloc(), Err(ETIMEDOUT));
        vtd.set_polls(1);
        vtd.finish();
        interface.free(id);
        // No further allocation is made.
        let all_freed = (0..10_000).any(|_| {
            fsleep(Delta::from_millis(1));
            vtd.guest().used() == 0
        });
        assert!(all_freed);
        Ok(())
    }

    #[test]
    fn dropping_the_interface_frees_pending_pasids() -> Result {
        let (vtd, interface) = with_quota(3)?;
        let alloc = || interface.alloc(pasids()?, Gfp::Kernel);
        let ids = [alloc()?, alloc()?];
        vtd.set_polls(u32::MAX);
        assert_eq!(alloc(), Err(ETIMEDOUT));
        ids.map(|id| interface.free(id));
        // The running command is finished when the interface is dropped. The pending ones are fast.
        vtd.set_polls(1);
        vtd.finish();
        drop(interface);
        assert_eq!(vtd.guest().used(), 0);
        Ok(())
    }

    #[test]
    fn a_failed_command_returns_enodev() -> Result {
        let (vtd, interface) = with_quota(1)?;
        vtd.set_failure(Some(5));
        assert_eq!(interface.alloc(pasids()?, Gfp::Kernel), Err(ENODEV));
        assert_eq!(release(&interface, 1), Err(ENODEV));
        Ok(())
    }
}
