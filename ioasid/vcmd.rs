// SPDX-License-Identifier: GPL-2.0

//! VT-d's virtual command interface, through which a guest allocates PASIDs from the host.
//!
//! A virtual IOMMU has three more registers. `VCCAP` reports whether PASIDs can be allocated. A
//! write to `VCMD` starts a command. While it is running, the bit
//! [`IN_PROGRESS`](layout::IN_PROGRESS) of `VCRSP` is set. Afterwards `VCRSP` has the status and
//! the result. The layout is the final one of the specification (Linux 5.10 to 6.3). In the
//! previous layout the result was eight bits lower.
//!
//! A host is expected to respond immediately: only [`FAST_POLLS`] polls are made with interrupts
//! disabled. A caller that may sleep continues to poll without the lock. If a command takes longer,
//! it is finished by the next command, by a worker, or when the interface is dropped. These also
//! free a PASID that was allocated for a caller that no longer waits, or that could not be freed
//! immediately.

#[cfg(CONFIG_KUNIT)]
pub(crate) mod fake;
mod layout;
mod port;
#[cfg(CONFIG_KUNIT)]
mod tests;

use kernel::{
    io::{
        Io,
        Mmio,
        Region, //
    },
    prelude::*,
    static_lock_class,
    sync::{
        new_spinlock_irq,
        Arc,
        LockClassKey,
        SpinLockIrq, //
    },
    time::{
        delay::fsleep,
        Delta, //
    },
    workqueue::DelayedWork, //
};

use kernel_ext::{
    mm::cond_resched,
    owned_work::{
        OwnedWork,
        Task, //
    }, //
};

use crate::{
    allocator::Allocator,
    gfp::Gfp,
    id::range::{
        IdRange,
        DEFAULT_CAPACITY, //
    },
    warn_failed, //
};

pub use layout::{
    Command,
    Response,
    Status, //
};

use layout::{
    VCCAP,
    VCCAP_PAS,
    VCMD,
    VCRSP, //
};
use port::{
    Port,
    Started, //
};

/// The number of polls for a command with interrupts disabled, one per microsecond.
const FAST_POLLS: u32 = 20;
/// The number of additional polls by a caller that may sleep.
const SLOW_POLLS: u32 = 500;
/// The time between two of these polls.
const SLOW_POLL: Delta = Delta::from_micros(20);

/// The maximum number of attempts of the worker to finish the pending commands.
const ATTEMPTS: u32 = 10;

/// Access to the registers of an IOMMU by their offsets.
pub trait Registers: Send + Sync + 'static {
    /// Reads a register. Reads as all ones if the register is no longer accessible.
    fn read(&self, offset: usize) -> u64;

    /// Writes a register.
    ///
    /// # Errors
    ///
    /// Fails if the registers do not include `offset`.
    fn write(&self, offset: usize, value: u64) -> Result;
}

/// The registers and the state of their commands.
#[pin_data]
struct Interface<R: Registers> {
    registers: R,
    /// Held to start a command and during its fast polls.
    #[pin]
    port: SpinLockIrq<Port>,
}

impl<R: Registers> Interface<R> {
    /// Calls `f` until it finds the port idle, as often as `gfp` allows.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the port does not become idle; the errors of `f`.
    fn when_idle<T>(&self, gfp: Gfp, f: impl Fn(&mut Port, &R) -> Result<T>) -> Result<T> {
        let mut polls = if gfp == Gfp::Atomic { 0 } else { SLOW_POLLS };
        loop {
            let result = f(&mut self.port.lock(), &self.registers);
            match (result, polls) {
                (Err(e), 1..) if e == EBUSY => polls -= 1,
                (result, _) => return result,
            }
            fsleep(SLOW_POLL);
        }
    }

    /// Allocates a PASID from the host.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` or `EBUSY` if the host is too slow; `ENOSPC` or `ENODEV` depending on its
    /// response.
    fn alloc(&self, gfp: Gfp) -> Result<u32> {
        let response = match self.when_idle(gfp, Port::start_alloc)? {
            Started::Done(response) => response,
            Started::Running => self.wait(gfp)?,
        };
        response.status.alloc_result()?;
        Ok(response.pasid)
    }

    /// Waits for the response to an allocation. The port is reserved for it.
    fn wait(&self, gfp: Gfp) -> Result<Response> {
        let polls = if gfp == Gfp::Atomic { 0 } else { SLOW_POLLS };
        let response = (0..polls).find_map(|_| {
            fsleep(SLOW_POLL);
            port::response(&self.registers)
        });
        self.port.lock().end_alloc(response);
        response.ok_or(ETIMEDOUT)
    }

