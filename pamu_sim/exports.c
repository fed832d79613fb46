// SPDX-License-Identifier: GPL-2.0
/* The Rust symbols of pamu_sim, for drivers of devices behind a software PAMU. */
#include <linux/export.h>

#define EXPORT_SYMBOL_RUST_GPL(sym) extern int sym; EXPORT_SYMBOL_GPL(sym)

#include "pamu_sim/exports_generated.h"
