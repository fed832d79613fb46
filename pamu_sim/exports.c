// SPDX-License-Identifier: GPL-2.0
/* The functions of include/pamu_sim.h and the Rust symbols of pamu_sim, for drivers of devices. */
#include <linux/export.h>

#include "include/pamu_sim.h"

#define EXPORT_SYMBOL_RUST_GPL(sym) extern int sym; EXPORT_SYMBOL_GPL(sym)

#include "pamu_sim/exports_generated.h"

EXPORT_SYMBOL_GPL(pamu_sim_dma);
EXPORT_SYMBOL_GPL(pamu_sim_msi_get);
EXPORT_SYMBOL_GPL(pamu_sim_msi_put);
