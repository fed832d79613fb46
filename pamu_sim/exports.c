// SPDX-License-Identifier: GPL-2.0
/* The functions of include/pamu_sim.h, for drivers of devices behind a software PAMU. */
#include <linux/export.h>

#include "include/pamu_sim.h"

EXPORT_SYMBOL_GPL(pamu_sim_dma);
EXPORT_SYMBOL_GPL(pamu_sim_msi_get);
EXPORT_SYMBOL_GPL(pamu_sim_msi_put);
