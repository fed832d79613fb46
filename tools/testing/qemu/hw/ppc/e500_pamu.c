// SPDX-License-Identifier: GPL-2.0
/*
 * What the machine ppce500 has in addition with the property "pamu". Registers and nodes of the
 * device tree are where a P4080 has them; the numbers of interrupts, too, where they are free.
 */

#include "qemu/osdep.h"
#include "qapi/error.h"
#include "cpu.h"
#include "hw/irq.h"
#include "hw/pci/pci.h"
#include "hw/qdev-properties.h"
#include "system/device_tree.h"
#include "e500_pamu.h"
#include "fsl_msi_bank.h"
#include "fsl_pamu.h"

#define LAW_OFFSET          0x0
#define LAW_REGISTERS       0xc00
#define PCI0_OFFSET         0x8000
#define PCI1_OFFSET         0x9000
#define L3_OFFSET           0x10000
#define CCF_OFFSET          0x18000
#define CCF_CSDS            0x600
#define PAMU_OFFSET         0x20000
#define MSI_OFFSET          0x41600
#define MSI_PAGE_OFFSET     0x44000
#define MSI_DOORBELL        0x140
#define GUTS_OFFSET         0xe0000
#define GUTS_LIODN          0x500
#define MASTER_OFFSET       0xf0000

#define BANKS               3
#define MSI_IRQ             0xe0
#define VIOLATION_IRQ       24
/* Errors of all kinds: no model has any. */
#define ERROR_IRQ           16
/* INTA to INTD of the second PCI controller. Those of the first one are 1 to 4. */
#define PCI1_IRQ            8
#define PCI0_IRQ            1

/* The second controller's windows are after the first one's. */
#define PCI_MMIO_SIZE       0x20000000
#define PCI_PIO_SIZE        0x10000

/* Numbers of caches, as U-Boot gives them. */
#define STASH_L3            1
#define STASH_L1(cpu)       (32 + 2 * (cpu) + 1)
#define STASH_L2(cpu)       (32 + 2 * (cpu))

static FslPamuState *pamu_of(PPCE500MachineState *pms)
{
    return FSL_PAMU(pms->pamu_dev);
}

static void map(MemoryRegion *ccsr, DeviceState *dev, unsigned region, hwaddr offset)
{
    /* Over the regions of the models that have less. */
    memory_region_add_subregion_overlap(ccsr, offset, sysbus_mmio_get_region(SYS_BUS_DEVICE(dev), region), 1);
}

static void create_banks(PPCE500MachineState *pms, MemoryRegion *ccsr, DeviceState *mpic)
{
    unsigned bank, i;

    for (bank = 0; bank < BANKS; bank++) {
        DeviceState *dev = qdev_new(TYPE_FSL_MSI_BANK);

        sysbus_realize_and_unref(SYS_BUS_DEVICE(dev), &error_fatal);
        map(ccsr, dev, 0, MSI_OFFSET + bank * FSL_MSI_BANK_SIZE);
        map(ccsr, dev, 1, MSI_PAGE_OFFSET + bank * FSL_MSI_BANK_PAGE);
        for (i = 0; i < FSL_MSI_BANK_REGISTERS; i++) {
            qemu_irq irq = qdev_get_gpio_in(mpic, MSI_IRQ + bank * FSL_MSI_BANK_REGISTERS + i);

            sysbus_connect_irq(SYS_BUS_DEVICE(dev), i, irq);
        }
    }
}

void ppce500_pamu_create(PPCE500MachineState *pms, MemoryRegion *ccsr, DeviceState *mpic)
{
    DeviceState *dev = qdev_new(TYPE_FSL_PAMU);
    FslPamuState *s = FSL_PAMU(dev);
    CPUState *cpu;

    object_property_add_child(OBJECT(pms), "pamu-device", OBJECT(dev));
    qdev_prop_set_uint64(dev, "ram-size", MACHINE(pms)->ram_size);
    sysbus_realize_and_unref(SYS_BUS_DEVICE(dev), &error_fatal);
    pms->pamu_dev = dev;
    map(ccsr, dev, FSL_PAMU_MMIO_UNITS, PAMU_OFFSET);
    map(ccsr, dev, FSL_PAMU_MMIO_GUTS, GUTS_OFFSET + GUTS_LIODN);
    map(ccsr, dev, FSL_PAMU_MMIO_LAWS, LAW_OFFSET + LAW_REGISTERS);
    map(ccsr, dev, FSL_PAMU_MMIO_CSDS, CCF_OFFSET + CCF_CSDS);
    if (s->has_master) {
        map(ccsr, dev, FSL_PAMU_MMIO_MASTER, MASTER_OFFSET);
    }
    sysbus_connect_irq(SYS_BUS_DEVICE(dev), 0, qdev_get_gpio_in(mpic, VIOLATION_IRQ));
    create_banks(pms, ccsr, mpic);
    if (s->svr) {
        CPU_FOREACH(cpu) {
            cpu_env(cpu)->spr_cb[SPR_E500_SVR].default_value = s->svr;
        }
    }
}

