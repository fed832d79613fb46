# SPDX-License-Identifier: GPL-2.0
"""Tests of what reads test results: a test that failed or vanished must never pass for a good one."""

import importlib.machinery
import importlib.util
import pathlib
import tempfile
import unittest

import kunit
import results
import rows
from results import Result
from schedule import Runner, Step

KTAP = """\
KTAP version 1
1..1
    KTAP version 1
    # Subtest: windows
    1..3
[    1.234567]     ok 1 empty
    not ok 2 overlap
    ok 3 huge # SKIP no memory
    # Subtest: of_the_kernel
    ok 1 other
# windows: pass:1 fail:1 skip:1 total:3
not ok 1 windows
"""

SOURCE = """\
#[kunit_tests(windows)]
mod tests {
    #[test]
    fn empty() {}

    /// A case.
    #[test]
    // One comment.
    #[cfg(CONFIG_X)]
    fn overlap() {}
    #[test]
    fn lost() -> Result { Ok(()) }
}
"""


def failures(found):
    return [r.name for r in found if not r.passed]


class Libtest(unittest.TestCase):
    def test_all_states(self):
        output = "running 3 tests\ntest a::b    ... ok\ntest c    ... FAILED\ntest d    ... ignored\n"
        found = results.libtest(output, 101)
        self.assertEqual([r.name for r in found], ["a::b", "c", "d"])
        self.assertEqual(failures(found), ["c"])
        self.assertEqual([r.name for r in found if r.ignored], ["d"])

    def test_output_within(self):
        output = "running 2 tests\ntest a  ... \nthread panicked\n\nFAILED\ntest b ... ok\n"
        output += "\nfailures:\n\n---- a ----\n1 is not 2\n\n\nfailures:\n    a\n"
        found = results.libtest(output, 101)
        self.assertEqual(found, [Result("a", False, "1 is not 2"), Result("b", True)])

    def test_stopped_midway(self):
        self.assertEqual(failures(results.libtest("running 2 tests\ntest a ... ok\ntest b ... ", 3)), ["all tests ran"])

    def test_never_started(self):
        self.assertEqual(failures(results.libtest("qemu: no such device\n", 0)), ["all tests ran"])


class Checks(unittest.TestCase):
    def test_detail(self):
        found = results.checks("ok a\nnot ok b c\n# why\n# more\nok d\n# a number\n", 1)
        self.assertEqual(found, [Result("a", True), Result("b c", False, "why\nmore\n"), Result("d", True)])


class Kunit(unittest.TestCase):
    def expected(self):
        with tempfile.TemporaryDirectory() as folder:
            repo = pathlib.Path(folder)
            (repo / "Kbuild").write_text("obj-m := pamu.o\npamu-y := vfio_pamu/x.o vfio_pamu/exports.o\n")
            (repo / "vfio_pamu").mkdir()
            (repo / "vfio_pamu" / "x.rs").write_text(SOURCE)
            return kunit.in_sources(repo)

    def test_sources(self):
        self.assertEqual(self.expected(), {("pamu", "windows"): ["empty", "overlap", "lost"]})

    def test_failed_skipped_and_lost(self):
        found = kunit.judge(self.expected(), KTAP)
        self.assertEqual(failures(found), ["windows::overlap", "windows::huge", "windows::lost"])

    def test_suite_that_did_not_run(self):
        self.assertEqual(len(failures(kunit.judge(self.expected(), ""))), 3)

    def test_counts(self):
        self.assertEqual(kunit.counts(self.expected(), KTAP), ["pamu: 3 KUnit cases"])


FEATURES = """\
Module
======
   * - K7
     - registration
   * - K8
     - sets
   * - T-A2
     - limits
   * - T-A3
     - more limits

Rows without a test
===================
   * - K8
     - nothing shows it
"""


