// SPDX-License-Identifier: GPL-2.0
/*
 * Freescale's PAMU (Peripheral Access Management Unit), the IOMMU of the QorIQ processors.
 *
 * Each access of a bus master carries the number LIODN. It is the index of the primary entry (of
 * the table PPAACT in memory), which describes one window of addresses. The window may be divided
 * into equal sub-windows: the primary entry describes the first one, entries of a second table
 * (SPAACT) the others.
 *
 * What isn't known here of the hardware, and was chosen:
 *
 * - the sub-codes of the fields of AVS1, except that of a LIODN beyond the table,
 * - that an access fails while a PAMU is neither bypassed nor enabled, or its gate is closed,
 * - that a translated address consists of the high bits of the base and the low bits of the address,
 * - which checks are made of entries that no driver writes,
 * - that all PAMUs are bypassed after a reset.
 *
 * There are no other models of time than QEMU's own: accesses are atomic and in order, except that
 * a device with a host's file behind it (NVMe) gets the memory's address once, when it begins.
 */

#include "qemu/osdep.h"
#include "qemu/log.h"
#include "qemu/lockable.h"
#include "qemu/main-loop.h"
#include "qapi/error.h"
#include "exec/address-spaces.h"
#include "hw/irq.h"
#include "hw/qdev-properties.h"
#include "migration/vmstate.h"
#include "fsl_pamu.h"

/* Registers of a PAMU. */
enum {
    R_PPBAH = 0x00, R_PPBAL = 0x04, R_PPLAH = 0x08, R_PPLAL = 0x0c,
    R_SPBAH = 0x10, R_SPBAL = 0x14, R_SPLAH = 0x18, R_SPLAL = 0x1c,
    R_OBAH = 0x20, R_OBAL = 0x24, R_OLAH = 0x28, R_OLAL = 0x2c,
    R_POES1 = 0x40, R_POES2 = 0x44, R_POEAH = 0x48, R_POEAL = 0x4c,
    R_AVS1 = 0x50, R_AVS2 = 0x54, R_AVAH = 0x58, R_AVAL = 0x5c,
    R_EECTL = 0x60, R_EECC = 0x84,
    R_UDAD = 0x90,
    R_PR1 = 0xbf8, R_PR2 = 0xbfc,
    R_PC1 = 0xc00, R_PC2 = 0xc04, R_PC3 = 0xc08, R_PC4 = 0xc0c,
    R_PC = 0xc10, R_PFA1 = 0xc14, R_PFA2 = 0xc18,
    R_PICS = 0xc1c,
    R_PD1 = 0xf00, R_PD4 = 0xf0c,
};

#define PC_GATE_CLOSED      0x80000000
#define PC_ENABLE           0x40000000
#define PC_OMT_CACHE        0x00001000
#define PC_SECONDARY_CACHE  0x00000010
#define PC_PRIMARY_CACHE    0x00000001
#define PICS_VIOLATION      0x8
#define PICS_ENABLE         0x4
#define POES_TABLE          0x1

/* The fields of AVS1, and the values in them. */
#define AVS1_AV             0x1
#define AVS1_OTV(code)      ((code) << 1)
#define AVS1_APV(code)      ((code) << 3)
#define AVS1_WAV(code)      ((code) << 7)
#define AVS1_LAV(code)      ((code) << 10)
#define AVS1_GCV            0x2000
#define AVS1_PDV            0x4000
#define AVS1_STATUS         0x7fff
#define AVS1_LIODN_SHIFT    16

enum { LAV_BEYOND = 1, LAV_INVALID, LAV_NOT_PRIMARY, LAV_UNREADABLE };
enum {
    WAV_OUTSIDE = 1, WAV_UNMAPPED, WAV_BEYOND, WAV_INVALID, WAV_NOT_OURS, WAV_MALFORMED, WAV_UNREADABLE
};
enum { APV_READ = 1, APV_WRITE };
enum { OTV_NONE = 1, OTV_BEYOND, OTV_RESERVED };

/* The words of an entry. */
enum { W_BASE_HIGH, W_ADDRESS, W_DOMAIN, W_ATTRIBUTES, W_TARGET_HIGH, W_TARGET, W_FIRST, W_OPERATION };

