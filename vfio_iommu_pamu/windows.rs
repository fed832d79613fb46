// SPDX-License-Identifier: GPL-2.0

//! The windows of a container, and what may be mapped there in which state.
//!
//! An [`AddressSpace`] has an aperture, then windows ([`geometry`]), then mappings ([`mapping`]).
//! It decides what is permitted in which state, and tells a [`WindowHardware`] what to update. It
//! depends neither on memory nor on hardware. Everything that can fail is checked first, and a
//! request that fails therefore changes nothing. A check returns the right to do what was checked
//! ([`NewWindows`], `FreeWindows`, `FreeDoorbells`). It borrows the address space, which therefore
//! does not change in between.
//!
//! The aperture *is in use* while anything is mapped. Exactly then the devices are enabled, and
//! neither the aperture nor its division into windows can change.

pub(crate) mod geometry;
mod mapping;
#[cfg(CONFIG_KUNIT)]
mod transitions;

use kernel::prelude::*;

use kernel_ext::iommu::{
    Access,
    Prot, //
};

use crate::paace::Aperture;

use geometry::Layout;

pub(crate) use mapping::SpanMemory;

/// How MSI banks are mapped.
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

/// The hardware that translates as an [`AddressSpace`] defines, in the same way for all devices.
pub(crate) trait WindowHardware<M> {
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
pub(crate) struct AddressSpace<M> {
    aperture: Option<Aperture>,
    layout: Option<Layout>,
    policy: Policy,
    /// One element for each window of the layout.
    windows: KVec<Option<Window<M>>>,
    /// The memory that each window has led to, until it is taken to be freed.
    unmapped: KVec<Option<M>>,
    /// The number of windows with memory.
    memory: u32,
    /// The number of windows with a bank.
    mapped_banks: u32,
    /// The number of banks.
    banks: u32,
    /// The maximum number of windows of the hardware.
    max: u32,
}

/// The windows of a layout that is about to be set, in an address space that isn't in use.
pub(crate) struct NewWindows<'a, M> {
    space: &'a mut AddressSpace<M>,
    layout: Layout,
    windows: KVec<Option<Window<M>>>,
    unmapped: KVec<Option<M>>,
}

impl<M> NewWindows<'_, M> {
    /// Returns the layout.
    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// Sets the windows. All of them are free.
    pub(crate) fn set(self) {
        self.space.layout = Some(self.layout);
        self.space.windows = self.windows;
        self.space.unmapped = self.unmapped;
    }
}

impl<M> AddressSpace<M> {
    /// Returns an address space without an aperture. `max` is the maximum number of windows,
    /// `banks` the number of banks.
    pub(crate) fn new(max: u32, banks: u32) -> Self {
        Self {
            aperture: None,
            layout: None,
            policy: Policy::Explicit,
            windows: KVec::new(),
            unmapped: KVec::new(),
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

    /// Returns whether the windows must stay as they are: anything is mapped, or memory is still to
    /// be freed.
    fn has_content(&self) -> bool {
        self.in_use() || self.unmapped.iter().any(Option::is_some)
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

    /// Sets the aperture. The windows have to be set again.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the aperture is in use.
    pub(crate) fn set_aperture(&mut self, aperture: Aperture) -> Result {
        if self.has_content() {
            return Err(EBUSY);
        }
        self.aperture = Some(aperture);
        self.layout = None;
        self.windows = KVec::new();
        self.unmapped = KVec::new();
        Ok(())
    }

    /// Prepares `count` windows.
    ///
    /// # Errors
    ///
    /// `EBUSY` if the aperture is in use; `EINVAL` if no aperture was set, or if the count is
    /// invalid; `ENOMEM`.
    pub(crate) fn new_windows(&mut self, count: u32) -> Result<NewWindows<'_, M>> {
        if self.has_content() {
            return Err(EBUSY);
        }
        let layout = Layout::new(self.aperture.ok_or(EINVAL)?, count, self.max)?;
        let mut windows = KVec::with_capacity(count as usize, GFP_KERNEL_ACCOUNT)?;
        let mut unmapped = KVec::with_capacity(count as usize, GFP_KERNEL_ACCOUNT)?;
        for _ in 0..count {
            windows.push(None, GFP_KERNEL_ACCOUNT)?;
            unmapped.push(None, GFP_KERNEL_ACCOUNT)?;
        }
        Ok(NewWindows {
            space: self,
            layout,
            windows,
            unmapped,
        })
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
