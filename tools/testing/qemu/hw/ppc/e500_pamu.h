/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the machine ppce500 has in addition with the property "pamu": PAMUs, the PCI controllers
 * behind them, of which there are two, and three banks of MSIs.
 */
#ifndef HW_PPC_E500_PAMU_H
#define HW_PPC_E500_PAMU_H

#include "e500.h"

/* Makes what the PCI controllers need. */
void ppce500_pamu_create(PPCE500MachineState *pms, MemoryRegion *ccsr, DeviceState *mpic);

/* Puts the PCI controller NUMBER, which isn't realized, behind a PAMU. */
void ppce500_pamu_connect(PPCE500MachineState *pms, DeviceState *pci, unsigned number);

/* Makes the second PCI controller. */
void ppce500_pamu_create_pci(PPCE500MachineState *pms, MemoryRegion *ccsr, DeviceState *mpic);

/* Adds all this to a device tree. */
void ppce500_pamu_add_nodes(PPCE500MachineState *pms, void *fdt, const char *soc, const char *mpic);

#endif