#define ENTRY_SIZE          (4 * FSL_PAMU_WORDS)
#define ADDRESS_BASE        0xfffff000
#define ADDRESS_MULTIPLE    0x20
#define ADDRESS_SECONDARY   0x2
#define ADDRESS_VALID       0x1
#define MIN_SIZE_CODE       11

enum { TRANSLATE_NOTHING, TRANSLATE_WINDOW };
enum { OPERATION_SAME, OPERATION_IMMEDIATE, OPERATION_INDEXED };

#define OPERATION_VALID     0x80
#define OPERATION_READ      0
#define OPERATION_WRITE     1
#define OMT_ROW             128

#define OFFSET_MASK           0xfffULL
#define ADDRESS_BITS        36

/* The part of the general utilities that is about LIODNs. */
#define GUTS_FIRST          0x500
#define GUTS_BYPASS         0x604
#define GUTS_SIZE           0x108

#define LAW_ENABLE          0x80000000
#define CSD_PAMUS           0x00f80000

#define TYPE_FSL_PAMU_MEMORY_REGION "fsl-pamu-memory-region"

typedef struct Access {
    FslPamuUnit *unit;
    uint32_t liodn;
    hwaddr address;
    unsigned operation;
    /* Answers. */
    hwaddr target;
    unsigned mapped_operation;
    /* What is recorded if it fails. */
    uint32_t status;
    hwaddr entry;
    bool unreadable;
} Access;

static uint32_t *reg(FslPamuUnit *unit, unsigned offset)
{
    return &unit->registers[offset / 4];
}

static hwaddr reg64(FslPamuUnit *unit, unsigned offset)
{
    return ((hwaddr)*reg(unit, offset) << 32) | *reg(unit, offset + 4);
}

static bool fails(Access *access, uint32_t status)
{
    access->status = status | AVS1_AV;
    return false;
}

/* --- The tables in memory ----------------------------------------------------------------- */

static bool read_words(hwaddr address, uint32_t *words, unsigned count)
{
    unsigned i;

    if (address_space_read(&address_space_memory, address, MEMTXATTRS_UNSPECIFIED, words, 4 * count)) {
        return false;
    }
    for (i = 0; i < count; i++) {
        words[i] = be32_to_cpu(words[i]);
    }
    return true;
}

/* An entry is a cache line, which the hardware reads at once. */
static bool read_entry(hwaddr address, uint32_t *words)
{
    uint32_t before, after;

    do {
        if (!read_words(address + 4 * W_ADDRESS, &before, 1)) {
            return false;
        }
        smp_rmb();
        if (!read_words(address, words, FSL_PAMU_WORDS)) {
            return false;
        }
        smp_rmb();
        if (!read_words(address + 4 * W_ADDRESS, &after, 1)) {
            return false;
        }
    } while (before != words[W_ADDRESS] || after != before);
    return true;
}

/* A-004510: whether the tables are in a coherence subdomain that the PAMUs are in. */
static bool in_subdomain(FslPamuState *s, hwaddr address)
{
    unsigned i;

    for (i = 0; i < FSL_PAMU_LAWS; i++) {
        uint32_t *law = &s->laws[4 * i];
        hwaddr base = ((hwaddr)law[0] << 32) | law[1];
        unsigned csd = (law[2] >> 12) & 0xff;

        if (law[2] & LAW_ENABLE && address - base < 2ULL << (law[2] & 0x3f)) {
            return csd && csd < FSL_PAMU_CSDS && (s->csds[csd] & CSD_PAMUS);
        }
    }
    return false;
}

/*
 * The caches of a PAMU snoop, so they can't be told from none, except with the erratum: then a
 * line stays until another entry needs its place, or the cache is turned off.
 */
static bool fetch(FslPamuUnit *unit, FslPamuLine *lines, uint32_t cache, hwaddr address, uint32_t *words)
{
    FslPamuState *s = unit->pamu;
    FslPamuLine *line = &lines[address / ENTRY_SIZE % FSL_PAMU_LINES];

    if (!s->a004510 || !(*reg(unit, R_PC) & cache) || in_subdomain(s, address)) {
        return read_entry(address, words);
    }
    if (!line->used || line->address != address) {
        line->used = read_entry(address, line->words);
        line->address = address;
    }
    memcpy(words, line->words, sizeof(line->words));
    return line->used;
}

