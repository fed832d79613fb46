# SPDX-License-Identifier: GPL-2.0
"""Runs QEMU, passes on the guest's output, and enforces the timeout."""

import ctypes
import os
import platform
import re
import selectors
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

import device_tree
from report import Unusable

FIRST_SLOT = 3
# A guest that has not started its first process by then is taken for hung.
BOOT_SECONDS = 240
# Slots of vm/run's own devices: the console, the shares in the slots below it, and virtio-iommu.
CONSOLE_SLOT = 0x1E
IOMMU_SLOT = 1
PCIE = "pcie.0"
VIRTIO_IOMMU = ["-device", f"virtio-iommu-pci,bus={PCIE},addr={IOMMU_SLOT:#x}"]
INCOHERENT = "smmu-incoherent"
PORTS = ("stdout", "stderr", "control")
QMP = "qmp"


@dataclass
class Outcome:
    """The outcome of a run of a guest."""

    log: str = ""
    control: str = ""
    timed_out: bool = False
    complaint: str = ""

    @property
    def booted(self):
        """Whether the guest started its first process."""
        return bool(self.messages("booted"))

    def messages(self, kind):
        return [line[len(kind) + 1:] for line in self.control.splitlines() if line.split(" ")[0] == kind]


@dataclass
class Machine:
    """A machine that QEMU emulates."""

    # As `uname -m` names it.
    processor: str
    machine: str
    # The processor, where it is emulated.
    cpu: str
    console: str
    # For the kernel's command line.
    append: list
    # QEMU's arguments and the addition to the kernel's command line, by the option --iommu.
    iommus: dict
    default_iommu: str
    # Where devices go that name no bus.
    bus: str = PCIE
    # How QEMU emulates several processors.
    threads: str = "multi"

    @property
    def program(self):
        return f"qemu-system-{self.processor}"


MACHINES = {
    "amd64": Machine(
        processor="x86_64",
        machine="q35,kernel-irqchip=split",
        # With 5-level page tables, the KASAN kernel reports a defect of its own.
        cpu="max,la57=off",
        console="ttyS0",
        # On a busy host, the first timer ticks can be so late that the kernel would give up.
        append=["no_timer_check"],
        iommus={
            "intel": (["-device", "intel-iommu,intremap=on"], "intel_iommu=on"),
            "amd": (["-device", "amd-iommu,dma-remap=on"], ""),
            "virtio": (VIRTIO_IOMMU, ""),
            "none": ([], "intel_iommu=off amd_iommu=off"),
        },
        default_iommu="intel",
    ),
    "arm64": Machine(
        processor="aarch64",
        machine="virt,gic-version=3",
        # The architected algorithm of pointer authentication takes most of an emulator's time.
        cpu="max,pauth-impdef=on",
        console="ttyAMA0",
        append=[],
        iommus={
            "smmu": (["-M", "iommu=smmuv3"], ""),
            # The device tree says so, see incoherent().
            INCOHERENT: (["-M", "iommu=smmuv3"], ""),
            "virtio": (VIRTIO_IOMMU, ""),
            "none": ([], ""),
        },
        default_iommu="smmu",
    ),
    "powerpc": Machine(
        processor="ppc",
        machine="ppce500",
        cpu="e500mc",
        console="ttyS0",
        append=[],
        iommus={
            "pamu": (["-M", "pamu=on"], ""),
            "none": ([], ""),
        },
        default_iommu="pamu",
        bus="pci.0",
        # QEMU can't emulate this processor with several threads.
        threads="single",
    ),
}


def native(arch):
    """Returns whether the guest's processor is like the host's."""
    return MACHINES[arch].processor == platform.machine()


def accelerator(options, kvm):
    cpu = MACHINES[options.arch].cpu
    if options.icount:
        return ["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off", "-cpu", cpu]
    if kvm:
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", f"tcg,thread={MACHINES[options.arch].threads}", "-cpu", cpu]


def command_line(options, initramfs, shares, kvm):
    """Returns QEMU's command line, without the ports."""
    machine = MACHINES[options.arch]
    iommu, iommu_append = machine.iommus[options.iommu]
    append = [f"console={machine.console}", "panic=-1", "oops=panic", "ignore_loglevel", iommu_append, *machine.append]
    if options.icount:
        append.append("nokaslr")
    append += options.append
    return [
        machine.program, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-M", machine.machine, *accelerator(options, kvm),
        "-smp", str(options.smp), "-m", options.mem,
        "-kernel", options.image, "-initrd", initramfs, "-append", " ".join(filter(None, append)),
        *iommu,
        *devices(machine, options.device),
        *(word for number, share in enumerate(shares) for word in shared_folder(machine, number, share)),
        *options.qemu_arg,
    ]


def incoherent(arguments, folder):
    """Returns arguments for the machine of ARGUMENTS, with a device tree in which the SMMU is not
    coherent with the caches of the processors."""
    path = os.path.join(folder, "device-tree")
    subprocess.run([*arguments, "-M", f"dumpdtb={path}"], check=True, capture_output=True)
    with open(path, "rb") as file:
        # A node inherits the property of its parent, the nameless root.
        tree = device_tree.without_property(file.read(), ["", "smmuv3"], "dma-coherent")
    with open(path, "wb") as file:
        file.write(tree)
    return [*arguments, "-dtb", path]


