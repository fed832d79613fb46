// SPDX-License-Identifier: GPL-2.0
/* The functions of include/vfio_pamu.h, for drivers of devices behind a PAMU in software. */
#include <linux/export.h>

#include "include/vfio_pamu.h"

EXPORT_SYMBOL_GPL(vfio_pamu_dma);
EXPORT_SYMBOL_GPL(vfio_pamu_msi_get);
EXPORT_SYMBOL_GPL(vfio_pamu_msi_put);