/* --- The walk ------------------------------------------------------------------------------ */

static bool find_primary(Access *access, uint32_t *words)
{
    FslPamuUnit *unit = access->unit;
    hwaddr entry = reg64(unit, R_PPBAH) + (hwaddr)access->liodn * ENTRY_SIZE;

    if (access->liodn > unit->pamu->max_liodn || entry + ENTRY_SIZE > reg64(unit, R_PPLAH)) {
        return fails(access, AVS1_LAV(LAV_BEYOND));
    }
    access->entry = entry;
    if (!fetch(unit, unit->primary, PC_PRIMARY_CACHE, entry, words)) {
        access->unreadable = true;
        return fails(access, AVS1_LAV(LAV_UNREADABLE));
    }
    if (!(words[W_ADDRESS] & ADDRESS_VALID)) {
        return fails(access, AVS1_LAV(LAV_INVALID));
    }
    if (words[W_ADDRESS] & ADDRESS_SECONDARY) {
        return fails(access, AVS1_LAV(LAV_NOT_PRIMARY));
    }
    return true;
}

/* Replaces WORDS by the secondary entry of the sub-window NUMBER, which isn't 0. */
static bool find_secondary(Access *access, uint32_t *words, uint64_t number)
{
    FslPamuUnit *unit = access->unit;
    hwaddr entry = reg64(unit, R_SPBAH) + (words[W_FIRST] + number - 1) * ENTRY_SIZE;

    if (entry + ENTRY_SIZE > reg64(unit, R_SPLAH)) {
        return fails(access, AVS1_WAV(WAV_BEYOND));
    }
    access->entry = entry;
    if (!fetch(unit, unit->secondary, PC_SECONDARY_CACHE, entry, words)) {
        access->unreadable = true;
        return fails(access, AVS1_WAV(WAV_UNREADABLE));
    }
    if (!(words[W_ADDRESS] & ADDRESS_VALID)) {
        return fails(access, AVS1_WAV(WAV_INVALID));
    }
    if (!(words[W_ADDRESS] & ADDRESS_SECONDARY) || words[W_ADDRESS] >> 16 != access->liodn) {
        return fails(access, AVS1_WAV(WAV_NOT_OURS));
    }
    return true;
}

/* Finds the entry for the address; sets OFFSET, in its part of the window, and the SIZE that it maps. */
static bool find_window(Access *access, uint32_t *words, uint64_t *offset, uint64_t *size)
{
    hwaddr base = ((hwaddr)words[W_BASE_HIGH] << 32) | (words[W_ADDRESS] & ADDRESS_BASE);
    unsigned window_code = (words[W_ADDRESS] >> 6) & 0x3f;
    unsigned count_code = (words[W_ATTRIBUTES] >> 4) & 0xf;
    unsigned part_code = window_code - count_code - 1;
    unsigned code;

    /* More than there are addresses is all of them. */
    if (window_code < MIN_SIZE_CODE || window_code >= 63) {
        return fails(access, AVS1_WAV(WAV_MALFORMED));
    }
    *offset = access->address - base;
    *size = 2ULL << window_code;
    if (access->address < base || *offset >= *size) {
        return fails(access, AVS1_WAV(WAV_OUTSIDE));
    }
    if (!(words[W_ADDRESS] & ADDRESS_MULTIPLE)) {
        return true;
    }
    if (count_code > access->unit->pamu->mwce || window_code < MIN_SIZE_CODE + count_code + 1) {
        return fails(access, AVS1_WAV(WAV_MALFORMED));
    }
    if (*offset >> (part_code + 1) && !find_secondary(access, words, *offset >> (part_code + 1))) {
        return false;
    }
    *offset &= (2ULL << part_code) - 1;
    code = (words[W_TARGET] >> 6) & 0x3f;
    if (code < MIN_SIZE_CODE || code > part_code) {
        return fails(access, AVS1_WAV(WAV_MALFORMED));
    }
    *size = 2ULL << code;
    return *offset < *size || fails(access, AVS1_WAV(WAV_UNMAPPED));
}

