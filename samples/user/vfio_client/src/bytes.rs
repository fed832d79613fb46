// SPDX-License-Identifier: GPL-2.0

//! The bytes of requests.

use zerocopy::{
    FromBytes,
    Immutable,
    IntoBytes, //
};

/// The bytes of a request, of a structure or field by field.
///
/// # Examples
///
/// ```
/// use vfio_client::{Bytes, structures::GroupStatus};
///
/// let status = Bytes::of(&GroupStatus { argsz: 8, flags: 3 });
/// assert_eq!(status, Bytes::new().u32(8).u32(3));
/// assert_eq!(status.get::<GroupStatus>(0).flags, 3);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bytes(Vec<u8>);

impl Bytes {
    /// Returns an empty request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the bytes of a structure.
    pub fn of(value: &(impl IntoBytes + Immutable + ?Sized)) -> Self {
        Self::new().append(value)
    }

    /// Appends a structure.
    #[must_use]
    pub fn append(self, value: &(impl IntoBytes + Immutable + ?Sized)) -> Self {
        self.raw(value.as_bytes())
    }

    /// Appends 32 bits.
    #[must_use]
    pub fn u32(self, value: u32) -> Self {
        self.append(&value)
    }

    /// Appends 64 bits.
    #[must_use]
    pub fn u64(self, value: u64) -> Self {
        self.append(&value)
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
        self.0.resize(self.0.len().saturating_add(count), byte);
        self
    }

    /// Returns the structure at `offset`, or zeroes if not all of it is there.
    pub fn get<T: FromBytes>(&self, offset: usize) -> T {
        let tail = self.0.get(offset..).unwrap_or_default();
        T::read_from_prefix(tail).map_or_else(|_| T::new_zeroed(), |(value, _)| value)
    }

    /// Returns the 32 bits at `offset`, or 0 beyond the end.
    pub fn get_u32(&self, offset: usize) -> u32 {
        self.get(offset)
    }

    /// Returns the 64 bits at `offset`, or 0 beyond the end.
    pub fn get_u64(&self, offset: usize) -> u64 {
        self.get(offset)
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
