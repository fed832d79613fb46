// SPDX-License-Identifier: GPL-2.0

//! Registers of devices: an offset and a width.
//!
//! A register in mapped memory is accessed by [`Memory::get`](crate::Memory::get), and a register
//! of a region that is not mapped by [`Device::get`](crate::Device::get).

use std::marker::PhantomData;
use zerocopy::{
    FromBytes,
    Immutable,
    IntoBytes, //
};

mod sealed {
    pub trait Sealed {}
}

/// The content of a register: 8, 16, 32 or 64 bits, which one access reads or writes.
pub trait Word: Copy + FromBytes + IntoBytes + Immutable + sealed::Sealed {
    /// Returns the value of a word in the byte order of devices.
    fn from_le(word: Self) -> Self;

    /// Returns a word in the byte order of devices.
    fn to_le(self) -> Self;
}

macro_rules! words {
    ($($word:ident)*) => { $(
        impl sealed::Sealed for $word {}

        impl Word for $word {
            fn from_le(word: Self) -> Self {
                $word::from_le(word)
            }

            fn to_le(self) -> Self {
                $word::to_le(self)
            }
        }
    )* };
}

words!(u8 u16 u32 u64);

/// A little-endian register of the width of `T`.
///
/// # Examples
///
/// ```
/// use vfio_client::{Memory, Register};
///
/// const STATUS: Register<u32> = Register::at(0x08);
///
/// # fn main() -> vfio_client::Result {
/// let memory = Memory::anonymous(4096)?;
/// memory.set(STATUS, 1 << 1);
/// assert_eq!(memory.get(STATUS), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register<T> {
    offset: usize,
    width: PhantomData<T>,
}

impl<T: Word> Register<T> {
    /// Returns the register at `offset` bytes from the start of its region.
    pub const fn at(offset: usize) -> Self {
        Self {
            offset,
            width: PhantomData,
        }
    }

    /// Returns the offset in bytes.
    pub const fn offset(self) -> usize {
        self.offset
    }
}