static bool is_write(unsigned operation)
{
    switch (operation) {
    case 0x01: /* write */
    case 0x1a: /* write, cache inhibited */
    case 0x1b ... 0x1e: /* write with stash allocate */
        return true;
    default:
        return false;
    }
}

static bool is_read(unsigned operation)
{
    switch (operation) {
    case 0x00: /* read */
    case 0x16 ... 0x17: /* read with stash allocate */
    case 0x18: /* read with invalidate */
    case 0x19: /* read with no intention to cache */
        return true;
    default:
        return false;
    }
}

/* The operations of a bus master that write: write, enhanced writes. */
static bool writes(unsigned operation)
{
    return operation == OPERATION_WRITE || operation == 3 || operation == 6;
}

static bool map_operation(Access *access, uint32_t *words)
{
    uint32_t mapping = words[W_OPERATION];
    uint8_t mapped = 0;
    hwaddr row;

    switch (words[W_ATTRIBUTES] & 3) {
    case OPERATION_SAME:
        access->mapped_operation = access->operation;
        return true;
    case OPERATION_IMMEDIATE:
        if (((mapping >> 24) & ~OPERATION_VALID) == access->operation) {
            mapped = mapping >> 16;
        } else if (((mapping >> 8) & 0x7f) == access->operation) {
            mapped = mapping;
        }
        break;
    case OPERATION_INDEXED:
        row = access->unit->omt + (hwaddr)(mapping & 0xffff) * OMT_ROW;
        if (row + OMT_ROW > access->unit->omt_end ||
            address_space_read(&address_space_memory, row + access->operation, MEMTXATTRS_UNSPECIFIED, &mapped, 1)) {
            return fails(access, AVS1_OTV(OTV_BEYOND));
        }
        break;
    default:
        return fails(access, AVS1_OTV(OTV_RESERVED));
    }
    access->mapped_operation = mapped & ~OPERATION_VALID;
    return mapped & OPERATION_VALID || fails(access, AVS1_OTV(OTV_NONE));
}

static bool walk(Access *access)
{
    uint32_t words[FSL_PAMU_WORDS], control = *reg(access->unit, R_PC);
    uint64_t offset, size;
    unsigned permission;

    if (control & PC_GATE_CLOSED) {
        return fails(access, AVS1_GCV);
    }
    if (!(control & PC_ENABLE)) {
        return fails(access, AVS1_PDV);
    }
    if (!find_primary(access, words) || !find_window(access, words, &offset, &size)) {
        return false;
    }
    permission = (words[W_ADDRESS] >> 3) & 3;
    if (!(permission & (writes(access->operation) ? 2 : 1))) {
        return fails(access, AVS1_APV(writes(access->operation) ? APV_WRITE : APV_READ));
    }
    if (!map_operation(access, words)) {
        return false;
    }
    switch ((words[W_ATTRIBUTES] >> 2) & 3) {
    case TRANSLATE_NOTHING:
        access->target = access->address;
        return true;
    case TRANSLATE_WINDOW:
        access->target = ((hwaddr)words[W_TARGET_HIGH] << 32) | (words[W_TARGET] & ADDRESS_BASE);
        access->target = (access->target & -size) | offset;
        return true;
    default:
        qemu_log_mask(LOG_UNIMP, "fsl-pamu: translation by pages of LIODN 0x%x\n", access->liodn);
        return fails(access, AVS1_WAV(WAV_MALFORMED));
    }
}

/* --- Violations ---------------------------------------------------------------------------- */

static bool pending(FslPamuUnit *unit)
{
    return *reg(unit, R_AVS1) & AVS1_STATUS;
}

