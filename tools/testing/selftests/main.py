# SPDX-License-Identifier: GPL-2.0
"""Runs the kernel's VFIO selftests on the C and the Rust modules, and compares the results of the
cases, the requests and the results of the requests."""

import argparse
import pathlib
import subprocess
import sys

import report
from report import LOST, PASS

REPO = pathlib.Path(__file__).resolve().parents[3]
sys.path.append(str(REPO / "tools/testing/clients"))
import request_trace  # noqa: E402

FOLDER = REPO / "build" / "selftests"
# The kernels, and the modes of the programs that each has: those with a container, or all.
MODES = {**dict.fromkeys(("stock", "stock-7.2", "stock-arm64", "stock-arm64-16k"), report.CONTAINER), "test": ""}
TITLE = {"c": "C", "rust": "Rust"}
# Each thread of this program sets up a device, and all threads have the same name.
MIXED = "vfio_pci_device_init_perf_test"

DEVICES = {"edu": "0000:00:03.0", "igb": "0000:01:00.0", "nvme": "0000:02:00.0"}
MACHINE = [
    # Enough memory for one page of 1 GiB.
    "--mem", "4G",
    "--append", "hugepagesz=1G hugepages=1 hugepagesz=2M hugepages=4 vfio_pci.enable_sriov=1",
    # Each case of vfio_pci_driver_test maps 1 GiB of shared memory. In pages of 4 KiB, this takes
    # longer than the 30 seconds that the harness grants a case, if the host is busy.
    "--append", "transparent_hugepage_shmem=always",
    "--device", "edu,bus=pcie.0,addr=3,dma_mask=0xffffffffffffffff",
    "--device", "pcie-root-port,id=above-igb,chassis=1,bus=pcie.0,addr=4",
    "--qemu-arg=-netdev", "--qemu-arg=user,id=net,restrict=on",
    "--device", "igb,netdev=net,bus=above-igb",
    "--device", "pcie-root-port,id=above-nvme,chassis=2,bus=pcie.0,addr=5",
    "--qemu-arg=-blockdev", "--qemu-arg=driver=null-co,node-name=disk,size=4194304,read-zeroes=on",
    "--device", "nvme-subsys,id=subsystem",
    "--device", "nvme,serial=selftests,subsys=subsystem,bus=above-nvme"
                ",sriov_max_vfs=1,sriov_vq_flexible=2,sriov_vi_flexible=1,max_ioqpairs=4,msix_qsize=4",
    "--device", "nvme-ns,drive=disk",
]


def boot(options, stack, log):
    """Runs all programs in a guest; returns its output and exit status."""
    folder = FOLDER / options.kernel
    binds = [word for bdf in DEVICES.values() for word in ("--bind", bdf)]
    copies = [word for program in options.program
              for word in ("--copy", f"{folder}/programs/{program}:/programs/{program}")]
    command = [REPO / "tools/testing/vm/run", "--kernel", options.kernel, "--stack", stack, *MACHINE, *binds, *copies]
    command += ["--copy", f"{REPO}/tools/testing/selftests/guest:/root/guest", *request_trace.copy(options.programs)]
    command += ["--log", f"{folder}/{log}.kernel.log", "--timeout", "900"]
    command += ["--", "sh", "/root/guest", "/programs", request_trace.IN_GUEST, f"modes={MODES[options.kernel]}"]
    command += [f"{name}={bdf}" for name, bdf in DEVICES.items()]
    guest = subprocess.run(command, stdout=subprocess.PIPE, text=True, errors="replace", cwd=REPO)
    output = guest.stdout.replace("\r", "")
    (folder / f"{log}.log").write_text(output)
    return output, guest.returncode


def verdict(c, other):
    """A case that passes on C must pass on the other modules; other cases are not judged."""
    if c != PASS:
        return "-"
    return "ok" if other == PASS else "not ok"


def table(runs, title="Rust"):
    """Yields the lines of the table, with the reason below each failure."""
    width = max((len(case) for run in runs for case, _ in run.outcomes), default=4)
    yield f"{'':<7} {'test':<{width}}  {'device':<6}  {'C':<9}  {title}"
    for case, device in sorted(set().union(*(run.outcomes for run in runs))):
        c, other = (run.outcomes.get((case, device), LOST) for run in runs)
        row = f"{verdict(c, other):<7} {case:<{width}}  {device:<6}  {c:<9}  {other}"
        if verdict(c, other) == "not ok":
            yield row
            yield from (f"# {line}" for line in runs[1].reasons.get((case, device), []))
        else:
            yield row + first_reason(runs, case, device)


def first_reason(runs, case, device):
    """Returns why a case is not judged, from its own output, usually the same on both stacks."""
    for run in runs:
        lines = run.reasons.get((case, device))
        if lines:
            return f"  ({lines[-1].lstrip('# ').strip()})"
    return ""


def requests(runs):
    """Yields a line for each program on each device: whether its requests and all bytes of their
    results are the same on both stacks."""
    for program, device in sorted(set().union(*(run.traces for run in runs))):
        steps = request_trace.mixed_steps if program == MIXED else request_trace.steps
        c, other = (steps(run.traces.get((program, device), "")) for run in runs)
        found = request_trace.differences(c, other)
        yield f"{'not ok' if found else 'ok':<7} {program}, on {device}: the same requests and answers on both"
        yield from (f"# {line}" for line in found or [f"{len(c)} requests"])


def not_run(run):
    """Yields a line for each program that did not run completely, with the reason it printed."""
    for program, cases in sorted(run.other_modes.items()):
        yield f"{program}: {len(cases)} cases that want /dev/iommu in the place of a container"
    said = {}
    for (program, device), text in sorted(run.unlisted.items()):
        said.setdefault(program, ([], text))[0].append(device)
    for program, (devices, text) in said.items():
        yield f"{program}, on {', '.join(devices)}: {text}"


def summary(options, runs, problems):
    """Prints all results; returns the numbers of passed and failed tests."""
    lines = [*table(runs, TITLE[options.stack]), *requests(runs), *problems]
    print(*lines, sep="\n")
    print("\nNot run:" if options.kernel == "test" else
          "\nNot run, as the stock kernel has no IOMMUFD and no /dev/vfio/devices, or the device no such function:")
    print(*(f"  {line}" for line in not_run(runs[0])), sep="\n")
    return (sum(line.startswith(word) for line in lines) for word in ("ok ", "not ok "))


def command_line():
    """Returns the options."""
    parser = argparse.ArgumentParser(prog="tools/testing/selftests/run", description=__doc__)
    parser.add_argument("--kernel", choices=sorted(MODES), default="stock")
    parser.add_argument("--stack", choices=sorted(TITLE), default="rust", help="the modules to compare with C")
    parser.add_argument("--programs", default="build/cargo/release", help="the folder with the request tracer")
    parser.add_argument("--program", action="append", default=[], help="only this one; can be repeated")
    options = parser.parse_args()
    known = sorted(path.name for path in (FOLDER / options.kernel / "programs").glob("*_test"))
    if unknown := set(options.program) - set(known):
        parser.error(f"there is no {', '.join(unknown)}, only {', '.join(known)}")
    options.program = options.program or known
    return options


def main():
    options = command_line()
    runs, problems = [], []
    # The modules that are compared with themselves have another log.
    for stack, log in (("c", "c"), (options.stack, "rust" if options.stack == "rust" else "c-again")):
        output, status = boot(options, stack, log)
        runs.append(report.parse(output, MODES[options.kernel]))
        if status or not runs[-1].done:
            problems.append(f"not ok  the guest with --stack {stack} ended with status {status}")
    passed, failed = summary(options, runs, problems)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
