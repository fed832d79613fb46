# SPDX-License-Identifier: GPL-2.0
"""Runs real VFIO clients on the C and the Rust modules, and compares their requests."""

import argparse
import dataclasses
import pathlib
import re
import subprocess
import sys

import request_trace

REPO = pathlib.Path(__file__).resolve().parents[3]
sys.path.append(str(REPO / "tools/testing/suite"))

from results import tell  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
FOLDER = REPO / "build" / "clients"

# The nested guest has to fetch this file over the assigned device, and prints the greeting.
GREETING = "booted over the assigned device"
BOOT_FILE = f"#!ipxe\necho {GREETING}: ${{net0/chip}} ${{net0/mac}}\nreboot\n"


def packets(text):
    """Returns a text with the numbers of packets that testpmd received and sent on both ports."""
    totals = re.search(r"Accumulated forward statistics.*?\n\s*RX-packets: (\d+).*?\n\s*TX-packets: (\d+)", text, re.S)
    return f"{totals[1]} packets received, {totals[2]} sent" if totals and int(totals[1]) >= 1000 else None


def greeting(text):
    """Returns the greeting that the nested guest printed."""
    said = re.search(rf"^{GREETING}: .*", text, re.M)
    return said and said[0].strip()


def ports(*devices):
    """Yields options that put each device behind its own root port, at 01:00.0, 02:00.0 ..."""
    for number, device in enumerate(devices, 1):
        yield from ("--device", f"pcie-root-port,id=port{number},chassis={number},bus=pcie.0,addr={3 + number}")
        yield from ("--device", f"{device},bus=port{number},mac=52:54:00:00:00:{number:02}")
        yield from ("--bind", f"0000:{number:02}:00.0")


@dataclasses.dataclass(frozen=True)
class Client:
    """A program, how it uses VFIO, the machine that it needs, and how to check its output."""

    program: str
    # container, compat (groups, and /dev/iommu in the place of the container), or iommufd (a device
    # file and /dev/iommu). Only the test kernel has the last two.
    mode: str
    done: str
    machine: tuple
    achieved: callable

    @property
    def name(self):
        return self.program if self.mode == "container" else f"{self.program}-{self.mode}"

    def runs_on(self, kernel):
        """Returns whether the program is there for a kernel, which has what the mode needs."""
        if "arm64" in kernel and self.program != "dpdk":
            return False
        return (self.mode == "container") == kernel.startswith("stock")


def dpdk(mode):
    """Returns DPDK, with two devices on a wire."""
    return Client("dpdk", mode, "packets go through igb and e1000e", (
        "--mem", "1G", "--append", "hugepages=64",
        *(word for wire in (0, 1) for word in ("--qemu-arg=-netdev", "--qemu-arg", f"hubport,hubid=0,id=wire{wire}")),
        *ports("igb,netdev=wire0", "e1000e,netdev=wire1")), packets)


def qemu(mode):
    """Returns QEMU, with a device and a network to boot from."""
    return Client("qemu", mode, "a small guest boots over e1000e", (
        "--mem", "1G",
        "--qemu-arg=-netdev", "--qemu-arg", f"user,id=wire,restrict=on,tftp={FOLDER}/tftp,bootfile=boot.ipxe",
        *ports("e1000e,netdev=wire")), greeting)


CLIENTS = (dpdk("container"), qemu("container"), dpdk("compat"), qemu("compat"), qemu("iommufd"))


def start(client, stack, run, options):
    """Boots a guest that runs a client; returns the process."""
    command = [REPO / "tools/testing/vm/run", "--kernel", options.kernel, "--stack", stack, "--iommu", options.iommu]
    command += ["--clients", "--timeout", "900" if "arm64" in options.kernel else "240"]
    command += ["--log", kept(client, run, options.iommu, "kernel.log"), *client.machine]
    command += [*request_trace.copy(options.programs), "--copy", f"{HERE}/{client.program}.sh:/root/client"]
    return subprocess.Popen([*command, "--", "sh", "/root/client", client.mode], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, errors="replace", cwd=REPO)


def kept(client, run, iommu, what):
    """Returns the path of a file with output of a guest."""
    return FOLDER / f"{client.name}.{iommu}.{run}.{what}"


def finish(client, run, iommu, guest):
    """Waits for a guest; returns the output of the client, its requests, and error messages."""
    output, complaint = guest.communicate()
    kept(client, run, iommu, "log").write_text(output)
    said, _, trace = output.replace("\r", "").partition("=== trace\n")
    kept(client, run, iommu, "trace").write_text(trace)
    if guest.returncode:
        complaint += f"the guest ended with status {guest.returncode}"
    return said, request_trace.steps(trace), complaint if guest.returncode else ""


def compare(client, options):
    """Runs a client on the C and on the OTHER modules; prints the results, and returns whether all
    tests passed."""
    other, iommu = options.stack, options.iommu
    # The modules that are compared with themselves have another log.
    runs = {"c": "c", "rust" if other == "rust" else "c-again": other}
    guests = {run: start(client, stack, run, options) for run, stack in runs.items()}
    results = {run: finish(client, run, iommu, guest) for run, guest in guests.items()}
    good = []
    for run, (said, _, complaint) in results.items():
        achieved = client.achieved(said)
        good.append(tell(f"{client.name}: {client.done}, --stack {runs[run]}", bool(achieved) and not complaint,
                         [*said.splitlines()[-20:], *complaint.splitlines()]))
        print(f"        {achieved}")
    c, others = (steps for _, steps, _ in results.values())
    found = request_trace.differences(c, others)
    good.append(tell(f"{client.name}: the same requests and answers on both", not found, found))
    print(f"        {len(c)} requests")
    return all(good)


def main():
    parser = argparse.ArgumentParser(prog="tools/testing/clients/run", description=__doc__)
    parser.add_argument("--only", action="append", choices=[client.name for client in CLIENTS])
    parser.add_argument("--kernel", choices=["stock", "stock-arm64", "test"], default="stock")
    parser.add_argument("--programs", default="build/cargo/release", help="the folder with the request tracer")
    parser.add_argument("--stack", choices=["rust", "c"], default="rust", help="the modules to compare with C")
    parser.add_argument("--iommu", choices=["intel", "amd", "smmu", "virtio"])
    options = parser.parse_args()
    options.iommu = options.iommu or ("smmu" if "arm64" in options.kernel else "intel")
    wanted = [client for client in CLIENTS if client.runs_on(options.kernel)]
    if options.only:
        wanted = [client for client in wanted if client.name in options.only]
    if not wanted:
        parser.error(f"the {options.kernel} kernel does not run {', '.join(options.only)}")
    (FOLDER / "tftp").mkdir(parents=True, exist_ok=True)
    (FOLDER / "tftp" / "boot.ipxe").write_text(BOOT_FILE)
    passed = [compare(client, options) for client in wanted]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
