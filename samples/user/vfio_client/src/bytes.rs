// SPDX-License-Identifier: GPL-2.0

//! Structures that are built field by field.

/// The bytes of a request.
///
/// # Examples
///
/// ```
/// use vfio_client::Bytes;
///
/// let status = Bytes::new().u32(8).u32(0);
/// assert_eq!(status.get_u32(0), 8);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(Vec<u8>);

impl Bytes {
    /// Returns an empty request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends 32 bits.
    #[must_use]
    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    /// Appends 64 bits.
    #[must_use]
    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    /// Appends a byte slice.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Appends `count` copies of a byte.
    #[must_use]
    pub fn fill(mut self, byte: u8, count: usize) -> Self {
        self.0.resize(self.0.len() + count, byte);
        self
    }

    /// Returns the 32 bits at `offset`, or 0 beyond the end.
    pub fn get_u32(&self, offset: usize) -> u32 {
        self.array(offset).map_or(0, u32::from_ne_bytes)
    }

    /// Returns the 64 bits at `offset`, or 0 beyond the end.
    pub fn get_u64(&self, offset: usize) -> u64 {
        self.array(offset).map_or(0, u64::from_ne_bytes)
    }

    fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.get(offset..offset + N)?.try_into().ok()
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl AsMut<[u8]> for Bytes {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