/* With the device's lock. */
static void record(Access *access)
{
    FslPamuUnit *unit = access->unit;

    /* A-003638: that a LIODN is off is reported. */
    if (!unit->pamu->a003638 && access->status == (AVS1_AV | AVS1_LAV(LAV_INVALID))) {
        return;
    }
    /* The first one, until it is cleared. */
    if (pending(unit)) {
        return;
    }
    *reg(unit, R_AVS1) = access->liodn << AVS1_LIODN_SHIFT | access->status;
    *reg(unit, R_AVS2) = 0;
    *reg(unit, R_AVAH) = access->address >> 32;
    *reg(unit, R_AVAL) = access->address;
    *reg(unit, R_POES1) = access->unreadable ? POES_TABLE : 0;
    *reg(unit, R_POEAH) = access->entry >> 32;
    *reg(unit, R_POEAL) = access->entry;
    /* The access may come from a thread that doesn't have the lock of the interrupt controller. */
    qemu_bh_schedule(unit->pamu->update);
}

static void update_interrupt(void *opaque)
{
    FslPamuState *s = opaque;
    bool level = false;
    unsigned i;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        for (i = 0; i < s->units; i++) {
            level |= pending(&s->unit[i]) && *reg(&s->unit[i], R_PICS) & PICS_ENABLE;
        }
    }
    qemu_set_irq(s->violation, level);
}

static bool bypassed(FslPamuUnit *unit)
{
    return unit->pamu->bypass & (0x80000000 >> unit->index);
}

/* Returns whether the access may be made, to access->target, as access->mapped_operation. */
static bool translate(Access *access, bool quiet)
{
    QEMU_LOCK_GUARD(&access->unit->pamu->lock);
    if (bypassed(access->unit)) {
        access->target = access->address;
        access->mapped_operation = access->operation;
        return true;
    }
    if (!walk(access)) {
        if (!quiet) {
            record(access);
        }
        return false;
    }
    return true;
}

/* --- Ports: memory as a bus master sees it ------------------------------------------------- */

/* The PAMU that a port is behind. */
static FslPamuUnit *unit_of(FslPamuPort *port)
{
    return &port->pamu->unit[port->index % port->pamu->units];
}

static IOMMUTLBEntry port_translate(IOMMUMemoryRegion *region, hwaddr address, IOMMUAccessFlags flag, int index)
{
    FslPamuPort *port = container_of(region, FslPamuPort, region);
    IOMMUTLBEntry result = {
        .target_as = &address_space_memory,
        .iova = address & ~OFFSET_MASK,
        .addr_mask = OFFSET_MASK,
        .perm = IOMMU_NONE,
    };
    bool quiet = flag == IOMMU_NONE;
    unsigned operation;

    for (operation = OPERATION_READ; operation <= OPERATION_WRITE; operation++) {
        IOMMUAccessFlags permission = operation == OPERATION_READ ? IOMMU_RO : IOMMU_WO;
        Access access = {
            .unit = unit_of(port),
            .liodn = port->liodn,
            .address = address,
            .operation = operation,
        };

        if (!quiet && !(flag & permission)) {
            continue;
        }
        if (!translate(&access, quiet)) {
            continue;
        }
        if (operation == OPERATION_READ ? !is_read(access.mapped_operation) : !is_write(access.mapped_operation)) {
            qemu_log_mask(LOG_UNIMP, "fsl-pamu: LIODN 0x%x maps an access to the operation 0x%x\n",
                          port->liodn, access.mapped_operation);
            continue;
        }
        result.translated_addr = access.target & ~OFFSET_MASK;
        result.perm |= permission;
    }
    return result;
}

MemoryRegion *fsl_pamu_port_memory(FslPamuState *s, unsigned port)
{
    return MEMORY_REGION(&s->port[port].region);
}

static void port_region_class_init(ObjectClass *class, void *data)
{
    IOMMU_MEMORY_REGION_CLASS(class)->translate = port_translate;
}

/* --- Registers ----------------------------------------------------------------------------- */

static uint64_t units_read(void *opaque, hwaddr address, unsigned size)
{
    FslPamuState *s = opaque;
    FslPamuUnit *unit = &s->unit[address / FSL_PAMU_PAGE];
    unsigned offset = address % FSL_PAMU_PAGE;

    QEMU_LOCK_GUARD(&s->lock);
    switch (offset) {
    case R_PR1:
        return 0x01600100;
    case R_PC2:
        return s->max_liodn << 16;
    case R_PC3:
        return s->mwce << 21;
    case R_PICS:
        return *reg(unit, R_PICS) | (pending(unit) ? PICS_VIOLATION : 0);
    default:
        return *reg(unit, offset);
    }
}

