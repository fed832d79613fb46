// SPDX-License-Identifier: GPL-2.0
/*
 * A bank of message signalled interrupts of Freescale's MPIC: eight registers, which share 256
 * messages, and a doorbell, which has an alias in a page of its own.
 */

#include "qemu/osdep.h"
#include "hw/irq.h"
#include "hw/sysbus.h"
#include "migration/vmstate.h"
#include "fsl_msi_bank.h"

#define R_PENDING   0x120
#define R_DOORBELL  0x140
#define STRIDE      0x10

OBJECT_DECLARE_SIMPLE_TYPE(FslMsiBankState, FSL_MSI_BANK)

struct FslMsiBankState {
    SysBusDevice parent_obj;

    MemoryRegion registers, page;
    qemu_irq irq[FSL_MSI_BANK_REGISTERS];
    uint32_t messages[FSL_MSI_BANK_REGISTERS];
};

static uint64_t bank_read(void *opaque, hwaddr address, unsigned size)
{
    FslMsiBankState *s = opaque;
    unsigned i = address / STRIDE;
    uint32_t value = 0;

    if (address == R_PENDING) {
        for (i = 0; i < FSL_MSI_BANK_REGISTERS; i++) {
            value |= (s->messages[i] != 0) << i;
        }
    } else if (address % STRIDE == 0 && i < FSL_MSI_BANK_REGISTERS) {
        /* Reading takes the messages. */
        value = s->messages[i];
        s->messages[i] = 0;
        qemu_set_irq(s->irq[i], 0);
    }
    return value;
}

static void bank_write(void *opaque, hwaddr address, uint64_t value, unsigned size)
{
    FslMsiBankState *s = opaque;
    unsigned i = (value >> 29) & 7;

    if (address == R_DOORBELL) {
        s->messages[i] |= 1U << ((value >> 24) & 0x1f);
        qemu_set_irq(s->irq[i], 1);
    }
}

/* The doorbell can't be read. */
static uint64_t page_read(void *opaque, hwaddr address, unsigned size)
{
    return 0;
}

static const MemoryRegionOps bank_ops = {
    .read = bank_read,
    .write = bank_write,
    .endianness = DEVICE_BIG_ENDIAN,
    .impl = { .min_access_size = 4, .max_access_size = 4 },
};

static const MemoryRegionOps page_ops = {
    .read = page_read,
    .write = bank_write,
    .endianness = DEVICE_BIG_ENDIAN,
    .impl = { .min_access_size = 4, .max_access_size = 4 },
};

static void bank_init(Object *object)
{
    FslMsiBankState *s = FSL_MSI_BANK(object);
    SysBusDevice *bus = SYS_BUS_DEVICE(object);
    unsigned i;

    memory_region_init_io(&s->registers, object, &bank_ops, s, "msi-bank", FSL_MSI_BANK_SIZE);
    memory_region_init_io(&s->page, object, &page_ops, s, "msi-page", FSL_MSI_BANK_PAGE);
    sysbus_init_mmio(bus, &s->registers);
    sysbus_init_mmio(bus, &s->page);
    for (i = 0; i < FSL_MSI_BANK_REGISTERS; i++) {
        sysbus_init_irq(bus, &s->irq[i]);
    }
}

static void bank_reset(DeviceState *dev)
{
    FslMsiBankState *s = FSL_MSI_BANK(dev);
    unsigned i;

    for (i = 0; i < FSL_MSI_BANK_REGISTERS; i++) {
        s->messages[i] = 0;
        qemu_set_irq(s->irq[i], 0);
    }
}

static const VMStateDescription bank_vmstate = {
    .name = TYPE_FSL_MSI_BANK,
    .unmigratable = 1,
};

static void bank_class_init(ObjectClass *class, void *data)
{
    DeviceClass *device = DEVICE_CLASS(class);

    device->vmsd = &bank_vmstate;
    device->desc = "Freescale MPIC bank of MSIs";
    device->user_creatable = false;
    device_class_set_legacy_reset(device, bank_reset);
}

static const TypeInfo bank_types[] = {
    {
        .name = TYPE_FSL_MSI_BANK,
        .parent = TYPE_SYS_BUS_DEVICE,
        .instance_size = sizeof(FslMsiBankState),
        .instance_init = bank_init,
        .class_init = bank_class_init,
    },
};

DEFINE_TYPES(bank_types)
