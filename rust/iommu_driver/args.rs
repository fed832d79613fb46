// SPDX-License-Identifier: GPL-2.0

//! The arguments of backend callbacks, as types that can't be misused.

use kernel::{
    ffi::c_uint,
    page::PAGE_SIZE,
    prelude::*, //
};

use crate::{
    bindings,
    mm::{
        PinBatch,
        PinnedPage, //
    },
};

/// What a group of devices has for an IOMMU: `enum vfio_group_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum GroupKind {
    /// An IOMMU of the platform translates for its devices.
    Iommu = 0,
    /// Its devices are software that asks for pages by device address.
    Emulated = 1,
    /// Nothing translates; the user was told that this is unsafe.
    NoIommu = 2,
}

impl TryFrom<c_uint> for GroupKind {
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

/// The array which a caller of `vfio_pin_pages()` wants filled.
pub struct PageSlots<'a>(&'a mut [*mut bindings::page]);

impl<'a> PageSlots<'a> {
    /// Wraps the caller's array.
    pub(super) fn new(slots: &'a mut [*mut bindings::page]) -> Self {
        Self(slots)
    }

    /// The number of pages asked for.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no page is asked for; the callback refuses that before it comes here.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes asked for, or `EOVERFLOW`.
    pub fn bytes(&self) -> Result<u64> {
        let bytes = self.0.len().checked_mul(PAGE_SIZE).ok_or(EOVERFLOW)?;
        Ok(bytes as u64)
    }

    /// Puts `page` into slot `index`, if there is such a slot.
    ///
    /// The caller of `vfio_pin_pages()` then uses the page until it unpins it, so the backend keeps
    /// the pin that `page` stands for until then.
    pub fn set(&mut self, index: usize, page: PinnedPage) {
        if let Some(slot) = self.0.get_mut(index) {
            *slot = page.as_raw();
        }
    }

    /// The `count` slots from `index` on, to be filled by one call.
    ///
    /// Pages that are taken out of the batch, and kept, are in their slots then.
    pub fn batch(&mut self, index: usize, count: usize) -> PinBatch<'_> {
        let rest = self.0.get_mut(index..).unwrap_or_default();
        let count = count.min(rest.len());
        PinBatch::lent(rest.get_mut(..count).unwrap_or_default())
    }

    /// Empties all slots, for a call that failed.
    pub fn clear(&mut self) {
        self.0.fill(core::ptr::null_mut());
    }
}

/// The direction and the buffer of a `vfio_dma_rw()`.
pub enum Transfer<'a> {
    /// Fill the buffer from user memory.
    Read(&'a mut [u8]),
    /// Store the buffer to user memory.
    Write(&'a [u8]),
}

impl Transfer<'_> {
    /// The number of bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Read(buffer) => buffer.len(),
            Self::Write(buffer) => buffer.len(),
        }
    }

    /// Whether there is nothing to do; the callback doesn't come here then.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
