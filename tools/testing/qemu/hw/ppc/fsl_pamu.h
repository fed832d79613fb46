/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Freescale's PAMU (Peripheral Access Management Unit), the IOMMU of the QorIQ processors.
 */
#ifndef HW_PPC_FSL_PAMU_H
#define HW_PPC_FSL_PAMU_H

#include "hw/sysbus.h"
#include "qom/object.h"

#define TYPE_FSL_PAMU "fsl-pamu"
OBJECT_DECLARE_SIMPLE_TYPE(FslPamuState, FSL_PAMU)

#define FSL_PAMU_PAGE       0x1000
#define FSL_PAMU_MAX_UNITS  16
/* The PCI controllers. */
#define FSL_PAMU_PORTS      2
#define FSL_PAMU_LAWS       32
#define FSL_PAMU_CSDS       32

#define FSL_PAMU_LINES      32
#define FSL_PAMU_WORDS      16

/* The regions of the device, in the order of sysbus_mmio_map(). */
enum {
    FSL_PAMU_MMIO_UNITS,
    FSL_PAMU_MMIO_GUTS,
    FSL_PAMU_MMIO_LAWS,
    FSL_PAMU_MMIO_CSDS,
    FSL_PAMU_MMIO_MASTER,
};

/* A table entry that a PAMU has cached: see the erratum A-004510. */
typedef struct FslPamuLine {
    bool used;
    hwaddr address;
    uint32_t words[FSL_PAMU_WORDS];
} FslPamuLine;

/* One PAMU: a page of registers. */
typedef struct FslPamuUnit {
    FslPamuState *pamu;
    unsigned index;
    uint32_t registers[FSL_PAMU_PAGE / 4];
    hwaddr omt, omt_end;
    FslPamuLine primary[FSL_PAMU_LINES];
    FslPamuLine secondary[FSL_PAMU_LINES];
} FslPamuUnit;

/* A bus master with a LIODN of its own. */
typedef struct FslPamuPort {
    FslPamuState *pamu;
    unsigned index;
    uint32_t liodn;
    IOMMUMemoryRegion region;
} FslPamuPort;

struct FslPamuState {
    SysBusDevice parent_obj;

    MemoryRegion units_region, guts_region, laws_region, csds_region, master_region;
    qemu_irq violation;
    QEMUBH *update;
    QemuMutex lock;

    FslPamuUnit unit[FSL_PAMU_MAX_UNITS];
    FslPamuPort port[FSL_PAMU_PORTS];
    uint32_t guts[0x40];
    uint32_t bypass;
    uint32_t laws[FSL_PAMU_LAWS * 4];
    uint32_t csds[FSL_PAMU_CSDS];
    uint32_t master[8];

    /* Properties. */
    uint32_t units;
    uint32_t max_liodn;
    uint32_t mwce;
    uint32_t liodn[FSL_PAMU_PORTS];
    bool announce[FSL_PAMU_PORTS];
    bool has_master;
    uint32_t svr;
    uint64_t ram_size;
    bool a003638, a004510, a005982;
};

/* What a bus master sees in the place of memory. */
MemoryRegion *fsl_pamu_port_memory(FslPamuState *s, unsigned port);

#endif
