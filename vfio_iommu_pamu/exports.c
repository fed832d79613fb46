// SPDX-License-Identifier: GPL-2.0
/* The Rust symbols of vfio_iommu_pamu, for drivers of PAMUs in other modules. */
#include <linux/export.h>

#define EXPORT_SYMBOL_RUST_GPL(sym) extern int sym; EXPORT_SYMBOL_GPL(sym)

#include "vfio_iommu_pamu/exports_generated.h"
