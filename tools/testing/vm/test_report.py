# SPDX-License-Identifier: GPL-2.0
"""Tests which lines of a kernel log start a defect report: python3 -m unittest test_report"""

import unittest

from report import defects

DEFECTS = """\
[    7.012345] WARNING: drivers/vfio/vfio_main.c:123 at vfio_uninit+0x12/0x30 [vfio], CPU#0: rmmod/77
[    7.012345] WARNING: possible circular locking dependency detected
[    7.012345][  T123] WARNING: inconsistent lock state
[    7.012345] BUG: KASAN: slab-use-after-free in vfio_fops_release+0x12/0x30 [vfio]
[    7.012345] BUG: sleeping function called from invalid context at kernel/locking/mutex.c:575
[    7.012345] BUG: kernel NULL pointer dereference, address: 0000000000000008
[    7.012345] [ BUG: Invalid wait context ]
[    7.012345] Oops: Oops: 0002 [#1] SMP PTI
[    7.012345] Oops: general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1]
[    7.012345] UBSAN: array-index-out-of-bounds in drivers/vfio/vfio_main.c:1:2
[    7.012345] UBSAN: shift-out-of-bounds in a.c:1:2
[    7.012345] kernel BUG at mm/slub.c:123!
[    7.012345] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100
[    7.012345] rust_kernel: panicked at vfio_core/container.rs:12:3:
[    7.012345] rcu: INFO: rcu_preempt self-detected stall on CPU
[    7.012345] INFO: task sh:77 blocked for more than 120 seconds.
[    7.012345] INFO: trying to register non-static key.
[    7.012345] watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [sh:77]
[    7.012345] refcount_t: underflow; use-after-free.
[    7.012345] kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)
BUG: Bad page state in process sh  pfn:12345
"""

HARMLESS = """\
[    0.005104] PCI: Using host bridge windows from ACPI; if necessary, use "pci=nocrs" and report a bug
[    0.016000] AMD-Vi: [Firmware Bug]: : No southbridge IOAPIC found
[    5.104240] RAS: Correctable Errors collector initialized.
[    2.000000] Warning: unable to open an initial console.
[    2.000000] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on
[    2.000000] DMAR: [DMA Read NO_PASID] Request device [00:03.0] fault addr 0x1000 [fault reason 0x06]
[    2.000000] traps: client[77] general protection fault ip:401000 sp:7ffd0000 error:0
[    2.000000] client[77]: segfault at 0 ip 0000000000401000 sp 00007ffd00000000 error 4
[    2.000000] INFO: NMI handler (perf_event_nmi_handler) took too long to run: 1.5 msecs
[    2.000000] kmemleak: Kernel memory leak detector initialized (mem pool available: 15000)
[    2.000000] vfio-noiommu 0000:00:03.0: Adding kernel taint for vfio-noiommu group on device
[    2.000000] vfio: loading out-of-tree module taints kernel.
[    2.000000]     not ok 3 a_test
[    2.000000] sh: page allocation failure: order:0, mode:0xcc0(GFP_KERNEL)
"""


class Defects(unittest.TestCase):
    def test_each_is_found(self):
        for line in DEFECTS.splitlines():
            self.assertEqual(defects(line), [[line]])

    def test_harmless_lines(self):
        for line in HARMLESS.splitlines():
            self.assertEqual(defects(line), [], line)

    def test_a_report_ends(self):
        log = "\n".join(["a", "WARNING: a.c:1 at b", "Call Trace:", "---[ end trace 0 ]---", "z", "BUG: c", "d"])
        self.assertEqual([len(lines) for lines in defects(log)], [3, 2])

    def test_known_reports_are_left_out_whole(self):
        log = "\n".join(["WARNING: a.c:1 at b+0x1/0x2", "BUG: at b+", "---[ end trace 0 ]---", "BUG: c", "at b+"])
        self.assertEqual(defects(log, ["at b+"]), [["BUG: c", "at b+"]])
        self.assertEqual(defects(log, ["at d+"]), defects(log))


if __name__ == "__main__":
    unittest.main()
