// SPDX-License-Identifier: GPL-2.0

//! VT-d's virtual command interface: how a guest asks the host for PASIDs through a VT-d.
//!
//! The virtual IOMMU has three registers more. `VCCAP` says whether PASIDs can be had. A write to
//! `VCMD` starts a command; while it goes on, `VCRSP` has the bit [`IN_PROGRESS`], and afterwards the
//! status and the result. The layout is the final one of the specification (Linux 5.10 to 6.3); the
//! one before had the result eight bits lower.
//!
//! A host is expected to answer at once: only [`FAST_POLLS`] are made with interrupts disabled. A caller
//! that may sleep waits longer, without the lock. What a slow host has not done by then is finished by
//! the next command, by a worker, or when the interface goes: a PASID that was allocated for a caller
//! which is gone is freed, and so is one that could not be freed at once.

mod layout;
#[cfg(CONFIG_KUNIT)]
pub(crate) mod model;
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
    workqueue::DelayedWork,
};

use kernel_ext::{
    gfp::Gfp,
    mm::cond_resched,
    owned_work::{
        OwnedWork,
        Task, //
    },
};

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

use port::{
    Answer,
    Port, //
};

/// How many polls, a microsecond each, are made for a command with interrupts disabled.
const FAST_POLLS: u32 = 20;
/// How many polls more are made by a caller that may sleep.
const SLOW_POLLS: u32 = 500;
/// How long such a caller sleeps between two polls.
const SLOW_POLL: Delta = Delta::from_micros(20);

/// How often a worker tries to catch up.
const ATTEMPTS: u32 = 10;

/// The registers of an IOMMU, by their offsets.
pub trait Registers: Send + Sync + 'static {
    /// Reads a register. One that isn't there any more reads as all ones.
    fn read(&self, offset: usize) -> u64;

    /// Writes a register.
    ///
    /// # Errors
    ///
    /// If the registers have no such offset.
    fn write(&self, offset: usize, value: u64) -> Result;
}

/// The registers, and what goes on there.
#[pin_data]
struct Interface<R: Registers> {
    registers: R,
    /// Held while a command is started, and for its fast polls.
    #[pin]
    port: SpinLockIrq<Port>,
}

impl<R: Registers> Interface<R> {
    /// Calls `f` until it finds the port free, as long as `gfp` allows.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the port doesn't become free; the error of `f`.
    fn when_free<T>(&self, gfp: Gfp, f: impl Fn(&mut Port, &R) -> Result<T>) -> Result<T> {
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

    /// Asks the host for a PASID.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` or `EBUSY` if the host is too slow; `ENOSPC` or `ENODEV` as it answers.
    fn alloc(&self, gfp: Gfp) -> Result<u32> {
        let response = match self.when_free(gfp, Port::start_alloc)? {
            Answer::Now(response) => response,
            Answer::Later => self.wait(gfp)?,
        };
        response.status.of_alloc()?;
        Ok(response.pasid)
    }

    /// Waits for the answer to an allocation, with the port reserved for that.
    fn wait(&self, gfp: Gfp) -> Result<Response> {
        let polls = if gfp == Gfp::Atomic { 0 } else { SLOW_POLLS };
        let response = (0..polls).find_map(|_| {
            fsleep(SLOW_POLL);
            port::response(&self.registers)
        });
        self.port.lock().end_alloc(response);
        response.ok_or(ETIMEDOUT)
    }

    /// Frees what is to be freed, and finishes what took too long. Sleeps.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the host is too slow.
    fn catch_up(&self) -> Result {
        while self.when_free(Gfp::Kernel, Port::free_one)? {
            cond_resched();
        }
        Ok(())
    }
}

/// Catches up with what a slow host has left undone.
struct CatchUp<R: Registers>(Arc<Interface<R>>);

impl<R: Registers> Task for CatchUp<R> {
    fn run(&self) {
        // Then the next command or the end of the interface tries again.
        let _caught_up = (0..ATTEMPTS).any(|_| self.0.catch_up().is_ok());
    }
}

// What is generic is compiled into the module of each user, and names of locks with it; lockdep warns of a
// class that has several names. These functions are compiled once, here.

/// The lock of a port.
#[inline(never)]
fn locked(port: Port) -> impl PinInit<SpinLockIrq<Port>> {
    new_spinlock_irq!(port, "ioasid::VirtualCommand::port")
}

/// The names and classes of the work that catches up, and of its timer.
#[inline(never)]
fn classes_of_work() -> [(&'static CStr, Pin<&'static LockClassKey>); 2] {
    [
        (c"ioasid::VirtualCommand::later", static_lock_class!()),
        (c"ioasid::VirtualCommand::later_timer", static_lock_class!()),
    ]
}

/// An IOMMU's virtual command interface as an allocator.
pub struct VirtualCommand<R: Registers> {
    interface: Arc<Interface<R>>,
    later: OwnedWork<CatchUp<R>>,
}

impl<R: Registers> VirtualCommand<R> {
    /// Takes the interface into use, which bit 44 of the IOMMU's extended capabilities tells of.
    ///
    /// # Errors
    ///
    /// `ENODEV` if it has no PASIDs to give; `ENOMEM`.
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
            CatchUp(interface.clone()),
            DelayedWork::new(work, work_class, timer, timer_class),
        )?;
        Ok(Self { interface, later })
    }

    /// Has a worker catch up if something was left undone.
    fn look_after(&self) {
        if self.interface.port.lock().has_work() {
            // If it is scheduled already, that will do.
            let _scheduled = self.later.schedule(0);
        }
    }
}

impl<R: Registers> Allocator for VirtualCommand<R> {
    /// Allocates any PASID, which the range has to fit: the interface knows no ranges.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the range has 0 or more than 20 bits; `ENOSPC` if there is no PASID left, or the one
    /// that came is not in the range; `ENODEV`, `ETIMEDOUT` or `EBUSY` if the IOMMU fails.
    fn alloc(&self, range: IdRange, gfp: Gfp) -> Result<u32> {
        if range.first() < 1 || range.last() > DEFAULT_CAPACITY {
            return Err(EINVAL);
        }
        let pasid = self.interface.alloc(gfp);
        self.look_after();
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
            complain(c"free on the host PASID", id, e);
        }
        self.look_after();
    }
}

impl<R: Registers> Drop for VirtualCommand<R> {
    fn drop(&mut self) {
        if let Err(e) = self.interface.catch_up() {
            let left = self.interface.port.lock().left();
            complain(c"free on the host PASIDs, as many as", left, e);
        }
    }
}

/// The registers of a real IOMMU. One that was taken away reads as all ones.
impl<const SIZE: usize> Registers for Mmio<'static, Region<SIZE>> {
    fn read(&self, offset: usize) -> u64 {
        self.try_read64(offset).unwrap_or(u64::MAX)
    }

    fn write(&self, offset: usize, value: u64) -> Result {
        self.try_write64(value, offset)
    }
}
