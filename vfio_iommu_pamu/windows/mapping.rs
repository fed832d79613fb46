// SPDX-License-Identifier: GPL-2.0

//! Mapping and unmapping of memory and MSI banks.

use kernel::prelude::*;

use kernel_ext::iommu::{
    Access,
    Prot, //
};

use crate::paace::MIN_ORDER;

use super::{
    geometry::Span,
    AddressSpace,
    Policy,
    Target,
    Window,
    WindowHardware, //
};

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

/// Free windows where memory may be mapped. The address space does not change as long as this
/// exists.
pub(crate) struct FreeWindows<'a, M> {
    space: &'a mut AddressSpace<M>,
    span: Span,
}

/// Free windows where userspace may map banks. The address space does not change as long as this
/// exists.
pub(crate) struct FreeDoorbells<'a, M> {
    space: &'a mut AddressSpace<M>,
    span: Span,
}

/// Memory for the windows of a span, one block for each.
pub(crate) struct SpanMemory<M> {
    span: Span,
    prot: Prot,
    blocks: KVec<M>,
}

impl<M> SpanMemory<M> {
    /// Collects the blocks for the windows of `span`, which devices may access as `prot` says. Calls
    /// `block` for each window in order, with the base-2 logarithm of its used part.
    ///
    /// # Errors
    ///
    /// `ENOMEM`, and the errors of `block`.
    pub(crate) fn new(
        span: Span,
        prot: Prot,
        mut block: impl FnMut(u32) -> Result<M>,
    ) -> Result<Self> {
        let mut blocks = KVec::with_capacity(span.count as usize, GFP_KERNEL_ACCOUNT)?;
        for (_, order) in span.windows() {
            blocks.push(block(order)?, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(Self { span, prot, blocks })
    }
}

impl<M> FreeWindows<'_, M> {
    /// Maps `memory` at the windows. If the kernel maps the banks, it maps them before the first
    /// memory.
    ///
    /// # Errors
    ///
    /// Returns `memory` if it is for other windows. Nothing is mapped then.
    pub(crate) fn map(
        self,
        memory: SpanMemory<M>,
        hardware: &mut impl WindowHardware<M>,
    ) -> Result<(), SpanMemory<M>> {
        if memory.span != self.span {
            return Err(memory);
        }
        self.space.map_memory(memory, hardware);
        Ok(())
    }
}

impl<M> FreeDoorbells<'_, M> {
    /// Returns the windows.
    pub(crate) fn span(&self) -> Span {
        self.span
    }

    /// Chooses a bank for each window: those that aren't mapped, in ascending order.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there are too few banks.
    pub(crate) fn choose_banks(&self) -> Result<KVec<u32>> {
        let (space, count) = (&self.space, self.span.count as usize);
        let mut chosen = KVec::new();
        let unmapped = (0..space.banks).filter(|&bank| space.window_of(bank).is_none());
        for bank in unmapped.take(count) {
            chosen.push(bank, GFP_KERNEL)?;
        }
        if chosen.len() < count {
            return Err(ENOSPC);
        }
        Ok(chosen)
    }

    /// Maps a bank at each window.
    ///
    /// # Errors
    ///
    /// `ENODEV` if a bank doesn't exist; `EEXIST` if one is mapped; `EINVAL` if `banks` isn't one
    /// for each window in ascending order. Nothing is mapped then.
    pub(crate) fn map(
        self,
        banks: &[u32],
        prot: Prot,
        hardware: &mut impl WindowHardware<M>,
    ) -> Result {
        let Self { space, span } = self;
        for &bank in banks {
            space.check_bank(bank)?;
        }
        if banks.len() != span.count as usize || !banks.is_sorted_by(|a, b| a < b) {
            return Err(EINVAL);
        }
        let was_in_use = space.in_use();
        for (window, &bank) in (span.first..).zip(banks) {
            space.enter_bank(window, bank, prot, hardware);
        }
        if !was_in_use && space.in_use() {
            hardware.enable();
        }
        Ok(())
    }
}

