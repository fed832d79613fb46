# SPDX-License-Identifier: GPL-2.0
"""Tests the model of the PAMU without a guest: through QEMU's qtest, which reads and writes the
machine's memory. The tables are written here from the layout in the kernel's fsl_pamu.h."""

import contextlib
import itertools
import random
import socket
import struct
import subprocess
import tempfile
import unittest

CCSR = 0xFE0000000
PAMU, GUTS, LAWS, CSDS, MASTER = (CCSR + offset for offset in (0x20000, 0xE0000, 0xC00, 0x18600, 0xF0000))
BYPASS, LIODN0 = GUTS + 0x604, GUTS + 0x500
PPBAL, PPLAL, SPBAL, SPLAL, OBAL, OLAL = 0x04, 0x0C, 0x14, 0x1C, 0x24, 0x2C
POEAL, AVS1, AVAH, AVAL, PC, PICS = 0x4C, 0x50, 0x58, 0x5C, 0xC10, 0xC1C
PC2, PC3 = 0xC04, 0xC08
ENABLED = 0x40001011
GATE_CLOSED = 0x80000000
# The input of the interrupt controller.
VIOLATION = 24

PPAACT, SPAACT, OMT = 0x100000, 0x200000, 0x300000
PRIMARIES, SECONDARIES, ROWS = 256, 256, 16
# Memory that nothing else uses.
PLACE = 0x800000

READ, WRITE, EREAD0, EWRITE0, DIRECT0 = range(5)
DONE, VIOLATED, BUS_ERROR = range(3)
DENIED, QUERY, UPDATE, ALL = range(4)
K4, K64, M1, M16, M64, M256, G64 = (1 << bits for bits in (12, 16, 20, 24, 26, 28, 36))
SUBWINDOWS = 0x20
SECONDARY = 0x2

# The fields of AVS1.
AV, OTV, APV, WAV, LAV, GCV, PDV = 0x1, 0x6, 0x78, 0x380, 0x1C00, 0x2000, 0x4000


def size_code(size):
    return size.bit_length() - 2


def entry(base=0, size=0, target=None, mapped=0, access=ALL, secondary_of=None, count=1, first=0, valid=1,
          operations=None, row=None):
    """Returns the 16 words of an entry; with COUNT, of one that has sub-windows.

    TARGET is where it translates to, None for no translation. MAPPED is the size that it maps, if
    the entry is that of a sub-window.
    """
    if secondary_of is None:
        address = base & 0xFFFFF000 | size_code(size) << 6 | (SUBWINDOWS if count > 1 else 0)
    else:
        address = secondary_of << 16 | SECONDARY
    attributes = (count.bit_length() - 2 << 4 if count > 1 else 0) | (4 if target is not None else 0)
    operation = 0
    if operations:
        attributes |= 1
        operation = int.from_bytes(bytes(operations), "big")
    if row is not None:
        attributes |= 2
        operation = row
    target = target or 0
    return [
        base >> 32, address | access << 3 | valid, 0x80, attributes,
        target >> 32, target & 0xFFFFF000 | (size_code(mapped) << 6 if mapped else 0), first, operation, *[0] * 8,
    ]


def write_kernel(file):
    """Writes what the machine wants to load: an ELF file with one instruction, which never runs."""
    file.write(struct.pack(">4s12B2H5I6H", b"\x7fELF", 1, 2, 1, *[0] * 9, 2, 20, 1, 0, 52, 0, 0, 52, 32, 1, 0, 0, 0))
    file.write(struct.pack(">8I", 1, 84, 0, 0, 4, 4, 7, 4))
    file.write(struct.pack(">I", 0x48000000))
    file.flush()


