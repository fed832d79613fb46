# SPDX-License-Identifier: GPL-2.0
"""Tests of the parsers of test results: a failed or missing test must never count as passed."""

import dataclasses
import importlib.machinery
import importlib.util
import pathlib
import tempfile
import unittest

import kunit
import manifest
import results
import rows
import schedule
import steps
import verdict
from exceptions import Exceptions
from manifest import Manifest
from results import Result
from schedule import Runner, Step

HERE = pathlib.Path(__file__).resolve().parent

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

    def test_rows(self):
        output = "running 2 tests\ntest [T-A2 T-A3] a::b ... ok\ntest             c    ... ok\n"
        found = results.libtest(output, 0)
        self.assertEqual([(r.name, r.rows) for r in found], [("a::b", ("T-A2", "T-A3")), ("c", ())])

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
    def test_row(self):
        found = results.checks("ok      K3: modprobe vfio\nok      vfio: K3\n", 0)
        self.assertEqual([r.rows for r in found], [("K3",), ()])

    def test_detail(self):
        found = results.checks("ok a\nnot ok b   c\n# why\n# more\nok d\n# a number\n", 1)
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


K7 = Result("x::refused", True, rows=("K7",))
LIMITS = Result("x::limits", True, rows=("T-A2", "T-A3"))


class Rows(unittest.TestCase):
    def table(self, without_c=(), mixed=(), **ran):
        """Returns a table of the given results on C and Rust."""
        with tempfile.TemporaryDirectory() as folder:
            repo = pathlib.Path(folder)
            (repo / rows.FEATURES).parent.mkdir()
            (repo / rows.FEATURES).write_text(FEATURES)
            modules = {"c": "C", "rust": "Rust", "mixed": None}
            return rows.Table(repo, {**ran, "mixed": mixed}, modules, dict(without_c))

    def test_unknown_row(self):
        found = [K7, LIMITS, Result("x", True, rows=("K77",))]
        self.assertEqual(self.judged(rust=found, c=[K7, LIMITS]), ["x: K77"])

    def test_both_stacks(self):
        k7, limits = K7, LIMITS
        table = self.table(c=[k7, limits], rust=[k7, k7, limits], mixed=[k7])
        shown = [line.split() for line in table.lines()]
        self.assertIn(["K7", "1", "2"], shown)
        self.assertIn(["T-A3", "1", "1"], shown)
        self.assertIn(["K8", "0", "0", "nothing", "shows", "it"], shown)
        self.assertEqual(failures(table.judge()), [])

    def judged(self, **ran):
        return [r.detail for r in self.table(**ran).judge() if not r.passed]

    def test_row_without_test(self):
        found = [dataclasses.replace(K7, passed=False), dataclasses.replace(LIMITS, ignored=True)]
        found.append(Result("k8", True, rows=("K8",)))
        self.assertEqual(self.judged(rust=found, c=[K7, LIMITS]), ["K7\nT-A2\nT-A3", "K8"])

    def test_row_without_test_on_c(self):
        self.assertEqual(self.judged(rust=[K7, LIMITS], c=[K7]), ["T-A2\nT-A3"])
        why = {"T-A2": "so", "T-A3": "so"}
        self.assertEqual(self.judged(rust=[K7, LIMITS], c=[K7], without_c=why), [])
        self.assertEqual(self.judged(rust=[K7, LIMITS], c=[K7, LIMITS], without_c=why), ["T-A2\nT-A3"])

    def test_exception_for_no_row(self):
        both = [K7, LIMITS]
        self.assertEqual(self.judged(rust=both, c=both, without_c={"K9": "so"}), ["K9"])


class Modules(unittest.TestCase):
    def test_whose(self):
        whose = {step.name: step.modules for step in steps.main_steps(HERE.parents[2])}
        self.assertEqual(whose["guest-c"], "C")
        self.assertEqual(whose["guest-rust"], "Rust")
        self.assertEqual(whose["pamu-c-core"], None)
        self.assertEqual(whose["guest-c-core-rust-type1"], None)
        self.assertEqual(whose["kunit"], "Rust")

    def test_names_differ(self):
        names = [step.name for step in [*steps.main_steps(HERE.parents[2]), *steps.further_steps(HERE.parents[2])]]
        self.assertEqual(len(names), len(set(names)))