impl<M> AddressSpace<M> {
    /// Returns the windows at an address, to map memory there.
    ///
    /// # Errors
    ///
    /// Those of [`check_memory`](Self::check_memory).
    pub(crate) fn free_windows(&mut self, iova: u64, size: u64) -> Result<FreeWindows<'_, M>> {
        let span = self.check_memory(iova, size)?;
        Ok(FreeWindows { space: self, span })
    }

    /// Checks that memory may be mapped. Returns the windows that it takes.
    ///
    /// # Errors
    ///
    /// `EINVAL` if no windows were set, and those of
    /// [`Layout::span`](super::geometry::Layout::span); `EEXIST` if a window is in use or reserved
    /// for a bank; `ENOSPC` if the banks that the kernel maps leave no window.
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
        let used = |window: u32| {
            let window = window as usize;
            matches!(self.windows.get(window), Some(Some(_)))
                || matches!(self.unmapped.get(window), Some(Some(_)))
        };
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

    /// Maps `memory` at its windows, which are free, as [`FreeWindows::map`] does.
    fn map_memory(&mut self, memory: SpanMemory<M>, hardware: &mut impl WindowHardware<M>) {
        let SpanMemory { span, prot, blocks } = memory;
        let was_in_use = self.in_use();
        if self.policy == Policy::Implicit && self.memory == 0 {
            let first = self.window_count() - self.banks;
            for bank in 0..self.banks {
                if self.window_of(bank).is_none() {
                    self.enter_bank(first + bank, bank, Access::Write.into(), hardware);
                }
            }
        }
        for ((window, order), memory) in span.windows().zip(blocks) {
            let target = Target::Memory(memory);
            self.enter(
                window,
                Window {
                    order,
                    prot,
                    target,
                },
                hardware,
            );
        }
        if !was_in_use && self.in_use() {
            hardware.enable();
        }
    }

    /// Sets a free window to `content`.
    fn enter(&mut self, window: u32, content: Window<M>, hardware: &mut impl WindowHardware<M>) {
        let Some(slot) = self.windows.get_mut(window as usize) else {
            return;
        };
        match content.target {
            Target::Memory(_) => self.memory += 1,
            Target::Bank { .. } => self.mapped_banks += 1,
        }
        hardware.set(window, slot.insert(content));
    }

    /// Maps `bank` at a free window.
    fn enter_bank(
        &mut self,
        window: u32,
        bank: u32,
        prot: Prot,
        hardware: &mut impl WindowHardware<M>,
    ) {
        let content = Window {
            order: MIN_ORDER,
            prot,
            target: Target::Bank {
                bank,
                users: 0,
                implicit: self.policy == Policy::Implicit,
            },
        };
        self.enter(window, content, hardware);
    }

    /// Checks that `bank` exists and is not mapped.
    fn check_bank(&self, bank: u32) -> Result {
        if bank >= self.banks {
            return Err(ENODEV);
        }
        if self.window_of(bank).is_some() {
            return Err(EEXIST);
        }
        Ok(())
    }

    /// Returns the window at `iova`, for userspace to map `bank` there.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the bank doesn't exist; `EINVAL` if the kernel maps the banks, if no windows
    /// were set, or if no window starts there; `EEXIST` if the window is in use or the bank is
    /// mapped.
    pub(crate) fn free_doorbell(&mut self, bank: u32, iova: u64) -> Result<FreeDoorbells<'_, M>> {
        if bank >= self.banks {
            return Err(ENODEV);
        }
        let span = self.check_doorbells(iova, 1 << MIN_ORDER)?;
        self.check_bank(bank)?;
        Ok(FreeDoorbells { space: self, span })
    }

    /// Returns the windows of `size` bytes starting at `iova`, for userspace to map banks there.
    ///
    /// # Errors
    ///
    /// Those of [`check_doorbells`](Self::check_doorbells).
    pub(crate) fn free_doorbells(&mut self, iova: u64, size: u64) -> Result<FreeDoorbells<'_, M>> {
        let span = self.check_doorbells(iova, size)?;
        Ok(FreeDoorbells { space: self, span })
    }

    /// Checks that userspace may map banks at the windows of `size` bytes starting at `iova`.
    /// Returns the windows.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the kernel maps the banks, if no windows were set, or if no window starts there;
    /// `EEXIST` if a window is in use.
    pub(crate) fn check_doorbells(&self, iova: u64, size: u64) -> Result<Span> {
        if self.policy == Policy::Implicit {
            return Err(EINVAL);
        }
        let span = self.layout.ok_or(EINVAL)?.span(iova, size)?;
        self.check_free(span)?;
        Ok(span)
    }

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

    /// Unmaps the windows from `first` to `last` that userspace mapped. They were checked. They are
    /// free when their memory was [taken](Self::take_unmapped).
    pub(crate) fn unmap(&mut self, first: u32, last: u32, hardware: &mut impl WindowHardware<M>) {
        for window in first..=last {
            let own = |used: &Window<M>| !used.is_implicit();
            if matches!(self.window(window), Ok((_, Some(used))) if own(used)) {
                self.remove(window, hardware);
            }
        }
        self.unmap_unused_banks(hardware);
    }

    /// Takes the memory that a window led to before it was unmapped, to free it.
    pub(crate) fn take_unmapped(&mut self, window: u32) -> Option<M> {
        self.unmapped.get_mut(window as usize)?.take()
    }

    /// Unmaps everything, whether or not banks are in use. The memory is freed when it was
    /// [taken](Self::take_unmapped).
    pub(crate) fn unmap_all(&mut self, hardware: &mut impl WindowHardware<M>) {
        for window in 0..self.windows.len() as u32 {
            self.remove(window, hardware);
        }
    }

    /// Clears a window, and keeps its memory.
    fn remove(&mut self, window: u32, hardware: &mut impl WindowHardware<M>) {
        let slot = self.windows.get_mut(window as usize);
        let Some(used) = slot.and_then(Option::take) else {
            return;
        };
        hardware.clear(window);
        match used.target {
            Target::Memory(memory) => {
                self.memory -= 1;
                if let Some(unmapped) = self.unmapped.get_mut(window as usize) {
                    *unmapped = Some(memory);
                }
            }
            Target::Bank { .. } => self.mapped_banks -= 1,
        }
        if !self.in_use() {
            hardware.disable();
        }
    }

    /// Unmaps the unused banks that the kernel has mapped, if no memory is mapped.
    fn unmap_unused_banks(&mut self, hardware: &mut impl WindowHardware<M>) {
        if self.memory != 0 || self.mapped_banks == 0 {
            return;
        }
        for window in 0..self.windows.len() as u32 {
            let stale = |used: &Window<M>| used.is_implicit() && used.users() == 0;
            if matches!(self.window(window), Ok((_, Some(used))) if stale(used)) {
                self.remove(window, hardware);
            }
        }
    }

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
    pub(crate) fn release_bank(&mut self, released: u32, hardware: &mut impl WindowHardware<M>) {
        for used in self.windows.iter_mut().flatten() {
            if let Target::Bank { bank, users, .. } = &mut used.target {
                if *bank == released {
                    *users = users.saturating_sub(1);
                }
            }
        }
        self.unmap_unused_banks(hardware);
    }
}