class Machine:
    """A machine without a processor that runs."""

    def __init__(self, *arguments):
        ours, theirs = socket.socketpair()
        self.kernel = tempfile.NamedTemporaryFile()
        write_kernel(self.kernel)
        self.process = subprocess.Popen(
            ["qemu-system-ppc", "-nodefaults", "-no-user-config", "-display", "none", "-M", "ppce500,pamu=on",
             "-cpu", "e500mc", "-m", "512", "-kernel", self.kernel.name, "-global", "fsl-pamu.master=on", *arguments,
             "-accel", "qtest", "-chardev", f"socket,id=qtest,fd={theirs.fileno()}", "-qtest", "chardev:qtest",
             "-qtest-log", "none"],
            pass_fds=[theirs.fileno()])
        theirs.close()
        self.interrupts = {}
        self.socket = ours
        self.lines = ours.makefile()
        self.do("irq_intercept_in /machine/pic")

    def do(self, words):
        self.socket.sendall(f"{words}\n".encode())
        for line in self.lines:
            kind, *rest = line.split()
            if kind == "IRQ":
                self.interrupts[int(rest[1])] = rest[0] == "raise"
            elif kind == "OK":
                return rest
            else:
                raise AssertionError(f"{words}: {line}")
        raise AssertionError(f"{words}: QEMU ended")

    def write(self, address, *words):
        self.do(f"write {address:#x} {4 * len(words):#x} 0x{struct.pack(f'>{len(words)}I', *words).hex()}")

    def read(self, address):
        return int(self.do(f"read {address:#x} 4")[0], 16)

    def close(self):
        self.lines.close()
        self.socket.close()
        self.process.kill()
        self.process.wait()
        self.kernel.close()


class Test(unittest.TestCase):
    OPTIONS = ()

    def setUp(self):
        self.machine = Machine(*self.OPTIONS)
        self.addCleanup(self.machine.close)
        for unit in (0, 1):
            self.start(unit)

    def register(self, offset, unit=0):
        return self.machine.read(PAMU + unit * 0x1000 + offset)

    def set_register(self, offset, value, unit=0):
        self.machine.write(PAMU + unit * 0x1000 + offset, value)

    def start(self, unit=0):
        for offset, base, size in ((PPBAL, PPAACT, PRIMARIES * 64), (SPBAL, SPAACT, SECONDARIES * 64),
                                   (OBAL, OMT, ROWS * 128)):
            self.set_register(offset, base, unit)
            self.set_register(offset + PPLAL - PPBAL, base + size, unit)
        self.set_register(PICS, 4, unit)
        self.set_register(PC, ENABLED, unit)
        self.machine.write(BYPASS, 0)

    def primary(self, liodn, *arguments, **options):
        self.machine.write(PPAACT + liodn * 64, *entry(*arguments, **options))

    def secondary(self, index, liodn, **options):
        self.machine.write(SPAACT + index * 64, *entry(secondary_of=liodn, **options))

    def access(self, liodn, address, operation=READ, data=0, unit=0):
        """Lets the test master make an access; returns the result, the data, the mapped operation."""
        self.machine.write(MASTER, liodn, unit << 8 | operation, address >> 32, address & 0xFFFFFFFF, data, 1)
        return self.machine.read(MASTER + 0x18), self.machine.read(MASTER + 0x10), self.machine.read(MASTER + 0x1C)

    def passes(self, liodn, address, place, unit=0):
        """Checks that reads and writes of ADDRESS go to PLACE."""
        value = next(self.values)
        self.machine.write(place, value)
        self.assertEqual(self.access(liodn, address, unit=unit)[:2], (DONE, value))
        value = next(self.values)
        self.assertEqual(self.access(liodn, address, WRITE, value, unit=unit)[0], DONE)
        self.assertEqual(self.machine.read(place), value)

    values = (value & 0xFFFFFFFF for value in itertools.count(0x11223344, 0x01010101))

    def fails(self, liodn, address, field, operation=READ, unit=0, at=None):
        """Checks that the access is refused and recorded, and clears the record; returns AVS1."""
        self.assertEqual(self.access(liodn, address, operation, unit=unit)[0], VIOLATED)
        self.assertEqual(self.register(PICS, unit), 0xC)
        status = self.register(AVS1, unit)
        self.assertEqual(status >> 16, liodn)
        self.assertTrue(status & AV)
        self.assertTrue(status & field, f"{status:#x}")
        self.assertFalse(status & 0x7FFF & ~(AV | field), f"{status:#x}")
        self.assertEqual(self.register(AVAH, unit) << 32 | self.register(AVAL, unit), address)
        if at is not None:
            self.assertEqual(self.register(POEAL, unit), at)
        self.set_register(AVS1, status & 0x7FFF, unit)
        self.assertEqual(self.register(PICS, unit), 0x4)
        return status


