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
STACKS = ("c", "rust")
# Each thread of this program sets up a device, and all threads have the same name.
MIXED = "vfio_pci_device_init_perf_test"

DEVICES = {"edu": "0000:00:03.0", "igb": "0000:01:00.0", "nvme": "0000:02:00.0"}
MACHINE = [
    # Enough memory for one page of 1 GiB.
    "--mem", "4G",
    "--append", "hugepagesz=1G hugepages=1 hugepagesz=2M hugepages=4 vfio_pci.enable_sriov=1",
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

def boot(stack, programs):
    """Runs all programs in a guest; returns its output and exit status."""
    binds = [word for bdf in DEVICES.values() for word in ("--bind", bdf)]
    copies = [word for program in programs for word in ("--copy", f"{FOLDER}/programs/{program}:/programs/{program}")]
    command = [REPO / "tools/testing/vm/run", "--kernel", "stock", "--stack", stack, *MACHINE, *binds, *copies]
    command += ["--copy", f"{REPO}/tools/testing/selftests/guest:/root/guest", *request_trace.COPY]
    command += ["--log", f"{FOLDER}/{stack}.kernel.log", "--timeout", "300"]
    command += ["--", "sh", "/root/guest", "/programs", request_trace.IN_GUEST]
    command += [f"{name}={bdf}" for name, bdf in DEVICES.items()]
    guest = subprocess.run(command, stdout=subprocess.PIPE, text=True, errors="replace", cwd=REPO)
    output = guest.stdout.replace("\r", "")
    (FOLDER / f"{stack}.log").write_text(output)
    return output, guest.returncode


def verdict(c, rust):
    """A case that passes on C must pass on Rust; other cases are not judged."""
    if c != PASS:
        return "-"
    return "ok" if rust == PASS else "not ok"


def table(runs):
    """Yields the lines of the table, with the reason below each failure."""
    width = max((len(case) for run in runs.values() for case, _ in run.outcomes), default=4)
    yield f"{'':<7} {'test':<{width}}  {'device':<6}  {'C':<9}  Rust"
    for case, device in sorted(set().union(*(run.outcomes for run in runs.values()))):
        c, rust = (runs[stack].outcomes.get((case, device), LOST) for stack in STACKS)
        row = f"{verdict(c, rust):<7} {case:<{width}}  {device:<6}  {c:<9}  {rust}"
        if verdict(c, rust) == "not ok":
            yield row
            yield from (f"# {line}" for line in runs["rust"].reasons.get((case, device), []))
        else:
            yield row + first_reason(runs, case, device)


def first_reason(runs, case, device):
    """Returns why a case is not judged, from its own output, usually the same on both stacks."""
    for run in runs.values():
        lines = run.reasons.get((case, device))
        if lines:
            return f"  ({lines[-1].lstrip('# ').strip()})"
    return ""


def requests(runs):
    """Yields a line for each program on each device: whether its requests and all bytes of their
    results are the same on both stacks."""
    for program, device in sorted(set().union(*(run.traces for run in runs.values()))):
        steps = request_trace.mixed_steps if program == MIXED else request_trace.steps
        c, rust = (steps(runs[stack].traces.get((program, device), "")) for stack in STACKS)
        found = request_trace.differences(c, rust)
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


def summary(runs, problems):
    """Prints all results; returns the numbers of passed and failed tests."""
    lines = [*table(runs), *requests(runs), *problems]
    print(*lines, sep="\n")
    print("\nNot run, as the stock kernel has no IOMMUFD and no /dev/vfio/devices, or the device no such function:")
    print(*(f"  {line}" for line in not_run(runs["c"])), sep="\n")
    return (sum(line.startswith(word) for line in lines) for word in ("ok ", "not ok "))


def main():
    parser = argparse.ArgumentParser(prog="tools/testing/selftests/run", description=__doc__)
    known = sorted(path.name for path in (FOLDER / "programs").glob("*_test"))
    parser.add_argument("--program", action="append", choices=known, help="only this one; can be repeated")
    programs = parser.parse_args().program or known
    runs, problems = {}, []
    for stack in STACKS:
        output, status = boot(stack, programs)
        runs[stack] = report.parse(output)
        if status or not runs[stack].done:
            problems.append(f"not ok  the guest with --stack {stack} ended with status {status}")
    passed, failed = summary(runs, problems)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
