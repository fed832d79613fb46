# SPDX-License-Identifier: GPL-2.0
"""Tests of the parser of the guests' output: python3 -m unittest test_report"""

import unittest

import main
import report
import request_trace
from report import FAIL, LOST, PASS, SKIP

LIST = """\
# FIXTURE            VARIANT                   TEST
global                                         
--------------------------------------------------------------------------------
vfio_dma_mapping_test vfio_type1_iommu_anonymous map
                     iommufd                   unmap
                     vfio_type1v2_iommu_anonymous_hugetlb_1gb 
--------------------------------------------------------------------------------
vfio_cdev                                      bind
                                               attach
Created 1 VF (0000:01:10.0) under the PF: 0000:01:00.0
"""  # noqa: W291 (the harness prints trailing spaces)

GUEST = f"""\
=== list vfio_dma_mapping_test edu
{LIST}=== run vfio_dma_mapping_test edu
TAP version 13
1..4
# a.c:1:map:Expected 1 (1) == 2 (2)
not ok 1 vfio_dma_mapping_test.vfio_type1_iommu_anonymous.map
ok 2 vfio_dma_mapping_test.vfio_type1_iommu_anonymous.unmap
ok 3 vfio_dma_mapping_test.vfio_type1v2_iommu_anonymous_hugetlb_1gb.map # SKIP no memory
=== end
=== list vfio_pci_driver_test edu
x.c:1: Assertion Failure

  Expression: iommu->iommufd > 0
  Observed: 0xffffffffffffffff > 0
  [errno: 2 - No such file or directory]
"""

# The requests of a thread, as libclient_trace writes them: without an output, if the argument is no
# structure.
TRACE = """\
test CHECK_EXTENSION in=0300000000000000 = 1 out=
test GROUP_SET_CONTAINER in= = 0 out=
test SET_IOMMU in=0300000000000000 = 0 out=
test GROUP_GET_DEVICE_FD in=0000:00:03.0 = descriptor out=
test DEVICE_GET_INFO in=18000000 = 0 out=180000000300
test DEVICE_RESET in=0000000000000000 = ENOTTY out=
"""

ONE, TWO, HUGE = "vfio_type1_iommu_anonymous", "vfio_dma_mapping_test", "vfio_type1v2_iommu_anonymous_hugetlb_1gb"


class Report(unittest.TestCase):
    def setUp(self):
        self.run_of_c = report.parse(GUEST)

    def test_list(self):
        found = report.listed(LIST)
        self.assertEqual(len(found), 3 * 2 + 2)
        self.assertIn((TWO, HUGE, "unmap"), found)
        self.assertEqual(found[-2:], [("vfio_cdev", "", "bind"), ("vfio_cdev", "", "attach")])

    def test_outcomes(self):
        wanted = {f"{ONE}.map": FAIL, f"{ONE}.unmap": PASS, f"{HUGE}.map": SKIP, f"{HUGE}.unmap": LOST}
        self.assertEqual(self.run_of_c.outcomes, {(f"{TWO}.{case}", "edu"): end for case, end in wanted.items()})
        self.assertEqual(self.run_of_c.reasons[f"{TWO}.{HUGE}.map", "edu"], ["no memory"])
        self.assertFalse(self.run_of_c.done)

    def test_what_was_not_run(self):
        other = {f"{TWO}.iommufd.map", f"{TWO}.iommufd.unmap", "vfio_cdev.bind", "vfio_cdev.attach"}
        self.assertEqual(self.run_of_c.other_modes, {TWO: other})
        self.assertEqual(list(self.run_of_c.unlisted.values()), ["iommu->iommufd > 0: No such file or directory"])

    def test_all_modes(self):
        run = report.parse(GUEST, modes="")
        self.assertEqual(len(run.outcomes), len(report.listed(LIST)))
        self.assertEqual(run.outcomes["vfio_cdev.bind", "edu"], LOST)
        self.assertEqual(run.other_modes, {})


class Comparison(unittest.TestCase):
    def test_only_what_passes_on_c_counts(self):
        for c, rust, wanted in ((PASS, PASS, "ok"), (PASS, FAIL, "not ok"), (PASS, SKIP, "not ok"),
                                (PASS, LOST, "not ok"), (FAIL, FAIL, "-"), (SKIP, PASS, "-")):
            self.assertEqual(main.verdict(c, rust), wanted)

    def test_case_that_ours_did_not_run(self):
        runs = [report.parse(GUEST), report.Run()]
        rows = [line for line in main.table(runs) if line.startswith("not ok")]
        self.assertEqual(len(rows), 1)
        self.assertIn(f"{ONE}.unmap", rows[0])


class Requests(unittest.TestCase):
    def found(self, rust, steps=request_trace.steps):
        return request_trace.differences(steps(TRACE), steps(rust))

    def test_each_request_is_compared(self):
        for steps in (request_trace.steps, request_trace.mixed_steps):
            self.assertEqual(len(steps(TRACE)), len(TRACE.splitlines()))
            self.assertEqual(self.found(TRACE, steps), [])
            for line in TRACE.splitlines():
                self.assertTrue(self.found(TRACE.replace(line, line.replace(" = ", " = E")), steps), line)
                self.assertTrue(self.found(TRACE.replace(f"{line}\n", ""), steps), line)

    def test_an_output_is_compared_with_none(self):
        self.assertTrue(self.found(TRACE.replace("ENOTTY out=", "ENOTTY out=00")))

    def test_ids_of_mixed_threads_are_ignored(self):
        bind, attach = "1800000000000000dddddddd", "1000000000000000"
        trace = (f"test DEVICE_BIND_IOMMUFD in={bind}00000000aaaa = 0 out={bind}02000000aaaa\n"
                 f"test DEVICE_ATTACH_IOMMUFD_PT in={attach}01000000 = 0 out={attach}0300000000000000\n")
        other = trace.replace(f"out={bind}02", f"out={bind}04").replace(f"out={attach}03", f"out={attach}05")
        for steps, same in ((request_trace.steps, False), (request_trace.mixed_steps, True)):
            self.assertEqual(request_trace.differences(steps(trace), steps(other)) == [], same)
        for old, new in (("in=18", "in=19"), ("out=10", "out=11"), ("aaaa", "bbbb"), ("01000000", "02000000")):
            both = map(request_trace.mixed_steps, (trace, other.replace(old, new)))
            self.assertTrue(request_trace.differences(*both))

    def test_no_line_is_skipped(self):
        for trace in (TRACE + "test DEVICE_RESET in=00", "a message\n" + TRACE):
            self.assertEqual(len(request_trace.differences(*[request_trace.steps(trace)] * 2)), 1)


if __name__ == "__main__":
    unittest.main()
