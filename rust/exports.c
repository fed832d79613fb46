// SPDX-License-Identifier: GPL-2.0
/* The Rust symbols of kernel_ext, for the other crates of this project. */
#include <linux/export.h>

#define EXPORT_SYMBOL_RUST_GPL(sym) extern int sym; EXPORT_SYMBOL_GPL(sym)

#include "rust/exports_generated.h"