/* A-005982: the address of the OMT is taken only while its cache is on. */
static void take_omt(FslPamuUnit *unit)
{
    if (unit->pamu->a005982 && !(*reg(unit, R_PC) & PC_OMT_CACHE)) {
        qemu_log_mask(LOG_GUEST_ERROR, "fsl-pamu: A-005982: OMT written while its cache is off\n");
        return;
    }
    unit->omt = reg64(unit, R_OBAH);
    unit->omt_end = reg64(unit, R_OLAH);
}

static void clear_lines(FslPamuLine *lines)
{
    memset(lines, 0, FSL_PAMU_LINES * sizeof(*lines));
}

static void units_write(void *opaque, hwaddr address, uint64_t value, unsigned size)
{
    FslPamuState *s = opaque;
    FslPamuUnit *unit = &s->unit[address / FSL_PAMU_PAGE];
    unsigned offset = address % FSL_PAMU_PAGE;

    WITH_QEMU_LOCK_GUARD(&s->lock) {
        switch (offset) {
        case R_PPBAH ... R_SPLAL:
        case R_EECTL ... R_EECC:
        case R_PFA1 ... R_PFA2:
        case R_PD1 ... R_PD4:
            *reg(unit, offset) = value;
            break;
        case R_OBAH ... R_OLAL:
            *reg(unit, offset) = value;
            take_omt(unit);
            break;
        case R_POES1:
            *reg(unit, offset) &= ~value;
            break;
        case R_AVS1:
            *reg(unit, offset) &= ~(value & AVS1_STATUS);
            break;
        case R_PC:
            *reg(unit, offset) = value;
            if (!(value & PC_PRIMARY_CACHE)) {
                clear_lines(unit->primary);
            }
            if (!(value & PC_SECONDARY_CACHE)) {
                clear_lines(unit->secondary);
            }
            break;
        case R_PICS:
            *reg(unit, offset) = value & PICS_ENABLE;
            break;
        default:
            qemu_log_mask(LOG_GUEST_ERROR, "fsl-pamu: write of the register 0x%x\n", offset);
        }
    }
    update_interrupt(s);
}

static uint64_t guts_read(void *opaque, hwaddr address, unsigned size)
{
    FslPamuState *s = opaque;

    if (address == GUTS_BYPASS - GUTS_FIRST) {
        return s->bypass;
    }
    if (address / 4 < FSL_PAMU_PORTS) {
        return s->port[address / 4].liodn;
    }
    return address / 4 < ARRAY_SIZE(s->guts) ? s->guts[address / 4] : 0;
}

static void guts_write(void *opaque, hwaddr address, uint64_t value, unsigned size)
{
    FslPamuState *s = opaque;

    QEMU_LOCK_GUARD(&s->lock);
    if (address == GUTS_BYPASS - GUTS_FIRST) {
        s->bypass = value;
    } else if (address / 4 < FSL_PAMU_PORTS) {
        s->port[address / 4].liodn = value & 0xffff;
    } else if (address / 4 < ARRAY_SIZE(s->guts)) {
        s->guts[address / 4] = value;
    }
}

static uint64_t words_read(void *opaque, hwaddr address, unsigned size)
{
    return ((uint32_t *)opaque)[address / 4];
}

static void words_write(void *opaque, hwaddr address, uint64_t value, unsigned size)
{
    ((uint32_t *)opaque)[address / 4] = value;
}

/* --- A bus master for tests: any LIODN, any operation -------------------------------------- */

enum { M_LIODN, M_OPERATION, M_ADDRESS_HIGH, M_ADDRESS_LOW, M_DATA, M_START, M_RESULT, M_MAPPED };
enum { RESULT_DONE, RESULT_VIOLATION, RESULT_BUS_ERROR };

