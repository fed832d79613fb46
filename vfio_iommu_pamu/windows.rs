// SPDX-License-Identifier: GPL-2.0

//! The states of an address space: an aperture, then windows, then mappings.
//!
//! [`Space`] decides what is permitted in which state, and tells a [`Mirror`] to update the
//! hardware. It depends neither on memory nor on hardware. Everything that can fail is checked
//! first (`check_*`), and what was checked can then be done without failing. So a request changes
//! everything or nothing. The caller holds the same lock from the check to the change.
//!
//! The aperture *is in use* while anything is mapped. Exactly then the devices are enabled, and
//! neither the aperture nor its division into windows can change.

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

/// Selects who maps the MSI banks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Userspace maps them.
    Explicit,
    /// The kernel maps them at the last windows, while memory is mapped.
    Implicit,
}

/// The target of a window.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target<M> {
    /// User memory.
    Memory(M),
    /// A page with the doorbell of an MSI bank.
    Bank {
        /// The number of the bank.
        bank: u32,
        /// The number of devices whose interrupts go there.
        users: u32,
        /// Whether the kernel mapped it.
        implicit: bool,
    },
}

/// A window that is in use.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Window<M> {
    /// The base-2 logarithm of the mapped part, from the window's start on.
    pub(crate) order: u32,
    /// The permissions of devices.
    pub(crate) prot: Prot,
    /// The target.
    pub(crate) target: Target<M>,
}

/// The hardware that translates as a [`Space`] defines, in the same way for all devices.
pub(crate) trait Mirror<M> {
    /// Sets a window that was clear.
    fn set(&mut self, window: u32, content: &Window<M>);

    /// Clears a window. When this returns, no device can use it any more.
    fn clear(&mut self, window: u32);

    /// Enables the devices. Called for the first window that is set.
    fn enable(&mut self);

    /// Disables the devices. Called for the last window that is cleared.
    fn disable(&mut self);
}

/// An aperture and its mappings. `M` is the memory of one window.
pub(crate) struct Space<M> {
    aperture: Option<Aperture>,
    layout: Option<Layout>,
    policy: Policy,
    /// One element for each window of the layout.
    windows: KVec<Option<Window<M>>>,
    /// The number of windows with memory.
    memory: u32,
    /// The number of windows with a bank.
    mapped_banks: u32,
    /// The number of banks.
    banks: u32,
    /// The maximum number of windows of the hardware.
    max: u32,
}

/// The windows of a layout that is about to be set.
pub(crate) struct NewWindows<M> {
    layout: Layout,
    windows: KVec<Option<Window<M>>>,
}

impl<M> NewWindows<M> {
    /// Returns the layout.
    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }
}

impl<M> Space<M> {
    /// Returns an address space without an aperture. `max` is the maximum number of windows,
    /// `banks` the number of banks.
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

    /// Returns the aperture that was set, or the default.
    pub(crate) fn aperture(&self) -> Aperture {
        self.aperture.unwrap_or(Aperture::DEFAULT)
    }

    /// Returns the layout that was set.
    pub(crate) fn layout(&self) -> Option<Layout> {
        self.layout
    }

    /// Returns the number of windows that was set, or the maximum.
    pub(crate) fn window_count(&self) -> u32 {
        self.layout.map_or(self.max, |layout| layout.count())
    }

    /// Returns the policy for mapping banks.
    pub(crate) fn policy(&self) -> Policy {
        self.policy
    }

    /// Returns whether anything is mapped.
    pub(crate) fn in_use(&self) -> bool {
        self.memory != 0 || self.mapped_banks != 0
    }