void ppce500_pamu_connect(PPCE500MachineState *pms, DeviceState *pci, unsigned number)
{
    object_property_set_link(OBJECT(pci), "inbound", OBJECT(fsl_pamu_port_memory(pamu_of(pms), number)), &error_fatal);
}

void ppce500_pamu_create_pci(PPCE500MachineState *pms, MemoryRegion *ccsr, DeviceState *mpic)
{
    const PPCE500MachineClass *pmc = PPCE500_MACHINE_GET_CLASS(pms);
    DeviceState *dev = qdev_new("e500-pcihost");
    SysBusDevice *bus = SYS_BUS_DEVICE(dev);
    unsigned i;

    object_property_add_child(OBJECT(pms), "pci-host1", OBJECT(dev));
    qdev_prop_set_uint32(dev, "first_slot", pmc->pci_first_slot);
    qdev_prop_set_uint32(dev, "first_pin_irq", PCI1_IRQ);
    ppce500_pamu_connect(pms, dev, 1);
    sysbus_realize_and_unref(bus, &error_fatal);
    for (i = 0; i < PCI_NUM_PINS; i++) {
        sysbus_connect_irq(bus, i, qdev_get_gpio_in(mpic, PCI1_IRQ + i));
    }
    memory_region_add_subregion(ccsr, PCI1_OFFSET, sysbus_mmio_get_region(bus, 0));
}

/* --- The device tree ----------------------------------------------------------------------- */

static uint32_t add_phandle(void *fdt, const char *node)
{
    uint32_t phandle = qemu_fdt_alloc_phandle(fdt);

    qemu_fdt_setprop_cell(fdt, node, "phandle", phandle);
    return phandle;
}

static void set_strings(void *fdt, const char *node, const char *name, const char *first, const char *second)
{
    size_t size = strlen(first) + 1 + strlen(second) + 1;
    g_autofree char *both = g_malloc(size);

    memcpy(both, first, strlen(first) + 1);
    memcpy(both + strlen(first) + 1, second, strlen(second) + 1);
    qemu_fdt_setprop(fdt, node, name, both, size);
}

/* Returns the phandle of the PAMU that the first port is behind; the others follow. */
static void add_pamu_node(PPCE500MachineState *pms, void *fdt, const char *soc, const char *mpic, uint32_t *phandles)
{
    FslPamuState *s = pamu_of(pms);
    uint32_t size = s->units * FSL_PAMU_PAGE, i;
    g_autofree char *node = g_strdup_printf("%s/iommu@%x", soc, PAMU_OFFSET);

    qemu_fdt_add_subnode(fdt, node);
    set_strings(fdt, node, "compatible", "fsl,pamu-v1.0", "fsl,pamu");
    qemu_fdt_setprop_cells(fdt, node, "reg", PAMU_OFFSET, size);
    qemu_fdt_setprop_cells(fdt, node, "ranges", 0, PAMU_OFFSET, size);
    qemu_fdt_setprop_cell(fdt, node, "#address-cells", 1);
    qemu_fdt_setprop_cell(fdt, node, "#size-cells", 1);
    qemu_fdt_setprop_cells(fdt, node, "interrupts", VIOLATION_IRQ, 2, ERROR_IRQ, 2);
    qemu_fdt_setprop_phandle(fdt, node, "interrupt-parent", mpic);
    qemu_fdt_setprop_cell(fdt, node, "fsl,portid-mapping", 0x00f80000);
    for (i = s->units; i-- > 0;) {
        g_autofree char *unit = g_strdup_printf("%s/pamu@%x", node, i * FSL_PAMU_PAGE);

        qemu_fdt_add_subnode(fdt, unit);
        qemu_fdt_setprop_cells(fdt, unit, "reg", i * FSL_PAMU_PAGE, FSL_PAMU_PAGE);
        qemu_fdt_setprop_cells(fdt, unit, "fsl,primary-cache-geometry", 32, 1);
        qemu_fdt_setprop_cells(fdt, unit, "fsl,secondary-cache-geometry", 32, 1);
        phandles[i] = add_phandle(fdt, unit);
    }
}

