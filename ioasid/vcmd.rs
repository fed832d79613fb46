// SPDX-License-Identifier: GPL-2.0

//! VT-d's virtual command interface: how a guest asks the host for PASIDs through a VT-d.
//!
//! The virtual IOMMU has three registers more. `VCCAP` says whether PASIDs can be had. A write to
//! `VCMD` starts a command; while it goes on, `VCRSP` has the bit [`IN_PROGRESS`], and afterwards the
//! status and the result. The layout is the final one of the specification (Linux 5.10 to 6.3); the
//! one before had the result eight bits lower.

mod layout;
#[cfg(CONFIG_KUNIT)]
pub(crate) mod model;

use kernel::{
    io::{
        Io,
        Mmio,
        Region, //
    },
    prelude::*,
    sync::{
        new_spinlock_irq,
        SpinLockIrq, //
    },
    time::{
        delay::udelay,
        Delta, //
    },
};

use kernel_ext::gfp::Gfp;

use crate::{
    complain::complain,
    range::{
        IdRange,
        DEFAULT_CAPACITY, //
    },
    source::Allocator, //
};

pub use layout::{
    Command,
    Response,
    Status,
    IN_PROGRESS,
    VCCAP,
    VCCAP_PAS,
    VCMD,
    VCRSP, //
};

/// How long a command may take before it counts as lost, in polls of a microsecond.
const MAX_POLLS: u32 = 10_000;

/// The registers of an IOMMU, by their offsets.
pub trait Registers: Send + Sync + Unpin {
    /// Reads a register.
    fn read(&self, offset: usize) -> u64;
    /// Writes a register.
    fn write(&self, offset: usize, value: u64);
}

/// The registers, and what is left from a command that took too long.
struct Port<R> {
    registers: R,
    lost: Option<Command>,
}

impl<R: Registers> Port<R> {
    fn response(&self) -> Option<Response> {
        Response::decode(self.registers.read(VCRSP))
    }

    /// Runs a command and waits for its response.
    fn run(&mut self, command: Command) -> Result<Response> {
        self.registers.write(VCMD, command.encode());
        for _ in 0..MAX_POLLS {
            if let Some(response) = self.response() {
                return Ok(response);
            }
            udelay(Delta::from_micros(1));
        }
        self.lost = Some(command);
        Err(ETIMEDOUT)
    }

    /// Ends what took too long before: nobody waits for the PASID that was allocated then.
    fn settle(&mut self) -> Result {
        let response = self.response().ok_or(EBUSY)?;
        if self.lost.take() == Some(Command::Alloc) && response.status == Status::Success {
            self.run(Command::Free(response.pasid))?;
        }
        Ok(())
    }
}

/// An IOMMU's virtual command interface as an allocator.
#[pin_data]
pub struct VirtualCommand<R: Registers> {
    /// One command at a time.
    #[pin]
    port: SpinLockIrq<Port<R>>,
}

impl<R: Registers> VirtualCommand<R> {
    /// Takes the interface into use, which bit 44 of the IOMMU's extended capabilities tells of.
    ///
    /// # Errors
    ///
    /// `ENODEV` if it has no PASIDs to give.
    pub fn new(registers: R) -> Result<impl PinInit<Self>> {
        if registers.read(VCCAP) & VCCAP_PAS == 0 {
            return Err(ENODEV);
        }
        let lost = None;
        Ok(pin_init!(Self {
            port <- new_spinlock_irq!(Port { registers, lost }, "ioasid::VirtualCommand::port"),
        }))
    }

    fn run(&self, command: Command) -> Result<Response> {
        let mut port = self.port.lock();
        port.settle()?;
        port.run(command)
    }

    /// Gives a PASID back.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is not the guest's; `ENODEV`, `ETIMEDOUT` or `EBUSY` if the IOMMU fails.
    fn release(&self, pasid: u32) -> Result {
        self.run(Command::Free(pasid))?.status.of_free()
    }
}

impl<R: Registers> Allocator for VirtualCommand<R> {
    /// Allocates any PASID, which the range has to fit: the interface knows no ranges.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the range has 0 or more than 20 bits; `ENOSPC` if there is no PASID left, or the one
    /// that came is not in the range; `ENODEV`, `ETIMEDOUT` or `EBUSY` if the IOMMU fails.
    fn alloc(&self, range: IdRange, _gfp: Gfp) -> Result<u32> {
        if range.first() < 1 || range.last() > DEFAULT_CAPACITY {
            return Err(EINVAL);
        }
        let response = self.run(Command::Alloc)?;
        response.status.of_alloc()?;
        if !range.contains(response.pasid) {
            self.free(response.pasid);
            return Err(ENOSPC);
        }
        Ok(response.pasid)
    }

    fn free(&self, id: u32) {
        if let Err(e) = self.release(id) {
            complain(c"free on the host PASID", id, e);
        }
    }
}

/// The registers of a real IOMMU. One that was taken away reads as all ones.
impl<const SIZE: usize> Registers for Mmio<'_, Region<SIZE>> {
    fn read(&self, offset: usize) -> u64 {
        self.try_read64(offset).unwrap_or(u64::MAX)
    }

    fn write(&self, offset: usize, value: u64) {
        // Offsets are within the page that every IOMMU has.
        let _ = self.try_write64(value, offset);
    }
}

#[kunit_tests(ioasid_vcmd)]
mod tests {
    use super::{
        model::Model,
        *, //
    };
    use crate::host::Guest;
    use kernel::sync::Arc;

    type Interface = Arc<VirtualCommand<Arc<Model>>>;

    fn interface(model: Arc<Model>) -> Result<Interface> {
        Arc::pin_init(VirtualCommand::new(model)?, GFP_KERNEL)
    }

    fn with_quota(quota: u32) -> Result<(Arc<Model>, Interface)> {
        let model = Model::new(Guest::alone(quota)?)?;
        let interface = interface(model.clone())?;
        Ok((model, interface))
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
        assert_eq!(interface.release(77), Err(EINVAL));
        let id = interface.alloc(pasids()?, Gfp::Kernel)?;
        assert_eq!(interface.release(id), Ok(()));
        assert_eq!(interface.release(id), Err(EINVAL));
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
        assert_eq!(interface.release(id), Ok(()));
        Ok(())
    }

    #[test]
    fn does_not_wait_forever() -> Result {
        let (model, interface) = with_quota(1)?;
        model.set_polls(u32::MAX);
        assert_eq!(interface.alloc(pasids()?, Gfp::Kernel), Err(ETIMEDOUT));
        assert_eq!(interface.alloc(pasids()?, Gfp::Kernel), Err(EBUSY));
        // The command ends at last. Nobody waits for its PASID, so that goes back.
        assert_eq!(model.guest().used(), 1);
        model.set_polls(1);
        model.finish();
        assert!(interface.alloc(pasids()?, Gfp::Kernel).is_ok());
        assert_eq!(model.guest().used(), 1);
        Ok(())
    }

    #[test]
    fn a_host_that_fails() -> Result {
        let (model, interface) = with_quota(1)?;
        model.set_failure(Some(5));
        assert_eq!(interface.alloc(pasids()?, Gfp::Kernel), Err(ENODEV));
        assert_eq!(interface.release(1), Err(ENODEV));
        Ok(())
    }
}
