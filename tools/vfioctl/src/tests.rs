// SPDX-License-Identifier: GPL-2.0

//! Tests of reading and deciding, on trees of files that look like sysfs and procfs.

mod binding;
mod odd;
mod peers;
mod reasons;
mod tree;
mod uses;
