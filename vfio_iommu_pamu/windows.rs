// SPDX-License-Identifier: GPL-2.0

//! The states of an address space: an aperture, then windows, then what is mapped.
//!
//! [`Space`] decides what may happen when, and tells a [`Mirror`] what the hardware has to do; it knows
//! neither memory nor hardware. What can fail is asked first (`check_*`), and what has been checked
//! is then done without failing, so that a request changes everything or nothing. The caller holds
//! the same lock from one to the other.
//!
//! The aperture *is in use* as long as anything is mapped. Exactly then devices are let in, and its
//! place and its windows can't change.

#[cfg(CONFIG_KUNIT)]
mod transitions;

use kernel::prelude::*;

use kernel_ext::iommu::{
    Access,
    Prot, //
};

use crate::{
    geometry::{
        Layout,
        Span, //
    },
    paace::{
        Aperture,
        MIN_ORDER, //
    },
};

/// Who maps the MSI banks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// The program.
    Explicit,
    /// The kernel, at the last windows, as long as memory is mapped.
    Implicit,
}

/// What a window gives access to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target<M> {
    /// Memory of the program.
    Memory(M),
    /// A page with the doorbell of an MSI bank.
    Bank {
        /// The number of the bank.
        bank: u32,
        /// How many devices send their interrupts there.
        users: u32,
        /// Whether the kernel mapped it.
        implicit: bool,
    },
}

/// A window that is in use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Window<M> {
    /// The base-2 logarithm of how much of it is mapped, from its start on.
    pub(crate) order: u32,
    /// What devices may do.
    pub(crate) prot: Prot,
    /// What is mapped.
    pub(crate) target: Target<M>,
}

/// The hardware that translates as a [`Space`] says, for all devices alike.
pub(crate) trait Mirror<M> {
    /// Gives access to a window, which gave none.
    fn set(&mut self, window: u32, content: &Window<M>);

    /// Takes the access to a window away; at return no device can still be using it.
    fn clear(&mut self, window: u32);

    /// Lets devices in, with the first window.
    fn enable(&mut self);

    /// Shuts them out, with the last.
    fn disable(&mut self);
}

/// An aperture and what is mapped in it; `M` is the memory of one window.
pub(crate) struct Space<M> {
    aperture: Option<Aperture>,
    layout: Option<Layout>,
    policy: Policy,
    /// As many as the layout has.
    windows: KVec<Option<Window<M>>>,
    /// How many windows have memory.
    memory: u32,
    /// How many windows have a bank.
    mapped_banks: u32,
    /// How many banks there are.
    banks: u32,
    /// The most windows that the hardware has.
    max: u32,
}

/// The windows of a layout that is about to be set.
pub(crate) struct NewWindows<M> {
    layout: Layout,
    windows: KVec<Option<Window<M>>>,
}

impl<M> NewWindows<M> {
    /// The layout.
    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }
}

impl<M> Space<M> {
    /// An address space without an aperture, on hardware with so many windows and banks.
    pub(crate) fn new(max: u32, banks: u32) -> Self {
        Self {
            aperture: None,
            layout: None,
            policy: Policy::Explicit,
            windows: KVec::new(),
            memory: 0,
            mapped_banks: 0,
            banks,
            max,
        }
    }

    /// The aperture that was set, else the default.
    pub(crate) fn aperture(&self) -> Aperture {
        self.aperture.unwrap_or(Aperture::DEFAULT)
    }

    /// The windows that were set.
    pub(crate) fn layout(&self) -> Option<Layout> {
        self.layout
    }

    /// How many windows were set, else how many can be.
    pub(crate) fn window_count(&self) -> u32 {
        self.layout.map_or(self.max, |layout| layout.count())
    }

    /// Who maps the banks.
    pub(crate) fn policy(&self) -> Policy {
        self.policy
    }

    /// Whether anything is mapped.
    pub(crate) fn in_use(&self) -> bool {
        self.memory != 0 || self.mapped_banks != 0
    }