class Tables(Test):
    """The walk."""

    def test_identity(self):
        self.primary(5, 0, G64)
        self.passes(5, PLACE, PLACE)
        self.passes(5, 0x100, 0x100)

    def test_one_window_elsewhere(self):
        self.primary(5, M256, M1, target=PLACE)
        self.passes(5, M256, PLACE)
        self.passes(5, M256 + M1 - 4, PLACE + M1 - 4)
        self.fails(5, M256 - 4, WAV, at=PPAACT + 5 * 64)
        self.fails(5, M256 + M1, WAV)
        self.fails(5, 0, WAV)

    def test_one_window_above_4_gib(self):
        base = 0xE_1000_0000
        self.primary(5, base, M1, target=PLACE)
        self.passes(5, base + 0x1238, PLACE + 0x1238)
        self.fails(5, base & 0xFFFFFFFF, WAV)

    def test_doorbell_above_4_gib(self):
        """A window that leads to a page of a bank of MSIs."""
        self.primary(5, M16, K4, target=CCSR + 0x45000)
        # MSIIR: register 3, bit 7.
        self.assertEqual(self.access(5, M16 + 0x140, WRITE, 3 << 29 | 7 << 24)[0], DONE)
        self.assertEqual(self.machine.interrupts.get(0xE8 + 3), True)
        self.assertEqual(self.machine.read(CCSR + 0x41800 + 0x120), 1 << 3)
        self.assertEqual(self.machine.read(CCSR + 0x41800 + 0x30), 1 << 7)
        self.assertEqual(self.machine.interrupts.get(0xE8 + 3), False)
        # It was taken.
        self.assertEqual(self.machine.read(CCSR + 0x41800 + 0x30), 0)

    def test_every_bank(self):
        for bank in range(3):
            self.primary(5, M16, K4, target=CCSR + 0x44000 + bank * K4)
            self.access(5, M16 + 0x140, WRITE, 1 << 24)
            for other in range(3):
                pending = self.machine.read(CCSR + 0x41600 + other * 0x200 + 0x120)
                self.assertEqual(pending, int(other == bank))
            self.machine.read(CCSR + 0x41600 + bank * 0x200)

    def test_eight_subwindows_as_in_the_mail(self):
        """256 MiB in eight windows: memory in five of them, three banks of MSIs."""
        places = [0x1000000, 0x3000000, 0x1800000, 0x2000000, 0x5000000]
        self.primary(7, M256, M256, target=places[0], mapped=M16 >> 1, count=8, first=40)
        for index in range(1, 5):
            self.secondary(40 + index - 1, 7, target=places[index], mapped=M16 >> 1)
        for bank in range(3):
            self.secondary(44 + bank, 7, target=CCSR + 0x44000 + bank * K4, mapped=K4)
        part = M256 // 8
        for index, place in enumerate(places):
            self.passes(7, M256 + index * part, place)
            self.passes(7, M256 + index * part + M16 // 2 - 4, place + M16 // 2 - 4)
            self.fails(7, M256 + index * part + M16 // 2, WAV)
        for bank in range(3):
            address = M256 + (5 + bank) * part
            self.assertEqual(self.access(7, address + 0x140, WRITE, bank << 29)[0], DONE)
            self.assertEqual(self.machine.read(CCSR + 0x41600 + bank * 0x200 + bank * 0x10), 1)
            self.fails(7, address + K4, WAV, at=SPAACT + (44 + bank) * 64)
        self.fails(7, M256 - 4, WAV)
        self.fails(7, 2 * M256, WAV)

    def test_most_subwindows(self):
        self.primary(1, 0, M1, target=PLACE, mapped=K4, count=256, first=0)
        for index in range(1, 256):
            self.secondary(index - 1, 1, target=PLACE + (255 - index) * K4 + M1, mapped=K4)
        self.passes(1, 0x234, PLACE + 0x234)
        for index in (1, 2, 100, 255):
            self.passes(1, index * K4 + 8, PLACE + (255 - index) * K4 + M1 + 8)

    def test_subwindow_off(self):
        self.primary(2, 0, M1, target=PLACE, mapped=K64, count=2, first=3, access=DENIED)
        self.secondary(3, 2, target=PLACE, mapped=K64)
        self.fails(2, 0, APV, at=PPAACT + 2 * 64)
        self.passes(2, M1 // 2, PLACE)
        self.secondary(3, 2, target=PLACE, mapped=K64, valid=0)
        self.fails(2, M1 // 2, WAV, at=SPAACT + 3 * 64)

    def test_subwindow_of_another(self):
        self.primary(2, 0, M1, target=PLACE, mapped=K64, count=2, first=3)
        self.secondary(3, 9, target=PLACE, mapped=K64)
        self.fails(2, M1 // 2, WAV)

    def test_subwindow_that_is_primary(self):
        self.primary(2, 0, M1, target=PLACE, mapped=K64, count=2, first=3)
        self.machine.write(SPAACT + 3 * 64, *entry(2 << 16, K64, target=PLACE, mapped=K64))
        self.fails(2, M1 // 2, WAV)

    def test_subwindow_beyond_the_table(self):
        self.primary(2, 0, M1, target=PLACE, mapped=K64, count=4, first=SECONDARIES - 1)
        for index in (SECONDARIES - 1, SECONDARIES):
            self.secondary(index, 2, target=PLACE, mapped=K64)
        self.passes(2, M1 // 4, PLACE)
        self.fails(2, M1 // 2, WAV)

    def test_more_subwindows_than_the_hardware_has(self):
        self.primary(2, 0, M16, target=PLACE, mapped=K4, count=512)
        self.fails(2, 0, WAV)

    def test_subwindows_below_4_kib(self):
        self.primary(2, 0, K64, target=PLACE, mapped=K4, count=32)
        self.fails(2, 0, WAV)
        self.primary(2, 0, K64, target=PLACE, mapped=K4, count=16)
        self.passes(2, 0, PLACE)

    def test_liodns_are_separate(self):
        self.primary(1, 0, M1, target=PLACE)
        self.primary(2, 0, M1, target=PLACE + M1)
        self.passes(1, 0x10, PLACE + 0x10)
        self.passes(2, 0x10, PLACE + M1 + 0x10)

    def test_liodn_beyond_the_table(self):
        status = self.fails(PRIMARIES, 0, LAV, at=0)
        self.assertEqual(status & LAV, 0x400)

    def test_liodn_off(self):
        self.primary(1, 0, M1, target=PLACE)
        self.passes(1, 0, PLACE)
        self.primary(1, 0, M1, target=PLACE, valid=0)
        status = self.fails(1, 0, LAV, at=PPAACT + 64)
        self.assertNotEqual(status & LAV, 0x400)

    def test_size_never_set(self):
        self.machine.write(PPAACT + 64, 0, 0x19, *[0] * 14)
        self.fails(1, 0, WAV)

    def test_permissions(self):
        for access, reads, writes in ((DENIED, 0, 0), (QUERY, 1, 0), (UPDATE, 0, 1), (ALL, 1, 1)):
            self.primary(1, 0, M1, target=PLACE, access=access)
            for operation, allowed in ((READ, reads), (WRITE, writes)):
                if allowed:
                    self.assertEqual(self.access(1, 0, operation)[0], DONE)
                else:
                    self.fails(1, 0, APV, operation)

    def test_denied_write_writes_nothing(self):
        self.primary(1, 0, M1, target=PLACE, access=QUERY)
        self.machine.write(PLACE, 0x55AA55AA)
        self.fails(1, 0, APV, WRITE)
        self.assertEqual(self.machine.read(PLACE), 0x55AA55AA)

    def test_target_without_memory(self):
        self.primary(1, 0, M1, target=0xD_0000_0000)
        self.assertEqual(self.access(1, 0)[0], BUS_ERROR)

    def test_capabilities(self):
        self.assertEqual(self.register(PC2) >> 16, 0xFFF)
        self.assertEqual(1 << 1 + (self.register(PC3) >> 21 & 0xF), 256)


class RandomWindows(Test):
    """Apertures and windows at random, and accesses at and around their ends.

    What has to happen is computed from the windows, not from the entries.
    """

    LIODN = 12

    def make(self, chance):
        """Writes an aperture; returns its base, the size of a window, and the windows."""
        base_size = 1 << chance.randrange(16, 34)
        base = base_size * chance.randrange(1, 4)
        count = chance.choice([1, 2, 4, 8, 16])
        part = base_size // count
        windows = []
        for _ in range(count):
            mapped = base_size if count == 1 else 1 << chance.randrange(12, part.bit_length())
            # Aligned to what is mapped.
            target = chance.randrange(max(1, M64 // mapped)) * mapped
            windows.append((target, mapped, chance.choice([ALL, ALL, QUERY, UPDATE, DENIED]), chance.random() < 0.8))
        first = chance.randrange(100)
        # Without its primary entry there is no aperture.
        target, mapped, access, _ = windows[0]
        windows[0] = target, mapped, access, True
        self.primary(self.LIODN, base, base_size, target=target, mapped=mapped if count > 1 else 0, access=access,
                     count=count, first=first)
        for index, (target, mapped, access, valid) in enumerate(windows[1:]):
            self.secondary(first + index, self.LIODN, target=target, mapped=mapped, access=access, valid=int(valid))
        return base, part, windows

    def expected(self, address, operation, base, part, windows):
        """Returns where an access goes, or None and the field of AVS1."""
        number, offset = divmod(address - base, part)
        if not 0 <= number < len(windows):
            return None, WAV
        target, mapped, access, valid = windows[number]
        if not valid or offset >= mapped:
            return None, WAV
        if not access & (UPDATE if operation == WRITE else QUERY):
            return None, APV
        return target + offset, 0

    def test_random_windows(self):
        chance = random.Random(16)
        passed = refused = 0
        for _ in range(60):
            base, part, windows = self.make(chance)
            for _ in range(20):
                number = chance.randrange(-1, len(windows) + 1)
                _, mapped, _, _ = windows[number % len(windows)]
                offsets = [-4, 0, mapped - 4, mapped, chance.randrange(part) & ~3, *[chance.randrange(mapped) & ~3] * 3]
                address = base + number * part + chance.choice(offsets)
                if not 0 <= address < G64:
                    continue
                operation = chance.choice([READ, WRITE])
                place, field = self.expected(address, operation, base, part, windows)
                if place is None:
                    self.fails(self.LIODN, address, field, operation)
                    refused += 1
                # The rest is tables, and places without memory.
                elif 0x400000 <= place < M256:
                    value = next(self.values)
                    if operation == READ:
                        self.machine.write(place, value)
                        self.assertEqual(self.access(self.LIODN, address)[:2], (DONE, value))
                    else:
                        self.assertEqual(self.access(self.LIODN, address, WRITE, value)[0], DONE)
                        self.assertEqual(self.machine.read(place), value)
                    passed += 1
        self.assertGreater(passed, 200)
        self.assertGreater(refused, 500)


class Operations(Test):
    """The table of operations."""

    def test_same(self):
        self.primary(1, 0, M1, target=PLACE)
        for operation in (READ, WRITE):
            self.assertEqual(self.access(1, 0, operation)[2], operation)

    def test_immediate(self):
        # Read to read with invalidate (0x18), write to write with stash allocate (0x1b).
        self.primary(1, 0, M1, target=PLACE, operations=(0x00, 0x98, 0x81, 0x9B))
        self.machine.write(PLACE, 0x01020304)
        self.assertEqual(self.access(1, 0, READ), (DONE, 0x01020304, 0x18))
        self.assertEqual(self.access(1, 0, WRITE, 0x05060708)[2], 0x1B)
        self.assertEqual(self.machine.read(PLACE), 0x05060708)
        self.fails(1, 0, OTV, EREAD0)

    def test_indexed(self):
        row = [0] * 128
        row[READ], row[EREAD0], row[WRITE], row[DIRECT0] = 0x80, 0x96, 0x81, 0x90
        words = struct.unpack(">32I", bytes(row))
        for place in (3, ROWS):
            self.machine.write(OMT + place * 128, *words)
        self.primary(1, 0, M1, target=PLACE, row=3)
        self.machine.write(PLACE, 0x0A0B0C0D)
        self.assertEqual(self.access(1, 0, READ), (DONE, 0x0A0B0C0D, 0))
        self.assertEqual(self.access(1, 0, EREAD0), (DONE, 0x0A0B0C0D, 0x16))
        self.assertEqual(self.access(1, 0, DIRECT0)[2], 0x10)
        self.fails(1, 0, OTV, EWRITE0)
        self.primary(1, 0, M1, target=PLACE, row=2)
        self.fails(1, 0, OTV, READ)
        self.primary(1, 0, M1, target=PLACE, row=ROWS)
        self.fails(1, 0, OTV, READ)


class Control(Test):
    """Enable, bypass, the record of violations and the interrupt."""

    def test_bypass_is_per_pamu(self):
        self.machine.write(BYPASS, 0x40000000)
        self.primary(1, 0, M1, target=PLACE)
        self.passes(1, 0x40, PLACE + 0x40)
        self.passes(1, 0x40, 0x40, unit=1)
        self.passes(200, 0x40, 0x40, unit=1)

    def test_not_enabled(self):
        self.primary(1, 0, M1, target=PLACE)
        self.set_register(PC, 0x1011)
        self.fails(1, 0, PDV)

    def test_gate_closed(self):
        self.primary(1, 0, M1, target=PLACE)
        self.set_register(PC, GATE_CLOSED | ENABLED)
        self.fails(1, 0, GCV)

    def test_first_violation_is_kept(self):
        self.access(3, 0x1000)
        self.access(4, 0x2000)
        self.assertEqual(self.register(AVS1) >> 16, 3)
        self.assertEqual(self.register(AVAL), 0x1000)
        self.set_register(AVS1, 0x7FFF)
        self.access(4, 0x2000)
        self.assertEqual(self.register(AVS1) >> 16, 4)

    def test_every_pamu_has_a_record(self):
        self.access(3, 0x1000)
        self.access(4, 0x2000, unit=1)
        self.assertEqual(self.register(AVS1) >> 16, 3)
        self.assertEqual(self.register(AVS1, 1) >> 16, 4)

    def test_interrupt(self):
        interrupts = self.machine.interrupts
        self.assertFalse(interrupts.get(VIOLATION))
        self.access(3, 0x1000)
        self.register(AVS1)
        self.assertTrue(interrupts.get(VIOLATION))
        self.set_register(PICS, 0)
        self.assertFalse(interrupts.get(VIOLATION))
        self.assertEqual(self.register(PICS), 0x8)
        self.set_register(PICS, 4)
        self.assertTrue(interrupts.get(VIOLATION))
        self.set_register(AVS1, self.register(AVS1) & 0x7FFF)
        self.assertFalse(interrupts.get(VIOLATION))

    def test_interrupt_is_shared(self):
        self.access(3, 0x1000)
        self.access(3, 0x1000, unit=1)
        self.set_register(AVS1, 0x7FFF)
        self.assertTrue(self.machine.interrupts.get(VIOLATION))
        self.set_register(AVS1, 0x7FFF, 1)
        self.assertFalse(self.machine.interrupts.get(VIOLATION))

    def test_liodn_registers(self):
        self.assertEqual(self.machine.read(LIODN0), 0x93)
        self.assertEqual(self.machine.read(LIODN0 + 4), 0x94)


class Devices(Test):
    """An edu on each PCI bus, which does DMA through the PAMU of its controller."""

    OPTIONS = tuple(word for bus in (0, 1) for word in ("-device", f"edu,bus=pci.{bus},addr=3,dma_mask=0xfffffffff"))
    SLOT = 3
    BUFFER = 0x40000
    # Where the processor and the devices have the memory of the PCI buses.
    OUTBOUND = (0xC_0000_0000, 0xC_2000_0000)
    BUS_MEMORY = 0xE000_0000
    BRIDGE = 0xDFF0_0000
    LIODN = (0x93, 0x94)

    def setUp(self):
        super().setUp()
        for bus in (0, 1):
            windows = CCSR + 0x8000 + bus * 0x1000
            # One outbound window, and one inbound window for 512 MiB of memory.
            for offset, value in ((0xC20, self.BUS_MEMORY >> 12), (0xC28, self.OUTBOUND[bus] >> 12),
                                  (0xC30, 0x8000001C), (0xDE0, 0), (0xDE8, 0), (0xDF0, 0x80F5501C)):
                self.machine.write(windows + offset, value)
            self.configure(bus, 0, 0x10, self.BRIDGE)
            self.configure(bus, 0, 4, 6)
            self.configure(bus, self.SLOT, 0x10, self.BUS_MEMORY)
            self.configure(bus, self.SLOT, 4, 6)

    def configure(self, bus, slot, register, value):
        """Writes a register of a PCI device."""
        self.machine.write(CCSR + 0x8000 + bus * 0x1000, 0x80000000 | slot << 11 | register)
        self.machine.write(CCSR + 0x8004 + bus * 0x1000, int.from_bytes(value.to_bytes(4, "little"), "big"))

    def edu(self, bus, register, value):
        self.machine.write(self.OUTBOUND[bus] + register, value)

    def dma(self, bus, source, destination, command):
        for register, value in ((0x80, source), (0x88, destination), (0x90, 4)):
            self.machine.write(self.OUTBOUND[bus] + register, value >> 32, value & 0xFFFFFFFF)
        self.edu(bus, 0x98, command)
        self.machine.do("clock_step 200000000")
        self.assertEqual(self.machine.read(self.OUTBOUND[bus] + 0x98) & 1, 0)

    def copies(self, bus, source, destination):
        """Lets the device copy a word."""
        self.dma(bus, source, self.BUFFER, 1)
        self.dma(bus, self.BUFFER, destination, 3)

    def violation(self, unit):
        return self.register(AVS1, unit)

    def test_dma_is_translated(self):
        for bus in (0, 1):
            place = PLACE + bus * M16
            self.primary(self.LIODN[bus], M16, M1, target=place)
            value = next(self.values)
            self.machine.write(place + 0x10, value)
            self.copies(bus, M16 + 0x10, M16 + 0x20)
            self.assertEqual(self.machine.read(place + 0x20), value)
            self.assertEqual(self.violation(0), 0)
            self.assertEqual(self.violation(1), 0)

    def test_subwindows_of_a_device(self):
        self.primary(self.LIODN[0], M16, M1, target=PLACE, mapped=K64, count=2, first=9)
        self.secondary(9, self.LIODN[0], target=PLACE + M16, mapped=K64, access=QUERY)
        self.machine.write(PLACE + M16 + 4, 0x12345678)
        self.copies(0, M16 + M1 // 2 + 4, M16 + 8)
        self.assertEqual(self.machine.read(PLACE + 8), 0x12345678)
        # The other way it may not write.
        self.machine.write(PLACE + M16 + 8, 0)
        self.copies(0, M16 + 8, M16 + M1 // 2 + 8)
        self.assertEqual(self.machine.read(PLACE + M16 + 8), 0)
        self.assertTrue(self.violation(0) & APV)

    def test_violation_is_in_the_pamu_of_the_controller(self):
        self.primary(self.LIODN[0], 0, G64)
        self.machine.write(PLACE, 0x55AA55AA)
        self.dma(1, self.BUFFER, PLACE, 3)
        self.assertEqual(self.machine.read(PLACE), 0x55AA55AA)
        self.assertEqual(self.violation(0), 0)
        self.assertEqual(self.violation(1) >> 16, self.LIODN[1])
        self.assertEqual(self.register(AVAL, 1), PLACE)
        self.assertTrue(self.machine.interrupts.get(VIOLATION))

    def test_liodn_register(self):
        self.primary(77, M16, M1, target=PLACE)
        self.machine.write(LIODN0 + 4, 77)
        self.machine.write(PLACE, 0x31415926)
        self.copies(1, M16, M16 + 4)
        self.assertEqual(self.machine.read(PLACE + 4), 0x31415926)

    def test_shut_off(self):
        self.primary(self.LIODN[0], M16, M1, target=PLACE)
        self.machine.write(PLACE, 0x27182818)
        self.copies(0, M16, M16 + 4)
        self.assertEqual(self.machine.read(PLACE + 4), 0x27182818)
        self.primary(self.LIODN[0], M16, M1, target=PLACE, valid=0)
        self.dma(0, self.BUFFER, M16 + 8, 3)
        self.assertEqual(self.machine.read(PLACE + 8), 0)
        self.assertTrue(self.violation(0) & LAV)

    def test_beyond_the_inbound_window(self):
        """The controller answers, no PAMU."""
        self.primary(self.LIODN[0], 0, G64)
        self.dma(0, self.BUFFER, 0x2000_0000, 3)
        self.assertEqual(self.violation(0), 0)

    def enable_msi(self, address):
        """Makes the interrupt of the device bit 7 of register 3 of the bank at ADDRESS."""
        capability = 0x40
        for register, value in ((4, address & 0xFFFFFFFF), (8, address >> 32), (12, 0x67), (0, 0x00810005)):
            self.configure(0, self.SLOT, capability + register, value)

    def pending(self, bank):
        return self.machine.read(CCSR + 0x41600 + bank * 0x200 + 0x120)

    def test_msi_by_the_address_of_linux(self):
        """The register of the controller for the system's registers, behind an identity window."""
        self.primary(self.LIODN[0], 0, G64)
        self.enable_msi(self.BRIDGE + 0x45140)
        self.edu(0, 0x60, 1)
        self.assertEqual(self.pending(1), 1 << 3)
        self.assertEqual(self.machine.read(CCSR + 0x41830), 1 << 7)
        self.assertEqual(self.violation(0), 0)

    def test_msi_by_the_address_of_linux_without_window(self):
        self.primary(self.LIODN[0], M16, M1, target=PLACE)
        self.enable_msi(self.BRIDGE + 0x45140)
        self.edu(0, 0x60, 1)
        self.assertEqual(self.pending(1), 0)
        self.assertTrue(self.violation(0) & WAV)
        self.assertEqual(self.register(AVAH) << 32 | self.register(AVAL), CCSR + 0x45140)

    def test_msi_through_a_window(self):
        self.primary(self.LIODN[0], M16, M1, target=PLACE, mapped=K64, count=2, first=9)
        self.secondary(9, self.LIODN[0], target=CCSR + 0x46000, mapped=K4)
        self.enable_msi(M16 + M1 // 2 + 0x140)
        self.edu(0, 0x60, 1)
        self.assertEqual([self.pending(bank) for bank in range(3)], [0, 0, 1 << 3])
        self.assertEqual(self.machine.interrupts.get(0xF0 + 3), True)
        self.assertEqual(self.violation(0), 0)


class Reset(unittest.TestCase):
    """What firmware leaves."""

    def test_bypassed(self):
        with contextlib.closing(Machine("-global", "fsl-pamu.units=5")) as machine:
            self.assertEqual(machine.read(BYPASS), 0xF8000000)
            self.assertEqual(machine.read(PAMU + 4 * 0x1000 + PC), 0)


class NoReportOfLiodnsThatAreOff(Test):
    """Without the erratum A-003638."""

    OPTIONS = ("-global", "fsl-pamu.a003638=off")

    def test_not_reported(self):
        self.primary(1, 0, M1, valid=0)
        self.assertEqual(self.access(1, 0)[0], VIOLATED)
        self.assertEqual(self.register(AVS1), 0)
        self.primary(1, M1, M1)
        self.fails(1, 0, WAV)


class StaleEntries(Test):
    """The erratum A-004510."""

    OPTIONS = ("-global", "fsl-pamu.a004510=on")

    def test_stale_without_subdomain(self):
        self.primary(1, 0, M1, target=PLACE)
        self.passes(1, 0, PLACE)
        self.primary(1, 0, M1, target=PLACE + M1)
        self.passes(1, 0, PLACE)
        self.set_register(PC, ENABLED & ~0x11)
        self.passes(1, 0, PLACE + M1)

    def test_fresh_with_subdomain(self):
        # The window over the tables that the kernel's workaround makes: 4 MiB, subdomain 1.
        self.machine.write(CSDS + 4, 0xFFF80000)
        self.machine.write(LAWS + 30 * 16, 0, 0, 0x80000000 | 0x10 << 20 | 1 << 12 | size_code(4 * M1))
        self.primary(1, 0, M1, target=PLACE)
        self.passes(1, 0, PLACE)
        self.primary(1, 0, M1, target=PLACE + M1)
        self.passes(1, 0, PLACE + M1)


class OmtCache(Test):
    """The erratum A-005982."""

    OPTIONS = ("-global", "fsl-pamu.a005982=on")

    def test_order(self):
        self.machine.write(OMT, *[0x80818080] * 32)
        self.primary(1, 0, M1, target=PLACE, row=0)
        self.fails(1, 0, OTV)
        # start() wrote the addresses first; now the cache is on.
        self.start()
        self.assertEqual(self.access(1, 0)[0], DONE)


if __name__ == "__main__":
    unittest.main()
