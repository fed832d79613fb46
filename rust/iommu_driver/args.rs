// SPDX-License-Identifier: GPL-2.0

//! Type-safe arguments of backend callbacks.

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

/// The array that a caller of `vfio_pin_pages()` wants filled.
pub struct PageSlots<'a>(&'a mut [*mut bindings::page]);

impl<'a> PageSlots<'a> {
    /// Wraps the caller's array.
    pub(super) fn new(slots: &'a mut [*mut bindings::page]) -> Self {
        Self(slots)
    }

    /// Returns the number of requested pages.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether no page is requested. The callback refuses such a request before it creates
    /// this value.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the number of requested bytes, or `EOVERFLOW`.
    pub fn bytes(&self) -> Result<u64> {
        let bytes = self.0.len().checked_mul(PAGE_SIZE).ok_or(EOVERFLOW)?;
        Ok(bytes as u64)
    }

    /// Puts `page` into slot `index`, if the slot exists.
    ///
    /// The caller of `vfio_pin_pages()` then uses the page until it unpins it. So the backend keeps
    /// the pin of `page` until then.
    pub fn set(&mut self, index: usize, page: PinnedPage) {
        if let Some(slot) = self.0.get_mut(index) {
            *slot = page.as_raw();
        }
    }

    /// Returns the `count` slots starting at `index`, to be filled by one call.
    ///
    /// Pages that the caller takes out of the batch and keeps are in their slots then.
    pub fn batch(&mut self, index: usize, count: usize) -> PinBatch<'_> {
        let rest = self.0.get_mut(index..).unwrap_or_default();
        let count = count.min(rest.len());
        PinBatch::borrowed(rest.get_mut(..count).unwrap_or_default())
    }

    /// Clears all slots. Called when the request fails.
    pub fn clear(&mut self) {
        self.0.fill(core::ptr::null_mut());
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