class TheManifest(unittest.TestCase):
    def setUp(self):
        self.known = Manifest({"a-c": ["x", "y z"], "a-rust": ["x", "y z", "new"], "b": ["x"]})

    def test_text(self):
        text = str(self.known)
        self.assertIn("a-c a-rust b\n\tx\n", text)
        self.assertEqual(Manifest.parse(text).tests, self.known.tests)
        self.assertEqual(Manifest.parse(str(Manifest({"a": []}))).vanished(["b"]), ["a"])

    def test_missing_test(self):
        ran = [Result("x", True), Result("y z", True, ignored=True), Result("other", True)]
        self.assertEqual(self.known.missing("a-c", ran), ["y z"])
        self.assertEqual(self.known.unlisted("a-c", ran), ["other"])
        self.assertEqual(self.known.missing("unknown", ran), [])

    def test_steps(self):
        there = [Step(name, [], None) for name in ("a-c", "a-rust", "b")]
        self.assertEqual(failures(verdict.all_there(self.known, there)), [])
        self.assertEqual(failures(verdict.all_there(self.known, there[1:])), ["all steps of the manifest are there"])
        there.append(Step("unlisted", [], None))
        self.assertEqual(failures(verdict.all_there(self.known, there)), ["all steps are in the manifest"])

    def test_one_of_several(self):
        ran = [Result("x", True), Result("x", True)]
        self.assertEqual(Manifest({"b": manifest.names(ran)}).missing("b", ran[:1]), ["x (2)"])

    def test_record(self):
        with tempfile.TemporaryDirectory() as folder:
            path, run = pathlib.Path(folder, "manifest"), pathlib.Path(folder, "run")
            path.write_text(str(self.known))
            good = [Result("new", True), Result(manifest.COMPLAINT, False, "x")]
            bad = [Result("x", False)]
            manifest.save_run(run, {"a-c": good, "a-rust": bad})
            changes = manifest.record(path, run, ["a-c", "a-rust"])
            self.assertEqual(changes, ["- a-c: x", "- a-c: y z", "- b: x", "+ a-c: new"])
            after = Manifest.parse(path.read_text()).tests
            self.assertEqual(after, {"a-c": {"new"}, "a-rust": self.known.tests["a-rust"]})

    def test_committed_ones(self):
        known = Manifest.parse((HERE / "manifest").read_text())
        every_step = [*steps.main_steps(HERE.parents[2]), *steps.further_steps(HERE.parents[2])]
        self.assertEqual(failures(verdict.all_there(known, every_step)), [])
        self.assertTrue(Exceptions((HERE / "exceptions.toml").read_text()).rows_without_c)


class SameTests(unittest.TestCase):
    def judge(self, rust, **only_on_c):
        c = [Result("x", True), Result("y", True, ignored=True)]
        return failures(verdict.same_tests({"a-c": c, "a-rust": rust}, only_on_c))

    def test_all(self):
        self.assertEqual(self.judge([Result("x", True), Result("z", True)]), [])

    def test_ignored_is_not_run(self):
        self.assertEqual(self.judge([Result("x", True, ignored=True)]), ["a-rust ran all tests of a-c"])
        self.assertEqual(self.judge([Result("x", True, ignored=True)], x="only there"), [])

    def test_outdated_reason(self):
        found = self.judge([Result("x", True)], x="only there")
        self.assertEqual(found, ["a-rust ran no test that is said to be for C only"])


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


class WithSteps(unittest.TestCase):
    def run_steps(self, steps, **tests):
        with tempfile.TemporaryDirectory() as folder:
            runner = QuietRunner(pathlib.Path(folder), Manifest(tests), pathlib.Path(folder))
            runner.run(steps)
            self.logs = {path.name: path.read_text() for path in pathlib.Path(folder).glob("*.log")}
            return {name: failures(found) for name, found in runner.results.items()}


class Scheduling(WithSteps):
    def test_needs(self):
        bad = Step("bad", ["false"], results.of_exit_status("x"))
        late = Step("late", ["true"], results.of_exit_status("y"), after=("bad",))
        good = Step("good", ["true"], results.of_exit_status("z"))
        self.assertEqual(self.run_steps([late, bad, good]), {"bad": ["x"], "late": ["late"], "good": []})

    def test_exit_status_without_a_failed_test(self):
        step = Step("x", ["sh", "-c", "echo ok a; exit 3"], results.checks)
        self.assertEqual(self.run_steps([step]), {"x": ["exit status"]})

    def test_limit(self):
        step = Step("x", ["sh", "-c", "echo ok a; exec sleep 60"], results.checks, limit_seconds=0.5)
        self.assertEqual(self.run_steps([step]), {"x": ["exit status"]})
        self.assertIn("killed after 0.5 s", self.logs["x.log"])

    def test_vanished(self):
        step = Step("x", ["echo", "ok b"], results.checks)
        self.assertEqual(self.run_steps([step], x=["a"]), {"x": ["all tests of the manifest ran"]})
        self.assertEqual(self.run_steps([step], x=["b"]), {"x": []})

    def test_none_at_all(self):
        self.assertEqual(self.run_steps([Step("x", ["true"], results.checks)]), {"x": ["number of tests"]})


class EmulatorCrash(WithSteps):
    crash = "echo qemu-system-x86_64: x.c:1: f: Assertion x failed.; exit 3"

    def run_script(self, script):
        with tempfile.TemporaryDirectory() as folder:
            return self.run_steps([Step("x", ["sh", "-c", script, f"{folder}/mark"], results.checks)])["x"]

    def crashing_once(self, before):
        return self.run_script(f"if [ -e $0 ]; then echo ok a; else touch $0; echo {before}; {self.crash}; fi")

    def test_second_attempt(self):
        self.assertEqual(self.crashing_once("ok a"), [])
        self.assertIn("Assertion", self.logs["x.crash1.log"])
        self.assertEqual(self.logs["x.log"], "ok a\n")

    def test_no_end_of_it(self):
        self.assertEqual(self.run_script(self.crash), ["exit status", "number of tests"])

    def test_failure_before_it(self):
        self.assertEqual(self.crashing_once("not ok a"), ["a"])
        for line in ("test [T-M2] a ... FAILED", "test        a   ... FAILED", "test a ... FAILED"):
            self.assertTrue(schedule.COMPLAINT.search(f"test b ... ok\n{line}\n"), line)
        said = "ok a; echo \"vm/run: the guest's kernel reported 1 defect(s), above\""
        self.assertEqual(self.crashing_once(said), ["exit status"])


class QuietRunner(Runner):
    def report(self, *_):
        pass

    def say(self, _):
        pass


if __name__ == "__main__":
    unittest.main()