static void master_start(FslPamuState *s)
{
    uint32_t *m = s->master, data;
    Access access = {
        .unit = &s->unit[(m[M_OPERATION] >> 8) % s->units],
        .liodn = m[M_LIODN] & 0xffff,
        .address = ((hwaddr)m[M_ADDRESS_HIGH] << 32) | m[M_ADDRESS_LOW],
        .operation = m[M_OPERATION] & 0x7f,
    };
    MemTxResult result = MEMTX_OK;

    if (!translate(&access, false)) {
        m[M_RESULT] = RESULT_VIOLATION;
        return;
    }
    if (is_write(access.mapped_operation)) {
        data = cpu_to_be32(m[M_DATA]);
        result = address_space_write(&address_space_memory, access.target, MEMTXATTRS_UNSPECIFIED, &data, 4);
    } else if (is_read(access.mapped_operation)) {
        result = address_space_read(&address_space_memory, access.target, MEMTXATTRS_UNSPECIFIED, &data, 4);
        m[M_DATA] = be32_to_cpu(data);
    }
    /* The other operations are about caches, which QEMU doesn't have. */
    m[M_RESULT] = result == MEMTX_OK ? RESULT_DONE : RESULT_BUS_ERROR;
    m[M_MAPPED] = access.mapped_operation;
}

static uint64_t master_read(void *opaque, hwaddr address, unsigned size)
{
    FslPamuState *s = opaque;

    return s->master[address / 4];
}

static void master_write(void *opaque, hwaddr address, uint64_t value, unsigned size)
{
    FslPamuState *s = opaque;

    s->master[address / 4] = value;
    if (address / 4 == M_START) {
        master_start(s);
    }
}

/* --- The device ---------------------------------------------------------------------------- */

#define WORD_OPS(name)                                                      \
    static const MemoryRegionOps name##_ops = {                             \
        .read = name##_read,                                                \
        .write = name##_write,                                              \
        .endianness = DEVICE_BIG_ENDIAN,                                    \
        .valid = { .min_access_size = 4, .max_access_size = 4 },            \
        .impl = { .min_access_size = 4, .max_access_size = 4 },             \
    }

WORD_OPS(units);
WORD_OPS(guts);
WORD_OPS(words);
WORD_OPS(master);

static void pamu_realize(DeviceState *dev, Error **errp)
{
    FslPamuState *s = FSL_PAMU(dev);
    SysBusDevice *bus = SYS_BUS_DEVICE(dev);
    Object *owner = OBJECT(dev);
    unsigned i;

    if (!s->units || s->units > FSL_PAMU_MAX_UNITS) {
        error_setg(errp, "units must be 1 to %d", FSL_PAMU_MAX_UNITS);
        return;
    }
    if (s->mwce > 15 || s->max_liodn > 0xffff) {
        error_setg(errp, "mwce is at most 15, max-liodn at most 65535");
        return;
    }
    qemu_mutex_init(&s->lock);
    s->update = qemu_bh_new_guarded(update_interrupt, s, &dev->mem_reentrancy_guard);
    for (i = 0; i < FSL_PAMU_MAX_UNITS; i++) {
        s->unit[i].pamu = s;
        s->unit[i].index = i;
    }
    for (i = 0; i < FSL_PAMU_PORTS; i++) {
        g_autofree char *name = g_strdup_printf("pamu-port%u", i);

        s->port[i].pamu = s;
        s->port[i].index = i;
        memory_region_init_iommu(&s->port[i].region, sizeof(s->port[i].region), TYPE_FSL_PAMU_MEMORY_REGION,
                                 owner, name, 1ULL << ADDRESS_BITS);
    }
    memory_region_init_io(&s->units_region, owner, &units_ops, s, "pamu", s->units * FSL_PAMU_PAGE);
    memory_region_init_io(&s->guts_region, owner, &guts_ops, s, "pamu-guts", GUTS_SIZE);
    memory_region_init_io(&s->laws_region, owner, &words_ops, s->laws, "pamu-laws", sizeof(s->laws));
    memory_region_init_io(&s->csds_region, owner, &words_ops, s->csds, "pamu-csds", sizeof(s->csds));
    memory_region_init_io(&s->master_region, owner, &master_ops, s, "pamu-master", sizeof(s->master));
    sysbus_init_mmio(bus, &s->units_region);
    sysbus_init_mmio(bus, &s->guts_region);
    sysbus_init_mmio(bus, &s->laws_region);
    sysbus_init_mmio(bus, &s->csds_region);
    sysbus_init_mmio(bus, &s->master_region);
    sysbus_init_irq(bus, &s->violation);
}

