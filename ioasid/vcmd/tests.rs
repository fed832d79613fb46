// SPDX-License-Identifier: GPL-2.0

//! Tests of the interface with a model of the host.

use kernel::prelude::*;

#[kunit_tests(ioasid_vcmd)]
mod cases {
    use super::super::{
        model::Model,
        *, //
    };
    use crate::host::Guest;

    type Interface = Arc<VirtualCommand<Arc<Model>>>;

    fn interface(model: Arc<Model>) -> Result<Interface> {
        Ok(Arc::new(VirtualCommand::new(model)?, GFP_KERNEL)?)
    }

    fn with_quota(quota: u32) -> Result<(Arc<Model>, Interface)> {
        let model = Model::new(Guest::alone(quota)?)?;
        let interface = interface(model.clone())?;
        Ok((model, interface))
    }

    fn release(interface: &Interface, id: u32) -> Result {
        let inner = &interface.interface;
        inner.port.lock().free(&inner.registers, id)
    }

    fn pasids() -> Result<IdRange> {
        IdRange::new(1, DEFAULT_CAPACITY - 1)
    }

    #[test]
    fn no_capability() -> Result {
        let model = Model::new(Guest::alone(1)?)?;
        model.set_capable(false);
        assert_eq!(interface(model).err(), Some(ENODEV));
        Ok(())
    }

    #[test]
    fn until_the_host_has_none() -> Result {
        let (model, interface) = with_quota(2)?;
        let first = interface.alloc(pasids()?, Gfp::Kernel)?;
        assert_ne!(interface.alloc(pasids()?, Gfp::Kernel)?, first);
        assert_eq!(interface.alloc(pasids()?, Gfp::Kernel), Err(ENOSPC));
        interface.free(first);
        assert_eq!(interface.alloc(pasids()?, Gfp::Kernel), Ok(first));
        assert_eq!(model.guest().used(), 2);
        Ok(())
    }

    #[test]
    fn what_the_guest_does_not_own() -> Result {
        let (model, interface) = with_quota(2)?;
        assert_eq!(release(&interface, 77), Err(EINVAL));
        let id = interface.alloc(pasids()?, Gfp::Kernel)?;
        assert_eq!(release(&interface, id), Ok(()));
        assert_eq!(release(&interface, id), Err(EINVAL));
        assert_eq!(model.guest().used(), 0);
        Ok(())
    }

    #[test]
    fn ranges_that_the_interface_has_not() -> Result {
        let (model, interface) = with_quota(2)?;
        assert_eq!(interface.alloc(IdRange::ALL, Gfp::Kernel), Err(EINVAL));
        assert_eq!(
            interface.alloc(IdRange::new(0, 9)?, Gfp::Kernel),
            Err(EINVAL)
        );
        let high = IdRange::new(DEFAULT_CAPACITY - 1, DEFAULT_CAPACITY)?;
        assert_eq!(interface.alloc(high, Gfp::Kernel), Err(ENOSPC));
        assert_eq!(model.guest().used(), 0);
        Ok(())
    }

    #[test]
    fn waits_for_a_slow_host() -> Result {
        let (model, interface) = with_quota(1)?;
        model.set_polls(100);
        let id = interface.alloc(pasids()?, Gfp::Kernel)?;
        assert_eq!(release(&interface, id), Ok(()));
        Ok(())
    }

    #[test]
    fn does_not_wait_forever() -> Result {
        let (model, interface) = with_quota(1)?;
        model.set_polls(u32::MAX);
        assert_eq!(interface.alloc(pasids()?, Gfp::Kernel), Err(ETIMEDOUT));
        assert_eq!(interface.alloc(pasids()?, Gfp::Kernel), Err(EBUSY));
        // The command ends at last. No caller waits for its PASID, so the PASID is freed.
        assert_eq!(model.guest().used(), 1);
        model.set_polls(1);
        model.finish();
        assert!(interface.alloc(pasids()?, Gfp::Kernel).is_ok());
        assert_eq!(model.guest().used(), 1);
        Ok(())
    }

    #[test]
    fn an_atomic_caller_does_not_wait() -> Result {
        let (model, interface) = with_quota(1)?;
        model.set_polls(u32::MAX);
        let before = model.reads();
        let result = interface.interface.alloc(Gfp::Atomic);
        assert_eq!(result, Err(ETIMEDOUT));
        assert_eq!(model.reads() - before, FAST_POLLS);
        let result = interface.interface.alloc(Gfp::Atomic);
        assert_eq!(result, Err(EBUSY));
        assert_eq!(model.reads() - before, FAST_POLLS + 1);
        model.set_polls(0);
        model.finish();
        // The PASID that came too late is freed first, so that it can be allocated now.
        assert!(interface.alloc(pasids()?, Gfp::Atomic).is_ok());
        assert_eq!(model.guest().used(), 1);
        Ok(())
    }

    #[test]
    fn nothing_is_lost_while_the_host_is_slow() -> Result {
        let (model, interface) = with_quota(3)?;
        let alloc = || interface.alloc(pasids()?, Gfp::Kernel);
        let (first, second) = (alloc()?, alloc()?);
        model.set_polls(u32::MAX);
        assert_eq!(alloc(), Err(ETIMEDOUT));
        interface.free(first);
        interface.free(second);
        assert_eq!(model.guest().used(), 3);
        model.set_polls(1);
        model.finish();
        for _ in 0..3 {
            assert!(alloc().is_ok());
        }
        assert_eq!(alloc(), Err(ENOSPC));
        Ok(())
    }

    #[test]
    fn a_slow_free_is_finished() -> Result {
        let (model, interface) = with_quota(2)?;
        let alloc = || interface.alloc(pasids()?, Gfp::Kernel);
        let (first, second) = (alloc()?, alloc()?);
        model.set_polls(u32::MAX);
        interface.free(first);
        interface.free(second);
        // The first command has reached the host.
        assert_eq!(model.guest().used(), 1);
        model.set_polls(1);
        model.finish();
        assert!(alloc().is_ok() && alloc().is_ok());
        Ok(())
    }

    #[test]
    fn a_worker_catches_up() -> Result {
        let (model, interface) = with_quota(2)?;
        let alloc = || interface.alloc(pasids()?, Gfp::Kernel);
        let id = alloc()?;
        model.set_polls(u32::MAX);
        assert_eq!(alloc(), Err(ETIMEDOUT));
        model.set_polls(1);
        model.finish();
        interface.free(id);
        // No further allocation is made.
        let all_freed = (0..10_000).any(|_| {
            fsleep(Delta::from_millis(1));
            model.guest().used() == 0
        });
        assert!(all_freed);
        Ok(())
    }

    #[test]
    fn nothing_is_left_when_the_interface_goes() -> Result {
        let (model, interface) = with_quota(3)?;
        let alloc = || interface.alloc(pasids()?, Gfp::Kernel);
        let ids = [alloc()?, alloc()?];
        model.set_polls(u32::MAX);
        assert_eq!(alloc(), Err(ETIMEDOUT));
        ids.map(|id| interface.free(id));
        // The running command is finished when the interface is dropped. The pending ones are fast.
        model.set_polls(1);
        model.finish();
        drop(interface);
        assert_eq!(model.guest().used(), 0);
        Ok(())
    }

    #[test]
    fn a_host_that_fails() -> Result {
        let (model, interface) = with_quota(1)?;
        model.set_failure(Some(5));
        assert_eq!(interface.alloc(pasids()?, Gfp::Kernel), Err(ENODEV));
        assert_eq!(release(&interface, 1), Err(ENODEV));
        Ok(())
    }
}