static uint32_t change_guts_node(void *fdt, const char *soc)
{
    g_autofree char *node = g_strdup_printf("%s/global-utilities@%x", soc, GUTS_OFFSET);

    qemu_fdt_setprop_string(fdt, node, "compatible", "fsl,qoriq-device-config-1.0");
    qemu_fdt_setprop_cells(fdt, node, "reg", GUTS_OFFSET, 0xe00);
    qemu_fdt_setprop_cell(fdt, node, "fsl,liodn-bits", 12);
    return add_phandle(fdt, node);
}

static void change_bank_nodes(void *fdt, const char *soc, const char *mpic)
{
    unsigned bank, i;

    for (bank = BANKS; bank-- > 0;) {
        unsigned offset = MSI_OFFSET + bank * FSL_MSI_BANK_SIZE;
        g_autofree char *node = g_strdup_printf("%s/msi@%x", soc, offset);
        uint32_t interrupts[2 * FSL_MSI_BANK_REGISTERS];

        /* The machine has the first one anyway. */
        if (bank) {
            qemu_fdt_add_subnode(fdt, node);
            add_phandle(fdt, node);
        }
        for (i = 0; i < FSL_MSI_BANK_REGISTERS; i++) {
            interrupts[2 * i] = cpu_to_be32(MSI_IRQ + bank * FSL_MSI_BANK_REGISTERS + i);
            interrupts[2 * i + 1] = 0;
        }
        qemu_fdt_setprop_string(fdt, node, "compatible", "fsl,mpic-msi");
        qemu_fdt_setprop_cells(fdt, node, "reg", offset, FSL_MSI_BANK_SIZE,
                               MSI_PAGE_OFFSET + bank * FSL_MSI_BANK_PAGE + MSI_DOORBELL, 4);
        qemu_fdt_setprop_cells(fdt, node, "msi-available-ranges", 0, 0x100);
        qemu_fdt_setprop_phandle(fdt, node, "interrupt-parent", mpic);
        qemu_fdt_setprop(fdt, node, "interrupts", interrupts, sizeof(interrupts));
    }
}

static void add_law_nodes(void *fdt, const char *soc)
{
    g_autofree char *law = g_strdup_printf("%s/corenet-law@%x", soc, LAW_OFFSET);
    g_autofree char *ccf = g_strdup_printf("%s/corenet-cf@%x", soc, CCF_OFFSET);

    qemu_fdt_add_subnode(fdt, ccf);
    set_strings(fdt, ccf, "compatible", "fsl,corenet1-cf", "fsl,corenet-cf");
    qemu_fdt_setprop_cells(fdt, ccf, "reg", CCF_OFFSET, 0x1000);
    qemu_fdt_setprop_cell(fdt, ccf, "fsl,ccf-num-csdids", FSL_PAMU_CSDS);
    qemu_fdt_setprop_cell(fdt, ccf, "fsl,ccf-num-snoopids", 32);
    qemu_fdt_add_subnode(fdt, law);
    qemu_fdt_setprop_string(fdt, law, "compatible", "fsl,corenet-law");
    qemu_fdt_setprop_cells(fdt, law, "reg", LAW_OFFSET, 0x1000);
    qemu_fdt_setprop_cell(fdt, law, "fsl,num-laws", FSL_PAMU_LAWS);
}

static void add_cache_nodes(PPCE500MachineState *pms, void *fdt, const char *soc)
{
    g_autofree char *l3 = g_strdup_printf("%s/l3-cache-controller@%x", soc, L3_OFFSET);
    uint32_t phandle;
    unsigned i;

    qemu_fdt_add_subnode(fdt, l3);
    set_strings(fdt, l3, "compatible", "fsl,p4080-l3-cache-controller", "cache");
    qemu_fdt_setprop_cells(fdt, l3, "reg", L3_OFFSET, 0x1000);
    qemu_fdt_setprop_cell(fdt, l3, "cache-stash-id", STASH_L3);
    phandle = add_phandle(fdt, l3);
    for (i = 0; i < MACHINE(pms)->smp.cpus; i++) {
        g_autofree char *cpu = g_strdup_printf("/cpus/PowerPC,8544@%x", i);
        g_autofree char *l2 = g_strdup_printf("%s/l2-cache", cpu);

        qemu_fdt_add_subnode(fdt, l2);
        qemu_fdt_setprop_string(fdt, l2, "compatible", "cache");
        qemu_fdt_setprop_cell(fdt, l2, "cache-stash-id", STASH_L2(i));
        qemu_fdt_setprop_cell(fdt, l2, "next-level-cache", phandle);
        qemu_fdt_setprop_cell(fdt, cpu, "cache-stash-id", STASH_L1(i));
        qemu_fdt_setprop_cell(fdt, cpu, "next-level-cache", add_phandle(fdt, l2));
    }
}

