// SPDX-License-Identifier: GPL-2.0

//! What the requests of a model work on, and what must never happen to it.

use std::{
    panic::{
        catch_unwind,
        AssertUnwindSafe, //
    },
    sync::{
        Arc,
        Mutex, //
    },
};

use kernel_ext::iova::Range;

use loom::cell::UnsafeCell;

/// How many device addresses there are. Each is a page.
pub(crate) const ADDRESSES: u64 = 4;

/// Something no two threads may use at the same time, unless both read. Loom finds out when two
/// threads do, also where they don't in the order of events that it has just tried, but nothing
/// kept them from it.
struct Watched<T>(UnsafeCell<T>);

// SAFETY: Loom stops threads that use it at the same time, unless both read.
unsafe impl<T: Send + Sync> Sync for Watched<T> {}

impl<T> Watched<T> {
    fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    fn read<R>(&self, f: impl FnOnce(&T) -> R) -> R {
        self.0.with(|value| {
            // SAFETY: Loom has checked that no thread writes.
            f(unsafe { &*value })
        })
    }

    fn write<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        self.0.with_mut(|value| {
            // SAFETY: Loom has checked that no other thread uses it.
            f(unsafe { &mut *value })
        })
    }
}

/// A device address.
#[derive(Default)]
struct Address {
    /// Whether there is a mapping that has it.
    mapped: bool,
    /// Whether the IOMMU translates it.
    translated: bool,
}

/// Device addresses and their page table, which only who has locked an address may touch there.
pub(crate) struct Machine {
    addresses: Vec<Watched<Address>>,
    /// What went wrong first. Threads go on, as nothing may panic that holds locks.
    wrong: Mutex<Option<String>>,
}

impl Machine {
    /// Nothing mapped.
    pub(crate) fn new() -> Arc<Self> {
        let addresses = (0..ADDRESSES).map(|_| Watched::new(Address::default()));
        Arc::new(Self {
            addresses: addresses.collect(),
            wrong: Mutex::new(None),
        })
    }

    /// Notes that `what` went wrong.
    pub(crate) fn blame(&self, what: impl Into<String>) {
        let mut wrong = self.wrong.lock().unwrap_or_else(|e| e.into_inner());
        wrong.get_or_insert(what.into());
    }

    /// Panics if something went wrong.
    pub(crate) fn check(&self) {
        let wrong = self.wrong.lock().unwrap_or_else(|e| e.into_inner()).take();
        if let Some(wrong) = wrong {
            panic!("{wrong}");
        }
    }

    /// Lets `f` use each address of `range`.
    fn touch(&self, range: Range, f: impl Fn(&Watched<Address>)) {
        for at in range.start..=range.last {
            let Some(address) = self.addresses.get(at as usize) else {
                self.blame(format!("no such address: {at}"));
                return;
            };
            // Loom panics where the threads were not kept from each other.
            if catch_unwind(AssertUnwindSafe(|| f(address))).is_err() {
                self.blame(format!("two threads at address {at}"));
            }
        }
    }

    /// A mapping comes into being.
    pub(crate) fn claim(&self, range: Range) {
        self.touch(range, |address| {
            if address.write(|address| std::mem::replace(&mut address.mapped, true)) {
                self.blame("an address is mapped twice");
            }
        });
    }

    /// A mapping goes.
    pub(crate) fn release(&self, range: Range) {
        self.touch(range, |address| {
            if !address.write(|address| std::mem::replace(&mut address.mapped, false)) {
                self.blame("a mapping goes twice");
            }
        });
    }

    /// Lets the device reach `range`.
    pub(crate) fn translate(&self, range: Range) {
        self.touch(range, |address| {
            if address.write(|address| std::mem::replace(&mut address.translated, true)) {
                self.blame("an address is translated twice");
            }
        });
    }

    /// Keeps the device from `range`.
    pub(crate) fn forget(&self, range: Range) {
        self.touch(range, |address| {
            if !address.write(|address| std::mem::replace(&mut address.translated, false)) {
                self.blame("an address is forgotten twice");
            }
        });
    }

    /// Looks at memory that is mapped in `range`.
    pub(crate) fn read(&self, range: Range) {
        self.touch(range, |address| {
            if !address.read(|address| address.mapped) {
                self.blame("memory is used after its mapping went");
            }
        });
    }

    /// Which addresses are mapped, and which are translated. Nobody works on them any more.
    pub(crate) fn state(&self) -> Vec<(bool, bool)> {
        let state = |address: &Watched<_>| address.read(|a: &Address| (a.mapped, a.translated));
        self.addresses.iter().map(state).collect()
    }
}
