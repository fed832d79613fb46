// SPDX-License-Identifier: GPL-2.0

//! Model checks of the range lock of `vfio_iommu_type1`.
//!
//! The very source of the module's address space (`vfio_iommu_type1/space.rs` and what is below
//! `space/`), of `rust/iova.rs` and of `iommu_group/ranges.rs` is compiled here, for the host.
//! [loom] runs requests that use it in all interleavings of their threads in which no thread is
//! interrupted more than three times where it needn't wait, and looks at memory accesses by the
//! happens-before relation. All of this takes about a minute:
//!
//! ```text
//! cargo test --release -p models -- --show-output [NAME...]
//! LOOM_MAX_PREEMPTIONS=4 cargo test --release -p models
//! ```
//!
//! | Part | Is |
//! |---|---|
//! | `prelude`, `page`, `rbtree`, `sync`, `keyed_wait`, `array_vec` | what the sources use of the `kernel` and `kernel_ext` crates, on top of loom and the standard library; `macros/` has attributes |
//! | `machine` | device addresses and a page table, which only the holder of an address may touch |
//! | `type1` | a container, whose requests lock, check, work and publish as those in the module's `map.rs`, `unmap.rs`, `dirty.rs`, `attach.rs` and `emulated.rs` do, with a driver that has a lock of its own |
//! | `check` | runs requests in all interleavings, and judges |
//! | `scenarios`, `tests` | which requests: all pairs in five kinds of containers, and threes in the shapes that went wrong once |
//! | `mutants`, `build.rs` | copies of the sources with one fault each, which a scenario has to find |
//!
//! # What is checked
//!
//! In each interleaving:
//!
//! - No address is mapped twice, none is used by two threads at a time unless both read, none is
//!   used after its mapping went, and none is unmapped twice. Loom compares accesses by what orders
//!   them, so it finds a lock that is missing also where two threads happen to be apart.
//! - The answers of all threads, and the mappings, page table, pinned and dirty pages in the end,
//!   are those of the same requests one after another, in some order. A request that asks a driver
//!   to give pages back counts as several: before and after.
//! - Both orders of a pair come about.
//! - No thread waits for ever: loom reports a deadlock, also after a lost wakeup.
//! - In the end the queue is empty, mappings and invalid addresses are counted right, no address in
//!   the IOMMU is left over, and every mapping has room for dirty pages while track is kept of
//!   these.
//!
//! The sources' own KUnit suites run here too, which shows that the stand-ins behave as the
//! kernel's.
//!
//! # What is not
//!
//! The requests are models: when one in the module takes its locks in another order, adapt it here.
//! Loom doesn't wake threads without a reason, nor interrupt them. A thread is killed in one
//! scenario only. Memory is short in the queue only.
//!
//! [loom]: https://docs.rs/loom

#![cfg(test)]

extern crate self as kernel;
extern crate self as kernel_ext;

pub mod array_vec;
pub mod keyed_wait;
pub mod page;
pub mod prelude;
pub mod rbtree;
pub mod sync;
pub use models_macros as macros;

// Clippy knows these as part of the modules.
#[path = "../../../../rust/iova.rs"]
#[allow(clippy::all)]
pub mod iova;

#[path = "../../../../iommu_group/ranges.rs"]
#[allow(clippy::all)]
pub mod ranges;

#[path = "../../../../vfio_iommu_type1"]
#[allow(clippy::all, dead_code)]
mod source {
    pub(crate) mod space;
}

use self::source::space;

mod check;
mod machine;
mod mutants;
mod scenarios;
mod tests;
mod type1;