/* The second PCI controller's node is the first one's with other addresses and interrupts. */
static void add_pci_node(PPCE500MachineState *pms, void *fdt, const char *mpic, const char *first, const char *node)
{
    const PPCE500MachineClass *pmc = PPCE500_MACHINE_GET_CLASS(pms);
    static const char *const same[] = {
        "compatible", "device_type", "interrupt-map-mask", "bus-range", "clock-frequency",
        "#interrupt-cells", "#size-cells", "#address-cells",
    };
    hwaddr registers = pmc->ccsrbar_base + PCI1_OFFSET;
    hwaddr memory = pmc->pci_mmio_base + PCI_MMIO_SIZE, ports = pmc->pci_pio_base + PCI_PIO_SIZE;
    g_autofree uint32_t *interrupts = NULL;
    const void *value;
    unsigned i;
    int size;

    qemu_fdt_add_subnode(fdt, node);
    for (i = 0; i < ARRAY_SIZE(same); i++) {
        g_autofree void *copy = NULL;

        value = qemu_fdt_getprop(fdt, first, same[i], &size, &error_fatal);
        copy = g_memdup2(value, size);
        qemu_fdt_setprop(fdt, node, same[i], copy, size);
    }
    /* An entry has seven cells: address (3), pin, controller, interrupt, sense. */
    value = qemu_fdt_getprop(fdt, first, "interrupt-map", &size, &error_fatal);
    interrupts = g_memdup2(value, size);
    for (i = 5; i < size / 4; i += 7) {
        interrupts[i] = cpu_to_be32(be32_to_cpu(interrupts[i]) - PCI0_IRQ + PCI1_IRQ);
    }
    qemu_fdt_setprop(fdt, node, "interrupt-map", interrupts, size);
    qemu_fdt_setprop_cell(fdt, node, "cell-index", 1);
    qemu_fdt_setprop_phandle(fdt, node, "interrupt-parent", mpic);
    qemu_fdt_setprop_cells(fdt, node, "reg", registers >> 32, registers, 0, 0x1000);
    qemu_fdt_setprop_cells(fdt, node, "ranges",
                           0x2000000, 0, pmc->pci_mmio_bus_base, memory >> 32, memory, 0, PCI_MMIO_SIZE,
                           0x1000000, 0, 0, ports >> 32, ports, 0, PCI_PIO_SIZE);
    qemu_fdt_setprop_string(fdt, "/aliases", "pci1", node);
}

static void add_master_node(FslPamuState *s, void *fdt, const char *soc)
{
    g_autofree char *node = g_strdup_printf("%s/pamu-master@%x", soc, MASTER_OFFSET);

    if (s->has_master) {
        qemu_fdt_add_subnode(fdt, node);
        qemu_fdt_setprop_string(fdt, node, "compatible", "qemu,pamu-master");
        qemu_fdt_setprop_cells(fdt, node, "reg", MASTER_OFFSET, (int)sizeof(s->master));
    }
}

void ppce500_pamu_add_nodes(PPCE500MachineState *pms, void *fdt, const char *soc, const char *mpic)
{
    const PPCE500MachineClass *pmc = PPCE500_MACHINE_GET_CLASS(pms);
    FslPamuState *s = pamu_of(pms);
    g_autofree char *pci0 = g_strdup_printf("/pci@%" PRIx64, pmc->ccsrbar_base + PCI0_OFFSET);
    g_autofree char *pci1 = g_strdup_printf("/pci@%" PRIx64, pmc->ccsrbar_base + PCI1_OFFSET);
    const char *pci[FSL_PAMU_PORTS] = { pci0, pci1 };
    uint32_t pamus[FSL_PAMU_MAX_UNITS], guts;
    unsigned i;

    guts = change_guts_node(fdt, soc);
    change_bank_nodes(fdt, soc, mpic);
    add_law_nodes(fdt, soc);
    add_cache_nodes(pms, fdt, soc);
    add_master_node(s, fdt, soc);
    add_pamu_node(pms, fdt, soc, mpic, pamus);
    add_pci_node(pms, fdt, mpic, pci[0], pci[1]);
    for (i = 0; i < FSL_PAMU_PORTS; i++) {
        qemu_fdt_setprop_cells(fdt, pci[i], "interrupts", ERROR_IRQ, 2);
        qemu_fdt_setprop_cell(fdt, pci[i], "fsl,iommu-parent", pamus[i % s->units]);
        qemu_fdt_setprop_cells(fdt, pci[i], "fsl,liodn-reg", guts, GUTS_LIODN + 4 * i);
        if (s->announce[i]) {
            qemu_fdt_setprop_cell(fdt, pci[i], "fsl,liodn", s->liodn[i]);
        }
    }
}