def devices(machine, strings):
    """Returns the arguments for the user's devices, in the slots that --help documents."""
    taken = {int(slot, 16) for string in strings
             for slot in re.findall(r",addr=(?:0x)?([0-9a-f]+)", string)
             if re.search(rf"bus={re.escape(machine.bus)}\b", string)}
    slots = (slot for slot in range(FIRST_SLOT, CONSOLE_SLOT) if slot not in taken)
    words = []
    for string in strings:
        if not re.search(r",(bus|addr)=", string) and is_pci(machine.program, string.split(",")[0]):
            string += f",bus={machine.bus},addr={next(slots):#x}"
        words += ["-device", string]
    return words


def is_pci(program, device):
    shown = subprocess.run([program, "-device", f"{device},help"], capture_output=True, text=True)
    if shown.returncode:
        raise Unusable(f"--device {device}: {shown.stderr.strip()}")
    return re.search(r"^\s+addr=", shown.stdout, re.MULTILINE) is not None


def shared_folder(machine, number, share):
    return [
        "-fsdev", f"local,id=share{number},path={share},security_model=none,readonly=on,multidevs=remap",
        "-device", f"virtio-9p-pci,fsdev=share{number},mount_tag=share{number},"
                   f"bus={machine.bus},addr={CONSOLE_SLOT - 1 - number:#x}",
    ]


def qmp_port(ends):
    """Yields arguments for a monitor at one end of a socket pair, a guest port at the other."""
    for name, end in zip(("monitor", QMP), ends, strict=True):
        yield from ("-chardev", f"socket,id={name},fd={end.fileno()}")
    yield from ("-mon", "chardev=monitor,mode=control")
    yield from ("-device", f"virtserialport,bus=ports.0,chardev={QMP},name=vm.{QMP}")


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def run(arguments, timeout, log=None, qmp=False, bus=PCIE):
    """Runs QEMU until it exits or TIMEOUT expires. Copies the kernel's log to the file LOG.

    BUS is where the ports are.
    """
    outcome = Outcome()
    pipes = {name: os.pipe() for name in ("log", "complaint", *PORTS)}
    words = ["-chardev", f"file,id=log,path=/dev/fd/{pipes['log'][1]}", "-serial", "chardev:log",
             "-device", f"virtio-serial-pci,id=ports,bus={bus},addr={CONSOLE_SLOT:#x}"]
    for name in PORTS:
        words += ["-chardev", f"file,id={name},path=/dev/fd/{pipes[name][1]}",
                  "-device", f"virtserialport,bus=ports.0,chardev={name},name=vm.{name}"]
    ends = socket.socketpair() if qmp else ()
    if qmp:
        words += qmp_port(ends)
    # The IOMMU must come before other devices on the command line, so these are last.
    process = subprocess.Popen([*arguments, *words], stdin=subprocess.DEVNULL, stderr=pipes["complaint"][1],
                               pass_fds=[*(pipe[1] for pipe in pipes.values()), *(end.fileno() for end in ends)],
                               preexec_fn=die_with_parent)
    for pipe in pipes.values():
        os.close(pipe[1])
    for end in ends:
        end.close()
    readers = {name: pipe[0] for name, pipe in pipes.items()}
    sinks = {"log": log, "stdout": sys.stdout.buffer.raw, "stderr": sys.stderr.buffer.raw}
    try:
        texts = carry(process, readers, sinks, time.monotonic() + timeout, outcome)
    finally:
        process.kill()
        process.wait()
    for name in ("log", "control", "complaint"):
        setattr(outcome, name, texts[name].decode(errors="replace").replace("\r", ""))
    return outcome


def carry(process, readers, sinks, deadline, outcome):
    """Copies output until QEMU has closed all pipes; returns the collected texts, by name."""
    texts = {name: bytearray() for name in readers}
    boot_deadline = min(deadline, time.monotonic() + BOOT_SECONDS)
    with selectors.DefaultSelector() as selector:
        for name, reader in readers.items():
            selector.register(reader, selectors.EVENT_READ, name)
        while selector.get_map():
            left = (deadline if texts["control"] else boot_deadline) - time.monotonic()
            if left <= 0 and not outcome.timed_out:
                outcome.timed_out = True
                process.kill()
            for key, _ in selector.select(max(left, 0.1)):
                data = os.read(key.fd, 65536)
                if not data:
                    selector.unregister(key.fd)
                    os.close(key.fd)
                    continue
                keep(key.data, data, texts, sinks)
    return texts


def keep(name, data, texts, sinks):
    if name not in ("stdout", "stderr"):
        texts[name] += data
    try:
        while data and sinks.get(name):
            data = data[sinks[name].write(data):]
    except BrokenPipeError:
        # The reader is gone, but the command in the guest can continue.
        sinks[name] = None
