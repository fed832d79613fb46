// SPDX-License-Identifier: GPL-2.0

#![cfg(test)]
extern crate self as iommu_group;
extern crate self as kernel;

pub mod page;
pub mod prelude;
pub mod rbtree;
pub mod sync;
pub use models_macros as macros;

#[path = "../../../../iommu_group/ranges.rs"]
pub mod ranges;

#[path = "../../../../vfio_iommu_type1"]
#[allow(dead_code, reason = "the models don't need all of it")]
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
