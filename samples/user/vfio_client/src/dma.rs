// SPDX-License-Identifier: GPL-2.0

//! Memory that is mapped for devices for as long as it lives.

use crate::{
    Container,
    Errno,
    Error,
    IovaAllocator,
    MapFlags,
    Memory,
    PAGE_SIZE,
    Result, //
};
use std::ops::Deref;

/// Memory that is mapped at an iova.
#[derive(Debug)]
pub struct DmaBuffer<'c> {
    container: &'c Container,
    iova: u64,
    memory: Memory,
}

impl<'c> DmaBuffer<'c> {
    /// Allocates and maps `len` bytes of zeroed memory, rounded up to pages. Devices can read and
    /// write it.
    pub fn new(container: &'c Container, iovas: &mut IovaAllocator, len: usize) -> Result<Self> {
        let memory = Memory::anonymous(len)?;
        let iova = iovas
            .take(memory.len() as u64, PAGE_SIZE as u64)
            .ok_or(Error::new("choice of an address", Errno::ENOSPC))?;
        container.map(iova, &memory, MapFlags::ReadWrite)?;
        Ok(Self {
            container,
            iova,
            memory,
        })
    }

    /// Returns the iova of the memory.
    pub fn iova(&self) -> u64 {
        self.iova
    }
}

impl Deref for DmaBuffer<'_> {
    type Target = Memory;

    fn deref(&self) -> &Memory {
        &self.memory
    }
}

impl Drop for DmaBuffer<'_> {
    fn drop(&mut self) {
        // A failure cannot be handled here. The mapping then lives as long as the container.
        let _ = self.container.unmap(self.iova, self.memory.len() as u64);
    }
}