    /// The windows in use, by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Window<M>)> {
        let numbered = (0..).zip(self.windows.iter());
        numbered.filter_map(|(window, used)| Some((window, used.as_ref()?)))
    }

    /// What is in a window; `None` if it is free.
    ///
    /// # Errors
    ///
    /// `EINVAL` if there is no such window.
    pub(crate) fn window(&self, window: u32) -> Result<(Layout, Option<&Window<M>>)> {
        let layout = self.layout.ok_or(EINVAL)?;
        let slot = self.windows.get(window as usize).ok_or(EINVAL)?;
        Ok((layout, slot.as_ref()))
    }

    // --- Attributes --------------------------------------------------------------------------

    /// Sets the aperture. The windows have to be set anew.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the aperture is in use.
    pub(crate) fn set_aperture(&mut self, aperture: Aperture) -> Result {
        if self.in_use() {
            return Err(EBUSY);
        }
        self.aperture = Some(aperture);
        self.layout = None;
        self.windows = KVec::new();
        Ok(())
    }

    /// Prepares `count` windows for [`set_windows`](Self::set_windows).
    ///
    /// # Errors
    ///
    /// `EBUSY` if the aperture is in use, `EINVAL` before the aperture was set and for a count that
    /// can't be, `ENOMEM`.
    pub(crate) fn check_windows(&self, count: u32) -> Result<NewWindows<M>> {
        if self.in_use() {
            return Err(EBUSY);
        }
        let layout = Layout::new(self.aperture.ok_or(EINVAL)?, count, self.max)?;
        let mut windows = KVec::with_capacity(count as usize, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..count {
            windows.push(None, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(NewWindows { layout, windows })
    }

    /// Sets windows that were prepared, all of them free.
    pub(crate) fn set_windows(&mut self, new: NewWindows<M>) {
        self.layout = Some(new.layout);
        self.windows = new.windows;
    }

    /// Sets who maps the banks.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the aperture is in use.
    pub(crate) fn set_policy(&mut self, policy: Policy) -> Result {
        if self.in_use() {
            return Err(EBUSY);
        }
        self.policy = policy;
        Ok(())
    }

    // --- Mapping -----------------------------------------------------------------------------

    /// Checks that memory may be mapped, and tells which windows that takes.
    ///
    /// # Errors
    ///
    /// `EINVAL` before the windows were set, and those of [`Layout::span`]; `EEXIST` if a window is in
    /// use, or kept for a bank; `ENOSPC` if the banks that the kernel maps leave no window.
    pub(crate) fn check_memory(&self, iova: u64, size: u64) -> Result<Span> {
        let span = self.layout.ok_or(EINVAL)?.span(iova, size)?;
        if self.policy == Policy::Implicit && span.end() > self.first_implicit()? {
            return Err(EEXIST);
        }
        self.check_free(span)?;
        Ok(span)
    }

    /// Checks that the windows of `span` are free.
    fn check_free(&self, span: Span) -> Result {
        let used = |window: u32| matches!(self.windows.get(window as usize), Some(Some(_)));
        if (span.first..span.end()).any(used) {
            return Err(EEXIST);
        }
        Ok(())
    }

    /// The first of the windows that the kernel maps banks at.
    fn first_implicit(&self) -> Result<u32> {
        let first = self.window_count().checked_sub(self.banks).ok_or(ENOSPC)?;
        if first == 0 {
            return Err(ENOSPC);
        }
        Ok(first)
    }

    /// Maps one block of `memory` at each window of `span`, which was checked; and before the first
    /// memory the banks, if the kernel maps them.
    pub(crate) fn map_memory(
        &mut self,
        span: Span,
        prot: Prot,
        memory: impl IntoIterator<Item = M>,
        mirror: &mut impl Mirror<M>,
    ) {
        let was_in_use = self.in_use();
        if self.policy == Policy::Implicit && self.memory == 0 {
            let first = self.window_count() - self.banks;
            for bank in 0..self.banks {
                if self.window_of(bank).is_none() {
                    self.enter_bank(first + bank, bank, Access::Write.into(), mirror);
                }
            }
        }
        for ((window, order), memory) in span.windows().zip(memory) {
            let target = Target::Memory(memory);
            self.enter(
                window,
                Window {
                    order,
                    prot,
                    target,
                },
                mirror,
            );
        }
        if !was_in_use && self.in_use() {
            mirror.enable();
        }
    }

    /// Puts `content` into a free window.
    fn enter(&mut self, window: u32, content: Window<M>, mirror: &mut impl Mirror<M>) {
        let Some(slot) = self.windows.get_mut(window as usize) else {
            return;
        };
        match content.target {
            Target::Memory(_) => self.memory += 1,
            Target::Bank { .. } => self.mapped_banks += 1,
        }
        mirror.set(window, slot.insert(content));
    }

    /// Puts `bank` into a free window.
    fn enter_bank(&mut self, window: u32, bank: u32, prot: Prot, mirror: &mut impl Mirror<M>) {
        let content = Window {
            order: MIN_ORDER,
            prot,
            target: Target::Bank {
                bank,
                users: 0,
                implicit: self.policy == Policy::Implicit,
            },
        };
        self.enter(window, content, mirror);
    }

    /// Checks that the program may map a bank at `iova`, and tells at which window.
    ///
    /// # Errors
    ///
    /// `ENODEV` if there is no such bank; `EINVAL` if the kernel maps the banks, before the windows
    /// were set, and if no window starts there; `EEXIST` if the window is in use or the bank is mapped.
    pub(crate) fn check_bank(&self, bank: u32, iova: u64) -> Result<u32> {
        if bank >= self.banks {
            return Err(ENODEV);
        }
        let span = self.check_doorbells(iova, 1 << MIN_ORDER)?;
        if self.window_of(bank).is_some() {
            return Err(EEXIST);
        }
        Ok(span.first)
    }

    /// Checks that the program may map some banks in the windows that `iova` and `size` mean.
    ///
    /// # Errors
    ///
    /// As for [`check_bank`](Self::check_bank).
    pub(crate) fn check_doorbells(&self, iova: u64, size: u64) -> Result<Span> {
        if self.policy == Policy::Implicit {
            return Err(EINVAL);
        }
        let span = self.layout.ok_or(EINVAL)?.span(iova, size)?;
        self.check_free(span)?;
        Ok(span)
    }

    /// Chooses a bank for each window of `span`: those that aren't mapped, from number 0 on.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there are too few.
    pub(crate) fn choose_banks(&self, span: Span) -> Result<KVec<u32>> {
        let mut chosen = KVec::new();
        let unmapped = (0..self.banks).filter(|&bank| self.window_of(bank).is_none());
        for bank in unmapped.take(span.count as usize) {
            chosen.push(bank, GFP_KERNEL)?;
        }
        if chosen.len() < span.count as usize {
            return Err(ENOSPC);
        }
        Ok(chosen)
    }

    /// Maps `banks`, none of which is mapped, at consecutive windows that were checked.
    pub(crate) fn map_banks(
        &mut self,
        first: u32,
        banks: &[u32],
        prot: Prot,
        mirror: &mut impl Mirror<M>,
    ) {
        let was_in_use = self.in_use();
        for (window, &bank) in (first..).zip(banks) {
            self.enter_bank(window, bank, prot, mirror);
        }
        if !was_in_use && self.in_use() {
            mirror.enable();
        }
    }

    // --- Unmapping ---------------------------------------------------------------------------

    /// Checks that what is mapped in a range may be unmapped; tells the first and the last window of it
    /// that are in use, and how many bytes are mapped there. `None` if there is nothing.
    ///
    /// # Errors
    ///
    /// `EINVAL` before the windows were set, for no bytes or a range that wraps, and if a window is
    /// mapped only in part inside of the range; `EBUSY` if a bank is in use. Banks that the kernel
    /// mapped aren't the program's to unmap, and don't count.
    pub(crate) fn check_unmap(&self, iova: u64, size: u64) -> Result<Option<Unmapped>> {
        let layout = self.layout.ok_or(EINVAL)?;
        let end = size.checked_sub(1).and_then(|last| iova.checked_add(last));
        let end = end.ok_or(EINVAL)?;
        let Some((first, last)) = layout.windows_in(iova, end) else {
            return Ok(None);
        };
        let mut found: Option<Unmapped> = None;
        for window in first..=last {
            let Some(used) = self.window(window)?.1 else {
                continue;
            };
            let start = layout.start_of(window);
            let bytes = 1u64 << used.order;
            let last = start + (bytes - 1);
            if last < iova || start > end || used.is_implicit() {
                continue;
            }
            if start < iova || last > end {
                return Err(EINVAL);
            }
            if used.users() != 0 {
                return Err(EBUSY);
            }
            let unmapped = found.get_or_insert(Unmapped {
                first: window,
                last: window,
                bytes: 0,
            });
            unmapped.last = window;
            unmapped.bytes += bytes;
        }
        Ok(found)
    }

    /// Checks that the program may unmap the bank at `iova`, and tells its window.
    ///
    /// # Errors
    ///
    /// `EINVAL` if no bank starts there or the kernel mapped it, `EBUSY` while it is in use.
    pub(crate) fn check_unmap_bank(&self, iova: u64) -> Result<u32> {
        let window = self.layout.ok_or(EINVAL)?.starting_at(iova)?;
        let used = self.window(window)?.1.ok_or(EINVAL)?;
        if used.bank().is_none() || used.is_implicit() {
            return Err(EINVAL);
        }
        if used.users() != 0 {
            return Err(EBUSY);
        }
        Ok(window)
    }

    /// Unmaps the program's windows from `first` to `last`, which were checked.
    pub(crate) fn unmap(&mut self, first: u32, last: u32, mirror: &mut impl Mirror<M>) {
        for window in first..=last {
            let own = |used: &Window<M>| !used.is_implicit();
            if matches!(self.window(window), Ok((_, Some(used))) if own(used)) {
                self.remove(window, mirror);
            }
        }
        self.settle(mirror);
    }

    /// Unmaps everything, whether or not it is in use.
    pub(crate) fn unmap_all(&mut self, mirror: &mut impl Mirror<M>) {
        for window in 0..self.windows.len() as u32 {
            self.remove(window, mirror);
        }
    }

    /// Frees a window.
    fn remove(&mut self, window: u32, mirror: &mut impl Mirror<M>) {
        let slot = self.windows.get_mut(window as usize);
        let Some(used) = slot.and_then(Option::take) else {
            return;
        };
        match used.target {
            Target::Memory(_) => self.memory -= 1,
            Target::Bank { .. } => self.mapped_banks -= 1,
        }
        mirror.clear(window);
        if !self.in_use() {
            mirror.disable();
        }
        // The memory goes now, when no device reaches it.
        drop(used);
    }

    /// Unmaps the banks that the kernel mapped and nobody needs any more.
    fn settle(&mut self, mirror: &mut impl Mirror<M>) {
        if self.memory != 0 || self.mapped_banks == 0 {
            return;
        }
        for window in 0..self.windows.len() as u32 {
            let stale = |used: &Window<M>| used.is_implicit() && used.users() == 0;
            if matches!(self.window(window), Ok((_, Some(used))) if stale(used)) {
                self.remove(window, mirror);
            }
        }
    }

    // --- Devices that use banks --------------------------------------------------------------

    /// The window that `bank` is mapped at.
    pub(crate) fn window_of(&self, bank: u32) -> Option<u32> {
        self.iter()
            .find(|(_, used)| used.bank() == Some(bank))
            .map(|(window, _)| window)
    }

    /// Takes note of a device whose interrupts go to `bank`, or to the first bank that is mapped.
    ///
    /// Returns the bank and the address where its window starts.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it isn't mapped, or devices can't write to it.
    pub(crate) fn use_bank(&mut self, bank: Option<u32>) -> Result<(u32, u64)> {
        let layout = self.layout.ok_or(EINVAL)?;
        for (window, used) in (0..).zip(self.windows.iter_mut()) {
            let Some(used) = used.as_mut().filter(|used| used.is_writable()) else {
                continue;
            };
            let Target::Bank {
                bank: mapped,
                users,
                ..
            } = &mut used.target
            else {
                continue;
            };
            if bank.is_none_or(|bank| bank == *mapped) {
                *users = users.checked_add(1).ok_or(EINVAL)?;
                return Ok((*mapped, layout.start_of(window)));
            }
        }
        Err(EINVAL)
    }

    /// Undoes one [`use_bank`](Self::use_bank), which returned this bank.
    pub(crate) fn release_bank(&mut self, released: u32, mirror: &mut impl Mirror<M>) {
        for used in self.windows.iter_mut().flatten() {
            if let Target::Bank { bank, users, .. } = &mut used.target {
                if *bank == released {
                    *users = users.saturating_sub(1);
                }
            }
        }
        self.settle(mirror);
    }
}

/// What a range has that can be unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unmapped {
    /// The first window in use.
    pub(crate) first: u32,
    /// The last window in use.
    pub(crate) last: u32,
    /// How many bytes are mapped.
    pub(crate) bytes: u64,
}

impl<M> Window<M> {
    /// The bank that is mapped.
    pub(crate) fn bank(&self) -> Option<u32> {
        match self.target {
            Target::Bank { bank, .. } => Some(bank),
            Target::Memory(_) => None,
        }
    }

    /// How many devices send their interrupts there.
    fn users(&self) -> u32 {
        match self.target {
            Target::Bank { users, .. } => users,
            Target::Memory(_) => 0,
        }
    }

    /// Whether the kernel mapped it.
    pub(crate) fn is_implicit(&self) -> bool {
        matches!(self.target, Target::Bank { implicit: true, .. })
    }

    /// Whether devices may write to it.
    fn is_writable(&self) -> bool {
        self.prot.contains(Access::Write)
    }
}