class Rows(unittest.TestCase):
    def table(self, **steps):
        with tempfile.TemporaryDirectory() as folder:
            repo = pathlib.Path(folder)
            (repo / rows.FEATURES).parent.mkdir()
            (repo / rows.FEATURES).write_text(FEATURES)
            return rows.Table(repo, {name.replace("_", "-"): found for name, found in steps.items()})

    def test_ids(self):
        self.assertEqual(rows.of_test("map::t_a02_and_a3_limit"), ["T-A2", "T-A3"])
        self.assertEqual(rows.of_test("K7: refused"), ["K7"])
        self.assertEqual(rows.of_test("map::a_limit_of_k7_"), [])

    def test_both_stacks(self):
        k7, limits = Result("x::k7_refused", True), Result("x::t_a2_and_a3_limit", True)
        table = self.table(guest_c=[k7, limits], guest_rust=[k7, k7, limits], guest_c_core_rust_type1=[k7])
        shown = [line.split() for line in table.lines()]
        self.assertIn(["K7", "1", "2"], shown)
        self.assertIn(["T-A3", "1", "1"], shown)
        self.assertIn(["K8", "0", "0", "nothing", "shows", "it"], shown)
        self.assertEqual(failures(table.judge()), [])

    def test_row_without_test(self):
        found = [Result("k7_x", False), Result("t_a2_and_a3_limit", True, ignored=True), Result("k8_x", True)]
        judged = list(self.table(guest_rust=found).judge())
        self.assertEqual([r.detail for r in judged], ["K7\nT-A2\nT-A3", "K8"])


class Unsafe(unittest.TestCase):
    def setUp(self):
        path = pathlib.Path(__file__).parents[1] / "check-unsafe"
        loader = importlib.machinery.SourceFileLoader("check_unsafe", str(path))
        self.check = importlib.util.module_from_spec(importlib.util.spec_from_loader("check_unsafe", loader))
        loader.exec_module(self.check)

    def documented(self, text):
        lines, code = text.splitlines(), self.check.code_of(text).splitlines()
        at = next(i for i, line in enumerate(code) if self.check.NEEDS_SAFETY.search(line))
        return self.check.has_safety_comment(lines, code, at)

    def test_comment_above_the_statement(self):
        self.assertTrue(self.documented("// SAFETY: Yes.\n// Indeed.\nlet x =\n    unsafe { f() };"))
        self.assertTrue(self.documented("// SAFETY: Yes.\nOk(Self {\n    x: unsafe { f() },\n})"))

    def test_comment_of_another_statement(self):
        self.assertFalse(self.documented("// SAFETY: Yes.\nlet x = 1;\nlet y = unsafe { f() };"))
        self.assertFalse(self.documented("// SAFETY: Yes.\n\nunsafe impl Send for X {}"))
        self.assertFalse(self.documented("// Surely.\nunsafe { f() }"))

    def test_what_is_no_code(self):
        code = self.check.code_of("// unsafe\n/* unsafe\nunsafe */ let a: &'a str = \"unsafe \\\" unsafe\"; '\"'; x")
        self.assertFalse(self.check.UNSAFE.search(code))
        self.assertEqual(code.count("\n"), 2)
        self.assertTrue(code.endswith("; x"))


class Scheduling(unittest.TestCase):
    def run_steps(self, steps, minimum=()):
        with tempfile.TemporaryDirectory() as folder:
            runner = QuietRunner(pathlib.Path(folder), dict(minimum), pathlib.Path(folder))
            runner.run(steps)
            return {name: failures(found) for name, found in runner.results.items()}

    def test_needs(self):
        bad = Step("bad", ["false"], results.of_exit_status("x"))
        late = Step("late", ["true"], results.of_exit_status("y"), after=("bad",))
        good = Step("good", ["true"], results.of_exit_status("z"))
        self.assertEqual(self.run_steps([late, bad, good]), {"bad": ["x"], "late": ["late"], "good": []})

    def test_exit_status_without_a_failed_test(self):
        step = Step("x", ["sh", "-c", "echo ok a; exit 3"], results.checks)
        self.assertEqual(self.run_steps([step]), {"x": ["exit status"]})

    def test_emulator_crash(self):
        crash = "echo qemu-system-x86_64: x.c:1: f: Assertion x failed.; exit 3"
        second = f"if [ -e $0 ]; then echo ok a; else touch $0; {crash}; fi"
        with tempfile.TemporaryDirectory() as folder:
            step = Step("x", ["sh", "-c", second, f"{folder}/mark"], results.checks)
            self.assertEqual(self.run_steps([step]), {"x": []})
        always = Step("x", ["sh", "-c", crash], results.checks)
        self.assertEqual(self.run_steps([always]), {"x": ["exit status", "number of tests"]})

    def test_too_few(self):
        step = Step("x", ["echo", "ok a"], results.checks)
        self.assertEqual(self.run_steps([step], {"x": 2}), {"x": ["number of tests"]})

    def test_none_at_all(self):
        self.assertEqual(self.run_steps([Step("x", ["true"], results.checks)]), {"x": ["number of tests"]})


class QuietRunner(Runner):
    def report(self, *_):
        pass

    def say(self, _):
        pass


if __name__ == "__main__":
    unittest.main()
