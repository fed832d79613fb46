// SPDX-License-Identifier: GPL-2.0

//! Type-safe arguments of backend callbacks.

use core::marker::PhantomData;

use kernel::{
    ffi::c_uint,
    page::PAGE_SIZE,
    prelude::*,
    sync::Arc, //
};

use crate::{
    bindings,
    iommu::{
        Claim,
        ClaimedGroup,
        Group, //
    },
    mm::{
        PinnedPage,
        SlotBatch, //
    },
};

/// The kind of IOMMU of a group: `enum vfio_group_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum GroupType {
    /// A hardware IOMMU translates the accesses of its devices.
    Iommu = 0,
    /// Its devices are software that pins pages by iova.
    Emulated = 1,
    /// There is no translation. The user was warned that this is unsafe.
    NoIommu = 2,
}

impl TryFrom<c_uint> for GroupType {
    type Error = Error;

    fn try_from(kind: c_uint) -> Result<Self> {
        match kind {
            0 => Ok(Self::Iommu),
            1 => Ok(Self::Emulated),
            2 => Ok(Self::NoIommu),
            _ => Err(EINVAL),
        }
    }
}

/// A group that the core adds to a container.
///
/// # Invariants
///
/// `claim` is the claim of `group`, and does not end during `'a`.
#[derive(Clone, Copy)]
pub struct NewGroup<'a> {
    group: &'a Group,
    kind: GroupType,
    claim: Option<&'a Arc<Claim>>,
}

impl<'a> NewGroup<'a> {
    /// Wraps the arguments of the core.
    ///
    /// # Safety
    ///
    /// `claim` is the claim of `group`, and does not end during `'a`.
    pub(super) unsafe fn new(
        group: &'a Group,
        kind: GroupType,
        claim: Option<&'a Arc<Claim>>,
    ) -> Self {
        // INVARIANT: By the contract of this function.
        Self { group, kind, claim }
    }

    /// Wraps a group of emulated devices.
    pub fn emulated(group: &'a Group) -> Self {
        // INVARIANT: There is no claim.
        Self {
            group,
            kind: GroupType::Emulated,
            claim: None,
        }
    }

    /// Returns the group.
    pub fn group(&self) -> &'a Group {
        self.group
    }

    /// Returns its type.
    pub fn kind(&self) -> GroupType {
        self.kind
    }

    /// Returns the group if it has a hardware IOMMU.
    pub fn claimed(&self) -> Option<ClaimedGroup<'a>> {
        // SAFETY: By the type invariant.
        self.claim.map(|claim| unsafe { ClaimedGroup::new(claim) })
    }
}

/// The array that a caller of `vfio_pin_pages()` wants filled, from the first slot on.
pub struct PageSlots<'a> {
    slots: &'a mut [*mut bindings::page],
    filled: usize,
}

/// Proves that all slots of a request are filled.
pub struct Filled<'a>(PhantomData<PageSlots<'a>>);

impl<'a> PageSlots<'a> {
    /// Wraps the caller's array.
    pub(super) fn new(slots: &'a mut [*mut bindings::page]) -> Self {
        Self { slots, filled: 0 }
    }

    /// Returns the number of slots that are filled.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Returns the number of slots that are not filled.
    pub fn missing(&self) -> usize {
        self.slots.len() - self.filled
    }

    /// Returns the number of requested bytes, or `EOVERFLOW`.
    pub fn bytes(&self) -> Result<u64> {
        let bytes = self.slots.len().checked_mul(PAGE_SIZE).ok_or(EOVERFLOW)?;
        Ok(bytes as u64)
    }

    /// Puts `page` into the next slot, if there is one.
    ///
    /// The caller of `vfio_pin_pages()` then uses the page until it unpins it. So the backend keeps
    /// the pin of `page` until then.
    pub fn push(&mut self, page: PinnedPage<'_>) {
        if let Some(slot) = self.slots.get_mut(self.filled) {
            *slot = page.into_raw();
            self.filled += 1;
        }
    }

    /// Calls `f` with a batch of the next slots, at most `count` of them. Pages that `f` removes
    /// from the batch are in their slots then.
    pub fn batch<R>(&mut self, count: usize, f: impl FnOnce(&mut SlotBatch<'_>) -> R) -> R {
        let rest = self.slots.get_mut(self.filled..).unwrap_or_default();
        let count = count.min(rest.len());
        let mut batch = SlotBatch::new(rest.get_mut(..count).unwrap_or_default());
        let result = f(&mut batch);
        self.filled += batch.removed();
        result
    }

    /// Ends the request.
    ///
    /// # Errors
    ///
    /// `EINVAL` if a slot is not filled.
    pub fn finish(self) -> Result<Filled<'a>> {
        if self.missing() != 0 {
            return Err(EINVAL);
        }
        Ok(Filled(PhantomData))
    }

    /// Clears all slots of a request that fails.
    pub fn clear(self) {
        self.slots.fill(core::ptr::null_mut());
    }
}

/// The direction and the buffer of a `vfio_dma_rw()`.
pub enum Transfer<'a> {
    /// Copies from user memory to the buffer.
    Read(&'a mut [u8]),
    /// Copies from the buffer to user memory.
    Write(&'a [u8]),
}

impl Transfer<'_> {
    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Read(buffer) => buffer.len(),
            Self::Write(buffer) => buffer.len(),
        }
    }

    /// Returns whether the transfer is empty. The callback handles that case before it creates this
    /// value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
