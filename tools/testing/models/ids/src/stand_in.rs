// SPDX-License-Identifier: GPL-2.0

//! The parts of the `kernel` crate that the sources use, on top of loom.

/// `kernel::prelude`.
pub mod prelude {
    /// An error number.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Error(i32);

    impl Error {
        /// The error with this negative number.
        pub fn from_errno(errno: i32) -> Self {
            Self(errno)
        }
    }

    /// A result with an error number.
    pub type Result<T = (), E = Error> = core::result::Result<T, E>;

    pub(crate) const EPERM: Error = Error(-1);
    pub(crate) const ENOENT: Error = Error(-2);
    pub(crate) const EACCES: Error = Error(-13);
    pub(crate) const EBUSY: Error = Error(-16);
    pub(crate) const EINVAL: Error = Error(-22);
    pub(crate) const EOVERFLOW: Error = Error(-75);
}

/// `kernel_ext::bindings`.
pub mod bindings {
    /// From `uapi/asm-generic/errno.h`.
    pub const EDQUOT: u32 = 122;
}

/// `kernel::sync`.
pub mod sync {
    /// `kernel::sync::atomic`.
    pub mod atomic {
        use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

        /// A type of the values of an [`Atomic`].
        pub trait AtomicType: Copy {
            /// Loom's type for it.
            type Cell;
            /// A cell.
            fn cell(value: Self) -> Self::Cell;
            /// Reads.
            fn load(cell: &Self::Cell, order: Ordering) -> Self;
            /// Writes.
            fn store(cell: &Self::Cell, value: Self, order: Ordering);
            /// Writes `new` if the value is `old`. A failure orders nothing, as in the kernel.
            fn swap(cell: &Self::Cell, old: Self, new: Self, order: Ordering)
                -> Result<Self, Self>;
        }

        macro_rules! atomic_types {
            ($($value:ty, $cell:ty;)*) => {$(
                impl AtomicType for $value {
                    type Cell = $cell;
                    fn cell(value: Self) -> $cell {
                        <$cell>::new(value)
                    }
                    fn load(cell: &$cell, order: Ordering) -> Self {
                        cell.load(order)
                    }
                    fn store(cell: &$cell, value: Self, order: Ordering) {
                        cell.store(value, order);
                    }
                    fn swap(cell: &$cell, old: Self, new: Self, order: Ordering) -> Result<Self, Self> {
                        cell.compare_exchange(old, new, order, Ordering::Relaxed)
                    }
                }
            )*}
        }
        atomic_types! { u32, AtomicU32; u64, AtomicU64; usize, AtomicUsize; }

        /// An ordering of the kernel.
        pub trait Order {
            /// An ordering of C11 that guarantees no more.
            const ORDER: Ordering;
        }

        macro_rules! orders {
            ($($name:ident, $order:ident;)*) => {$(
                /// The kernel's ordering of this name.
                pub struct $name;
                impl Order for $name {
                    const ORDER: Ordering = Ordering::$order;
                }
            )*}
        }
        // In the kernel a full ordering is that of a barrier on both sides.
        orders! { Relaxed, Relaxed; Acquire, Acquire; Release, Release; Full, AcqRel; }

        /// A word.
        pub struct Atomic<T: AtomicType>(T::Cell);

        impl<T: AtomicType> Atomic<T> {
            pub(crate) fn new(value: T) -> Self {
                Self(T::cell(value))
            }

            pub(crate) fn load<O: Order>(&self, _: O) -> T {
                T::load(&self.0, O::ORDER)
            }

            pub(crate) fn store<O: Order>(&self, value: T, _: O) {
                T::store(&self.0, value, O::ORDER);
            }

            pub(crate) fn cmpxchg<O: Order>(&self, old: T, new: T, _: O) -> Result<T, T> {
                T::swap(&self.0, old, new, O::ORDER)
            }
        }
    }

    /// `kernel::sync::barrier`.
    pub mod barrier {
        use loom::sync::atomic::{fence, Ordering};

        /// A barrier of the kernel.
        pub trait Barrier {
            /// The fence of C11 for it.
            const ORDER: Ordering;
        }

        /// Orders reads.
        pub struct Read;
        /// Orders writes.
        pub struct Write;

        impl Barrier for Read {
            const ORDER: Ordering = Ordering::Acquire;
        }
        impl Barrier for Write {
            const ORDER: Ordering = Ordering::Release;
        }

        pub(crate) fn smp_mb<B: Barrier>(_: B) {
            fence(B::ORDER);
        }
    }
}

/// `kernel_ext::read_once`.
pub mod read_once {
    use super::sync::atomic::{Atomic, AtomicType, Relaxed};

    pub(crate) fn read_once<T: AtomicType>(word: &Atomic<T>) -> T {
        word.load(Relaxed)
    }

    pub(crate) fn write_once<T: AtomicType>(word: &Atomic<T>, value: T) {
        word.store(value, Relaxed);
    }
}
