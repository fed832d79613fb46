# SPDX-License-Identifier: GPL-2.0
"""A virtual machine with a disk: boots it, runs commands in it, reboots it and cuts its power."""

import codecs
import contextlib
import re
import socket
import subprocess
import threading
import time

import qemu

FIRMWARE = "/usr/share/OVMF"
# An emulated machine on a busy host needs minutes to boot.
BOOT_SECONDS = 1200
COMMAND_SECONDS = 1800
# The place of the controller that is given away.
NVME = "0000:00:04.0"


class Lost(Exception):
    """The machine did not answer as it should."""


class Port:
    """A text channel to the machine. What comes is read at once, so that the machine never waits."""

    def __init__(self):
        self.ours, self.theirs = socket.socketpair()
        self.text, self.ended = "", False
        self.news = threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        """Collects what comes, until the other end is closed."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        while True:
            data = self.ours.recv(65536)
            with self.news:
                self.text += decoder.decode(data).replace("\r", "")
                self.ended = not data
                self.news.notify()
            if not data:
                return

    def send(self, text):
        self.ours.sendall(text.encode())

    def forget(self):
        """Drops what has come."""
        with self.news:
            self.text = ""

    def settle(self, quiet, longest):
        """Waits until nothing has come for QUIET seconds, but not longer than LONGEST."""
        deadline = time.monotonic() + longest
        with self.news:
            while self.news.wait(quiet) and time.monotonic() < deadline:
                pass

    def read_until(self, pattern, seconds, each_line=None):
        """Returns the text before PATTERN, and the match. Passes on each whole line as it comes."""
        deadline, told = time.monotonic() + seconds, 0
        with self.news:
            while True:
                match = re.search(pattern, self.text, re.M)
                end = match.start() if match else self.text.rfind("\n") + 1
                if each_line and end > told:
                    for line in self.text[told:end].splitlines():
                        each_line(line)
                    told = end
                if match:
                    before, self.text = self.text[:end], self.text[match.end():]
                    return before, match
                left = deadline - time.monotonic()
                if self.ended or left <= 0:
                    why = "the machine ended" if self.ended else f"{seconds:g} s have passed"
                    raise Lost(f"{why} before {pattern!r} came; the last was: {self.text[-1000:]}")
                self.news.wait(left)


class Machine:
    """A machine with a disk, a second one on an NVMe controller, and a folder of the host."""

    def __init__(self, folder, disk, share, secure=False):
        self.folder, self.disk, self.share, self.secure = folder, disk, share, secure
        self.process = None

    def arguments(self):
        """Returns QEMU's command line."""
        machine, code = "q35,kernel-irqchip=split", "OVMF_CODE_4M.fd"
        secure = []
        if self.secure:
            machine, code = f"{machine},smm=on", "OVMF_CODE_4M.secboot.fd"
            secure = ["-global", "driver=cfi.pflash01,property=secure,value=on"]
        model = qemu.MACHINES["amd64"].cpu
        return [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-M", machine, *secure,
            "-accel", "tcg,thread=multi", "-cpu", model,
            "-smp", "2", "-m", "2G",
            "-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={FIRMWARE}/{code}",
            "-drive", f"if=pflash,format=raw,unit=1,file={self.folder}/variables",
            "-device", "intel-iommu,intremap=on",
            # What the machine was told to be written is there after a power cut, and nothing else.
            "-drive", f"if=none,id=disk,format=qcow2,cache=writethrough,file={self.disk}",
            "-device", "virtio-blk-pci,drive=disk,bus=pcie.0,addr=3,bootindex=0",
            "-drive", f"if=none,id=other,format=raw,file={self.folder}/other,file.locking=off",
            "-device", f"nvme,drive=other,serial=other,bus=pcie.0,addr={int(NVME[8:10], 16):#x}",
            "-fsdev", f"local,id=share,path={self.share},security_model=none,readonly=on,multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=share,mount_tag=share,bus=pcie.0,addr=5",
            "-device", "virtio-rng-pci,bus=pcie.0,addr=6",
            "-device", "virtio-serial-pci,bus=pcie.0,addr=7",
        ]

    def start(self):
        """Switches the machine on."""
        self.agent, self.console = Port(), Port()
        ports = []
        for name, port in (("agent", self.agent), ("console", self.console)):
            log = f",logfile={self.folder}/console,logappend=on" if name == "console" else ""
            ports += ["-chardev", f"socket,id={name},fd={port.theirs.fileno()}{log}"]
        ports += ["-serial", "chardev:console", "-device", "virtserialport,chardev=agent,name=vm.agent"]
        self.process = subprocess.Popen([*self.arguments(), *ports], stdin=subprocess.DEVNULL,
                                        pass_fds=[self.agent.theirs.fileno(), self.console.theirs.fileno()],
                                        preexec_fn=qemu.die_with_parent)
        for port in (self.agent, self.console):
            port.theirs.close()

    def wait_until_up(self):
        """Waits until the machine takes commands."""
        self.agent.read_until(r"^=== ready .*\n", BOOT_SECONDS)

    def send(self, command):
        self.agent.send(command.replace("\n", " ") + "\n")

    def run(self, command, each_line=None, seconds=COMMAND_SECONDS):
        """Runs a command; returns its exit status and its output."""
        self.send(command)
        output, match = self.agent.read_until(r"^=== exit (\d+)\n", seconds, each_line)
        return int(match[1]), output

    def cut_power(self):
        """Ends the machine at once. What the machine has not written yet is lost."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    def switch_off(self, seconds=300):
        """Shuts the machine down."""
        self.send("systemctl poweroff")
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        self.cut_power()
