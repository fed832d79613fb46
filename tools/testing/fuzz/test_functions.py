# SPDX-License-Identifier: GPL-2.0

import unittest

import functions

LISTING = """
0000000000000010 <_RNvCs1234_4vfio3map>:
  14:	call   19 <_RNvCs1234_4vfio3map+0x9>
			15: R_X86_64_PLT32	__sanitizer_cov_trace_pc-0x4
  1e:	call   23 <_RNvCs1234_4vfio3map+0x13>
			1f: R_X86_64_PLT32	__sanitizer_cov_trace_pc-0x4

0000000000000030 <plain>:
  30:	ret
0000000000000040 <helper>:
  44:	call   49 <helper+0x9>
			45: R_X86_64_PLT32	__sanitizer_cov_trace_pc-0x4
"""


class Instrumented(unittest.TestCase):
    def test_counts_the_points_of_functions_that_have_some(self):
        points = functions.instrumented(LISTING.splitlines())
        self.assertEqual(points, {"_RNvCs1234_4vfio3map": 2, "helper": 1})

    def test_tests_are_out_of_reach(self):
        for name in ("vfio::caps::tests::order", "vfio::kunit_rust_wrapper_order", "init_module", "cleanup_module"):
            self.assertTrue(functions.OUT_OF_REACH.search(name), name)
        for name in ("vfio::attests::order", "vfio::map", "kunit"):
            self.assertFalse(functions.OUT_OF_REACH.search(name), name)
