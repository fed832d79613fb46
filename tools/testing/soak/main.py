# SPDX-License-Identifier: GPL-2.0
"""Runs rounds in one guest, then sets of guest tests in others, until the time is over."""

import argparse
import hashlib
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time

REPO = pathlib.Path(__file__).resolve().parents[3]
FOLDER = REPO / "build" / "soak"
PROGRAMS = REPO / "build/cargo/release"
sys.path.insert(0, str(REPO / "tools/testing/suite"))

import results  # noqa: E402
from schedule import COMPLAINT, EMULATOR_CRASH  # noqa: E402

EDU = "edu,dma_mask=0xffffffffffffffff,bus=pcie.0,addr="
BOUND = [f"0000:00:0{slot}.0" for slot in range(3, 9)]
DISK_BYTES = 4 << 20

# A busy host is slow: what hangs for good is found all the same.
PATIENT = ("rcupdate.rcu_cpu_stall_timeout=120", "watchdog_thresh=60")

# The sets of guest tests and what they want beside the kernel.
SETS = {
    "main": [],
    "nointremap": [],
    "mdev": [],
    "pinning": [],
    "pinning in rust": ["--driver", "rust"],
    "stalls": [],
    "noiommu": [],
    "iommufd": [],
    "stress": [],
    "pamu": [],
    # A thousand devices would take minutes.
    "p2p": ["--", "--skip", "many::"],
}
# C has no such modules, or crashes: Documentation/c-vfio-defects.rst.
NOT_ON_C = ("pamu", "p2p", "pinning in rust")
# It is built without support for devices without an IOMMU, and without IOMMUFD.
NOT_ON_STOCK = ("noiommu", "iommufd")
ON_C = {"stress": ["--", "concurrent::"]}
# A set on the debug kernel takes no longer.
SET_SECONDS = 1500


# The programs of the rounds.
NEEDED = ("guest-soak", "guest-tests", "guest-linear", "guest-differential", "nvme_read")


def stripped(program):
    """A program without debug information, which would take a sixth of the guest's memory and most of its boot."""
    FOLDER.joinpath("bin").mkdir(exist_ok=True)
    path = FOLDER / "bin" / program
    subprocess.run(["strip", "--strip-debug", "-o", path, PROGRAMS / program], check=True)
    return path


