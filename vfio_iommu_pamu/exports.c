// SPDX-License-Identifier: GPL-2.0
/* The Rust symbols of vfio_iommu_pamu, for the other crates of this project. */
#include <linux/export.h>

#include "include/vfio_pamu.h"

#define EXPORT_SYMBOL_RUST_GPL(sym) extern int sym; EXPORT_SYMBOL_GPL(sym)

#include "vfio_iommu_pamu/exports_generated.h"

/* Those of include/vfio_pamu.h, for drivers in C. */
EXPORT_SYMBOL_GPL(vfio_pamu_dma);
EXPORT_SYMBOL_GPL(vfio_pamu_msi_get);
EXPORT_SYMBOL_GPL(vfio_pamu_msi_put);