    /// Finishes pending commands and frees pending PASIDs. Sleeps.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the host is too slow.
    fn finish_pending(&self) -> Result {
        while self.when_idle(Gfp::Kernel, Port::free_one)? {
            cond_resched();
        }
        Ok(())
    }
}

/// The work item that finishes the pending commands of a slow host.
struct FinishWork<R: Registers>(Arc<Interface<R>>);

impl<R: Registers> Task for FinishWork<R> {
    fn run(&self) {
        // If this fails, the next command or the drop of the interface tries again.
        let _caught_up = (0..ATTEMPTS).any(|_| self.0.finish_pending().is_ok());
    }
}

// Generic code is compiled into the modules that use it, together with its lock names. lockdep
// warns about a lock class with several names. Therefore these functions are compiled only once, in
// this module.

/// Creates the lock of a port.
#[inline(never)]
fn locked(port: Port) -> impl PinInit<SpinLockIrq<Port>> {
    new_spinlock_irq!(port, "ioasid::VirtualCommand::port")
}

/// Returns the names and lock classes of the work item and its timer.
#[inline(never)]
fn classes_of_work() -> [(&'static CStr, Pin<&'static LockClassKey>); 2] {
    [
        (c"ioasid::VirtualCommand::later", static_lock_class!()),
        (c"ioasid::VirtualCommand::later_timer", static_lock_class!()),
    ]
}

/// The virtual command interface of an IOMMU as an allocator.
pub struct VirtualCommand<R: Registers> {
    interface: Arc<Interface<R>>,
    later: OwnedWork<FinishWork<R>>,
}

impl<R: Registers> VirtualCommand<R> {
    /// Starts to use the interface, whose presence is bit 44 of the IOMMU's extended capabilities.
    ///
    /// # Errors
    ///
    /// `ENODEV` if it cannot allocate PASIDs; `ENOMEM`.
    pub fn new(registers: R) -> Result<Self> {
        if registers.read(VCCAP) & VCCAP_PAS == 0 {
            return Err(ENODEV);
        }
        let port = Port::new()?;
        let interface = pin_init!(Interface {
            registers,
            port <- locked(port),
        });
        let interface = Arc::pin_init(interface, GFP_KERNEL)?;
        let [(work, work_class), (timer, timer_class)] = classes_of_work();
        let later = OwnedWork::new(
            FinishWork(interface.clone()),
            DelayedWork::new(work, work_class, timer, timer_class),
        )?;
        Ok(Self { interface, later })
    }

    /// Schedules the work item if commands or PASIDs are pending.
    fn schedule_pending(&self) {
        if self.interface.port.lock().has_pending() {
            // If the work item is already scheduled, that is sufficient.
            let _scheduled = self.later.schedule(0);
        }
    }
}

impl<R: Registers> Allocator for VirtualCommand<R> {
    /// Allocates any PASID and checks that it is in `range`: the interface does not support ranges.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the range contains 0 or ends above 2^20; `ENOSPC` if no PASID is left, or if the
    /// allocated one is not in the range; `ENODEV`, `ETIMEDOUT` or `EBUSY` if the IOMMU fails.
    fn alloc(&self, range: IdRange, gfp: Gfp) -> Result<u32> {
        if range.first() < 1 || range.last() > DEFAULT_CAPACITY {
            return Err(EINVAL);
        }
        let pasid = self.interface.alloc(gfp);
        self.schedule_pending();
        let pasid = pasid?;
        if !range.contains(pasid) {
            self.free(pasid);
            return Err(ENOSPC);
        }
        Ok(pasid)
    }

    fn free(&self, id: u32) {
        let mut port = self.interface.port.lock();
        let freed = port.free(&self.interface.registers, id);
        drop(port);
        if let Err(e) = freed {
            warn_failed(fmt!("free PASID {id} on the host"), e);
        }
        self.schedule_pending();
    }
}

impl<R: Registers> Drop for VirtualCommand<R> {
    fn drop(&mut self) {
        if let Err(e) = self.interface.finish_pending() {
            let pending = self.interface.port.lock().pending();
            warn_failed(fmt!("free {pending} PASIDs on the host"), e);
        }
    }
}

/// The registers of a real IOMMU. An inaccessible register reads as all ones.
impl<const SIZE: usize> Registers for Mmio<'static, Region<SIZE>> {
    fn read(&self, offset: usize) -> u64 {
        self.try_read64(offset).unwrap_or(u64::MAX)
    }

    fn write(&self, offset: usize, value: u64) -> Result {
        self.try_write64(value, offset)
    }
}
