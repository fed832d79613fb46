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
STACKS = ("c", "rust")

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
    """A program, the machine that it needs, and how to check its output."""

    name: str
    done: str
    machine: tuple
    achieved: callable


CLIENTS = (
    Client("dpdk", "packets go through igb and e1000e", (
        "--mem", "1G", "--append", "hugepages=64",
        *(word for wire in (0, 1) for word in ("--qemu-arg=-netdev", "--qemu-arg", f"hubport,hubid=0,id=wire{wire}")),
        *ports("igb,netdev=wire0", "e1000e,netdev=wire1")), packets),
    Client("qemu", "a small guest boots over e1000e", (
        "--mem", "1G",
        "--qemu-arg=-netdev", "--qemu-arg", f"user,id=wire,restrict=on,tftp={FOLDER}/tftp,bootfile=boot.ipxe",
        *ports("e1000e,netdev=wire")), greeting),
)


def start(client, stack, iommu):
    """Boots a guest that runs a client; returns the process."""
    command = [REPO / "tools/testing/vm/run", "--kernel", "stock", "--stack", stack, "--iommu", iommu, "--clients"]
    command += ["--timeout", "240", "--log", kept(client, stack, iommu, "kernel.log"), *client.machine]
    command += [*request_trace.COPY, "--copy", f"{HERE}/{client.name}.sh:/root/client"]
    return subprocess.Popen([*command, "--", "sh", "/root/client"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, errors="replace", cwd=REPO)


def kept(client, stack, iommu, what):
    """Returns the path of a file with output of a guest."""
    return FOLDER / f"{client.name}.{iommu}.{stack}.{what}"


def finish(client, stack, iommu, guest):
    """Waits for a guest; returns the output of the client, its requests, and error messages."""
    output, complaint = guest.communicate()
    kept(client, stack, iommu, "log").write_text(output)
    said, _, trace = output.replace("\r", "").partition("=== trace\n")
    kept(client, stack, iommu, "trace").write_text(trace)
    if guest.returncode:
        complaint += f"the guest ended with status {guest.returncode}"
    return said, request_trace.steps(trace), complaint if guest.returncode else ""


def run(client, iommu):
    """Runs a client on both stacks; prints the results, and returns whether all tests passed."""
    guests = {stack: start(client, stack, iommu) for stack in STACKS}
    results = {stack: finish(client, stack, iommu, guest) for stack, guest in guests.items()}
    good = []
    for stack, (said, _, complaint) in results.items():
        achieved = client.achieved(said)
        good.append(tell(f"{client.name}: {client.done}, --stack {stack}", bool(achieved) and not complaint,
                         [*said.splitlines()[-20:], *complaint.splitlines()]))
        print(f"        {achieved}")
    c, rust = (results[stack][1] for stack in STACKS)
    found = request_trace.differences(c, rust)
    good.append(tell(f"{client.name}: the same requests and answers on both", not found, found))
    print(f"        {len(c)} requests")
    return all(good)


def main():
    parser = argparse.ArgumentParser(prog="tools/testing/clients/run", description=__doc__)
    parser.add_argument("--only", action="append", choices=[client.name for client in CLIENTS])
    parser.add_argument("--iommu", choices=["intel", "amd", "virtio"], default="intel")
    options = parser.parse_args()
    (FOLDER / "tftp").mkdir(parents=True, exist_ok=True)
    (FOLDER / "tftp" / "boot.ipxe").write_text(BOOT_FILE)
    wanted = [client for client in CLIENTS if not options.only or client.name in options.only]
    passed = [run(client, options.iommu) for client in wanted]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
