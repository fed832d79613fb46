// SPDX-License-Identifier: GPL-2.0

//! `kernel::prelude`, as far as the sources need it.

use std::{
    cell::Cell,
    ops::{
        BitOr,
        Deref,
        DerefMut, //
    },
};

pub use models_macros::{
    kunit_tests,
    pin_data, //
};

pub use crate::pin_init;

/// An error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error(&'static str);

/// The result of what may fail.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

macro_rules! errors {
    ($($name:ident)*) => {
        $(#[allow(missing_docs)] pub const $name: Error = Error(stringify!($name));)*
    };
}

errors!(EBUSY EEXIST EINTR EINVAL ENOENT ENOMEM ENOSPC EOVERFLOW EPERM);

/// How to allocate memory: here in one way only.
#[derive(Clone, Copy)]
pub struct Flags;

/// For the kernel.
pub const GFP_KERNEL: Flags = Flags;
/// For the kernel, charged to the process.
pub const GFP_KERNEL_ACCOUNT: Flags = Flags;
/// Without a report of a failure.
pub const __GFP_NOWARN: Flags = Flags;

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, _: Self) -> Self {
        self
    }
}

/// There is no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllocError;

impl From<AllocError> for Error {
    fn from(_: AllocError) -> Self {
        ENOMEM
    }
}

/// There is no such element.
#[derive(Debug)]
pub struct RemoveError;

thread_local! {
    static MEMORY_IS_SHORT: Cell<bool> = const { Cell::new(false) };
}

/// Runs `f`, in which vectors get no memory.
///
/// The threads of a model are all run by the thread that checks it, so it counts for them.
pub fn with_short_memory<R>(f: impl FnOnce() -> R) -> R {
    MEMORY_IS_SHORT.set(true);
    let result = f();
    MEMORY_IS_SHORT.set(false);
    result
}

/// A vector that doesn't grow by itself.
pub struct KVec<T>(Vec<T>);

impl<T> KVec<T> {
    /// An empty one.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Adds an element, if there is memory.
    pub fn push(&mut self, element: T, _: Flags) -> Result<(), AllocError> {
        if MEMORY_IS_SHORT.get() {
            return Err(AllocError);
        }
        self.0.push(element);
        Ok(())
    }

    /// Takes the element number `at` out.
    pub fn remove(&mut self, at: usize) -> Result<T, RemoveError> {
        if at < self.0.len() {
            Ok(self.0.remove(at))
        } else {
            Err(RemoveError)
        }
    }
}

impl<T> Default for KVec<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Deref for KVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> DerefMut for KVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

/// The same: memory need not be contiguous.
pub type KVVec<T> = KVec<T>;

/// Something that makes a value where it is to stay. Here it may be moved there.
pub trait PinInit<T> {
    /// Makes the value.
    fn make(self) -> T;
}

impl<T, F: FnOnce() -> T> PinInit<T> for F {
    fn make(self) -> T {
        self()
    }
}

/// How to make a structure out of its fields.
#[macro_export]
macro_rules! pin_init {
    (Self { $($field:ident <- $value:expr),* $(,)? }) => {
        move || Self { $($field: $crate::prelude::PinInit::make($value)),* }
    };
}