    /// Iterates over the windows in use, each with its number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Window<M>)> {
        let numbered = (0..).zip(self.windows.iter());
        numbered.filter_map(|(window, used)| Some((window, used.as_ref()?)))
    }

    /// Returns the layout, and the content of a window or `None` if the window is free.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the window doesn't exist.
    pub(crate) fn window(&self, window: u32) -> Result<(Layout, Option<&Window<M>>)> {
        let layout = self.layout.ok_or(EINVAL)?;
        let slot = self.windows.get(window as usize).ok_or(EINVAL)?;
        Ok((layout, slot.as_ref()))
    }

    // --- Attributes --------------------------------------------------------------------------

    /// Sets the aperture. The windows have to be set again.
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
    /// `EBUSY` if the aperture is in use; `EINVAL` if no aperture was set, or if the count is
    /// invalid; `ENOMEM`.
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

    /// Sets windows that were prepared. All of them are free.
    pub(crate) fn set_windows(&mut self, new: NewWindows<M>) {
        self.layout = Some(new.layout);
        self.windows = new.windows;
    }

    /// Sets the policy for mapping banks.
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

    /// Checks that memory may be mapped. Returns the windows that it takes.
    ///
    /// # Errors
    ///
    /// `EINVAL` if no windows were set, and those of [`Layout::span`]; `EEXIST` if a window is in
    /// use or reserved for a bank; `ENOSPC` if the banks that the kernel maps leave no window.
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

    /// Returns the first of the windows where the kernel maps banks.
    fn first_implicit(&self) -> Result<u32> {
        let first = self.window_count().checked_sub(self.banks).ok_or(ENOSPC)?;
        if first == 0 {
            return Err(ENOSPC);
        }
        Ok(first)
    }

    /// Maps one block of `memory` at each window of `span`, which was checked. If the kernel maps
    /// the banks, it maps them before the first memory.
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

    /// Sets a free window to `content`.
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

    /// Maps `bank` at a free window.
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

    /// Checks that userspace may map a bank at `iova`. Returns the window.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the bank doesn't exist; `EINVAL` if the kernel maps the banks, if no windows
    /// were set, or if no window starts there; `EEXIST` if the window is in use or the bank is
    /// mapped.
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

    /// Checks that userspace may map banks at the windows of `size` bytes from `iova` on. Returns
    /// the windows.
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

    /// Chooses a bank for each window of `span`: those that aren't mapped, in ascending order.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there are too few banks.
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

    /// Maps `banks` at consecutive windows. The windows were checked, and none of the banks is
    /// mapped.
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

    /// Checks that the mappings in a range may be unmapped. Returns the first and the last window
    /// in use, and the number of bytes mapped there. Returns `None` if nothing is mapped.
    ///
    /// # Errors
    ///
    /// `EINVAL` if no windows were set, for an empty range or a range that wraps, and if the range
    /// cuts the mapping of a window; `EBUSY` if a bank is in use. Banks that the kernel mapped
    /// can't be unmapped by userspace, and don't count.
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

    /// Checks that userspace may unmap the bank at `iova`. Returns its window.
    ///
    /// # Errors
    ///
    /// `EINVAL` if no bank starts there, or if the kernel mapped it; `EBUSY` while it is in use.
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

    /// Unmaps the windows from `first` to `last` that userspace mapped. They were checked.
    pub(crate) fn unmap(&mut self, first: u32, last: u32, mirror: &mut impl Mirror<M>) {
        for window in first..=last {
            let own = |used: &Window<M>| !used.is_implicit();
            if matches!(self.window(window), Ok((_, Some(used))) if own(used)) {
                self.remove(window, mirror);
            }
        }
        self.settle(mirror);
    }

    /// Unmaps everything, whether or not banks are in use.
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
        // Free the memory only now, when no device reaches it.
        drop(used);
    }

    /// Unmaps the banks that the kernel mapped and that are not needed any more.
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

    /// Returns the window that `bank` is mapped at.
    pub(crate) fn window_of(&self, bank: u32) -> Option<u32> {
        self.iter()
            .find(|(_, used)| used.bank() == Some(bank))
            .map(|(window, _)| window)
    }

    /// Registers a device whose interrupts go to `bank`, or to the first bank that is mapped.
    ///
    /// Returns the bank and the address where its window starts.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the bank isn't mapped, or devices can't write to it.
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

    /// Reverts one [`use_bank`](Self::use_bank) that returned this bank.
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

/// The mappings in a range that can be unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unmapped {
    /// The first window in use.
    pub(crate) first: u32,
    /// The last window in use.
    pub(crate) last: u32,
    /// The number of bytes mapped.
    pub(crate) bytes: u64,
}

impl<M> Window<M> {
    /// Returns the bank that is mapped, if any.
    pub(crate) fn bank(&self) -> Option<u32> {
        match self.target {
            Target::Bank { bank, .. } => Some(bank),
            Target::Memory(_) => None,
        }
    }

    /// Returns the number of devices whose interrupts go there.
    fn users(&self) -> u32 {
        match self.target {
            Target::Bank { users, .. } => users,
            Target::Memory(_) => 0,
        }
    }

    /// Returns whether the kernel mapped it.
    pub(crate) fn is_implicit(&self) -> bool {
        matches!(self.target, Target::Bank { implicit: true, .. })
    }

    /// Returns whether devices may write to it.
    fn is_writable(&self) -> bool {
        self.prot.contains(Access::Write)
    }
}