class Disks:
    """Files for the disks of a guest; one of them is read, and must be what it was."""

    def __init__(self):
        self.files = [tempfile.NamedTemporaryFile(prefix="soak.") for _ in range(3)]
        content = b"".join(b"%07d\n" % number for number in range(DISK_BYTES // 8))
        self.sum = hashlib.sha256(content).hexdigest()
        for file in self.files:
            file.write(content)
            file.flush()

    def words(self):
        for file, slot in zip(self.files, (4, 7, 8), strict=True):
            yield from ("--qemu-arg=-drive", "--qemu-arg", f"if=none,id=disk{slot},format=raw,file={file.name}")
            yield from ("--device", f"nvme,drive=disk{slot},serial=soak{slot},bus=pcie.0,addr={slot}.0")


def machine(options, disks):
    """All devices and modules that the programs want; those of the guest tests have their usual places."""
    words = ["--smp", "4", "--mem", "3G", "--append", " ".join(("hugepages=16", "kunit.autorun=0", *PATIENT))]
    words += [word for slot in (3, 6) for word in ("--device", f"{EDU}{slot}.0")]
    words += ["--device", f"{EDU}5.0,multifunction=on", "--device", "virtio-rng-pci,bus=pcie.0,addr=5.1"]
    words += disks.words()
    words += [word for bdf in BOUND for word in ("--bind", bdf)]
    samples = f"{REPO}/build/samples-stock/" if options.kernel == "stock" else ""
    loads = [f"{samples}{name}{'.ko' if samples else ''}" for name in ("mtty", "mdpy", "mbochs")]
    loads.append(f"{REPO}/build/tests-{options.kernel}/vfio_pin_test.ko")
    if options.stack == "rust":
        loads.append(f"{REPO}/build/mdev-tests-{options.kernel}/mdev_pin_test.ko")
        loads += ["vfio_iommu_pamu", "pamu_sim", "pamu_dma devices=2", "ioasid", "vgpu_p2p cards=2"]
    return [*words, *(word for load in loads for word in ("--load", load))]


class Soak:
    """Runs guests and counts what passed."""

    def __init__(self, options):
        self.options = options
        self.start = time.monotonic()
        self.passed = self.failed = 0

    def left(self, share=1.0):
        """The seconds until a share of the time is over."""
        return share * self.options.hours * 3600 - (time.monotonic() - self.start)

    def check(self, name, passed, detail=""):
        results.tell(name, passed, detail.splitlines())
        self.passed += bool(passed)
        self.failed += not passed

    def run(self, name, command, show):
        """Runs a command, shows those of its lines as they come; returns its status and output."""
        log = FOLDER / f"{self.options.stack}.{name.replace(' ', '-')}.log"
        lines = []
        with log.open("w") as file, subprocess.Popen(
                [*map(str, command)], cwd=REPO, text=True, errors="replace",
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            for line in process.stdout:
                file.write(line)
                file.flush()
                lines.append(line)
                if re.match(show, line):
                    print(f"[{time.monotonic() - self.start:5.0f} s] {line}", end="", flush=True)
        return process.returncode, "".join(lines)

    def rounds(self, share):
        """All programs at once, round by round."""
        options, number, crashed = self.options, 0, False
        while number == 0 or (crashed and self.left(share) > 0):
            seconds = max(60, int(self.left(share)))
            disks = Disks()
            command = [REPO / "tools/testing/vm/run", "--kernel", options.kernel, "--stack", options.stack]
            command += ["--mdev", options.stack, *machine(options, disks)]
            command += ["--log", FOLDER / f"{options.stack}.rounds.kernel.log"]
            # The last round may begin at the end, and each program may be late.
            command += ["--timeout", seconds + 4 * options.round + 900]
            command += [word for program in NEEDED for word in ("--copy", stripped(program))]
            command += ["--", "guest-soak", "--seed", options.seed + number, "--seconds", seconds]
            command += ["--round", options.round, "--disk", disks.sum]
            command += ["--c"] if options.stack == "c" else []
            status, output = self.run("rounds", command, r"round |seed |not ok|[a-z ]+: round ")
            number += 1
            crashed = EMULATOR_CRASH.search(output) and not COMPLAINT.search(output)
            if crashed:
                print("QEMU itself crashed, which says nothing about the guest")
        found = results.checks(output, status)
        for result in found:
            self.check(result.name, result.passed, result.detail)
        last = "\n".join(output.splitlines()[-80:])
        self.check("the guest of the rounds is well", found and status in (0, 1), last)

    def sets(self):
        """Sets of guest tests, from another one on each time, while there is time."""
        options = self.options
        missing = (NOT_ON_C if options.stack == "c" else ()) + (NOT_ON_STOCK if options.kernel == "stock" else ())
        names = [name for name in SETS if name not in missing]
        first = options.seed % len(names)
        ran = 0
        while self.left() > 0 or not ran:
            name = names[(first + ran) % len(names)]
            more = SETS[name] if options.stack == "rust" else ON_C.get(name, SETS[name])
            command = [REPO / "tools/testing/guest/run", "--no-build", "--kernel", options.kernel]
            command += ["--stack", options.stack, "--set", name.split()[0], "--timeout", SET_SECONDS]
            command += ["--append", " ".join(PATIENT)]
            command += ["--log", FOLDER / f"{options.stack}.{name.replace(' ', '-')}.kernel.log"]
            print(f"[{time.monotonic() - self.start:5.0f} s] set {name}, {max(0, self.left()):.0f} s left", flush=True)
            for _ in range(3):
                status, output = self.run(name, [*command, *more], r"$^")
                if not EMULATOR_CRASH.search(output) or COMPLAINT.search(output):
                    break
            found = results.libtest(output, status)
            bad = [f"{result.name}: {result.detail}" for result in found if not result.passed]
            good = sum(result.passed and not result.ignored for result in found)
            if status and not bad:
                bad = [f"exit status {status}", *output.splitlines()[-80:]]
            if not good:
                bad.append("no test ran")
            self.check(f"set {name}: {good} tests", not bad, "\n".join(bad))
            ran += 1


def main():
    parser = argparse.ArgumentParser(prog="tools/testing/soak/run", description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--stack", choices=("c", "rust"), default="rust")
    parser.add_argument("--kernel", choices=("stock", "test", "debug"), default="debug")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--round", type=int, default=60)
    parser.add_argument("--only", choices=("rounds", "sets"))
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.randrange(1_000_000)
    FOLDER.mkdir(parents=True, exist_ok=True)
    print(f"{options.hours:g} hours on the {options.kernel} kernel, stack {options.stack}: "
          f"SEED={options.seed} repeats it", flush=True)
    soak = Soak(options)
    if options.only != "sets":
        soak.rounds(1.0 if options.only else 0.5)
    if options.only != "rounds":
        soak.sets()
    print(f"{soak.passed} passed, {soak.failed} failed")
    return 1 if soak.failed else 0


if __name__ == "__main__":
    sys.exit(main())