/* As firmware leaves it. */
static void pamu_reset(DeviceState *dev)
{
    FslPamuState *s = FSL_PAMU(dev);
    uint32_t *law = &s->laws[4 * (FSL_PAMU_LAWS - 1)];
    unsigned i;

    for (i = 0; i < FSL_PAMU_MAX_UNITS; i++) {
        FslPamuUnit *unit = &s->unit[i];

        memset(unit->registers, 0, sizeof(unit->registers));
        unit->omt = unit->omt_end = 0;
        clear_lines(unit->primary);
        clear_lines(unit->secondary);
    }
    s->bypass = ~0U << (32 - s->units);
    for (i = 0; i < FSL_PAMU_PORTS; i++) {
        s->port[i].liodn = s->liodn[i];
    }
    memset(s->guts, 0, sizeof(s->guts));
    memset(s->master, 0, sizeof(s->master));
    /* The memory is in the last window, and in the subdomain that everything is in. */
    memset(s->laws, 0, sizeof(s->laws));
    law[2] = LAW_ENABLE | 0x10 << 20 | (s->ram_size ? 63 - clz64(pow2ceil(s->ram_size)) - 1 : 0);
    memset(s->csds, 0, sizeof(s->csds));
    s->csds[0] = 0xffffffff;
    qemu_set_irq(s->violation, 0);
}

static const Property pamu_properties[] = {
    DEFINE_PROP_UINT32("units", FslPamuState, units, 2),
    DEFINE_PROP_UINT32("max-liodn", FslPamuState, max_liodn, 0xfff),
    DEFINE_PROP_UINT32("mwce", FslPamuState, mwce, 7),
    /* What firmware put into the registers of the PCI controllers, and whether the tree says so. */
    DEFINE_PROP_UINT32("liodn0", FslPamuState, liodn[0], 0x93),
    DEFINE_PROP_UINT32("liodn1", FslPamuState, liodn[1], 0x94),
    DEFINE_PROP_BOOL("announce0", FslPamuState, announce[0], true),
    DEFINE_PROP_BOOL("announce1", FslPamuState, announce[1], true),
    DEFINE_PROP_BOOL("master", FslPamuState, has_master, false),
    /* The version of the system that the processors name, for drivers that know its errata. */
    DEFINE_PROP_UINT32("svr", FslPamuState, svr, 0),
    DEFINE_PROP_UINT64("ram-size", FslPamuState, ram_size, 0),
    DEFINE_PROP_BOOL("a003638", FslPamuState, a003638, true),
    DEFINE_PROP_BOOL("a004510", FslPamuState, a004510, false),
    DEFINE_PROP_BOOL("a005982", FslPamuState, a005982, false),
};

static const VMStateDescription pamu_vmstate = {
    .name = TYPE_FSL_PAMU,
    .unmigratable = 1,
};

static void pamu_class_init(ObjectClass *class, void *data)
{
    DeviceClass *device = DEVICE_CLASS(class);

    device->realize = pamu_realize;
    device->vmsd = &pamu_vmstate;
    device->desc = "Freescale PAMU";
    device->user_creatable = false;
    device_class_set_legacy_reset(device, pamu_reset);
    device_class_set_props(device, pamu_properties);
}

static const TypeInfo pamu_types[] = {
    {
        .name = TYPE_FSL_PAMU,
        .parent = TYPE_SYS_BUS_DEVICE,
        .instance_size = sizeof(FslPamuState),
        .class_init = pamu_class_init,
    },
    {
        .name = TYPE_FSL_PAMU_MEMORY_REGION,
        .parent = TYPE_IOMMU_MEMORY_REGION,
        .class_init = port_region_class_init,
    },
};

DEFINE_TYPES(pamu_types)
